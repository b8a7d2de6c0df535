"""Principal components: the linear maps between the features of a part and its code."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from technogen_jax.models.technogan.codec.statistics import LEAST_DEVIATION, PartStatistics, weigh_changes


class PrincipalComponents:
    """Features of one part to its components, and back.

    A component is the projection on a column of the basis, in units of its standard deviation,
    times its scale.

    Args:
        statistics: the statistics of the part.
        frames: frames of a sixteenth, where the features are spectra.

    Attributes:
        mean: `[D]`, mean of the features.
        scale: `[K]`, standard deviation of each component over the dataset.
        lost: `[D]`, variance of the features that the components leave out.
    """

    def __init__(self, statistics: PartStatistics, frames: int):
        self.mean, self._basis, deviation, self.scale, self.lost = (
            values.astype(np.float32)
            for values in (
                statistics.mean,
                statistics.basis,
                statistics.deviation,
                statistics.scale,
                statistics.lost,
            )
        )
        self._deviation = np.maximum(deviation, LEAST_DEVIATION)
        self._within, self._frames = float(statistics.within), frames

    def encode(self, features: jax.Array) -> jax.Array:
        """`[..., D]` to `[..., K]`."""
        gain = self.scale / self._deviation
        return jnp.matmul(features - self.mean, self._weighted_basis(1), precision="highest") * gain

    def decode(self, components: jax.Array) -> jax.Array:
        """`[..., K]` to `[..., D]`."""
        return jnp.matmul(components, self.decode_matrix, precision="highest") + self.mean

    @functools.cached_property
    def encode_matrix(self) -> np.ndarray:
        """`[D, K]`: the derivative of the components by the features."""
        return self._weighted_basis(1) * (self.scale / self._deviation)

    @functools.cached_property
    def decode_matrix(self) -> np.ndarray:
        """`[K, D]`: the derivative of the features by the components."""
        return (self._deviation / self.scale)[:, None] * self._weighted_basis(-1).T

    @functools.cached_property
    def silence(self) -> np.ndarray:
        """`[K]`: the components of features of zero; zeros are those of the dataset's mean."""
        return -self.mean @ self.encode_matrix

    def _weighted_basis(self, power: int) -> np.ndarray:
        """`[D, K]`: the basis, changes within a sixteenth counting more (power 1) or less (-1)."""
        return weigh_changes(self._basis.T, self._frames, self._within**power).T


def make_step_kernel(function: Callable[[np.ndarray], np.ndarray], size: int, reach: int) -> np.ndarray:
    """The kernel with which `convolve_circular` does what a linear function does.

    Its shape is `[2 reach + 1, size, size_out]`.

    Args:
        function: `[B, S, size]` to `[B, S, size_out]`, linear, the same for all steps.
        size: the size of its input.
        reach: steps on either side that an output depends on.
    """
    taps = 2 * reach + 1
    impulses = np.zeros((size, taps, size))
    impulses[np.arange(size), reach, np.arange(size)] = 1
    return np.float32(function(impulses)[:, ::-1].swapaxes(0, 1))
