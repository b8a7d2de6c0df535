"""What both networks share: residual blocks, interpolation of bars, the scale of labels."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from technogen_jax.models.layers import CircularConv, Dense, leaky_relu
from technogen_jax.models.technogan.layout import STEPS_PER_BAR, STEPS_PER_BEAT

STEP_TAPS = 5  # of a convolution over sixteenths: two sixteenths to either side
BAR_TAPS = 3  # of a convolution over bars: one bar to either side
_BEATS_PER_BAR = STEPS_PER_BAR // STEPS_PER_BEAT


class ResidualBlock(nnx.Module):
    """Adds two circular convolutions to their input.

    With a style, the input of the convolutions is first multiplied by 1 + A(style), A being a dense
    layer. With `mean_beat`, a dense layer of the bar's mean beat is added between the convolutions:
    most of techno repeats from beat to beat, and four beats are further apart than the convolutions
    reach.

    The second convolution starts at zero, so that a new block returns its input. The names of the
    attributes are paths of weights in saved files.

    Args:
        channels: W, channels of input and output.
        taps: kernel length of the convolutions.
        has_style: whether the block is given a style.
        has_mean_beat: whether the block has a layer of the mean beat.
        rngs: source of the initial values.

    Reference: Huang et al. 2024 (arXiv:2501.05441), no normalization and a last layer that starts
    at zero; Karras et al. 2019 (arXiv:1812.04948), scaling by a style.
    """

    def __init__(self, channels: int, taps: int, *, has_style: bool, has_mean_beat: bool, rngs: nnx.Rngs):
        self.beats = Dense(channels, channels, rngs=rngs) if has_mean_beat else None
        self.style = Dense(channels, channels, rngs=rngs) if has_style else None
        self.conv_0 = CircularConv(channels, channels, taps, rngs=rngs)
        self.conv_1 = CircularConv(channels, channels, taps, zero=True, rngs=rngs)

    def __call__(self, x: jax.Array, style: jax.Array | None = None) -> jax.Array:
        """`[B, S, W]` to `[B, S, W]`; the style is `[B, N, W]`, of N bars."""
        if self.style is None:
            hidden = leaky_relu(x)
        else:
            hidden = leaky_relu(x * (1 + interpolate_bars(self.style(style), x.shape[1])))
        convolved = self.conv_0(hidden)
        if self.beats is not None:
            convolved = convolved + self._of_mean_beat(hidden)
        return x + self.conv_1(leaky_relu(convolved))

    def _of_mean_beat(self, x):
        """The dense layer of the mean beat of each bar, the same for all its beats, `[B, S, W]`."""
        beats = x.reshape(len(x), -1, _BEATS_PER_BAR, STEPS_PER_BEAT, x.shape[2])
        mean = self.beats(beats.mean(2))  # [B, N, 4, W]
        return jnp.tile(mean, (1, 1, _BEATS_PER_BAR, 1)).reshape(*x.shape[:2], -1)


def interpolate_bars(values: jax.Array, steps: int) -> jax.Array:
    """Interpolates values at the beginnings of bars linearly around the loop.

    Args:
        values: `[B, N, W]`, one vector for the beginning of each of N bars.
        steps: S, sixteenths of all bars.

    Returns:
        `[B, S, W]`; after the last bar comes the first again.
    """
    place = np.arange(steps // values.shape[1], dtype=np.float32)[:, None] * (values.shape[1] / steps)
    values, following = values[:, :, None], jnp.roll(values, -1, 1)[:, :, None]
    return (values + place * (following - values)).reshape(len(values), steps, -1)


def scale_labels(labels: jax.Array, size: int) -> jax.Array:
    """Scales label weights for a dense layer: as much weight as `size` standard normal inputs."""
    return labels * size**0.5
