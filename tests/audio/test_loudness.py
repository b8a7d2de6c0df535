"""The meter against scipy's filter in float64 and the standard's own figures."""

import math

import numpy as np
import pytest
import scipy.signal

from technogen_jax.audio import loudness


def bs1770_energies(samples, rate, sub_block):
    """Mean squares of the whole sub-blocks of K-weighted audio, summed over channels: float64, with scipy's filter."""
    filtered = scipy.signal.sosfilt(loudness.k_weighting(rate), samples.astype(np.float64), axis=0)
    ends = [round(index * sub_block) for index in range(int(len(samples) / sub_block) + 1)]
    return np.array([(filtered[a:b] ** 2).sum() / (b - a) for a, b in zip(ends[:-1], ends[1:], strict=True)])


def bs1770_loudness(energies):
    """Gated loudness, as BS.1770 words it."""
    blocks = np.array([energies[index : index + 4].mean() for index in range(len(energies) - 3)])
    lufs = -0.691 + 10 * np.log10(blocks + 1e-30)
    gated = blocks[lufs > -70]
    threshold = -0.691 + 10 * np.log10(gated.mean()) - 10
    return -0.691 + 10 * np.log10(blocks[(lufs > -70) & (lufs > threshold)].mean())


def measure(samples, rate, block=12345):
    meter = loudness.LoudnessMeter(rate, samples.shape[1])
    for start in range(0, len(samples), block):
        meter.add(samples[start : start + block])
    return meter.energies()


def test_k_weighting_matches_the_standard_at_48_khz():
    # ITU-R BS.1770-5, annex 1, tables 1 and 2.
    shelf = [1.53512485958697, -2.69169618940638, 1.19839281085285, 1, -1.69065929318241, 0.73248077421585]
    high_pass = [1, -2, 1, 1, -1.99004745483398, 0.99007225036621]
    np.testing.assert_allclose(loudness.k_weighting(48000), [shelf, high_pass], atol=1e-9)


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 44100, 48000, 96000])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_meter_matches_the_filter_in_float64(rate, channels):
    rng = np.random.default_rng(rate)
    t = np.arange(rate * 7) / rate
    samples = 0.05 * rng.standard_normal((len(t), channels)) + 0.5 * np.sin(2 * np.pi * 45 * t)[:, None]
    samples[3 * rate : 4 * rate] *= 1e-3
    samples[5 * rate : 6 * rate] += 0.5
    samples = samples.astype(np.float32)
    got, want = measure(samples, rate), bs1770_energies(samples, rate, loudness.sub_block_samples(rate))
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=1e-7, atol=1e-12)
    assert abs(loudness.gated_loudness(got) - bs1770_loudness(want)) < 1e-5
    exact = bs1770_loudness(bs1770_energies(samples, rate, rate / 10))  # by then another block passes the gate, or not
    assert abs(loudness.gated_loudness(got) - exact) < 0.1
    np.testing.assert_array_equal(measure(samples, rate, block=10**7), got)


@pytest.mark.parametrize("channels,lufs", [(1, -3.01), (2, 0.0)])
def test_a_full_scale_997_hz_sine_has_the_loudness_of_the_standard(channels, lufs):
    # BS.1770: 0 dBFS at 997 Hz in one front channel reads -3.01; two such channels double the energy.
    sine = np.sin(2 * np.pi * 997 * np.arange(48000 * 5) / 48000).astype(np.float32)
    assert abs(loudness.gated_loudness(measure(np.stack([sine] * channels, axis=1), 48000)) - lufs) < 0.01


def test_gating_ignores_quiet_passages():
    sine = np.sin(2 * np.pi * 997 * np.arange(48000 * 5) / 48000).astype(np.float32)[:, None]
    loud = loudness.gated_loudness(measure(0.1 * sine, 48000))
    quiet_too = loudness.gated_loudness(measure(np.concatenate([0.1 * sine, 0.01 * sine, 0 * sine]), 48000))
    assert abs(quiet_too - loud) < 0.3  # the blocks on the border count
    assert loudness.gated_loudness(measure(0 * sine, 48000)) == -math.inf
    assert loudness.gated_loudness(measure(1e-5 * sine, 48000)) == -math.inf
    assert loudness.gated_loudness(measure(sine[:100], 48000)) == -math.inf


def test_silence_after_dc_has_no_energy_and_an_empty_stream_no_frames():
    audio = np.zeros((48000 * 4, 1), np.float32)
    audio[: 48000 * 2] = 0.9
    energies = measure(audio, 48000)
    assert energies.min() >= 0 and energies[-10:].max() < 1e-15
    assert measure(audio[:0], 48000).shape == (0,)


def test_clip_loudness_depends_only_on_the_clip():
    sine = np.sin(2 * np.pi * 997 * np.arange(48000) / 48000).astype(np.float32)[:, None]
    energies = measure(np.concatenate([gain * sine for gain in (1.0, 0.1, 0.01)]), 48000)
    for index, lufs in enumerate((-3.01, -23.01, -43.01)):
        # From within the second: the filter rings on from the louder one before it.
        got = loudness.clip_loudness(energies, index * 48000 + 14400, 28800, 48000)
        assert abs(got - lufs) < 0.05
