"""WaveGAN: raw audio from a latent vector by transposed convolutions, judged by strided ones.

*Source*: Donahue, McAuley, Puckette, "Adversarial Audio Synthesis", ICLR 2019 (arXiv:1802.04208), and the authors'
TensorFlow code, to its parameter counts, initial values, padding and phase shuffle for 16,384, 32,768 and 65,536 samples.

What differs, and why:

- other lengths: the same kernel (25) and strides (4), as many layers as leave at least 16 samples at the inner end, the
  output cropped to the clip and the discriminator's input padded to match. The paper doubles the channels with each
  layer; `max_channels` stops that, since at eight seconds of 44.1 kHz it would mean 289 million parameters.
- the post-filter keeps the audio's channel count (the authors' code always emits one).
- batch norm uses, for making sound, statistics measured over many latents with the very weights that make it, where
  the authors' code uses moving averages from training: averaged weights have statistics of their own.
- `dtype` bfloat16 is for the inner layers: what touches audio or logits is computed in the parameters' precision.
"""

from __future__ import annotations

import dataclasses
import math
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from technogen_jax.common.config_fields import check_condition, field
from technogen_jax.common.run_config import AudioConfig
from technogen_jax.models.convolutional_config import ConvolutionalConfig
from technogen_jax.models.gan import GAN, calibration, functional, uniform_latents
from technogen_jax.models.layers import DTYPES, BatchNorm, Conv, Dense, in_parts, leaky_relu, phase_shuffle, widths

KERNEL_TAPS = 25
POST_FILTER_TAPS = 512
SHUFFLED_LAYERS = 4  # the authors shift after the first four layers of five, and also of six
# Clip length -> (samples at the inner end, strides from there outwards).
PAPER_GEOMETRY = {
    16384: (16, (4, 4, 4, 4, 4)),
    32768: (16, (4, 4, 4, 4, 4, 2)),
    65536: (16, (4, 4, 4, 4, 4, 4)),
}
UPSAMPLE = ("transpose", "nearest")


@dataclasses.dataclass(frozen=True, kw_only=True)
class WaveGANConfig(ConvolutionalConfig):
    """The fields of WaveGAN. The defaults are the paper's."""

    upsample: str = field(
        "transpose",
        "How the generator raises the rate: transposed convolutions, or nearest-neighbor upsampling and a convolution.",
        choices=UPSAMPLE,
    )
    phase_shuffle: int = field(
        2,
        "Largest shift of the discriminator's phase shuffle. 0: none.",
        unit="samples",
        least=0,
        most=2**16,
    )
    post_filter: bool = field(False, "A learned filter of 512 taps after the generator.")


def geometry(clip_samples: int) -> tuple[int, tuple[int, ...]]:
    """(samples at the inner end, strides outwards): the paper's where it has the length, else all strides 4.

    The product of all is the length the generator makes: at least `clip_samples`, and cropped to it.
    """
    if clip_samples in PAPER_GEOMETRY:
        return PAPER_GEOMETRY[clip_samples]
    layers = max(2, int(math.log(clip_samples / 16, 4) + 1e-9))
    return -(-clip_samples // 4**layers), (4,) * layers


class Generator(nnx.Module):
    """z `[B, Z]` to audio `[B, T, C]`, in [-1, 1] unless a post-filter follows. The arguments are `build`'s."""

    def __init__(
        self,
        clip_samples,
        audio_channels,
        latent_size,
        channels,
        max_channels,
        upsample,
        batch_norm,
        post_filter,
        form,
        dtype,
        *,
        rngs,
    ):
        self.seed_samples, self.strides = geometry(clip_samples)
        self.clip_samples = clip_samples
        sizes = [*widths(len(self.strides), channels, max_channels), audio_channels]
        self.z_project = Dense(latent_size, self.seed_samples * sizes[0], rngs=rngs)
        if batch_norm:
            self.norm_z = BatchNorm(sizes[0])
        for i, stride in enumerate(self.strides):
            how = dict(direction=upsample, form=form, dtype=dtype if i < len(self.strides) - 1 else None)
            setattr(self, f"upconv_{i}", Conv(sizes[i], sizes[i + 1], (KERNEL_TAPS,), stride, **how, rngs=rngs))
            if batch_norm and i < len(self.strides) - 1:
                setattr(self, f"norm_{i}", BatchNorm(sizes[i + 1]))
        if post_filter:
            self.post_filter = Conv(audio_channels, audio_channels, (POST_FILTER_TAPS,), bias=False, rngs=rngs)
        self.batch_norm, self.has_post_filter, self.inner_channels = batch_norm, post_filter, sizes[0]

    def __call__(self, z):
        """The audio for each latent."""

        def norm(name, x):
            return getattr(self, name)(x) if self.batch_norm else x

        x = self.z_project(z).reshape(len(z), self.seed_samples, self.inner_channels)  # [B, Z] -> [B, 16, C0]
        x = jax.nn.relu(norm("norm_z", x))
        last = len(self.strides) - 1
        for i in range(last):
            x = jax.nn.relu(norm(f"norm_{i}", getattr(self, f"upconv_{i}")(x)))  # [B, T, C] -> [B, 4 T, C/2]
        x = jnp.tanh(getattr(self, f"upconv_{last}")(x))
        start = (x.shape[1] - self.clip_samples) // 2
        x = x[:, start : start + self.clip_samples]
        return self.post_filter(x) if self.has_post_filter else x


class Discriminator(nnx.Module):
    """Audio `[B, T, C]` to logits `[B, 1]`. The arguments are `build`'s."""

    def __init__(
        self, clip_samples, audio_channels, channels, max_channels, batch_norm, shuffle_radius, form, dtype, *, rngs
    ):
        seed_samples, outwards = geometry(clip_samples)
        # The generator's strides outwards serve inwards as they are: in the paper too the odd stride 2 comes last.
        self.strides, self.radius, self.batch_norm = outwards, shuffle_radius, batch_norm
        self.shuffled_layers = min(SHUFFLED_LAYERS, len(outwards) - 1)  # never the last
        self.padding = seed_samples * math.prod(outwards) - clip_samples
        sizes = [audio_channels, *reversed(widths(len(outwards), channels, max_channels))]
        for i, stride in enumerate(self.strides):
            how = dict(form=form, dtype=dtype if i > 0 else None)
            setattr(self, f"downconv_{i}", Conv(sizes[i], sizes[i + 1], (KERNEL_TAPS,), stride, **how, rngs=rngs))
            if batch_norm and i > 0:
                setattr(self, f"norm_{i}", BatchNorm(sizes[i + 1]))
        self.output = Dense(seed_samples * sizes[-1], 1, rngs=rngs)

    def __call__(self, x, key):
        """One logit a clip; `key` draws the phase shuffles."""
        if self.padding:
            before = self.padding // 2
            x = jnp.pad(x, ((0, 0), (before, self.padding - before), (0, 0)))
        for i in range(len(self.strides)):
            x = getattr(self, f"downconv_{i}")(x)  # [B, T, C] -> [B, T/4, 2 C]
            if self.batch_norm and i > 0:
                x = getattr(self, f"norm_{i}")(x)
            x = leaky_relu(x)
            if i < self.shuffled_layers:
                x = phase_shuffle(x, jax.random.fold_in(key, i), self.radius)
        return self.output(x.reshape(len(x), -1))  # [B, 16, C] -> [B, 1]


def build(config: WaveGANConfig, audio: AudioConfig, statistics: None = None) -> GAN:
    """Returns a WaveGAN; x is the audio itself.

    Args:
        config: its fields.
        audio: of the clips; at least 256 samples.
        statistics: not used.

    Raises:
        FieldError: a clip that is too short.
    """
    # Shorter than that there would be fewer than two layers with 16 samples at the inner end.
    least = "a whole number of at least 256"
    check_condition(audio.clip_samples >= 256, "audio.clip_samples", least, audio.clip_samples)

    shared = dict(
        clip_samples=audio.clip_samples,
        audio_channels=audio.channels,
        channels=config.channels,
        max_channels=config.max_channels,
        batch_norm=config.batch_norm,
        form=config.form,
        dtype=DTYPES[config.dtype],
    )
    generator = functional(
        partial(
            Generator,
            latent_size=config.latent_size,
            upsample=config.upsample,
            post_filter=config.post_filter,
            **shared,
        )
    )
    discriminator = functional(partial(Discriminator, shuffle_radius=config.phase_shuffle, **shared))

    sample_latents = uniform_latents(config.latent_size)
    return GAN(
        sample_latents=sample_latents,
        init_g=generator.init,
        init_d=discriminator.init,
        generate=lambda g_params, z: in_parts(lambda z: generator.apply(g_params, z), z, config.remat),
        discriminate=lambda d_params, x, key: (
            in_parts(lambda x: discriminator.apply(d_params, x, key), x, config.remat),
        ),
        encode=lambda audio: audio,
        decode=lambda x: x,
        calibrate=calibration(generator, sample_latents) if config.batch_norm else lambda g_params, key: g_params,
    )
