"""Remixes real and generated clips before the discriminator sees them, in the code domain.

Another equalizer, bass, width, left and right swapped: the discriminator then memorizes fewer
tracks. What a clip becomes is what the code of the remixed audio would be. Measured:
experiments/log/2026-11-28-technogan-s-and-songs.md.

Reference: Zhao et al. 2020 (arXiv:2006.10738), augmentation of both kinds of samples.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special

from technogen_jax.models.technogan.codec import constants
from technogen_jax.models.technogan.codec.codec import Codec

_CURVES = 4  # of the equalizer: cosines over the bands, the first one their level
_WIDTH, _BASS, _SWAPPED = _CURVES, _CURVES + 1, _CURVES + 2  # controls after those of the curves


class Mix(NamedTuple):
    """How each of B clips is remixed; all zeros leave it as it is.

    Attributes:
        curve: `[B, 4]` of the equalizer above the crossover, nepers: the level, and cosines over
            the bands.
        bass: `[B]`, of what is below the crossover, nepers.
        width: `[B]`, of the side, nepers.
        swapped: `[B]`, whether left and right are swapped.
    """

    curve: jax.Array
    bass: jax.Array
    width: jax.Array
    swapped: jax.Array


def draw_mix(key: jax.Array, count: int, share: float = 1.0) -> Mix:
    """Draws the mixes of `count` clips: small changes for a share of them, none for the others."""
    curve, bass, width = (
        np.float32(np.log(10) / 20 * db) for db in (constants.CURVE_DB, constants.BASS_DB, constants.WIDTH_DB)
    )
    # All at once: each call of a random function takes long to compile.
    drawn = jax.random.normal(key, (count, _CURVES + 4))
    is_mixed = drawn[:, -1] < scipy.special.ndtri(share)
    changes = jnp.where(is_mixed[:, None], drawn, 0)
    return Mix(curve * changes[:, :_CURVES], bass * changes[:, -4], width * changes[:, -3], changes[:, -2] > 0)


class Remixer:
    """Remixes code: each change is linear in it, or adds to it.

    Args:
        codec: the codec of the code.
        share: share of the clips that `__call__` remixes.
    """

    def __init__(self, codec: Codec, share: float = 1.0):
        self._codec, self._share = codec, share

    def __call__(self, x: jax.Array, key: jax.Array) -> jax.Array:
        """Code `[B, S, K + labels]` with a share of the clips remixed at random; labels stay."""
        if not self._share:
            return x
        size = self._codec.layout.size
        mixed = self.remix(x[..., :size], draw_mix(key, len(x), self._share))
        return jnp.concatenate([mixed, x[..., size:]], -1)

    def remix(self, code: jax.Array, mix: Mix) -> jax.Array:
        """Code `[B, S, K]` as if the audio had been mixed with these settings."""
        controls = [mix.curve, mix.width[:, None], jnp.expm1(mix.bass)[:, None], mix.swapped[:, None]]
        controls = jnp.concatenate(controls, -1)
        gain, shift = (jnp.matmul(controls, rows, precision="highest")[:, None] for rows in self._maps)
        return code + gain * code + shift

    @functools.cached_property
    def _maps(self) -> tuple[np.ndarray, np.ndarray]:
        """What each control adds to the gain of a component and to the component, `[7, K]` both."""
        codec, layout = self._codec, self._codec.layout
        mid, side, low, pan = (getattr(codec.components, name) for name in ("mid", "side", "low", "pan"))
        gain, shift = (np.zeros((_CURVES + 3, layout.size), np.float32) for _ in range(2))
        frames, n_mels = codec.grid.frames_per_step, layout.mid.features // codec.grid.frames_per_step
        curves = _make_curves(n_mels)
        shift[:_CURVES, layout.mid.slice] = np.tile(curves, frames) @ mid.encode_matrix
        gain[_BASS, layout.low.slice] = 1
        shift[_BASS, layout.low.slice] = low.mean @ low.encode_matrix
        if side:
            below_and_above = np.concatenate([curves[:, :1], curves], -1)
            shift[:_CURVES, layout.side.slice] = np.tile(below_and_above, frames) @ side.encode_matrix
            shift[_WIDTH, layout.side.slice] = side.encode_matrix.sum(0)
            gain[_SWAPPED, layout.pan.slice] = -2
            shift[_SWAPPED, layout.pan.slice] = -2 * pan.mean @ pan.encode_matrix
        return gain, shift


def _make_curves(n_mels: int) -> np.ndarray:
    """`[4, M]`: cosines of 0, 1, 2 and 3 half turns from the lowest band to the highest."""
    return np.cos(np.pi * np.arange(_CURVES)[:, None] * (np.arange(n_mels) + 0.5) / n_mels).astype(np.float32)
