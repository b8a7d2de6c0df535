"""TechnoGAN, first form: a GAN on sequences that lie on the beat grid, one vector for each sixteenth note.

A codec turns a clip of whole bars into such a sequence and back. The one here is linear, the baseline that a learned one
has to beat: principal components of the log-mel frames of a sixteenth, mid and side apart, and of its waveform below
the crossover, where the kick is. What is coded as a waveform keeps its phase: a kick comes back as it was. The phases of
the rest are found by the Griffin-Lim algorithm. Clips are loops: transforms, convolutions and decoded sound are circular.

The networks are residual, of one dimension, over the grid; where a clip has several bars, a plan of one vector a bar
comes first in the generator and last in the discriminator.

*Source*: Karras et al. 2019 (arXiv:1812.04948), learned start and style; Karras et al. 2018 (arXiv:1710.10196), section 3,
minibatch deviation; Huang et al. 2024 (arXiv:2501.05441), no normalisation, last layer of a residual branch starts at
zero; relativistic loss and penalties are in `losses`. Idea of a GAN on a compact code of music: Pasini, Schlüter 2022
(arXiv:2208.08706).
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from technogen_jax.models import codec
from technogen_jax.models.contract import GAN, check_field, check_whole, functional
from technogen_jax.models.layers import CircularConv, Dense, leaky_relu, minibatch_deviation

TAPS = 5  # of the convolutions: two sixteenths to either side
_GROUP = 4  # of the minibatch deviation, as in its paper


class Block(nnx.Module):
    """Two convolutions around the grid beside an identity; what goes in is scaled by the style, where there is one."""

    def __init__(self, channels, style, *, rngs):
        self.style = Dense(channels, channels, rngs=rngs) if style else None
        self.conv_0 = CircularConv(channels, channels, TAPS, rngs=rngs)
        self.conv_1 = CircularConv(channels, channels, TAPS, zero=True, rngs=rngs)

    def __call__(self, x, style=None):
        """`[B, S, channels]` to the same."""
        y = x if self.style is None else x * (1 + self.style(style)[:, None])
        return x + self.conv_1(leaky_relu(self.conv_0(leaky_relu(y))))


class Generator(nnx.Module):
    """z `[B, Z]` to sequences `[B, bars * 16, K]`. The arguments are `build`'s."""

    def __init__(self, bars, components, latent_size, channels, blocks, *, rngs):
        self.bars, self.blocks = bars, blocks
        self.map_0 = Dense(latent_size, channels, rngs=rngs)
        self.map_1 = Dense(channels, channels, rngs=rngs)
        self.start = nnx.Param(jax.random.normal(rngs.params(), (codec.STEPS, channels)))
        if bars > 1:
            self.plan_start = nnx.Param(jax.random.normal(rngs.params(), (bars, channels)))
            self.plan = Block(channels, True, rngs=rngs)
        for i in range(blocks):
            setattr(self, f"block_{i}", Block(channels, True, rngs=rngs))
        self.output_style = Dense(channels, channels, rngs=rngs)
        self.output = Dense(channels, components, rngs=rngs)

    def __call__(self, z):
        """The sequence for each latent."""
        style = leaky_relu(self.map_1(leaky_relu(self.map_0(z))))
        x = jnp.broadcast_to(
            jnp.tile(self.start[...], (self.bars, 1)), (len(z), codec.STEPS * self.bars, style.shape[1])
        )
        if self.bars > 1:
            plan = jnp.broadcast_to(self.plan_start[...], (len(z), *self.plan_start.shape))
            x = x + jnp.repeat(self.plan(plan, style), codec.STEPS, axis=1)  # [B, bars, W] -> [B, bars * 16, W]
        for i in range(self.blocks):
            x = getattr(self, f"block_{i}")(x, style)
        return self.output(leaky_relu(x * (1 + self.output_style(style)[:, None])))


class Discriminator(nnx.Module):
    """Sequences `[B, bars * 16, K]` to logits `[B, 1]`. The arguments are `build`'s."""

    def __init__(self, bars, components, channels, blocks, *, rngs):
        self.bars, self.blocks = bars, blocks
        self.input = Dense(components, channels, rngs=rngs)
        for i in range(blocks):
            setattr(self, f"block_{i}", Block(channels, False, rngs=rngs))
        self.bar = Dense(codec.STEPS * (channels + 1), channels, rngs=rngs)
        if bars > 1:
            self.plan = Block(channels, False, rngs=rngs)
        self.output = Dense(bars * channels, 1, rngs=rngs)

    def __call__(self, x):
        """One logit a sequence."""
        x = self.input(x)
        for i in range(self.blocks):
            x = getattr(self, f"block_{i}")(x)
        x = minibatch_deviation(leaky_relu(x), _GROUP)
        x = self.bar(x.reshape(len(x), self.bars, -1))  # [B, bars * 16, W + 1] -> [B, bars, W]
        if self.bars > 1:
            x = self.plan(x)
        return self.output(leaky_relu(x).reshape(len(x), -1))


def build(
    *,
    clip_samples: int,
    audio_channels: int,
    sample_rate_hz: int,
    bars: int = 1,
    latent_size: int = 128,
    channels: int = 128,
    blocks: int = 5,
    frames_per_step: int = 8,
    n_mels: int = 96,
    mid_components: int = 40,
    side_components: int = 8,
    low_components: int = 24,
    iterations: int = 4,
    statistics: dict[str, np.ndarray] | None = None,
) -> GAN:
    """TechnoGAN; `x` is `[B, bars * 16, K]`, each of the K numbers of unit deviation over the training set.

    Args:
        clip_samples: length of a clip, which is whole bars.
        audio_channels: 1 or 2.
        sample_rate_hz: rate of the audio.
        bars: in a clip, 1 to 8, of four beats.
        latent_size: Z; latents are Gaussian.
        channels: width of both networks.
        blocks: residual blocks of each, besides those of the plan.
        frames_per_step: spectra a sixteenth note; a frame is as long as two of them.
        n_mels: mel bands, from the crossover to half the rate.
        mid_components: of the mid signal's spectra; for mono, of the signal's.
        side_components: of the side signal's; nothing below the crossover, where sound is mono.
        low_components: of the mid signal's waveform below the crossover.
        iterations: of the Griffin-Lim algorithm, when sound is made.
        statistics: what `measure` says of the training set; without it `encode` and `decode` raise.

    Raises:
        ValueError: a field of the wrong type or out of its range; names it and its value.
    """
    check_field("audio.channels", audio_channels, audio_channels in (1, 2) and audio_channels is not True, "1 or 2")
    check_whole("model.bars", bars, 1)
    check_field("model.bars", bars, bars <= 8, "1 to 8")
    sizes = dict(latent_size=latent_size, channels=channels, blocks=blocks, n_mels=n_mels)
    parts = dict(mid=mid_components, low=low_components) | (dict(side=side_components) if audio_channels == 2 else {})
    for field, value in (sizes | {f"{part}_components": value for part, value in parts.items()}).items():
        check_whole(f"model.{field}", value, 1)
    check_whole("model.frames_per_step", frames_per_step, 2)
    check_whole("model.iterations", iterations, 0)
    step_s = clip_samples / sample_rate_hz / (codec.STEPS * bars)
    check_field(
        "audio.clip_samples",
        clip_samples,
        0.05 <= step_s <= 0.25,  # 60 to 300 beats a minute
        f"{bars} bars (config.model.bars) of 0.8 to 4 seconds; what data_prep.prepare --grid bars says",
    )
    grid = codec.grid_of(clip_samples, sample_rate_hz, bars, frames_per_step)
    lengths = dict(mid=frames_per_step * n_mels, side=frames_per_step * n_mels, low=grid.low_samples)
    for part, value in parts.items():
        check_field(f"model.{part}_components", value, value <= lengths[part], f"at most {lengths[part]}")
    order = [part for part in ("mid", "side", "low") if part in parts]
    for part in order if statistics else ():
        wanted, found = (lengths[part], parts[part]), statistics.get(f"{part}_basis", np.zeros(0)).shape
        if found != wanted:
            raise ValueError(f"technogan: expected statistics with a {part}_basis of {wanted}, got {found}")

    coder = codec.pca_codec(
        clip_samples, sample_rate_hz, grid, n_mels, {part: parts[part] for part in order}, iterations, statistics
    )
    shared = dict(bars=bars, components=coder.components, channels=channels, blocks=blocks)
    generator = functional(partial(Generator, latent_size=latent_size, **shared))
    discriminator = functional(partial(Discriminator, **shared))
    return GAN(
        sample_latents=lambda key, n: jax.random.normal(key, (n, latent_size)),
        init_g=generator.init,
        init_d=discriminator.init,
        generate=generator.apply,
        discriminate=lambda d_params, x, key: (discriminator.apply(d_params, x),),
        encode=coder.encode,
        decode=coder.decode,
        calibrate=lambda g_params, key: g_params,
    )
