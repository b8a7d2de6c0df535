import contextlib
import json
import os
import shutil
import signal
import types

import jax
import jax.numpy as jnp
import librosa
import numpy as np
import pytest
import scipy.signal
import scipy.special
from conftest import AS_USERS, load_config
from flax import nnx
from helpers import building
from helpers.bars import PARTS, SMALL, TONES, bar

from data_prep import prepare
from technogen_jax import models, sample
from technogen_jax.audio import audio_files, spectral
from technogen_jax.common import progress
from technogen_jax.models import count_parameters, layers
from technogen_jax.models.technogan import low_end, shaper_training
from technogen_jax.models.technogan import model as technogan
from technogen_jax.models.technogan.codec import partials, pitch, shaper
from technogen_jax.models.technogan.codec.codec import Codec
from technogen_jax.models.technogan.codec.constants import NOTES_PER_BAR
from technogen_jax.models.technogan.critic_features import CriticFeatures
from technogen_jax.models.technogan.layout import BeatGrid
from technogen_jax.runs.metrics_log import METRICS_FILE
from technogen_jax.runs.workdir import STATISTICS_FILE, read_statistics
from technogen_jax.sampling import generator as generate
from technogen_jax.training import loop

KEY = jax.random.key(0)
NETWORKS = dict(latent_size=8, anchor_size=3, channels=8, blocks=1, critic_channels=8, critic_blocks=1)
NOISE = 12 + 3 + 10 + 2  # of a sixteenth, one for each of `PARTS`
ANCHOR = 3 + 16 * NOISE  # of a bar
WITHOUT_LOW = np.r_[:15, 25:27]  # of the numbers of `PARTS`


@pytest.fixture(scope="module")
def bars():
    return np.stack([bar(seed) for seed in range(6)])


def known(audio, **options):
    """A TechnoGAN that knows its set, which is this `[B, T, C]`."""
    options = SMALL | PARTS | options | dict(clip_samples=audio.shape[1], audio_channels=audio.shape[2])
    statistics = building.measure("technogan", [audio[:2], audio[2:]], **options)
    return building.build("technogan", **options | NETWORKS, statistics=statistics), statistics


@pytest.fixture(scope="module")
def linear(bars):
    """(model, statistics) of `bars`."""
    return known(bars)


def of_blocks(channels, blocks):
    """Parameters of so many blocks that hear beats, of a layer as wide on both sides, and of a plan's block, counted by hand."""
    block, plan = (2 * (taps * channels + 1) * channels for taps in (5, 3))
    dense = (channels + 1) * channels
    return blocks * (block + dense), dense, plan


def count_generator(outputs, palette, latent_size, anchor_size, noise_size, labels, bars, channels, blocks):
    residual, dense, plan = of_blocks(channels, blocks)
    count = (latent_size + anchor_size + labels + 1) * channels + dense + 16 * channels + residual + blocks * dense
    count += (noise_size + 1) * channels + dense + (channels + 1) * (outputs + palette)
    return count + (bars > 1) * (bars * channels + plan + dense)


def count_critic(components, heard, labels, bars, channels, blocks):
    residual, _, plan = of_blocks(channels, blocks)
    count = (2 * components + heard + labels + 1) * channels + residual + (16 * (channels + 1) + 1) * channels
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
def test_the_ladder_of_sizes(size, millions, of_critic, bars, classes):
    config = load_config("technogan", size)
    config.model.bars, config.audio.clip_samples, config.model.classes = bars, bars * 77824, classes
    gan, fields = models.build(config), config.model
    sizes = tuple(count_parameters(jax.eval_shape(init, KEY)) for init in (gan.init_g, gan.init_d))
    # 156 numbers, 40, 16, 36 and 4 of them of what moves, 36 of them not heard. Logarithms of 4 powers, of 5 changes of each of 16 groups
    # of bands, of 4 powers of each of 5, 2, 4 and 1 groups of numbers, of 52, twice 26 and four times 13 bins of the low end.
    moving, heard = 40 + 16 + 36 + 4, 4 + 5 * 16 + 4 * (5 + 2 + 4 + 1) + 3 * 52
    struck, voices = 4 * 3 * (40 + 16 + 4), 6 * (40 + 16 + 4)
    low_of_sixteenth, low_of_bar = 1 + 4 + 4, 10 + 10 + 1 + 2 + 4 + 4
    of_bar = 6 * 97 + 2 * 8 * 150 + 4 * moving + low_of_bar + struck + voices + 2 * 8
    said = moving + 1 + low_of_sixteenth + 14 + 2 * 8 + 4, of_bar
    said += fields.latent_size, fields.anchor_size, moving

    def counted(bars):
        many = len(classes), bars
        generator = count_generator(*said, *many, fields.channels, fields.blocks)
        return generator, count_critic(156 - 36, heard, *many, fields.critic_channels, fields.critic_blocks)

    assert sizes == counted(bars)
    assert np.array(counted(1)) / 1e6 == pytest.approx((millions, of_critic), rel=0.05)


def test_an_unknown_size_is_an_error():
    with pytest.raises(ValueError, match="technogan.py:xxl: expected xs, s, m, l after the colon"):
        load_config("technogan", "xxl")


@pytest.mark.parametrize(
    "clip_samples, channels, rate_hz, bars", [(77824, 2, 44100, 1), (28235, 1, 16000, 1), (707_369, 2, 48000, 8)]
)
def test_shapes_at_other_tempos_rates_and_lengths(clip_samples, channels, rate_hz, bars):
    size = dict(clip_samples=clip_samples, sample_rate_hz=rate_hz, bars=bars)
    grid = BeatGrid(clip_samples, rate_hz, bars, 8)
    assert grid.samples == grid.steps * 8 * 2 * grid.hop_length >= clip_samples
    assert grid.low_samples * grid.steps * rate_hz / clip_samples > 2 * 235
    lengths = dict(mid=(8 * 64, 40), side=(8 * 65, 16), low=(grid.low_samples, 36), pan=(8, 4))
    zeros = {f"{part}_basis": np.zeros(shape) for part, shape in lengths.items()}
    zeros |= {f"{part}_{name}": np.zeros(shape[0]) for part, shape in lengths.items() for name in ("mean", "lost")}
    zeros |= {f"{part}_{name}": np.ones(shape[1]) for part, shape in lengths.items() for name in ("deviation", "scale")}
    gan = building.build("technogan", **size | NETWORKS, audio_channels=channels, n_mels=64, statistics=zeros)

    def play(key):
        x = gan.generate(gan.init_g(key), gan.sample_latents(key, 3))
        audio = gan.decode(x)
        return x, audio, gan.encode(audio), gan.discriminate(gan.init_d(key), x, key)

    x, audio, again, (logits,) = jax.eval_shape(play, KEY)
    assert x.shape == again.shape == (3, 16 * bars, 76 if channels == 1 else 96)
    assert audio.shape == (3, clip_samples, channels) and logits.shape == (3, 1)


def test_latents_are_gaussian():
    z = np.asarray(building.build("technogan", **SMALL | PARTS).sample_latents(KEY, 500))
    assert abs(z.mean()) < 0.02 and abs(z.std() - 1) < 0.02 and abs((z**4).mean() - 3) < 0.2


# ---------------------------------------------------------------------------------------------------------- transforms


def test_circular_spectra_are_librosas_of_the_repeated_loop_and_lead_back():
    audio = np.random.default_rng(0).standard_normal((2, 960)).astype(np.float32)
    for n_fft, hop in ((256, 64), (192, 64)):
        spectrum = spectral.stft_circular(audio, n_fft, hop)
        start = 960 - (n_fft - hop) // 2
        repeated = np.tile(audio, 3)[:, start : start + 960 - hop + n_fft]
        wanted = librosa.stft(repeated, n_fft=n_fft, hop_length=hop, center=False).swapaxes(1, 2)
        np.testing.assert_allclose(spectrum, wanted, atol=1e-4)
        for pieces in (1, 3, 5):
            again = spectral.resynthesize_circular(
                lambda s, _: s.swapaxes(0, 1), audio[None], (), n_fft, hop, pieces=pieces
            )
            np.testing.assert_allclose(again[0], audio, atol=1e-5)
    turned = spectral.stft_circular(jnp.roll(audio, 64, -1), 256, 64)
    np.testing.assert_allclose(turned, jnp.roll(spectral.stft_circular(audio, 256, 64), 1, -2), atol=1e-4)


def test_a_loop_made_in_pieces_is_the_one_made_at_once():
    rng = np.random.default_rng(1)
    audio, gains = rng.standard_normal((2, 2, 960)).astype(np.float32), rng.uniform(0, 2, (2, 15)).astype(np.float32)

    def mixed(spectra, gains):
        later, now = spectra[:, 0, :-2], spectra[:, 1, 2:]
        return later, later * gains[..., None] - now

    made = [
        spectral.resynthesize_circular(mixed, audio, gains, 256, 64, pieces=pieces, before=2) for pieces in (1, 3, 5)
    ]
    np.testing.assert_allclose(made[0][:, 0], np.roll(audio[:, 0], 128, -1), atol=1e-5)  # two hops later
    spectrum = spectral.stft_circular(audio, 256, 64)
    spectrum = np.roll(spectrum[:, 0], 2, 1) * gains[..., None] - spectrum[:, 1]
    repeated = librosa.istft(np.tile(spectrum, (1, 3, 1)).swapaxes(1, 2), n_fft=256, hop_length=64, center=False)
    wanted = np.roll(repeated[:, 960 : 2 * 960], -96, -1)  # a frame's middle is that of its hop
    for found in made:
        np.testing.assert_allclose(found[:, 1], wanted, atol=1e-4)


@pytest.mark.parametrize("pieces", [2, 15])  # of 15 frames
def test_pieces_that_do_not_fit_are_an_error(pieces):
    with pytest.raises(ValueError, match=f"divides 15 frames and leaves 3 or more in each, got {pieces}"):
        spectral.resynthesize_circular(lambda s, _: [s[:, 0]], jnp.zeros((1, 1, 960)), (), 256, 64, pieces=pieces)


@pytest.mark.parametrize("samples, hop", [(1000, 64), (960, 60), (192, 64)])
def test_a_loop_that_frames_do_not_fit_is_an_error(samples, hop):
    for of_loop in (
        lambda audio: spectral.stft_circular(audio, 256, hop),
        lambda audio: spectral.resynthesize_circular(lambda s, _: [s[:, 0]], audio[None, None], (), 256, hop),
    ):
        with pytest.raises(ValueError, match=f"n_fft = 256 .* got a hop_length of {hop} and {samples} samples"):
            of_loop(jnp.zeros(samples))


def test_frames_that_do_not_overlap_lead_nowhere():
    with pytest.raises(ValueError, match="two hops a frame or more, got 256 of 256"):
        spectral.resynthesize_circular(lambda s, _: [s[:, 0]], jnp.zeros((1, 1, 1024)), (), 256, 256)


@pytest.mark.parametrize("samples", [999, 1001, 1500, 400])
def test_resampling_a_loop_is_scipys(samples):
    audio = np.random.default_rng(0).standard_normal((2, 1000)).astype(np.float32)
    spectrum = np.fft.rfft(audio)
    spectrum[:, (min(samples, 1000) + 1) // 2 :] = 0  # scipy keeps the bin at half the rate, ours has none
    wanted = scipy.signal.resample(np.fft.irfft(spectrum, 1000), samples, axis=-1)
    np.testing.assert_allclose(spectral.resample_circular(audio, samples), wanted, atol=1e-5)


def test_minibatch_deviation_is_each_groups_own():
    x = np.random.default_rng(0).standard_normal((6, 4, 5)).astype(np.float32)
    x[[1, 3, 5]] = x[1]  # 6 does not divide by 4: groups of three, every second clip
    found = np.asarray(layers.minibatch_deviation(x, 4))
    np.testing.assert_array_equal(found[..., :5], x)
    np.testing.assert_allclose(found[::2, :, 5], x[::2].std(0).mean(), rtol=1e-5)
    np.testing.assert_allclose(found[1::2, :, 5], 0, atol=2e-4)
    slope = jax.grad(lambda x: jnp.sum(layers.minibatch_deviation(x, 4)))(jnp.zeros((4, 2, 2)))
    assert np.isfinite(slope).all()


# ------------------------------------------------------------------------------------------------------------ networks


def random_parameters(init, seed=0):
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(init, KEY)
    return jax.tree.map(lambda a: np.float32(rng.normal(size=a.shape) / np.prod(a.shape[:-1]) ** 0.5), shapes)


def test_residual_branches_begin_as_nothing_and_the_latent_counts_from_the_start():
    gan = building.build("technogan", **SMALL | PARTS | NETWORKS)
    g = jax.jit(gan.init_g)(KEY)
    assert not g["block_0"]["conv_1"]["kernel"].any() and g["block_0"]["conv_0"]["kernel"].any()
    x = jax.jit(gan.generate)(g, gan.sample_latents(KEY, 4))
    assert float(jnp.std(x, 0).mean()) > 0.05


@pytest.fixture(scope="module")
def toned(bars):
    """(model, its codec, the sizes of its parts) of `bars`, pitch and lines too, all of their numbers kept."""
    every = {f"{part}_components": partials.FEATURES for part in ("pitch", "partial", "side_partial")}
    gan, statistics = known(bars, **every, shaper="new")
    coder = Codec(*building.configs("technogan", **SMALL | PARTS | every, shaper="new"), statistics)
    return gan, coder, {name: part.size for name, part in coder.layout.items()}


def test_a_bar_has_a_few_notes_and_another_has_others(toned):
    gan, coder, sizes = toned
    g = random_parameters(gan.init_g)
    for layer in ("output", "palette"):  # sure of what they choose
        g[layer]["kernel"] = 30 * g[layer]["kernel"]
    x = jax.jit(gan.generate)(g, gan.sample_latents(KEY, 24))
    silence, every = (
        coder.encode_part("pitch", jnp.asarray(v)) for v in (np.zeros(pitch.FEATURES), np.eye(pitch.FEATURES))
    )
    numbers = np.asarray(low_end.by_part(x, sizes)["pitch"] - silence) @ np.linalg.pinv(np.asarray(every - silence))
    pitch_hz, sure = (np.asarray(values) for values in pitch.decode_pitch(jnp.asarray(numbers)))
    notes = [
        set(np.rint(24 * np.log2(hz[is_sure] / 55)).astype(int))
        for hz, is_sure in zip(pitch_hz, sure > 0.6, strict=True)
    ]
    assert all(len(of_bar) <= NOTES_PER_BAR for of_bar in notes)
    assert max(map(len, notes)) > 1 and len(set.union(*notes)) > NOTES_PER_BAR


def test_the_critic_hears_how_quiet_a_rest_is(toned):
    gan, coder, sizes = toned
    judge, rng = jax.jit(gan.discriminate), np.random.default_rng(0)
    x = rng.standard_normal((4, 16, sum(sizes.values()))).astype(np.float32)
    places = low_end.by_part(np.arange(x.shape[2]), sizes)
    d = random_parameters(gan.init_d)
    heard = x.shape[2] - sizes["low"]
    d["input"]["kernel"][: 2 * heard] = 0  # deaf to the numbers themselves, and to their change since a beat before
    for part in ("low", "pitch", "partials", "side_partials"):
        of_part = np.asarray(places[part])
        quiet, change = x.copy(), 0.03 * rng.standard_normal((4, 16, len(of_part)))
        quiet[..., of_part] = coder.encode_part(part, jnp.zeros(()))

        def moved(x, of_part=of_part, change=change):
            other = x.copy()
            other[..., of_part] += change
            return np.abs(judge(d, other, KEY)[0] - judge(d, x, KEY)[0]).mean()

        assert moved(quiet) > 3 * moved(x) > 0, part


def test_the_critic_hears_how_exactly_a_beat_comes_back_and_how_still_a_sound_stands(linear):
    """A small change is heard more where there is none else; reading only what `pictures` gives."""
    gan, _ = linear
    count = sum(PARTS.values())
    judge, rng = jax.jit(gan.discriminate), np.random.default_rng(0)
    begin = 2 * (count - PARTS["low_components"]) + 1  # deaf to the numbers themselves, and to the low end's power
    end = begin + 5 * 16  # changes of groups of bands
    critics = [random_parameters(gan.init_d, seed) for seed in range(24)]
    for d in critics:
        d["input"]["kernel"][:begin] = d["input"]["kernel"][end:] = 0
    moving = rng.standard_normal((4, 16, count)).astype(np.float32)
    change = 0.03 * rng.standard_normal(moving.shape).astype(np.float32)
    beats, still = np.tile(moving[:, :4], (1, 4, 1)), np.tile(moving[:, :1], (1, 16, 1))

    def moved(x):
        return np.mean([np.abs(judge(d, x + change, KEY)[0] - judge(d, x, KEY)[0]).mean() for d in critics])

    assert moved(still) > moved(beats) > 2 * moved(moving) > 0


def test_a_bar_can_stand_still_or_repeat_its_beats(linear):
    """By the shares that the generator chooses for a bar: none at all, all of what beats or halves have in common, all."""
    gan, _ = linear
    g = random_parameters(gan.init_g)
    g["output"] = jax.tree.map(lambda values: values / 10, g["output"])  # so that no bar is too far out
    count = sum(PARTS.values())
    found = []
    for open_ in (0, 1, 2, 3):
        logits = np.where(np.arange(4) < open_, 50, -50)  # the last of how much noise there is: none
        shares = np.repeat(np.float32(logits), count)
        bias = np.pad(shares, (0, len(g["palette"]["bias"]) - 4 * count))  # nothing is struck
        g["palette"] = dict(kernel=np.zeros((8, len(bias)), np.float32), bias=bias)
        found.append(np.asarray(gan.generate(g, gan.sample_latents(KEY, 3))))
    # Of the low end each sixteenth says how open it is.
    still, beats, halves, free = (x[..., WITHOUT_LOW] for x in found)
    np.testing.assert_allclose(still, np.repeat(still[:, :1], 16, 1), atol=1e-5)
    np.testing.assert_allclose(beats, np.tile(beats[:, :4], (1, 4, 1)), atol=1e-5)
    np.testing.assert_allclose(halves, np.tile(halves[:, :8], (1, 2, 1)), atol=1e-5)
    assert np.ptp(beats, 1).min() > 1e-3
    for x in (still, beats, halves):
        np.testing.assert_allclose(x.mean(1), free.mean(1), atol=1e-5)
    np.testing.assert_allclose(beats[:, :4], free.reshape(3, 4, 4, -1).mean(1), atol=1e-5)
    np.testing.assert_allclose(halves[:, :8], free.reshape(3, 2, 8, -1).mean(1), atol=1e-5)
    assert np.abs(halves - beats).max() > 0.01 and np.abs(free - halves).max() > 0.01


def test_a_note_brings_its_own_sound_wherever_it_is_played():
    rng = np.random.default_rng(0)
    choices = 2 * rng.standard_normal((2, 32, 2, 1 + 6)).astype(np.float32)
    voices = rng.standard_normal((2, 2, 6, 5)).astype(np.float32)
    sure, which = 1 / (1 + np.exp(-choices[..., :1])), scipy.special.softmax(choices[..., 1:], -1)
    bar = np.arange(32) // 16
    wanted = np.einsum("bshn,bsnk->bsk", sure * which / 2, voices[:, bar])
    heard = technogan._voiced(choices.reshape(2, 32, -1), voices.reshape(2, 2, -1))
    np.testing.assert_allclose(heard, wanted, atol=1e-5)


def test_levels_have_a_peak_where_a_line_stands():
    rng = np.random.default_rng(0)
    heights, peaks = (
        rng.standard_normal((2, 32, 8)).astype(np.float32),
        rng.standard_normal((2, 2, 8)).astype(np.float32),
    )
    lines = np.full((2, 2, 8, partials.GENERATED_POSITIONS), -9, np.float32)
    at = rng.integers(partials.GENERATED_POSITIONS, size=(2, 2, 8))
    np.put_along_axis(lines, at[..., None], 9, -1)
    levels = rng.standard_normal((partials.POSITIONS, 5)).astype(np.float32)
    wanted = np.zeros((2, 32, 5))
    for clip, step, line in np.ndindex(2, 32, 8):
        height, peak = 1 / (1 + np.exp(-heights[clip, step, line])), np.log1p(np.exp(peaks[clip, step // 16, line]))
        wanted[clip, step] += height * peak * levels[2 * at[clip, step // 16, line]]
    np.testing.assert_allclose(technogan._standing(heights, lines, peaks, levels), wanted, atol=1e-5)


def test_what_is_struck_sounds_from_there_on_for_three_sixteenths():
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((2, 32, 4)).astype(np.float32)
    sounds = rng.standard_normal((2, 2, 4, 3, 5)).astype(np.float32)
    wanted = np.zeros((2, 32, 5))
    for clip, step, sound, ago in np.ndindex(2, 32, 4, 3):
        hit = 1 / (1 + np.exp(-4 * (logits[clip, step, sound] - 0.5)))
        wanted[clip, (step + ago) % 32] += hit * sounds[clip, step // 16, sound, ago]
    np.testing.assert_allclose(technogan._struck(logits, sounds.reshape(2, 2, -1)), wanted, atol=1e-5)


def test_a_sound_that_is_struck_again_is_the_same(linear):
    gan, _ = linear
    g = random_parameters(gan.init_g)
    for layer in ("output", "palette"):
        g[layer]["kernel"] = np.array(g[layer]["kernel"]) / 10  # so that no bar is too far out
    g["output"]["kernel"][:, -4:] *= 1000  # sure of what is struck
    g["palette"]["bias"][: 4 * NOISE] = -50  # all else stands still
    x = np.asarray(gan.generate(g, gan.sample_latents(KEY, 24)))[..., WITHOUT_LOW]
    kinds = [len(np.unique(np.round(bar, 4), axis=0)) for bar in x]
    assert 1 < np.median(kinds) < 16  # bars in which something comes back, and not all of it
    g["palette"]["kernel"][:, 4 * NOISE + low_end.CHOSEN :], g["palette"]["bias"][4 * NOISE + low_end.CHOSEN :] = 0, 0
    still = np.asarray(gan.generate(g, gan.sample_latents(KEY, 24)))[..., WITHOUT_LOW]
    np.testing.assert_allclose(still, np.repeat(still[:, :1], 16, 1), atol=1e-5)


def test_noise_is_its_sixteenths_own_and_each_number_has_some(linear):
    """As an input it reaches the sixteenths that two convolutions do; by itself a number of its own sixteenth."""
    gan, _ = linear
    g, z = random_parameters(gan.init_g), np.array(gan.sample_latents(KEY, 2))
    g["output"] = jax.tree.map(lambda values: values / 10, g["output"])  # so that no bar is too far out
    g["block_0"]["beats"]["kernel"][:] = 0  # what beats have in common is heard everywhere
    g["palette"]["kernel"][:], g["palette"]["bias"][: 3 * NOISE] = 0, 50  # all of what differs
    g["palette"]["bias"][4 * NOISE + low_end.CHOSEN :] = 0  # nothing is struck
    other = z.copy()
    other[:, 8 + 3 + 6 * NOISE + 4] += 1  # of the seventh, the mid's fifth number

    def moved(noise):
        g["palette"]["bias"][3 * NOISE : 4 * NOISE] = noise
        return np.abs(np.asarray(gan.generate(g, z) - gan.generate(g, other)))

    silent = moved(noise=-50)[..., WITHOUT_LOW]  # as an input alone; the phase of the bass goes on changed
    assert np.flatnonzero(silent.max((0, 2)) > 1e-6).tolist() == list(range(2, 11)) and silent.max() > 0.01
    g["noise"]["kernel"][:] = 0  # not an input
    assert moved(noise=-50).max() == 0
    for shares in (50, -50):  # also where all else stands still
        g["palette"]["bias"][: 3 * NOISE] = shares
        change = moved(noise=50)
        assert np.argwhere(change > 1e-6).tolist() == [[0, 6, 4], [1, 6, 4]]
        assert change.max() > 0.5


def test_the_critic_hears_small_numbers_as_well_as_large_ones(toned):
    """The power of a group of numbers and of its changes, on a logarithmic scale."""
    gan, coder, sizes = toned
    judge, critics = jax.jit(gan.discriminate), [random_parameters(gan.init_d, seed) for seed in range(8)]
    # Deaf to all but four powers of a group of the mid's numbers, of the side's, of the low end's, of how these go together.
    for d in critics:
        d["input"]["kernel"][: -4 * 4 - CriticFeatures(coder).low_bins] = d["input"]["kernel"][
            -CriticFeatures(coder).low_bins :
        ] = 0
    large = (coder.scale * np.random.default_rng(0).standard_normal((4, 16, coder.layout.size))).astype(np.float32)
    starts = dict(zip(sizes, np.cumsum([0, *sizes.values()]), strict=False))

    def moved(part):
        halved = large.copy()
        halved[..., starts[part] : starts[part] + sizes[part]] /= 2
        return np.mean([np.abs(judge(d, halved, KEY)[0] - judge(d, large, KEY)[0]).mean() for d in critics])

    grouped = ("mid", "side", "low", "pan")
    assert np.ptp(np.log([coder.scale[starts[part]] for part in grouped])) > np.log(1.5), "nothing to compare"
    assert min(moved("side"), moved("low"), moved("pan")) > 0.3 * moved("mid") > 0
    assert moved("pitch") == 0


def test_a_bar_that_is_too_far_out_is_brought_back_whole_and_others_are_left():
    x = np.array(jax.random.normal(KEY, (2, 32, 5)))
    x[0, 16:] *= 100
    tamed = x * np.asarray(technogan._tame(x))
    np.testing.assert_array_equal(tamed[0, :16], x[0, :16])
    np.testing.assert_array_equal(tamed[1], x[1])
    assert np.abs(tamed[0, 16:]).max() == pytest.approx(12)
    np.testing.assert_allclose(
        tamed[0, 16:] / np.abs(tamed[0, 16:]).max(), x[0, 16:] / np.abs(x[0, 16:]).max(), rtol=1e-5
    )


def test_the_gradient_through_a_tamed_bar_is_right_and_asks_for_no_equal():
    """That of a maximum is divided by how many entries equal it: none, where a compiler computes them anew and rounds them differently."""
    rng = np.random.default_rng(0)
    x, way = rng.normal(0, 6, (1, 16, 5)), rng.normal(size=(1, 16, 5))
    x[0, 3, 2] = -40

    def tamed(x):
        return jnp.sum(jnp.sin(technogan._tame(x) * x))

    with jax.enable_x64(True):
        slope = float(np.sum(jax.grad(tamed)(x) * way))
        ahead, behind = (float(tamed(x + step * way)) for step in (1e-5, -1e-5))
        assert slope == pytest.approx((ahead - behind) / 2e-5, rel=1e-6)
    assert "reduce_max" not in str(jax.make_jaxpr(jax.grad(tamed))(jnp.float32(x)))


def test_however_large_its_weights_what_a_generator_makes_is_within_twelve_deviations(linear):
    gan, statistics = linear
    params = gan.init_g(KEY)
    params["output"]["kernel"] = 1e3 * jax.random.normal(KEY, params["output"]["kernel"].shape)
    x = np.asarray(gan.generate(params, gan.sample_latents(KEY, 4)))
    mid = x[..., : len(statistics["mid_scale"])] / statistics["mid_scale"]
    assert 6 < np.abs(mid).max() < 12.001


def test_a_low_end_that_is_shut_is_silent(toned):
    """Not the mean of the set, which zeros of a sequence are, sixteen times a bar."""
    gan, coder, sizes = toned
    g = random_parameters(gan.init_g)
    begin = sizes["mid"] + sizes["side"]  # of what is put out for the low end: how open it is, hits, notes, loudness
    shut = begin + np.r_[:2, 2 + low_end.NOTES : 1 + low_end.SAID]
    g["output"]["kernel"][:, shut], g["output"]["bias"][shut] = 0, -50
    low = low_end.by_part(gan.generate(g, gan.sample_latents(KEY, 2)), sizes)["low"]
    silence = np.asarray(coder.encode_part("low", jnp.zeros(())))
    np.testing.assert_allclose(low, np.broadcast_to(silence, low.shape), atol=1e-5)
    assert np.abs(silence).max() > 0.1


def test_several_bars_differ_and_the_critic_knows_their_order():
    options = SMALL | PARTS | NETWORKS | dict(bars=2, clip_samples=2 * 14336)
    gan = building.build("technogan", **options)
    g, d = random_parameters(gan.init_g), random_parameters(gan.init_d)
    x = jax.jit(gan.generate)(g, gan.sample_latents(KEY, 4))
    assert float(jnp.abs(x[:, :16] - x[:, 16:]).mean()) > 0.1
    judge = jax.jit(gan.discriminate)
    (logits,), (swapped,) = judge(d, x, KEY), judge(d, jnp.roll(x, 16, 1), KEY)
    assert logits.shape == (4, 1) and float(jnp.abs(logits - swapped).max()) > 1e-3


def latents_of_bars(gan, count):
    """Latents of so many bars, drawn apart, weights of labels that sum to 1."""
    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.ones(len(gan.classes)), (1, count)) if gan.classes else np.zeros((1, count, 0))
    return np.float32(np.concatenate([rng.normal(size=(1, count, 8 + ANCHOR)), weights], -1))


@pytest.mark.parametrize("phrase, blocks", [(1, 1), (1, 5), (2, 4), (2, 9), (4, 1)])
def test_a_bar_depends_on_those_that_it_is_said_to_and_no_others(phrase, blocks, linear):
    sizes = dict(bars=phrase, clip_samples=phrase * 14336, blocks=blocks)
    gan = building.build("technogan", **SMALL | PARTS | NETWORKS | sizes, statistics=linear[1])
    assert gan.endless.reach_bars == technogan.reach_bars(phrase, blocks)
    ring = phrase * 4 * gan.endless.reach_bars
    middle, z = ring // 2, latents_of_bars(gan, ring)
    slope = jax.jit(jax.grad(lambda z, g: jnp.sum(gan.generate(g, z)[:, 16 * middle : 16 * (middle + 1)] ** 2)))
    slopes = [slope(z, random_parameters(gan.init_g, seed)) for seed in range(3)]  # where one is shut another is not
    reached = np.flatnonzero(np.abs(slopes).max((0, 1, 3))) - middle
    assert reached.max() == gan.endless.reach_bars and reached.min() >= -gan.endless.reach_bars


def test_a_ring_of_many_bars_is_made_with_the_same_parameters_as_a_clip():
    gan = building.build("technogan", **SMALL | PARTS | NETWORKS | dict(bars=2, clip_samples=2 * 14336))
    g, generate_ = random_parameters(gan.init_g), jax.jit(gan.generate, compiler_options=AS_USERS)
    z = gan.sample_latents(KEY, 3)
    anchors = z[:, 8:].reshape(3, 2, ANCHOR)
    of_bars = np.concatenate([np.broadcast_to(z[:, None, :8], (3, 2, 8)), anchors], -1)
    clip = generate_(g, z)
    np.testing.assert_array_equal(generate_(g, of_bars), clip)
    repeated = generate_(g, np.tile(of_bars, (1, 4, 1)))  # a phrase held for four times is the loop that was trained
    np.testing.assert_allclose(repeated, np.tile(clip, (1, 4, 1)), atol=1e-5)


def test_style_and_labels_are_interpolated_linearly_around_the_ring():
    gan = building.build("technogan", **SMALL | PARTS | NETWORKS, classes=("acid", "industrial", "dub"))
    latents = latents_of_bars(gan, 5)
    x = np.asarray(jax.jit(gan.generate)(random_parameters(gan.init_g), latents))
    closed = np.concatenate([latents, latents[:, :1]], 1)[0, :, -3:]
    wanted = np.stack([np.interp(np.arange(80) / 16, np.arange(6), column) for column in closed.T], -1)
    np.testing.assert_allclose(x[0, :, -3:], wanted, atol=1e-6)


def test_labels_are_drawn_alike_often_and_what_is_made_follows_them():
    gan = building.build(
        "technogan", **SMALL | PARTS | NETWORKS, classes=["acid", "industrial", "dub"]
    )  # a list, as from JSON
    assert gan.classes == ("acid", "industrial", "dub")
    z = np.asarray(gan.sample_latents(KEY, 3000))
    assert set(np.unique(z[:, -3:])) == {0, 1} and (z[:, -3:].sum(1) == 1).all()
    assert np.abs(z[:, -3:].mean(0) - 1 / 3).max() < 5 * (2 / 9 / 3000) ** 0.5
    g, make = jax.jit(gan.init_g)(KEY), jax.jit(gan.generate)
    same = np.repeat(z[:1], 3, 0)
    same[:, -3:] = np.eye(3)
    x = np.asarray(make(g, same))
    np.testing.assert_array_equal(x[:, :, -3:], np.broadcast_to(np.eye(3)[:, None], (3, 16, 3)))
    others = np.repeat(z[:1], 30, 0)
    others[:, : 8 + 3] = z[:30, : 8 + 3]  # with the same noise
    of_labels, of_latents = (np.asarray(make(g, rows))[..., :-3].std(0).mean() for rows in (same, others))
    assert of_labels > 0.3 * of_latents  # from the start a label counts as much as the rest of the latents


def test_the_critic_reads_labels_but_gradients_do_not_see_them():
    gan = building.build("technogan", **SMALL | PARTS | NETWORKS, classes=("acid", "industrial"))
    d, x = random_parameters(gan.init_d), np.random.default_rng(0).standard_normal((4, 16, 29)).astype(np.float32)
    x[..., -2:] = [1, 0]
    other = x.copy()
    other[..., -2:] = [0, 1]

    def judged(x):
        (logits,) = gan.discriminate(d, x, KEY)
        return jnp.sum(logits), logits

    judge = jax.jit(jax.value_and_grad(judged, has_aux=True))
    ((_, logits), slope), ((_, others), _) = judge(x), judge(other)
    assert np.abs(logits - others).min() > 1e-2
    slope = np.asarray(slope)
    assert not slope[..., -2:].any() and slope[..., :-2].all()


def test_labels_go_with_the_sequence_and_not_into_the_sound(bars, linear):
    plain, statistics = linear
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
def test_a_bad_field_is_named_with_its_value(field, value, expected):
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
    config.audio.update(dict.fromkeys(config.audio))  # what the set says
    config.data.dir = str(tmp_path / "set")
    config.model.update(
        NETWORKS | PARTS | dict(n_mels=16, frames_per_step=4, shaper="none", classes=("acid", "industrial"))
    )
    config.train.update(
        steps=6, steps_per_dispatch=1, batch_size=4, log_every=3, save_every=3, sample_every=6, sample_clips=2
    )
    config.eval.every = 0
    return config


def test_a_run_measures_its_set_resumes_bit_for_bit_and_plays(bar_config, tmp_path, capsys):
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
    assert sample.main(["--from", str(tmp_path / "step6-seed0-acid1-industrial2-3bars.json")]) == 0
    assert "the same, bit for bit" in capsys.readouterr().out


def test_a_run_trains_its_own_shaper_first_and_resumes_that_too(bar_config, tmp_path, monkeypatch):
    bar_config.model.update(TONES | dict(shaper="new", shaping_steps=4))
    bar_config.train.update(steps=1, log_every=1, save_every=1, sample_every=0)
    loop.train(bar_config, tmp_path / "whole", say=lambda line: None)
    whole = read_statistics(tmp_path / "whole")
    assert np.abs(whole[f"{shaper.PREFIX}gates/kernel"]).max() > 0  # a new one's are zero
    assert not (tmp_path / "whole" / "shaping.npz").exists()

    monkeypatch.setattr(shaper_training, "_SAVE_EVERY", 1)
    said = []
    with monkeypatch.context() as patch:  # SIGTERM after two steps
        patch.setattr(progress, "bar", lambda what, *_: stopping(2 if what == "training the shaper" else 100))
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
    """A bar at whose count this process is sent SIGTERM."""
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
def test_a_shaper_and_its_training_go_together(bar_config, tmp_path, shaper, steps, message):
    bar_config.model.shaper, bar_config.model.shaping_steps = shaper, steps
    with pytest.raises(ValueError, match=message):
        loop.train(bar_config, tmp_path / "run", say=lambda line: None)


def test_the_critic_hears_clips_mixed_otherwise_and_no_one_else_does():
    audio = np.stack([bar(seed) for seed in range(4)])
    statistics = building.measure("technogan", [audio], **SMALL | PARTS)
    plain, mixed = (
        building.build("technogan", **SMALL | PARTS | NETWORKS, classes=("a", "b"), remix=share, statistics=statistics)
        for share in (0.0, 1.0)
    )
    d_params = random_parameters(plain.init_d)
    x = plain.encode(audio, np.eye(2, dtype=np.float32)[[0, 1, 0, 1]])
    np.testing.assert_array_equal(mixed.encode(audio, np.eye(2, dtype=np.float32)[[0, 1, 0, 1]]), x)
    (without,), (once,), (again,), (other,) = (
        gan.discriminate(d_params, x, key)
        for gan, key in ((plain, KEY), (mixed, KEY), (mixed, KEY), (mixed, jax.random.key(1)))
    )
    np.testing.assert_array_equal(once, again)
    assert np.abs(once - without).max() > 1e-3 and np.abs(once - other).max() > 1e-3
    (alone,) = mixed.discriminate(d_params, jnp.zeros_like(x).at[..., -2:].set(x[..., -2:]), KEY)
    assert np.isfinite(alone).all()


@pytest.mark.parametrize("share", [-0.1, 1.1, "half", True])
def test_a_share_that_is_none_is_an_error(share):
    with pytest.raises(ValueError, match="config.model.remix: expected a number from 0 to 1"):
        building.build("technogan", **SMALL | PARTS | NETWORKS, remix=share)


def test_a_block_hears_the_mean_of_each_bars_beats():
    block = technogan.Block(3, 5, False, True, rngs=nnx.Rngs(0))
    for layer in (block.conv_0, block.conv_1, block.beats):
        for name in ("kernel", "bias"):
            weights = getattr(layer, name)
            weights[...] = jax.random.normal(jax.random.key(len(weights.shape)), weights.shape) / 4
    x = np.random.default_rng(0).standard_normal((2, 32, 3)).astype(np.float32)  # two bars
    y = np.where(x > 0, x, 0.2 * x)
    beats = y.reshape(2, 2, 4, 4, 3).mean(2)  # of each bar, the mean over its beats
    heard = np.tile(np.asarray(block.beats(beats)), (1, 1, 4, 1)).reshape(2, 32, 3)
    hidden = np.asarray(block.conv_0(y)) + heard
    wanted = x + np.asarray(block.conv_1(np.where(hidden > 0, hidden, 0.2 * hidden)))
    np.testing.assert_allclose(block(jnp.asarray(x)), wanted, atol=1e-5)
    assert np.abs(heard).max() > 0.1
