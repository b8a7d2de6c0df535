"""The backbone of the generator: latents of bars to output values of sixteenths and of bars.

    style, anchor, labels of a bar -> two dense layers -> style vector of the bar
    learned start + noise + plan of the bars -> residual blocks, scaled by the style vectors
        -> dense layer: the output values of each sixteenth
    style vector -> dense layer: the output values of each bar

`heads` turns the output values into the code. The backbone is a convolution around the loop: its
output for a bar depends on a few bars around it, and the same weights generate any number of bars.

Reference: Karras et al. 2019 (arXiv:1812.04948), learned start, style and noise; Pasini, Schlueter
2022 (arXiv:2208.08706), a style for the whole and interpolated anchors for its sections.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from technogen_jax.models.layers import Dense, leaky_relu
from technogen_jax.models.technogan.blocks import (
    BAR_TAPS,
    STEP_TAPS,
    ResidualBlock,
    interpolate_bars,
    scale_labels,
)
from technogen_jax.models.technogan.config import TechnoGANConfig
from technogen_jax.models.technogan.layout import STEPS_PER_BAR


@dataclasses.dataclass(frozen=True)
class LatentLayout:
    """How the latents of a clip lie in z: `[style | anchor of each bar | label weights]`.

    Attributes:
        bars: bars of a clip.
        style_size: components of the style, which all bars share.
        anchor_size: components of a bar's anchor without its noise.
        noise_size: noise components of each sixteenth; those of a bar end its anchor.
        labels: L, label weights, which sum to 1; 0 for a model without labels.
    """

    bars: int
    style_size: int
    anchor_size: int
    noise_size: int
    labels: int

    @classmethod
    def plan(cls, config: TechnoGANConfig, noise_size: int) -> LatentLayout:
        """The layout that a config describes."""
        return cls(config.bars, config.latent_size, config.anchor_size, noise_size, len(config.classes))

    @property
    def whole_anchor_size(self) -> int:
        """The components of a bar's anchor with its noise."""
        return self.anchor_size + STEPS_PER_BAR * self.noise_size

    def sample(self, key: jax.Array, n: int) -> jax.Array:
        """Draws z `[n, Z]`: standard normal components, and one label of weight 1."""
        gaussian_key, label_key = jax.random.split(key)
        gaussian = jax.random.normal(gaussian_key, (n, self.style_size + self.bars * self.whole_anchor_size))
        if not self.labels:
            return gaussian
        drawn = jax.random.randint(label_key, (n,), 0, self.labels)
        return jnp.concatenate([gaussian, jax.nn.one_hot(drawn, self.labels)], -1)

    def split_by_bar(self, z: jax.Array) -> jax.Array:
        """Latents of bars `[B, bars, style + anchor + labels]` of z `[B, Z]`.

        Each bar has the style and the labels of its clip.
        """
        style, anchors, weights = jnp.split(z, [self.style_size, z.shape[1] - self.labels], -1)
        style, weights = (
            jnp.broadcast_to(part[:, None], (len(z), self.bars, part.shape[1])) for part in (style, weights)
        )
        anchors = anchors.reshape(len(z), self.bars, self.whole_anchor_size)
        return jnp.concatenate([style, anchors, weights], -1)

    def label_weights(self, latents: jax.Array) -> jax.Array:
        """The label weights `[B, N, L]` of latents of bars."""
        return latents[..., latents.shape[2] - self.labels :]


class Generator(nnx.Module):
    """Turns latents of bars into output values of sixteenths and of bars.

    The names of the attributes are paths of weights in saved files.

    Args:
        config: bars, latent_size, anchor_size, classes, channels and blocks are used.
        step_size: output values of a sixteenth.
        bar_size: output values of a bar.
        noise_size: noise components of a sixteenth.
        rngs: source of the initial values.
    """

    def __init__(self, config: TechnoGANConfig, step_size: int, bar_size: int, noise_size: int, *, rngs: nnx.Rngs):
        channels, self.labels = config.channels, len(config.classes)
        self.bars, self.blocks, self.noise_size = config.bars, config.blocks, noise_size
        self.map_0 = Dense(config.latent_size + config.anchor_size + self.labels, channels, rngs=rngs)
        self.map_1 = Dense(channels, channels, rngs=rngs)
        self.start = nnx.Param(jax.random.normal(rngs.params(), (STEPS_PER_BAR, channels)))
        self.noise = Dense(noise_size, channels, rngs=rngs)
        if self.bars > 1:
            self.plan_start = nnx.Param(jax.random.normal(rngs.params(), (self.bars, channels)))
            self.plan = ResidualBlock(channels, BAR_TAPS, has_style=True, has_mean_beat=False, rngs=rngs)
        for i in range(self.blocks):
            block = ResidualBlock(channels, STEP_TAPS, has_style=True, has_mean_beat=True, rngs=rngs)
            setattr(self, f"block_{i}", block)
        self.output_style = Dense(channels, channels, rngs=rngs)
        self.output = Dense(channels, step_size, rngs=rngs)
        self.palette = Dense(channels, bar_size, rngs=rngs)

    def __call__(self, latents: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Computes the output values.

        Args:
            latents: `[B, N, style + anchor + labels]`, N a multiple of `config.bars`; an anchor
                ends with its noise, `[16, noise_size]` row by row.

        Returns:
            The output values of sixteenths `[B, S, step_size]`, S = 16 N, those of bars
            `[B, N, bar_size]`, and the noise `[B, S, noise_size]`.
        """
        count, end = latents.shape[1], latents.shape[2] - self.labels
        gaussian, noise, labels = jnp.split(latents, [end - STEPS_PER_BAR * self.noise_size, end], -1)
        style = jnp.concatenate([gaussian, scale_labels(labels, gaussian.shape[2])], -1)
        style = leaky_relu(self.map_1(leaky_relu(self.map_0(style))))  # [B, N, W]
        noise = noise.reshape(len(latents), STEPS_PER_BAR * count, self.noise_size)
        x = jnp.tile(self.start[...], (count, 1)) + self.noise(noise)  # [B, S, W]
        if self.bars > 1:
            plan = jnp.broadcast_to(jnp.tile(self.plan_start[...], (count // self.bars, 1)), style.shape)
            x = x + jnp.repeat(self.plan(plan, style), STEPS_PER_BAR, axis=1)
        for i in range(self.blocks):
            x = getattr(self, f"block_{i}")(x, style)
        x = self.output(leaky_relu(x * (1 + interpolate_bars(self.output_style(style), x.shape[1]))))
        return x, self.palette(style), noise


def count_reach_bars(config: TechnoGANConfig) -> int:
    """The number of bars on either side on which the generated code of a bar depends."""
    # Two convolutions of a block reach four sixteenths, one beat, into the next bar. The mean beat
    # copies that to all beats of this bar, the last one too, which is next to the bar after it. So
    # three blocks reach two bars. The style of a bar is interpolated from that of the bar before,
    # and a kick or a percussion hit of the bar before can still sound: one bar more.
    plan_reach = 2 * (BAR_TAPS // 2) if config.bars > 1 else 0
    return -(-2 * config.blocks // 3) + max(plan_reach, 1) + 1
