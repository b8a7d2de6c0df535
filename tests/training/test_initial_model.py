import jax
import numpy as np
import pytest
from helpers.bars import PARTS, bar

from configs import technogan
from data_prep import prepare
from technogen_jax.audio import audio_files
from technogen_jax.exporting import model_file
from technogen_jax.runs.workdir import WorkdirError, read_config, read_statistics
from technogen_jax.sampling import generator
from technogen_jax.training import initial_model, loop
from technogen_jax.training.errors import TrainError

SMALL = dict(channels=4, blocks=1, critic_channels=4, critic_blocks=1, latent_size=4, anchor_size=2)
RATE_HZ = 8000
LONG, SHORT = 14336, 12544  # samples of a bar, at 134 and 153 beats a minute


def prepare_bars(folder, clip_samples, labels):
    """A dataset of 24 one-bar clips with this length, of two tracks for each label."""
    options = dict(clip_samples=clip_samples, sample_rate_hz=RATE_HZ)
    for index, label in enumerate(labels):
        for track in range(2):
            (folder / "tracks" / label).mkdir(parents=True, exist_ok=True)
            bars = np.concatenate([bar(20 * index + 10 * track + n, options) for n in range(6)])
            audio_files.write(folder / "tracks" / label / f"{track}.wav", bars, RATE_HZ)
    prepare.prepare(
        prepare.Options(
            input=str(folder / "tracks"),
            output=str(folder / "set"),
            channels=2,
            sample_rate=RATE_HZ,
            hop_size=clip_samples / RATE_HZ,
            split=(1.0, 0.0, 0.0),
            workers=1,
        ),
        say=lambda line: None,
    )
    return folder / "set"


def make_config(data, steps=2, **model):
    config = technogan.get_config("xs").unlock()
    config.data.dir = str(data)
    config.model.update(SMALL | PARTS | dict(bars=1, n_mels=16, frames_per_step=4, shaper="none", remix=0.0) | model)
    config.loss.r1_weight = config.loss.r2_weight = 0.0  # second derivatives take long to compile
    config.eval.every = 0
    config.train.update(steps=steps, batch_size=4, log_every=1, save_every=steps, sample_every=0, steps_per_dispatch=1)
    return config


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(run of a small TechnoGAN with two labels, the same as a file without and with the discriminator)."""
    folder = tmp_path_factory.mktemp("initial")
    data = prepare_bars(folder, LONG, ("acid", "industrial"))
    loop.train(make_config(data, classes=("acid", "industrial")), folder / "run", say=lambda line: None)
    words = dict(licence="CC0-1.0", data="noise")
    files = [folder / name for name in ("generator.npz", "both.npz")]
    for file, discriminator in zip(files, (False, True), strict=True):
        model_file.write(folder / "run", "latest", "npz", file, words, discriminator)
    return folder / "run", *files


@pytest.fixture(scope="module")
def faster(tmp_path_factory):
    """A dataset of another tempo, with one other label."""
    return prepare_bars(tmp_path_factory.mktemp("faster"), SHORT, ("dub",))


@pytest.mark.parametrize("index", range(3))
def test_a_run_starts_from_a_run_or_a_file_on_a_dataset_of_another_tempo_and_label(trained, faster, tmp_path, index):
    printed, config = [], make_config(faster, classes=("dub",), channels=6, mid_components=5)
    config.train.init_from = str(trained[index])
    config.optimizer.learning_rate_g = config.optimizer.learning_rate_d = 0.0
    state = loop.train(config, tmp_path / "run", say=printed.append)

    # Fields of the model, statistics and weights are those of the other model.
    found = read_config(tmp_path / "run")
    assert (found.model.channels, found.model.mid_components, found.audio.clip_samples) == (4, 12, SHORT)
    assert found.model.classes == ["dub"]
    assert any(line.startswith(f"as in {trained[index]}, unlike the config: channels 4") for line in printed)
    before = initial_model.read(str(trained[index]))
    start = initial_model.adapt(before, found)
    np.testing.assert_array_equal(read_statistics(tmp_path / "run")["mid_basis"], before.statistics["mid_basis"])
    jax.tree.map(np.testing.assert_array_equal, state.params.g, start.params.g)
    assert (start.params.d is None) == (index == 1)
    if index != 1:
        jax.tree.map(np.testing.assert_array_equal, state.params.d, start.params.d)
    assert any("it has no discriminator" in line for line in printed) == (index == 1)

    # The run stands by itself: it makes sound of its own tempo, and goes on.
    made = generator.load(tmp_path / "run")
    (clip,) = generator.render(made, generator.draw_latents(made.gan, 0, [0], label="dub"))
    assert clip.shape == (SHORT, 2) and np.isfinite(clip).all()
    if index == 0:
        config.train.update(steps=3, save_every=1)
        config.train.init_from = str(tmp_path / "gone")  # is not needed any more
        assert int(loop.train(config, tmp_path / "run", say=printed.append).step) == 3


def test_the_shipped_model_can_be_trained_on_from():
    found = initial_model.read(initial_model.SHIPPED)
    assert found.params.d is not None and found.statistics


def test_errors_of_init_from_are_found_early(trained, faster, tiny_config, tmp_path):
    config = make_config(faster)
    config.train.init_from = str(tmp_path / "nothing.npz")
    with pytest.raises(WorkdirError, match="nothing.npz: not found"):
        loop.train(config, tmp_path / "run")
    tiny_config.train.init_from = str(trained[0])
    with pytest.raises(TrainError, match="is a technogan, and the config describes a wavegan"):
        loop.train(tiny_config, tmp_path / "run")
    config.train.init_from = str(trained[1])
    config.audio.sample_rate_hz = 16000
    with pytest.raises(TrainError, match="has sample_rate_hz 8000, that of the config 16000"):
        loop.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
