"""`make hear`: one command, from one file to sound and a picture."""

import shlex
import subprocess

from conftest import ROOT

from technogen_jax import evaluate, export, sample


def command(*variables):
    """The options that `make hear` gives to technogen_jax.sample."""
    printed = subprocess.run(
        ["make", "--no-print-directory", "-n", "hear", *variables], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    words = shlex.split(printed.splitlines()[-1])
    assert words[1:3] == ["-m", "technogen_jax.sample"]
    return words[3:]


def test_the_model_that_is_named_is_the_one_that_is_there():
    model = ROOT / sample.parse_options(command()).workdir
    assert model.is_file() or not list(model.parent.glob("technogan*.npz"))


def test_the_command_makes_sound_and_a_picture_and_says_where(trained_workdir, tmp_path, monkeypatch, capsys):
    model = tmp_path / "model.npz"
    words = ["--licence", "CC0-1.0", "--data", "noise"]
    assert export.main(["--workdir", str(trained_workdir), "--output", str(model), *words]) == 0
    monkeypatch.chdir(tmp_path)
    assert sample.main(command(f"MODEL={model}")) == 0
    (picture,) = (tmp_path / "runs" / "hear").glob("*.png")
    assert len(list(picture.parent.glob("*.wav"))) == 16
    printed = capsys.readouterr()
    assert str(picture.relative_to(tmp_path)) in printed.out and "without real clips" not in printed.err

    assert sample.main(["--workdir", str(model), "--n", "1"]) == 0  # beside the file may be no place to write
    assert len(list((tmp_path / "sound").glob("*.wav"))) == 1
    assert evaluate.main(["--workdir", str(model), "--n", "100"]) == 1
    assert "name the prepared dataset with --data" in capsys.readouterr().err
