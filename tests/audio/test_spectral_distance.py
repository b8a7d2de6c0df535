import jax
import numpy as np
import pytest
import scipy.signal

from technogen_jax.audio import spectral_distance

KEY = jax.random.key(0)


def compressed_in_float64(sound, n_fft):
    hop = n_fft // 2
    starts = range(0, sound.shape[-1] // hop * hop - hop, hop)
    frames = np.stack([sound[..., start : start + n_fft] for start in starts], -2)
    return (np.abs(np.fft.rfft(frames * scipy.signal.get_window("hann", n_fft)) * 4 / n_fft) ** 2 + 1e-9) ** 0.15


def test_spectral_energy_matches_its_formula_in_float64():
    real, first, second = np.random.default_rng(0).normal(0, 0.2, (3, 2, 2, 9000))
    wanted = 0.0
    for n_fft in (256, 512, 1024, 2048, 4096):
        weights = 1 / (700 + np.fft.rfftfreq(n_fft, 1 / 16000))

        weights /= weights.sum()

        def distance(a, b, n_fft=n_fft, weights=weights):
            difference = np.abs(compressed_in_float64(a, n_fft) - compressed_in_float64(b, n_fft))
            mid, side = (difference * weights).sum(-1).mean((0, 2))
            return mid + side / 2

        wanted += (distance(real, first) + distance(real, second) - distance(first, second)) / 2
    found, parts = spectral_distance.spectral_energy(*np.float32([real, first, second]), 16000)
    assert found == pytest.approx(wanted, rel=1e-4)
    assert parts["attraction"] - parts["repulsion"] == pytest.approx(float(found), rel=1e-5)


def test_spectral_energy_is_smallest_for_noise_of_the_real_level():
    real, first, second = np.float32(np.random.default_rng(0).normal(0, 0.1, (3, 4, 1, 16384)))

    def energy(a, b):
        return float(spectral_distance.spectral_energy(real, a, b, 16000)[0])

    at_level = energy(first, second)
    for gain in (0, 0.5, 0.8, 1.25, 2):
        assert at_level < energy(gain * first, gain * second)
    assert at_level < energy(first, first)  # one noise for all would be a distance to a point
