"""Audio to code vectors, one for each sixteenth note."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from technogen_jax.models.convolution import convolve_circular
from technogen_jax.models.technogan.codec import partials
from technogen_jax.models.technogan.codec.analysis import Bands, analyze, fold, respond_to_partials
from technogen_jax.models.technogan.codec.components import PrincipalComponents, make_step_kernel
from technogen_jax.models.technogan.layout import BeatGrid, CodeLayout, Parts


class Encoder:
    """Audio, or the features of a part, to code.

    Args:
        grid: the grid of the clips.
        layout: the layout of the code.
        bands: the bands of the spectra.
        components: principal components of each part.
    """

    def __init__(self, grid: BeatGrid, layout: CodeLayout, bands: Bands, components: Parts[PrincipalComponents]):
        self._grid, self._layout, self._bands, self._components = grid, layout, bands, components

    def encode(self, audio: jax.Array) -> jax.Array:
        """Audio `[B, T, C]` in [-1, 1] to code `[B, S, K]`."""
        features = analyze(audio, self._grid, self._bands, tonal=self._layout.pitch is not None)
        parts = (self.encode_part(name, getattr(features, name)) for name, _ in self._layout.items())
        return jnp.concatenate(list(parts), -1)

    def encode_part(self, name: str, features: jax.Array) -> jax.Array:
        """The code `[..., K]` of the features `[..., D]` of the part of that name."""
        return getattr(self._components, name).encode(features)

    def encode_low_waveform(self, waveform: jax.Array) -> jax.Array:
        """What a waveform below the crossover adds to the code of silence, `[B, S, K]`.

        Args:
            waveform: sixteenths `[B, S, low_samples]`.
        """
        return convolve_circular(waveform, self._low_kernel, "highest")

    @functools.cached_property
    def _low_kernel(self) -> np.ndarray:
        """Folding and projection as one convolution."""
        low = self._components.low
        return make_step_kernel(lambda waves: fold(waves) @ low.encode_matrix, self._grid.low_samples, 1)

    def encode_partial_peaks(self, name: str) -> np.ndarray:
        """`[POSITIONS, K]`: what a neper at a partial adds to the code of "mid" or "side"."""
        lowest_hz = partials.LOWEST_SIDE_HZ if name == "side" else partials.LOWEST_MID_HZ
        response = respond_to_partials(lowest_hz, getattr(self._bands, name), self._grid)
        return np.float32(np.tile(response, self._grid.frames_per_step) @ getattr(self._components, name).encode_matrix)
