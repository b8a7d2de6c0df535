"""The spectral energy distance between sounds: the loss of TechnoGAN's shaper."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from technogen_jax.audio import spectral

_ENERGY_N_FFT = (256, 512, 1024, 2048, 4096)


def spectral_energy(
    real: jax.Array, first: jax.Array, second: jax.Array, sample_rate_hz: float
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns the energy distance of two sounds, decoded from one code with different noise, to the real one.

    It is a proper score: sounds that are distributed as the real ones minimize it, noise as noise, not
    their mean. The distance of two sounds is that of their spectra at five resolutions, magnitudes to the
    power 0.3, weighted over frequency about as a mel scale is dense; the first channel counts twice the others.

    Args:
        real: `[B, C, T]` in [-1, 1].
        first: one sound, of the same shape.
        second: the other, of the same shape.
        sample_rate_hz: their rate.

    Returns:
        The loss, and its parts: "attraction", the mean distance to the real, and "repulsion", half the distance of the two.

    Reference: Gritsenko et al. 2020 (arXiv:2008.01160), eq. 5 with their generalised energy distance.
    """
    attraction = repulsion = 0.0
    for n_fft in _ENERGY_N_FFT:
        spectra = [_compressed(sound, n_fft) for sound in (real, first, second)]
        frequencies_hz = np.arange(n_fft // 2 + 1) * (sample_rate_hz / n_fft)
        weights = 1 / (700 + frequencies_hz)  # the slope of the mel scale
        weights = (weights / weights.sum()).astype(np.float32)

        def distance(a, b, weights=weights):
            by_channel = jnp.mean(jnp.sum(jnp.abs(a - b) * weights, -1), (0, 2))
            return by_channel[0] + jnp.sum(by_channel[1:]) / 2

        attraction += (distance(spectra[0], spectra[1]) + distance(spectra[0], spectra[2])) / 2
        repulsion += distance(spectra[1], spectra[2]) / 2
    return attraction - repulsion, {"attraction": attraction, "repulsion": repulsion}


def _compressed(sound: jax.Array, n_fft: int) -> jax.Array:
    """`[B, C, T]` to magnitudes `[B, C, N, n_fft // 2 + 1]` to the power 0.3, a sine at full scale being about 1."""
    hop = n_fft // 2
    blocks = sound[..., : sound.shape[-1] // hop * hop].reshape(*sound.shape[:-1], -1, hop)
    spectrum = jnp.fft.rfft(jnp.concatenate([blocks[..., :-1, :], blocks[..., 1:, :]], -1) * spectral.hann(n_fft))
    power = (spectrum.real**2 + spectrum.imag**2) * (4 / n_fft) ** 2
    return (power + 1e-9) ** 0.15  # -90 dB: levels below this are ignored
