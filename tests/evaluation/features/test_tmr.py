import functools

import librosa
import numpy as np
import pytest
from helpers import loops

from technogen_jax.audio import corruptions
from technogen_jax.evaluation.features import log_mel, tmr
from technogen_jax.evaluation.features.projection import fit_projection

BLOCKS = tmr.TMR_V1.blocks
RATE_HZ = loops.RATE_HZ


def reference(mono, rate_hz, n_fft, loop):
    """The three blocks of one signal `[T]`, each formula written out once more in float64."""
    hop_length = rate_hz // 100
    if loop:
        mono = np.concatenate([mono[-n_fft // 2 :], mono, mono[: n_fft // 2]])[: len(mono) - hop_length + n_fft]
    power = librosa.feature.melspectrogram(
        y=mono.astype(np.float64), sr=rate_hz, n_fft=n_fft, hop_length=hop_length, n_mels=64, fmin=30, center=False
    )
    mel = np.log(power + 1e-5)  # [64, N]
    frames = mel.shape[1]
    steps = np.roll(mel, -1, axis=1) - mel if loop else np.diff(mel)
    low, high = np.quantile(mel, 0.1, axis=1), np.quantile(mel, 0.9, axis=1)
    timbre = np.concatenate([mel.mean(1), mel.std(1), steps.std(1), high - low])

    modulation, window = [], np.hanning(frames + 1)[:-1]
    bands_hz = 0.5 * 80 ** (np.arange(21) / 20)
    for group in np.array_split(mel, 12):
        series = group.mean(0) - group.mean()
        turns = range(frames) if loop else [0]
        powers = np.mean([np.abs(np.fft.rfft(np.roll(series, n) * window, 2048)) ** 2 for n in turns], axis=0)
        hz = np.fft.rfftfreq(2048, 0.01)
        for a, b in zip(bands_hz, bands_hz[1:], strict=False):
            modulation.append(np.log(powers[(hz >= a) & (hz < b)].mean() / np.sum(window**2) + 1e-5))

    filters = librosa.filters.mel(sr=rate_hz, n_fft=n_fft, n_mels=64, fmin=30)
    centres_hz = filters @ librosa.fft_frequencies(sr=rate_hz, n_fft=n_fft) / filters.sum(1)
    rhythm = []
    for a, b in ((0, 200), (200, 2000), (2000, rate_hz)):
        flux = np.maximum(steps, 0)[(centres_hz >= a) & (centres_hz < b)].mean(0)
        flux = flux - flux.mean()
        count = len(flux)
        length = count if loop else count + 121
        lags = np.arange(-(length // 2), -(length // 2) + length)
        padded = np.concatenate([flux, np.zeros(length - count)])
        correlation = np.array([padded @ np.roll(padded, lag) for lag in lags]) / count
        for lag in 100 * 0.05 * 24 ** (np.arange(48) / 47):
            distance = lag - lags  # band-limited interpolation: the periodic sinc
            with np.errstate(divide="ignore", invalid="ignore"):
                kernel = np.sin(np.pi * distance) / length / np.tan(np.pi * distance / length)
                odd = np.sin(np.pi * distance) / length / np.sin(np.pi * distance / length)
            kernel = np.where(distance % length == 0, 1, odd if length % 2 else kernel)
            rhythm.append(kernel @ correlation / (flux.var() + 1e-6))
    return [timbre, np.array(modulation), np.array(rhythm)]


@pytest.mark.parametrize("loop", [True, False])
@pytest.mark.parametrize("rate_hz, n_fft", [(16000, 1024), (44100, 2048)])
def test_every_block_equals_a_reference_in_float64(rate_hz, n_fft, loop):
    rng, time_s = np.random.default_rng(0), np.arange(rate_hz * 13 // 10)[:, None] / rate_hz
    audio = rng.standard_normal((2, len(time_s), 2)) * np.exp(-8 * (time_s % 0.26)) * [[[0.3, 0.1]]]
    audio = audio.astype(np.float32)
    values = tmr.embed(audio, rate_hz, loop=loop)
    for clip, found in zip(audio, values, strict=True):
        sides = [reference(signal, rate_hz, n_fft, loop) for signal in ((clip @ [0.5, 0.5]), (clip @ [0.5, -0.5]))]
        for block, name in enumerate(BLOCKS(2)):
            expected = np.concatenate([side[block] for side in sides])
            np.testing.assert_allclose(found[BLOCKS(2)[name]], expected, rtol=1e-4, atol=1e-4, err_msg=name)


def test_blocks_cover_the_vector():
    assert BLOCKS(1) == {"T": slice(0, 256), "M": slice(256, 496), "R": slice(496, 640)}
    assert BLOCKS(2) == {"T": slice(0, 512), "M": slice(512, 992), "R": slice(992, 1280)}


def test_two_equal_channels_give_the_mono_values_and_a_silent_side():
    mono = loops.render(0, 0)[None]
    both = tmr.embed(np.repeat(mono, 2, axis=2), RATE_HZ, loop=True)
    for audio, half in ((mono, 0), (np.zeros_like(mono), 1)):
        expected = tmr.embed(audio, RATE_HZ, loop=True)
        for name, columns in BLOCKS(2).items():
            np.testing.assert_allclose(
                np.split(both[:, columns], 2, axis=1)[half], expected[:, BLOCKS(1)[name]], 1e-5, 1e-6
            )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_clip_has_the_same_vector_in_any_batch(dtype):
    audio = np.random.default_rng(0).uniform(-1, 1, (130, 4000, 1)).astype(np.float32)
    together = tmr.embed(audio.astype(dtype), 8000, loop=False)
    for some in (slice(0, 1), slice(60, 70), slice(129, 130)):
        np.testing.assert_allclose(tmr.embed(audio[some], 8000, loop=False), together[some], atol=1e-6)
    order = np.random.default_rng(1).permutation(130)
    np.testing.assert_allclose(tmr.embed(audio[order], 8000, loop=False), together[order], atol=1e-6)


def test_a_rotated_loop_has_the_same_vector():
    loop = loops.render(1, 0)
    turned = np.stack([np.roll(loop, hops * RATE_HZ // 100, axis=0) for hops in (0, 1, 50)])
    values = tmr.embed(turned, RATE_HZ, loop=True)
    np.testing.assert_allclose(values[1:], values[[0, 0]], atol=2e-4)


def test_modulation_and_rhythm_peak_at_the_known_rates():
    time_s = np.arange(2 * RATE_HZ) / RATE_HZ
    noise = 0.1 * np.random.default_rng(0).standard_normal(len(time_s))
    audio = (noise * (1.5 + np.sin(2 * np.pi * 8 * time_s)))[None, :, None]
    modulation = tmr.embed(audio, RATE_HZ, loop=True)[0, BLOCKS(1)["M"]].reshape(12, 20).mean(axis=0)
    edges_hz = np.geomspace(0.5, 40, 21)
    assert edges_hz[modulation.argmax()] <= 8 < edges_hz[modulation.argmax() + 1]
    clicks = np.zeros((1, 2 * RATE_HZ, 1))
    clicks[0, :: RATE_HZ // 2] = 1
    rhythm = tmr.embed(clicks, RATE_HZ, loop=True)[0, BLOCKS(1)["R"]].reshape(3, 48)
    lags_s = np.geomspace(0.05, 1.2, 48)
    for band in rhythm:
        assert lags_s[(band * (lags_s < 0.8)).argmax()] == pytest.approx(0.5, rel=0.04)
        assert band.max() > 0.9


def test_a_wavegan_clip_is_long_enough_and_silence_has_a_constant_vector():
    values = tmr.embed(np.zeros((3, 16384, 1), np.float32), 16000, loop=True)
    assert values.shape == (3, 640) and np.isfinite(values).all()
    np.testing.assert_array_equal(values[0], values[2])
    np.testing.assert_allclose(values[0, :64], np.log(1e-5), rtol=1e-6)
    np.testing.assert_allclose(values[0, BLOCKS(1)["R"]], 0, atol=1e-6)


@pytest.mark.parametrize(
    "audio, message",
    [
        (np.zeros((2, 3999, 1), np.float32), "at least 4000 samples at 16000 Hz, got 3999"),
        (np.full((2, 8000, 1), np.nan, np.float32), "NaN or Inf in 2 of 2 clips"),
        (np.zeros((2, 8000, 1), np.int16), "floating-point audio in .* got int16"),
        (np.zeros((8000, 1), np.float32), r"shape \(8000, 1\)"),
        (np.zeros((0, 8000, 1), np.float32), r"shape \(0, 8000, 1\)"),
    ],
)
def test_audio_that_cannot_be_embedded_raises(audio, message):
    with pytest.raises(ValueError, match=message):
        tmr.embed(audio, 16000, loop=True)


def test_log_mel_images_are_frames_of_the_channel_mean():
    stereo = np.random.default_rng(0).uniform(-1, 1, (2, RATE_HZ, 2))
    images = log_mel.log_mel_images(stereo, RATE_HZ)
    assert images.shape == (2, 94, 64) and images.dtype == np.float32
    values = tmr.embed(stereo, RATE_HZ, loop=False)
    np.testing.assert_allclose(images.mean(axis=1), values[:, :64], atol=1e-5)


# Distances between 40 real tracks and 40 other tracks that were changed.


def embedded(clips):
    """Embeddings of loops of several lengths, in order."""
    values = np.empty((len(clips), 640))
    for samples in {len(clip) for clip in clips}:
        chosen = [index for index, clip in enumerate(clips) if len(clip) == samples]
        values[chosen] = tmr.embed(np.stack([clips[index] for index in chosen]), RATE_HZ, loop=True)
    return values


def frechet(x, y):
    covariances = np.cov(x.T), np.cov(y.T)
    strengths, axes = np.linalg.eigh(covariances[0])
    root = axes * np.sqrt(np.maximum(strengths, 0)) @ axes.T
    shared = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ covariances[1] @ root), 0)).sum()
    return np.sum((x.mean(0) - y.mean(0)) ** 2) + sum(map(np.trace, covariances)) - 2 * shared


def mmd(x, y):
    distances = [((a[:, None] - b) ** 2).sum(axis=2) for a, b in ((x, x), (y, y), (x, y))]
    width = np.median(np.sqrt(distances[0][np.triu_indices(len(x), 1)]))
    within_x, within_y, between = (np.exp(-d / (2 * width**2)) for d in distances)
    return sum((k.sum() - len(k)) / (len(k) * (len(k) - 1)) for k in (within_x, within_y)) - 2 * between.mean()


@pytest.fixture(scope="module")
def real():
    """The projection and the coordinates of the reference; both without the changed tracks."""
    fit, tracks = loops.corpus(0, 40)
    projection = fit_projection(embedded(fit), tracks, BLOCKS(1))
    return projection, projection.apply(embedded(loops.corpus(1000, 40)[0]))


@pytest.fixture(scope="module")
def measure(real):
    """(change of a clip and its index, distance) -> {block: distance of the reference from the changed clips}."""
    projection, reference = real
    clips = loops.corpus(2000, 40)[0]

    @functools.cache
    def coordinates(name, *arguments):
        change = CHANGES[name]
        return projection.apply(embedded([change(clip, index, *arguments) for index, clip in enumerate(clips)]))

    def measure(*change, distance=frechet):
        changed = coordinates(*change)
        return {block: distance(reference[block], changed[block]) for block in changed}

    return measure


CHANGES = {
    "none": lambda clip, seed: clip,
    "noise": lambda clip, seed, snr_db: corruptions.add_noise(clip, snr_db, seed),
    "low-pass": lambda clip, seed, cutoff_hz: corruptions.low_pass(clip, RATE_HZ, cutoff_hz),
    "speed": lambda clip, seed, factor: loops.change_speed(clip, factor),
    "shuffle": lambda clip, seed, pieces: corruptions.shuffle(clip, RATE_HZ, pieces, seed),
    "reverse": lambda clip, seed: corruptions.reverse(clip),
    "phase": lambda clip, seed, amount: corruptions.randomise_phase(clip, RATE_HZ, amount, seed),
    "gain": lambda clip, seed, gain_db: corruptions.gain(clip, gain_db),
}


@pytest.fixture(scope="module")
def floor(measure):
    return measure("none")


def rises(results, *blocks):
    for block in blocks:
        values = [result[block] for result in results]
        assert all(a < b for a, b in zip(values, values[1:], strict=False)), f"{block}: {values}"


def test_more_noise_gives_larger_distances(measure, floor):
    for distance in (frechet, mmd):
        rises([measure("noise", snr_db, distance=distance) for snr_db in (50, 40, 30, 20, 10)], "T", "M", "all")
    assert all(measure("noise", 20)[block] > 10 * floor[block] for block in ("T", "M", "all"))


def test_low_pass_changes_timbre_and_not_rhythm(measure, floor):
    changes = [("low-pass", cutoff_hz) for cutoff_hz in (7000, 6000, 5000, 3500)]
    rises([measure(*change, distance=mmd) for change in (("none",), *changes)], "T")
    assert max(measure(*change)["R"] for change in changes) < 2.2 * floor["R"]


def test_speed_changes_rhythm_and_not_timbre(measure, floor):
    changes = [("none",), ("speed", 1.05), ("speed", 1.1)]
    for distance in (frechet, mmd):
        rises([measure(*change, distance=distance) for change in changes], "R")
    assert max(measure(*change)["T"] for change in changes) < 2 * floor["T"]


def test_shuffling_changes_modulation_and_rhythm_and_hardly_timbre(measure, floor):
    for pieces in (8, 16):  # eighths and sixteenths of a bar
        shuffled = measure("shuffle", pieces)
        rises([floor, shuffled], "M", "R")
        assert shuffled["R"] > 3 * floor["R"] and shuffled["T"] < 2.2 * floor["T"]


def test_shuffling_equal_bars_changes_nothing():
    bars = np.tile(loops.render(2, 0), (4, 1))
    shuffled = corruptions.shuffle(bars, RATE_HZ, 4, 0)
    np.testing.assert_allclose(*(tmr.embed(audio[None], RATE_HZ, loop=True) for audio in (shuffled, bars)), atol=1e-5)


def test_reversal_changes_rhythm_alone(measure, floor):
    backwards = measure("reverse")
    assert backwards["T"] == pytest.approx(floor["T"], rel=0.01)
    assert backwards["M"] == pytest.approx(floor["M"], rel=0.01)
    assert backwards["R"] > 3 * floor["R"]


def test_random_phases_change_modulation(measure, floor):
    rises([floor, *(measure("phase", amount) for amount in (0.25, 0.5, 1))], "M")


def test_level_changes_timbre_and_not_rhythm(measure, floor):
    quiet = measure("gain", -6)
    assert quiet["T"] > 2 * floor["T"] and quiet["R"] < 1.5 * floor["R"]
