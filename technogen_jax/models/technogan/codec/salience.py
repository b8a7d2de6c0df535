"""How far bins stand out of their surroundings; `pitch` and `partials` start from it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from technogen_jax.audio import spectral

# Half the width of the surroundings. Chosen: wider than a peak, narrower than the slope of a mix's
# spectrum.
_SURROUNDINGS_HZ = 200.0
_SILENCE = 1e-5  # magnitude that counts as silent; a sine at full scale has about 1


def measure_salience(
    signal: jax.Array, n_fft: int, hop_length: int, rate_hz: float, highest_hz: float, lowest_hz: float = 0.0
) -> tuple[jax.Array, jax.Array, np.ndarray]:
    """Divides the magnitudes of a loop's frames by the mean magnitude around each bin.

    Args:
        signal: `[B, T]`, T a multiple of `hop_length`.
        n_fft: frame length in samples.
        hop_length: samples from frame to frame.
        rate_hz: sample rate.
        highest_hz: bins above it are left out, except the surroundings of the last one.
        lowest_hz: bins below it are no surroundings of others, and their own ratio is 0.

    Returns:
        (magnitudes `[B, N, F]`, ratios to the surroundings `[B, N, F]`, frequencies in Hz `[F]`).
    """
    bins = min(n_fft // 2, int((highest_hz + _SURROUNDINGS_HZ) * n_fft / rate_hz)) + 1
    magnitude = jnp.abs(spectral.stft_circular(signal, n_fft, hop_length)[..., :bins]) / (n_fft / 4)
    bins_hz = np.arange(bins) * (rate_hz / n_fft)
    is_used = np.float32(bins_hz >= lowest_hz)
    distance = np.arange(bins) - np.arange(bins)[:, None]
    window = np.cos(np.pi / 2 * np.minimum(np.abs(distance) * (rate_hz / n_fft / _SURROUNDINGS_HZ), 1)) ** 2
    window = window * is_used[:, None]
    mean = jnp.matmul(magnitude, np.float32(window / np.maximum(window.sum(0), 1e-9)))
    return magnitude, is_used * magnitude / (mean + _SILENCE), bins_hz


def rescale(values: jax.Array, edges: tuple[float, float]) -> jax.Array:
    """Values as shares of the way from the first edge to the second, clipped to 0 and 1."""
    return jnp.clip((values - edges[0]) / (edges[1] - edges[0]), 0, 1)
