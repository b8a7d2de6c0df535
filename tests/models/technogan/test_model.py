import contextlib
import json
import os
import shutil
import signal
import types

import jax
import numpy as np
import pytest
from conftest import load_config
from helpers import building, small_technogan
from helpers.bars import PARTS, SMALL, TONES, bar
from helpers.endless_model import NETWORKS

from data_prep import prepare
from technogen_jax import models, sample
from technogen_jax.audio import audio_files, spectral_distance
from technogen_jax.common import progress
from technogen_jax.models import count_parameters
from technogen_jax.models.technogan import shaper_training
from technogen_jax.models.technogan.codec import shaper
from technogen_jax.models.technogan.layout import BeatGrid
from technogen_jax.runs.metrics_log import METRICS_FILE
from technogen_jax.runs.workdir import STATISTICS_FILE, read_statistics
from technogen_jax.sampling import generator as generate
from technogen_jax.training import loop

KEY = jax.random.key(0)


def count_blocks(channels, blocks):
    """Parameters of the blocks over sixteenths, of a dense layer W x W, and of a block over bars, counted by hand."""
    block, plan = (2 * (taps * channels + 1) * channels for taps in (5, 3))
    dense = (channels + 1) * channels
    return blocks * (block + dense), dense, plan


def count_generator(step_size, bar_size, latent_size, anchor_size, noise_size, labels, bars, channels, blocks):
    residual, dense, plan = count_blocks(channels, blocks)
    count = (latent_size + anchor_size + labels + 1) * channels + dense + 16 * channels + residual + blocks * dense
    count += (noise_size + 1) * channels + dense + (channels + 1) * (step_size + bar_size)
    return count + (bars > 1) * (bars * channels + plan + dense)


def count_critic(components, features, labels, bars, channels, blocks):
    residual, _, plan = count_blocks(channels, blocks)
    count = (2 * components + features + labels + 1) * channels + residual + (16 * (channels + 1) + 1) * channels
    return count + bars * channels + 1 + (labels > 0) * (labels + 1) * channels + (bars > 1) * plan


@pytest.mark.parametrize(
    "size, millions, of_critic, bars, classes",
    [
        ("xs", 0.71, 0.14, 4, ("a", "b")),
        ("s", 1.65, 0.43, 1, ()),
        ("m", 5.41, 1.24, 1, ()),
        ("l", 18.1, 4.8, 1, ()),
    ],
)
def test_each_size_has_the_parameters_that_are_counted_by_hand(size, millions, of_critic, bars, classes):
    config = load_config("technogan", size)
    config.model.bars, config.audio.clip_samples, config.model.classes = bars, bars * 77824, classes
    gan, fields = models.build(config), config.model
    sizes = tuple(count_parameters(jax.eval_shape(init, KEY)) for init in (gan.init_g, gan.init_d))
    # Of 156 components 40, 16, 36 and 4 are continuous; 36 are not seen by the discriminator. Its features: 4 powers, 5 changes of
    # each of 16 groups of bands, 4 powers of each of 5, 2, 4 and 1 groups of components, 52, twice 26 and four times 13 bins.
    continuous, features = 40 + 16 + 36 + 4, 4 + 5 * 16 + 4 * (5 + 2 + 4 + 1) + 3 * 52
    percussion, timbres = 4 * 3 * (40 + 16 + 4), 6 * (40 + 16 + 4)
    low_of_sixteenth, low_of_bar = 1 + 4 + 4, 10 + 10 + 1 + 2 + 4 + 4
    of_bar = 6 * 97 + 2 * 8 * 150 + 4 * continuous + low_of_bar + percussion + timbres + 2 * 8
    values = continuous + 1 + low_of_sixteenth + 14 + 2 * 8 + 4, of_bar
    values += fields.latent_size, fields.anchor_size, continuous

    def count(bars):
        shared = len(classes), bars
        generator = count_generator(*values, *shared, fields.channels, fields.blocks)
        return generator, count_critic(156 - 36, features, *shared, fields.critic_channels, fields.critic_blocks)

    assert sizes == count(bars)
    assert np.array(count(1)) / 1e6 == pytest.approx((millions, of_critic), rel=0.05)


def test_an_unknown_size_is_an_error():
    with pytest.raises(ValueError, match="technogan.py:xxl: expected xs, s, m, l after the colon"):
        load_config("technogan", "xxl")


@pytest.mark.parametrize(
    "clip_samples, channels, rate_hz, bars", [(77824, 2, 44100, 1), (28235, 1, 16000, 1), (707_369, 2, 48000, 8)]
)
def test_shapes_at_other_tempos_rates_and_numbers_of_bars(clip_samples, channels, rate_hz, bars):
    size = dict(clip_samples=clip_samples, sample_rate_hz=rate_hz, bars=bars)
    grid = BeatGrid(clip_samples, rate_hz, bars, 8)
    assert grid.samples == grid.frames * 2 * grid.hop_length >= clip_samples
    assert grid.low_samples * grid.steps * rate_hz / clip_samples > 2 * 235
    lengths = dict(mid=(8 * 64, 40), side=(8 * 65, 16), low=(grid.low_samples, 36), pan=(8, 4))
    zeros = {f"{part}_basis": np.zeros(shape) for part, shape in lengths.items()}
    zeros |= {f"{part}_{name}": np.zeros(shape[0]) for part, shape in lengths.items() for name in ("mean", "lost")}
    zeros |= {f"{part}_{name}": np.ones(shape[1]) for part, shape in lengths.items() for name in ("deviation", "scale")}
    gan = building.build("technogan", **size | NETWORKS, audio_channels=channels, n_mels=64, statistics=zeros)

    def run_all(key):
        x = gan.generate(gan.init_g(key), gan.sample_latents(key, 3))
        audio = gan.decode(x)
        return x, audio, gan.encode(audio), gan.discriminate(gan.init_d(key), x, key)

    x, audio, again, (logits,) = jax.eval_shape(run_all, KEY)
    assert x.shape == again.shape == (3, 16 * bars, 76 if channels == 1 else 96)
    assert audio.shape == (3, clip_samples, channels) and logits.shape == (3, 1)


def test_encode_appends_labels_and_decode_drops_them():
    (plain, statistics), bars = small_technogan.make_plain(), small_technogan.make_bars()
    gan = building.build("technogan", **SMALL | PARTS | NETWORKS, classes=("acid", "industrial"), statistics=statistics)
    weights = np.float32([[0.7, 0.3], [0, 1]])
    x = np.asarray(gan.encode(bars[:2], weights))
    np.testing.assert_array_equal(x[..., -2:], np.broadcast_to(weights[:, None], (2, 16, 2)))
    np.testing.assert_array_equal(x[..., :-2], plain.encode(bars[:2]))
    np.testing.assert_array_equal(gan.decode(x), plain.decode(x[..., :-2]))
    with pytest.raises(ValueError, match=r"expected label weights \[B, 2\], of config.model.classes, got none"):
        gan.encode(bars)
    with pytest.raises(ValueError, match=r"has no labels \(config.model.classes\)"):
        plain.encode(bars[:2], weights)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("bars", 0, "config.model.bars: expected a whole number from 1 to 8, got 0"),
        ("bars", 9, "config.model.bars: expected a whole number from 1 to 8, got 9"),
        ("channels", "64", "config.model.channels: expected a whole number from 1 to 4096, got '64'"),
        ("blocks", None, "config.model.blocks: expected .* got None"),
        ("latent_size", 0, "config.model.latent_size: expected .* got 0"),
        ("anchor_size", 0, "config.model.anchor_size: expected .* got 0"),
        ("critic_channels", 0, "config.model.critic_channels: expected .* got 0"),
        ("critic_blocks", 0, "config.model.critic_blocks: expected .* got 0"),
        ("classes", "acid", "config.model.classes: expected a tuple of different names, got 'acid'"),
        ("classes", ("acid", "acid"), "config.model.classes: expected a tuple of different names"),
        ("classes", (0, 1), "config.model.classes: expected a tuple of different names"),
        ("frames_per_step", 1, "config.model.frames_per_step: expected a whole number from 2 to 65536, got 1"),
        ("n_mels", 300, "config.model.n_mels: .* of 300 bands hold none of the 225 bins of a frame; lower n_mels, or"),
        ("mid_components", 65, "config.model.mid_components: expected at most 64.*, got 65"),
        ("side_components", 0, "config.model.side_components: expected .* got 0"),
        ("low_components", 55, "config.model.low_components: expected at most 54.*, got 55"),
        ("audio_channels", 3, "config.audio.channels: expected 1 or 2, got 3"),
        ("clip_samples", 40000, "config.audio.clip_samples: expected 1 bars .* --grid bars says, got 40000"),
    ],
)
@pytest.mark.filterwarnings("ignore:Empty filters")
def test_an_error_names_the_field_and_its_value(field, value, expected):
    with pytest.raises(ValueError, match=expected):
        building.build("technogan", **SMALL | PARTS | {field: value})


@pytest.fixture
def bar_config(tmp_path):
    """A TechnoGAN with labels that compiles in seconds, on twelve bars of six tracks."""
    for track in range(6):
        folder = tmp_path / "tracks" / ("acid", "industrial")[track % 2]
        folder.mkdir(parents=True, exist_ok=True)
        audio_files.write(folder / f"{track}.wav", np.concatenate([bar(track), bar(track + 6)]), 8000)
    options = dict(input=str(tmp_path / "tracks"), output=str(tmp_path / "set"), sample_rate=8000, channels=2)
    options |= dict(hop_size=14336 / 8000, split=(1.0, 0.0, 0.0), workers=1)
    prepare.prepare(prepare.Options(**options), say=lambda line: None)
    config = load_config("technogan", "xs")
    config.audio.update(dict.fromkeys(config.audio))  # what the dataset has
    config.data.dir = str(tmp_path / "set")
    config.model.update(
        NETWORKS | PARTS | dict(n_mels=16, frames_per_step=4, shaper="none", classes=("acid", "industrial"))
    )
    config.train.update(
        steps=6, steps_per_dispatch=1, batch_size=4, log_every=3, save_every=3, sample_every=6, sample_clips=2
    )
    config.eval.every = 0
    return config


def test_a_run_measures_its_dataset_resumes_bit_for_bit_and_generates(bar_config, tmp_path, capsys):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    loop.train(bar_config, whole, say=lambda line: None)
    shutil.copytree(whole, killed)
    shutil.rmtree(killed / "checkpoints" / "6")  # as if it had been killed after step 3
    loop.train(bar_config, killed, say=lambda line: None)
    first, second = generate.load(whole), generate.load(killed)
    assert first.weights == second.weights
    rows = [json.loads(line) for line in (whole / METRICS_FILE).read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 3, 6]
    assert all(np.isfinite(rows[-1][name]) and rows[-1][name] > 0 for name in ("d/adversarial", "d/r1", "d/r2"))
    clips = list(generate.render(first, generate.draw_latents(first.gan, 0, range(2))))
    assert clips[0].shape == (14336, 2) and np.isfinite(clips).all() and np.abs(clips[0] - clips[1]).max() > 0
    track = ["--workdir", str(whole), "--output", str(tmp_path), "--bars", "3", "--label", "acid=1,industrial=2"]
    assert sample.main(track) == 0
    assert sample.main(["--from", str(tmp_path / "technogan-acid1-industrial2-134bpm-step6-seed0-3bars.json")]) == 0
    assert "the same, bit for bit" in capsys.readouterr().out


def test_a_run_trains_its_shaper_first_and_can_resume_that(bar_config, tmp_path, monkeypatch):
    monkeypatch.setattr(spectral_distance, "_ENERGY_N_FFT", (256, 1024))  # compile faster than five resolutions
    bar_config.model.update(TONES | dict(shaper="new", shaping_steps=4))
    bar_config.train.update(steps=1, log_every=1, save_every=1, sample_every=0)
    bar_config.loss.r1_weight = bar_config.loss.r2_weight = 0.0  # second derivatives take long to compile
    loop.train(bar_config, tmp_path / "whole", say=lambda line: None)
    whole = read_statistics(tmp_path / "whole")
    assert np.abs(whole[f"{shaper.PREFIX}gates/kernel"]).max() > 0  # a new one's are zero
    assert not (tmp_path / "whole" / "shaping.npz").exists()

    monkeypatch.setattr(shaper_training, "_SAVE_EVERY", 1)
    said = []
    with monkeypatch.context() as patch:  # SIGTERM after two steps
        patch.setattr(progress, "bar", lambda what, *_: stopping(2 if "training the shaper" in what else 100))
        loop.train(bar_config, tmp_path / "stopped", say=said.append)
    assert "stopped before the first step" in said[-1] and (tmp_path / "stopped" / "shaping.npz").exists()
    loop.train(bar_config, tmp_path / "stopped", say=said.append)
    again = read_statistics(tmp_path / "stopped")
    jax.tree.map(np.testing.assert_array_equal, again, whole)
    weights = [generate.load(tmp_path / name).weights for name in ("whole", "stopped")]
    assert weights[0] == weights[1]

    bar_config.model.shaper = str(tmp_path / "whole" / STATISTICS_FILE)
    bar_config.model.shaping_steps = 0
    with pytest.raises(ValueError, match="config.model.shaper: expected 8 frames_per_step"):
        loop.train(bar_config, tmp_path / "other", say=said.append)


@contextlib.contextmanager
def stopping(after):
    """A progress bar that sends this process SIGTERM after so many steps."""
    done = iter(range(1, 10_000))
    yield types.SimpleNamespace(
        update=lambda more: more and next(done) == after and os.kill(os.getpid(), signal.SIGTERM),
        set_postfix_str=lambda text, **_: None,
    )


@pytest.mark.parametrize(
    "shaper, steps, message",
    [
        ("none", 5, "config.model.shaping_steps is 5, and there is no shaper to train"),
        ("new", 0, "config.model.shaper is new: set config.model.shaping_steps"),
    ],
)
def test_shaping_steps_must_fit_the_shaper(bar_config, tmp_path, shaper, steps, message):
    bar_config.model.shaper, bar_config.model.shaping_steps = shaper, steps
    with pytest.raises(ValueError, match=message):
        loop.train(bar_config, tmp_path / "run", say=lambda line: None)


@pytest.mark.parametrize("share", [-0.1, 1.1, "half", True])
def test_remix_must_be_a_share(share):
    with pytest.raises(ValueError, match="config.model.remix: expected a number from 0 to 1"):
        building.build("technogan", **SMALL | PARTS | NETWORKS, remix=share)
