"""Brings the levels of synthesized sound to those of the code.

Excitations have the right power on average, but that of noise fluctuates by 4 to 5 dB in a band and frame,
also where music stands still. So the levels are measured as the encoder does it, and each band of each
frame is multiplied by what it lacks. Frames overlap, and neighbours change each other: one pass removes
most of the difference, a second one some more. Measured:
experiments/log/2026-12-01-decoder.md.

Reference: magnitudes imposed and phases kept, again and again: Griffin, Lim 1984 (IEEE Trans. ASSP
32(2)); here with bands for magnitudes, and from a start that is already close.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from technogen_jax.audio import spectral
from technogen_jax.models.technogan.codec.analysis import measure_levels
from technogen_jax.models.technogan.layout import STEPS_PER_BEAT, BeatGrid

_MOST_NEPERS = 2.0  # by which a pass changes a band: 17 dB. Chosen: more would amplify leakage


def match_levels(
    loop: jax.Array, wanted: Sequence[jax.Array], filters: Sequence[np.ndarray], grid: BeatGrid
) -> jax.Array:
    """A loop `[B, C, grid.samples]` whose levels are closer to those wanted, its phases kept.

    Args:
        loop: mid and, if stereo, side.
        wanted: for each of the C signals, natural logarithms of magnitudes `[B, N, bands]`, as
            `measure_levels` returns them.
        filters: for each signal, weights of the bins in each band, `[bands, F]`.
        grid: of the loop.
    """
    spectra = spectral.stft_circular(loop, grid.n_fft, grid.analysis_hop_length)
    lacking = tuple(
        jnp.clip(levels - measure_levels(spectra[:, i], weights, grid), -_MOST_NEPERS, _MOST_NEPERS)
        for i, (levels, weights) in enumerate(zip(wanted, filters, strict=True))
    )
    # A band's value over its bins:
    spreads = [weights / np.maximum(weights.sum(0), 1e-9) for weights in filters]

    def multiply(spectra, gains):
        return [spectra[:, i] * jnp.matmul(gains[i], spread) for i, spread in enumerate(spreads)]

    return spectral.resynthesize_circular(
        multiply,
        loop,
        tuple(jnp.exp(double_frames(nepers)) for nepers in lacking),
        grid.n_fft,
        grid.hop_length,
        pieces=grid.steps // STEPS_PER_BEAT,
    )


def double_frames(levels: jax.Array) -> jax.Array:
    """Frames around a loop `[B, N, M]` to `[B, 2 N, M]`: a quarter before and after each."""
    before, after = jnp.roll(levels, 1, -2), jnp.roll(levels, -1, -2)
    # [B, N, 2, M]:
    doubled = jnp.stack([0.75 * levels + 0.25 * before, 0.75 * levels + 0.25 * after], -2)
    return doubled.reshape(*levels.shape[:-2], -1, levels.shape[-1])
