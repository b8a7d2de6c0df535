"""WaveGAN: transposed convolutions generate audio, and strided convolutions classify it.

Reference: Donahue, McAuley, Puckette, "Adversarial Audio Synthesis", ICLR 2019 (arXiv:1802.04208),
and the authors' TensorFlow code. Parameter counts, initial values, padding and phase shuffle are
theirs for clips of 16,384, 32,768 and 65,536 samples.

Differences from the reference, and their reasons:

- Clips of other lengths have the same kernel (25 taps) and strides (4), and as many layers as leave
  at least 16 samples at the inner end. The generator's output is cropped to the clip; the
  discriminator's input is padded to match. The paper doubles the channels with each layer;
  `max_channels` limits them, since a clip of eight seconds at 44.1 kHz would otherwise take 289
  million parameters.
- The post-filter keeps the number of audio channels. The authors' code always makes one channel.
- Batch norm, when it generates sound, uses statistics measured over many latents with the weights
  that generate. The authors' code uses moving averages from training, which do not fit averaged
  weights.
- Sound comes from a moving average of the generator's weights (`train.ema_decay`). The authors'
  comes from the last weights.
- The length of the kernels, 25, and of the post-filter, 512, cannot be changed.
- `dtype` bfloat16 applies to the inner layers; the layers next to audio and logits compute in the
  parameters' precision.
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
SHUFFLED_LAYERS = 4  # the authors shuffle after the first four layers, of five and also of six
SHORTEST_CLIP_SAMPLES = 256  # two layers of stride 4 that leave 16 samples at the inner end
# Clip length -> (samples at the inner end, strides from there outwards), as in the paper.
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
        "How the generator raises the sample rate: transposed convolutions, or nearest-neighbor upsampling and a convolution.",
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
    """Returns (samples at the inner end, strides from there outwards) for clips of a length.

    Their product is the length that the generator makes and then crops to `clip_samples`. For a
    length that the paper has, it is the paper's; for others all strides are 4.
    """
    if clip_samples in PAPER_GEOMETRY:
        return PAPER_GEOMETRY[clip_samples]
    layers = max(2, int(math.log(clip_samples / 16, 4) + 1e-9))
    return -(-clip_samples // 4**layers), (4,) * layers


class Generator(nnx.Module):
    """Maps latents `[B, Z]` to audio `[B, T, C]`, in [-1, 1] unless there is a post-filter."""

    def __init__(self, config: WaveGANConfig, audio: AudioConfig, *, rngs: nnx.Rngs):
        self.seed_samples, self.strides = geometry(audio.clip_samples)
        self.clip_samples = audio.clip_samples
        self.batch_norm, self.has_post_filter = config.batch_norm, config.post_filter
        sizes = [*widths(len(self.strides), config.channels, config.max_channels), audio.channels]
        self.inner_channels = sizes[0]
        self.z_project = Dense(config.latent_size, self.seed_samples * sizes[0], rngs=rngs)
        if self.batch_norm:
            self.norm_z = BatchNorm(sizes[0])
        last = len(self.strides) - 1
        for i, stride in enumerate(self.strides):
            options = dict(
                direction=config.upsample, form=config.form, dtype=DTYPES[config.dtype] if i < last else None, rngs=rngs
            )
            setattr(self, f"upconv_{i}", Conv(sizes[i], sizes[i + 1], (KERNEL_TAPS,), stride, **options))
            if self.batch_norm and i < last:
                setattr(self, f"norm_{i}", BatchNorm(sizes[i + 1]))
        if self.has_post_filter:
            self.post_filter = Conv(audio.channels, audio.channels, (POST_FILTER_TAPS,), bias=False, rngs=rngs)

    def __call__(self, z: jax.Array) -> jax.Array:
        """Returns the audio `[B, T, C]` of latents `[B, Z]`."""

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
    """Maps audio `[B, T, C]` to logits `[B, 1]`."""

    def __init__(self, config: WaveGANConfig, audio: AudioConfig, *, rngs: nnx.Rngs):
        # The generator's strides, outwards, are used here inwards without reversing them: in the
        # paper too the stride of 2 comes last in both networks.
        seed_samples, self.strides = geometry(audio.clip_samples)
        self.radius, self.batch_norm = config.phase_shuffle, config.batch_norm
        self.shuffled_layers = min(SHUFFLED_LAYERS, len(self.strides) - 1)  # never after the last layer
        self.padding = seed_samples * math.prod(self.strides) - audio.clip_samples
        sizes = [audio.channels, *reversed(widths(len(self.strides), config.channels, config.max_channels))]
        for i, stride in enumerate(self.strides):
            options = dict(form=config.form, dtype=DTYPES[config.dtype] if i > 0 else None, rngs=rngs)
            setattr(self, f"downconv_{i}", Conv(sizes[i], sizes[i + 1], (KERNEL_TAPS,), stride, **options))
            if self.batch_norm and i > 0:
                setattr(self, f"norm_{i}", BatchNorm(sizes[i + 1]))
        self.output = Dense(seed_samples * sizes[-1], 1, rngs=rngs)

    def __call__(self, x: jax.Array, key: jax.Array) -> jax.Array:
        """Returns one logit per clip, `[B, 1]`; `key` draws the phase shuffle."""
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
    """Returns a WaveGAN. Its x is the audio itself.

    Args:
        config: the fields of the model.
        audio: the rate, channels and length of the clips.
        statistics: not used; WaveGAN measures nothing of its dataset.

    Raises:
        FieldError: the clip is too short.
    """
    check_condition(
        audio.clip_samples >= SHORTEST_CLIP_SAMPLES,
        "audio.clip_samples",
        f"a whole number of at least {SHORTEST_CLIP_SAMPLES}",
        audio.clip_samples,
    )
    generator = functional(partial(Generator, config, audio))
    discriminator = functional(partial(Discriminator, config, audio))
    sample_latents = uniform_latents(config.latent_size)

    def generate(g_params, z):
        return in_parts(lambda z: generator.apply(g_params, z), z, config.remat)

    def discriminate(d_params, x, key):
        return (in_parts(lambda x: discriminator.apply(d_params, x, key), x, config.remat),)

    return GAN(
        sample_latents=sample_latents,
        init_g=generator.init,
        init_d=discriminator.init,
        generate=generate,
        discriminate=discriminate,
        encode=lambda audio: audio,
        decode=lambda x: x,
        calibrate=calibration(generator, sample_latents) if config.batch_norm else lambda g_params, key: g_params,
    )
