"""The discriminator: the code of a clip, and features of it, to one logit.

    code, its change since a beat before, critic features, labels -> dense layer
        -> residual blocks over sixteenths -> minibatch deviation -> dense layer of each bar
        -> residual block over bars -> dense layer: the logit

`critic_features` says what the features are and why the code alone is not enough. The losses are in
`training.losses`: relativistic, with gradient penalties.

Reference: Karras et al. 2018 (arXiv:1710.10196), section 3, minibatch deviation; Miyato, Koyama
2018 (arXiv:1802.05637), labels by projection; Huang et al. 2024 (arXiv:2501.05441), no
normalization.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from technogen_jax.models.layers import Dense, leaky_relu, minibatch_deviation
from technogen_jax.models.technogan.blocks import BAR_TAPS, STEP_TAPS, ResidualBlock, scale_labels
from technogen_jax.models.technogan.config import TechnoGANConfig
from technogen_jax.models.technogan.layout import STEPS_PER_BAR, STEPS_PER_BEAT

_GROUP_SIZE = 4  # clips whose deviation is compared; from Karras et al. 2018


class Discriminator(nnx.Module):
    """Turns the codes of clips into logits: positive for real clips.

    The names of the attributes are paths of weights in saved files.

    Args:
        config: bars, classes, critic_channels and critic_blocks are used.
        code_size: components of the code that the discriminator sees.
        feature_size: critic features of a sixteenth.
        rngs: source of the initial values.
    """

    def __init__(self, config: TechnoGANConfig, code_size: int, feature_size: int, *, rngs: nnx.Rngs):
        channels, self.labels = config.critic_channels, len(config.classes)
        self.bars, self.blocks = config.bars, config.critic_blocks
        self.input = Dense(2 * code_size + feature_size + self.labels, channels, rngs=rngs)
        for i in range(self.blocks):
            block = ResidualBlock(channels, STEP_TAPS, has_style=False, has_mean_beat=True, rngs=rngs)
            setattr(self, f"block_{i}", block)
        self.bar = Dense(STEPS_PER_BAR * (channels + 1), channels, rngs=rngs)
        if self.bars > 1:
            self.plan = ResidualBlock(channels, BAR_TAPS, has_style=False, has_mean_beat=False, rngs=rngs)
        self.output = Dense(self.bars * channels, 1, rngs=rngs)
        if self.labels:
            self.label = Dense(self.labels, channels, rngs=rngs)

    def __call__(self, x: jax.Array, features: jax.Array) -> jax.Array:
        """Computes one logit for each clip, `[B, 1]`.

        Args:
            x: `[B, bars * 16, code_size + labels]`: the code, then the label weights.
            features: `[B, bars * 16, feature_size]`.
        """
        code, labels = jnp.split(x, [x.shape[2] - self.labels], -1)
        labels = jax.lax.stop_gradient(labels)  # gradient penalties are of the code alone
        change = code - jnp.roll(code, STEPS_PER_BEAT, 1)  # zero where a beat repeats
        x = self.input(jnp.concatenate([code, change, features, scale_labels(labels, 2 * code.shape[2])], -1))
        for i in range(self.blocks):
            x = getattr(self, f"block_{i}")(x)
        x = minibatch_deviation(leaky_relu(x), _GROUP_SIZE)
        x = self.bar(x.reshape(len(x), self.bars, -1))  # [B, bars * 16, W + 1] -> [B, bars, W]
        if self.bars > 1:
            x = self.plan(x)
        x = leaky_relu(x)
        logits = self.output(x.reshape(len(x), -1))
        if self.labels:
            # How well the bars fit the label: a product, so that the discriminator cannot ignore
            # the label.
            logits = logits + jnp.sum(self.label(labels[:, 0]) * jnp.mean(x, 1), -1, keepdims=True)
        return logits
