"""The shaper: a small network that gives the gates of all excitations and the swells of noise.

A gate is how much of an excitation a band has; swells are the loudness of noise within a frame.

It is trained by an energy distance between spectra (`shaper_training`), without a discriminator. A
new shaper changes nothing: the sound is noise with the levels of the code.

Reference: noise and harmonics shaped by a network: Engel et al. 2020 (arXiv:2001.04643), DDSP.
"""

from __future__ import annotations

import pathlib
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from technogen_jax.common import array_files
from technogen_jax.models.gan import Functional, functional
from technogen_jax.models.layers import CircularConv, Dense

PREFIX = "shaper/"  # begins the names of the parameters among the arrays of statistics.npz
# The grid of the shipped shaper. Its bands reach from the crossover to half the sample rate, which
# must be high enough.
FRAMES_PER_STEP, N_MELS, LEAST_RATE_HZ = 8, 96, 32000
LOW_SAMPLES = 8  # samples of the low waveform that the network sees in each frame
SWELLS = 8  # values of a frame for the loudness of noise in time
_WIDTH, _BLOCKS, _TAPS = 128, 3, 3  # channels, residual blocks, taps. Chosen: 0.55 M parameters


class MidGates(NamedTuple):
    """The factors of the mid's excitations, `[B, N, M]` each; `noise` is a logarithm.

    Attributes:
        noise: white noise.
        square: the low waveform, distorted to nearly a square.
        rectified: the low waveform, rectified.
        pulse: a pulse at each rise of the low waveform through zero.
        pitch: a pulse train at the pitch.
        partials: sines at the sustained partials.
    """

    noise: jax.Array
    square: jax.Array
    rectified: jax.Array
    pulse: jax.Array
    pitch: jax.Array
    partials: jax.Array


class SideGates(NamedTuple):
    """The factors of the side's excitations, `[B, N, M]` each; `noise` is a logarithm.

    Attributes:
        noise: white noise of its own.
        square: the mid's square.
        delayed: the mid's noise, delayed.
        pitch: the mid's pulse train, delayed.
        partials: sines at the side's sustained partials.
    """

    noise: jax.Array
    square: jax.Array
    delayed: jax.Array
    pitch: jax.Array
    partials: jax.Array


class Gates(NamedTuple):
    """The gates of mid and side."""

    mid: MidGates
    side: SideGates


_GATES = len(MidGates._fields) + len(SideGates._fields)


class Shaper(nnx.Module):
    """Levels, low waveform, pitch and partials of a loop to gates and swells.

    Args:
        n_mels: M, bands of a spectrum.
        rngs: source of the initial values.
    """

    def __init__(self, n_mels: int, *, rngs: nnx.Rngs):
        self.n_mels = n_mels
        self.input = Dense(4 * n_mels + LOW_SAMPLES + 2, _WIDTH, rngs=rngs)
        for i in range(_BLOCKS):
            setattr(self, f"conv_{i}", CircularConv(_WIDTH, 2 * _WIDTH, _TAPS, rngs=rngs))
            setattr(self, f"dense_{i}", Dense(2 * _WIDTH, _WIDTH, rngs=rngs))
        self.gates = CircularConv(_WIDTH, _GATES * n_mels, 1, zero=True, rngs=rngs)
        self.swells = CircularConv(_WIDTH, 2 * SWELLS, 1, zero=True, rngs=rngs)

    def __call__(self, levels: jax.Array, low: jax.Array, tonal: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Runs the network.

        Args:
            levels: `[B, 2, N, M]` of mid and side, natural logarithms.
            low: the low waveform, `[B, N * LOW_SAMPLES]`.
            tonal: two values of the pitch and the partials in each band of mid and side, `[B, N, 2
                + 2 M]`.

        Returns:
            (gates `[B, 11, N, M]` in the order of `Gates`, swells `[B, 2, N * SWELLS]`, of low and
            of high frequencies).
        """
        count = levels.shape[2]
        # To about unit deviation:
        frames = jnp.moveaxis((levels + 5) / 2, 1, 2).reshape(len(levels), count, -1)
        x = self.input(jnp.concatenate([frames, 4 * low.reshape(len(low), count, -1), tonal], -1))
        for i in range(_BLOCKS):
            y = getattr(self, f"conv_{i}")(_normalize_power(x))
            x = x + getattr(self, f"dense_{i}")(jax.nn.gelu(y))
        x = _normalize_power(x)
        gates = jnp.moveaxis(self.gates(x).reshape(len(x), count, -1, self.n_mels), 1, 2)
        swells = jnp.moveaxis(self.swells(x).reshape(len(x), count, 2, SWELLS), 1, 2)
        return gates, swells.reshape(len(x), 2, -1)


def make_shaper(n_mels: int) -> Functional:
    """The shaper for spectra of M bands, as pure functions."""
    return functional(partial(Shaper, n_mels))


def apply(params: dict[str, Any], levels: jax.Array, low: jax.Array, tonal: jax.Array) -> tuple[Gates, jax.Array]:
    """The gates and swells of a shaper with these parameters; see `Shaper.__call__`."""
    gates, swells = make_shaper(levels.shape[-1]).apply(params, levels, low, tonal)
    gates = jnp.moveaxis(gates, 1, 0)  # [11, B, N, M]
    count = len(MidGates._fields)
    return Gates(MidGates(*gates[:count]), SideGates(*gates[count:])), swells


def read(name: str, sample_rate_hz: int, frames_per_step: int, n_mels: int) -> dict[str, Any] | None:
    """The parameters of a trained shaper.

    Args:
        name: "shipped", the one that comes with the package, or a file; None is returned for "none"
            and for "new".
        sample_rate_hz: the sample rate of the audio.
        frames_per_step: the number of frames per step of the grid.
        n_mels: bands of a spectrum.

    Raises:
        ValueError: the shaper is for another grid, or the file has none.
    """
    if name in ("none", "new"):
        return None
    if frames_per_step != FRAMES_PER_STEP or n_mels != N_MELS or sample_rate_hz < LEAST_RATE_HZ:
        raise ValueError(
            f"config.model.shaper: expected {FRAMES_PER_STEP} frames_per_step, {N_MELS} n_mels and a sample rate of "
            f"{LEAST_RATE_HZ} Hz or more, got {frames_per_step}, {n_mels} and {sample_rate_hz}; set it to none, or to new "
            "with config.model.shaping_steps"
        )
    path = pathlib.Path(__file__).parents[3] / "pretrained" / "shaper.npz" if name == "shipped" else name
    try:
        params = from_arrays(array_files.read(path))
    except FileNotFoundError:
        raise ValueError(f"config.model.shaper: expected shipped, none, new or a file, got {name!r}") from None
    wanted = jax.eval_shape(make_shaper(n_mels).init, jax.random.key(0))
    if jax.tree.map(np.shape, params) != jax.tree.map(lambda leaf: leaf.shape, wanted):
        raise ValueError(
            f"{path}: expected a shaper, as in the statistics.npz of a run with config.model.shaping_steps"
        )
    return params


def from_arrays(arrays: dict[str, np.ndarray]) -> dict[str, Any] | None:
    """The shaper's parameters among named arrays, a nested dict; None if there are none."""
    params = {}
    for name, value in arrays.items():
        if name.startswith(PREFIX):
            layer, kind = name.removeprefix(PREFIX).split("/")
            params.setdefault(layer, {})[kind] = value
    return params or None


def to_arrays(params: dict[str, Any]) -> dict[str, np.ndarray]:
    """The parameters as named arrays: the reverse of `from_arrays`."""
    return {f"{PREFIX}{layer}/{kind}": value for layer, kinds in params.items() for kind, value in kinds.items()}


def _normalize_power(x: jax.Array) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6)
