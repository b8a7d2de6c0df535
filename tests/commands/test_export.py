import numpy as np
import pytest

from technogen_jax import export, sample
from technogen_jax.runs import bundle
from technogen_jax.sampling import generator

WORDS = ["--licence", "CC0-1.0", "--data", "noise"]


def test_an_exported_file_can_replace_a_workdir(trained_workdir, tmp_path, capsys):
    path = tmp_path / "new" / "run.npz"
    assert export.main(["--workdir", str(trained_workdir), "--output", str(path), "--step", "4", *WORDS]) == 0
    printed = capsys.readouterr().out
    assert f"{path}: {path.stat().st_size / 1e6:.1f} MB, step 4," in printed
    run, packed = generator.load(trained_workdir, 4), generator.load(path)
    assert (packed.step, bundle.read(path).card["weights"]) == (4, run.weights)
    assert packed.weights == generator.load(path, 4).weights
    latents = generator.draw_latents(packed.gan, 3, range(2))
    np.testing.assert_array_equal(latents, generator.draw_latents(run.gan, 3, range(2)))
    for ours, theirs in zip(generator.render(packed, latents), generator.render(run, latents), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-3 * np.abs(theirs).max())
    assert sample.main(["--workdir", str(path), "--output", str(tmp_path / "sound"), "--n", "2"]) == 0
    cards = sorted(map(str, (tmp_path / "sound").glob("*.json")))
    assert len(cards) == 2 and sample.main(["--from", *cards]) == 0


def test_the_default_name_has_the_step(trained_workdir, tmp_path, capsys):
    (tmp_path / "run").symlink_to(trained_workdir)
    assert export.main(["--workdir", str(tmp_path / "run"), *WORDS]) == 0
    assert bundle.read(tmp_path / "run" / "step6.npz").card["data"] == "noise"
    (tmp_path / "run" / "step6.npz").unlink()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--workdir", "a"], "--licence is required with a run's folder"),
        (["--workdir", "a", *WORDS, "--step", "first"], "--step: expected latest, best or a number, got first"),
        (["--workdir", "a", *WORDS, "--output", "b.zip"], "--output: expected a name that ends in .npz, got b.zip"),
        (["--workdir", "a", *WORDS, "--data", " "], "--data: expected some words, got none"),
    ],
)
def test_invalid_options_are_refused(capsys, argv, message):
    with pytest.raises(SystemExit) as stop:
        export.main(argv)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_a_folder_that_is_no_run_is_refused(tmp_path, capsys):
    assert export.main(["--workdir", str(tmp_path), *WORDS]) == 1
    assert capsys.readouterr().err.startswith(f"export: {tmp_path}/config.json: not found")
