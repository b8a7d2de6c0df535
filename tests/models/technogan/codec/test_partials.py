import jax.numpy as jnp
import numpy as np
import pytest
from helpers.bars import saw

from technogen_jax.models.technogan.codec import partials, pitch

RATE_HZ, STEPS = 44100, 16
SAMPLES = STEPS * 4864


def encode(signal):
    """The features of the partials of one signal `[T]`, without harmonics of its pitch."""
    signal = jnp.float32(signal)[None]
    found_pitch = pitch.find_pitch(signal, RATE_HZ, STEPS)
    lowest_hz = partials.LOWEST_MID_HZ
    return partials.encode_partials(partials.find_partials(signal, RATE_HZ, STEPS, lowest_hz, found_pitch))


@pytest.mark.parametrize("hz", [251.3, 701.7, 3011.0])
def test_measure_energy_shares_returns_the_share_of_a_sine_in_noise(hz):
    """By the powers of both; a loud bass below is no part of it."""
    time_s = np.arange(SAMPLES) / RATE_HZ
    hz, low_hz = np.round(np.array([hz, 70.0]) * SAMPLES / RATE_HZ) * RATE_HZ / SAMPLES
    noise = np.random.default_rng(0).normal(0, 0.02, SAMPLES)
    sine, bass = 0.02 * np.sin(2 * np.pi * hz * time_s), 0.5 * np.sin(2 * np.pi * low_hz * time_s)
    edges = partials.SHARE_EDGES_HZ
    of_noise = 0.02**2 * (edges[-1] - edges[0]) / (RATE_HZ / 2)  # power between the first edge and the last
    wanted = np.where((edges[:-1] <= hz) & (hz < edges[1:]), 0.02**2 / 2 / (0.02**2 / 2 + of_noise), 0)
    signals = jnp.float32([noise + sine, noise + sine + bass, noise, 0 * noise])
    shares = np.asarray(partials.measure_energy_shares(signals, RATE_HZ, STEPS))
    np.testing.assert_allclose(shares[0], wanted, atol=0.03)
    np.testing.assert_allclose(shares[1], shares[0], atol=0.03)
    assert shares[2].max() < 0.003 and (shares[3] == 0).all()


def test_find_partials_finds_sines_and_decode_partials_returns_them():
    time = np.arange(SAMPLES) / RATE_HZ
    position = np.array([50, 117, 225])
    hz = np.round(220 * 2 ** (position / 60) * SAMPLES / RATE_HZ) * RATE_HZ / SAMPLES
    noise = np.random.default_rng(0).normal(0, 0.02, SAMPLES)
    signal = noise + np.sum([a * np.sin(2 * np.pi * f * time) for a, f in zip((0.05, 0.03, 0.02), hz, strict=True)], 0)
    features = encode(signal)
    assert features.shape == (1, STEPS, partials.FEATURES)
    found, height = (np.asarray(values)[0] for values in partials.decode_partials(features))
    # A bin at 390 Hz is 20 cents.
    np.testing.assert_allclose(np.sort(found, -1), np.tile(position, (STEPS, 1)), atol=1)
    assert height.min() > 0.3


def test_harmonics_of_the_pitch_and_noise_are_no_partials():
    noise = np.random.default_rng(0).normal(0, 0.02, SAMPLES)
    pitch_hz = 40 * RATE_HZ / 4864 / 2  # whole periods in a sixteenth
    signals = jnp.float32([saw(pitch_hz, SAMPLES, RATE_HZ) + noise, noise])
    found_pitch = pitch.find_pitch(signals, RATE_HZ, STEPS)
    heights = np.asarray(partials.find_partials(signals, RATE_HZ, STEPS, 220.0, found_pitch))
    assert heights[0].max(-1).mean() < 0.1
    assert (heights[1] > 0.15).any(-1).mean() < 0.2


def test_rotating_the_signal_by_sixteenths_rotates_the_features():
    signal = saw(np.repeat([110.0, 164.8, 130.8, 196.0], SAMPLES // 4), SAMPLES, RATE_HZ)
    plain, rotated = encode(signal), encode(np.roll(signal, 3 * 4864))
    np.testing.assert_allclose(rotated, jnp.roll(plain, 3, 1), atol=1e-3)
