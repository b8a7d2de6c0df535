"""SpecGAN: spectrograms as images, generated and classified by networks like WaveGAN's.

Reference: Donahue, McAuley, Puckette, "Adversarial Audio Synthesis", ICLR 2019 (arXiv:1802.04208),
section 4, and the authors' TensorFlow code. Parameter counts, initial values, padding, and the
transform of 16,384 samples into 128 frames of 128 bins are theirs: a bin is log(|X| + 1e-6) of an
STFT with frames of 256 samples every 128, less its mean over the training dataset, divided by three
of its standard deviations, clipped to [-1, 1]. The topmost bin is left out; it is set to its mean
when sound is made.

Differences from the reference, and their reasons:

- The inverse STFT divides by the sum of the squared windows. The authors' code does not, so that
  the level of their sound swings by 6 dB 125 times a second.
- Magnitudes are decoded as exp(x) - 1e-6, the exact inverse. The authors' code leaves the 1e-6 in.
- A bin that is the same in all frames (a silent band) stays at its mean; dividing by its deviation
  of zero would fail.
- Images of other sizes have as many layers of stride 2 as bring the bins down to 4; frames are
  padded and cropped to match; `max_channels` limits the doubling of the channels. Mel bands instead
  of bins and the fast Griffin-Lim algorithm are options. Stereo is an image of two channels, whose
  phases are found separately.
- Batch norm, when it generates sound, uses statistics of many latents, as in `wavegan`. Sound comes
  from averaged weights, as there.
- There is no `upsample`: the authors' code can also generate by nearest-neighbor upsampling. The
  length of the kernels, 5, cannot be changed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from technogen_jax.audio import spectral
from technogen_jax.common.config_fields import FieldError, check_condition, field
from technogen_jax.common.run_config import AudioConfig
from technogen_jax.models.convolutional_config import ConvolutionalConfig
from technogen_jax.models.gan import GAN, calibration, functional, uniform_latents
from technogen_jax.models.layers import DTYPES, BatchNorm, Conv, Dense, in_parts, leaky_relu, widths

KERNEL_TAPS = (5, 5)
INNER_BINS = 4
CLIP_DEVIATIONS = 3.0  # images are clipped at this many deviations from the mean, as in the paper
_EPSILON = 1e-6  # keeps the logarithm finite; the authors'
# 0.01 dB. A bin that changes less counts as constant: a smaller divisor would amplify rounding.
_LEAST_STD = 1e-3


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpecGANConfig(ConvolutionalConfig):
    """The fields of SpecGAN. The defaults are the paper's, for clips of 16,384 samples."""

    n_fft: int = field(
        256,
        "Length of a frame of the spectrogram; a power of two if n_mels is None.",
        unit="samples",
        least=32,
        most=2**16,
    )
    hop_length: int = field(
        128,
        "Distance between frames: n_fft divided by a whole number of at least 2.",
        unit="samples",
        least=1,
        most=2**16,
    )
    n_mels: int | None = field(
        None,
        "Mel bands, a power of two. None: no mel bands, but the n_fft // 2 bins below half the sample rate.",
        unit="bands",
        least=16,
        most=2**16,
    )
    iterations: int = field(
        16,
        "Iterations of the Griffin-Lim algorithm, which finds the phases when sound is made.",
        least=0,
        most=1000,
        changeable=True,
    )
    momentum: float = field(
        0.0,
        "Momentum of the fast Griffin-Lim algorithm (0.99 in its paper). 0: the original algorithm.",
        least=0,
        most=1,
        changeable=True,
    )

    def __post_init__(self):
        """Checks the fields, and those that depend on each other."""
        super().__post_init__()
        if self.n_mels is None:
            power = "32, 64, 128 ..., a power of two, while config.model.n_mels is None"
            check_condition(_is_power_of_two(self.n_fft), "model.n_fft", power, self.n_fft)
        else:
            power = "None, or 16, 32, 64 ..., a power of two"
            check_condition(_is_power_of_two(self.n_mels), "model.n_mels", power, self.n_mels)
        fits = self.n_fft % self.hop_length == 0 and self.hop_length <= self.n_fft // 2
        divisor = f"n_fft ({self.n_fft}) divided by a whole number of at least 2"
        check_condition(fits, "model.hop_length", divisor, self.hop_length)

    @property
    def bins(self) -> int:
        """F, the height of an image: mel bands, or bins without the topmost one."""
        return self.n_mels or self.n_fft // 2

    @property
    def measured_bins(self) -> int:
        """Mel bands, or bins with the topmost one: those that `measure` measures."""
        return self.n_mels or self.n_fft // 2 + 1


def geometry(frames: int, bins: int) -> tuple[int, int]:
    """Returns (layers of stride 2, frames at the inner end) for images `[frames, bins]`.

    The inner end has 4 bins.
    """
    layers = (bins // INNER_BINS).bit_length() - 1
    return layers, -(-frames // 2**layers)


class Generator(nnx.Module):
    """Maps latents `[B, Z]` to images `[B, N, F, C]` in [-1, 1]."""

    def __init__(self, config: SpecGANConfig, audio: AudioConfig, *, rngs: nnx.Rngs):
        self.frames, self.batch_norm = _count_frames(config, audio), config.batch_norm
        self.layers, self.inner_frames = geometry(self.frames, config.bins)
        sizes = [*widths(self.layers, config.channels, config.max_channels), audio.channels]
        self.inner_channels = sizes[0]
        self.z_project = Dense(config.latent_size, self.inner_frames * INNER_BINS * sizes[0], rngs=rngs)
        if self.batch_norm:
            self.norm_z = BatchNorm(sizes[0])
        last = self.layers - 1
        for i in range(self.layers):
            options = dict(form=config.form, dtype=DTYPES[config.dtype] if i < last else None, rngs=rngs)
            upconv = Conv(sizes[i], sizes[i + 1], KERNEL_TAPS, 2, direction="transpose", **options)
            setattr(self, f"upconv_{i}", upconv)
            if self.batch_norm and i < last:
                setattr(self, f"norm_{i}", BatchNorm(sizes[i + 1]))

    def __call__(self, z: jax.Array) -> jax.Array:
        """Returns the images `[B, N, F, C]` of latents `[B, Z]`."""

        def norm(name, x):
            return getattr(self, name)(x) if self.batch_norm else x

        # [B, Z] -> [B, 4, 4, C0]
        x = self.z_project(z).reshape(len(z), self.inner_frames, INNER_BINS, self.inner_channels)
        x = jax.nn.relu(norm("norm_z", x))
        for i in range(self.layers - 1):
            x = jax.nn.relu(norm(f"norm_{i}", getattr(self, f"upconv_{i}")(x)))  # [B, N, F, C] -> [B, 2 N, 2 F, C/2]
        x = jnp.tanh(getattr(self, f"upconv_{self.layers - 1}")(x))
        start = (x.shape[1] - self.frames) // 2
        return x[:, start : start + self.frames]


class Discriminator(nnx.Module):
    """Maps images `[B, N, F, C]` to logits `[B, 1]`."""

    def __init__(self, config: SpecGANConfig, audio: AudioConfig, *, rngs: nnx.Rngs):
        frames, self.batch_norm = _count_frames(config, audio), config.batch_norm
        self.layers, inner_frames = geometry(frames, config.bins)
        self.padding = inner_frames * 2**self.layers - frames
        sizes = [audio.channels, *reversed(widths(self.layers, config.channels, config.max_channels))]
        for i in range(self.layers):
            options = dict(form=config.form, dtype=DTYPES[config.dtype] if i > 0 else None, rngs=rngs)
            setattr(self, f"downconv_{i}", Conv(sizes[i], sizes[i + 1], KERNEL_TAPS, 2, **options))
            if self.batch_norm and i > 0:
                setattr(self, f"norm_{i}", BatchNorm(sizes[i + 1]))
        self.output = Dense(inner_frames * INNER_BINS * sizes[-1], 1, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns one logit for each image, `[B, 1]`."""
        before = self.padding // 2
        x = jnp.pad(x, ((0, 0), (before, self.padding - before), (0, 0), (0, 0)))
        for i in range(self.layers):
            x = getattr(self, f"downconv_{i}")(x)  # [B, N, F, C] -> [B, N/2, F/2, 2 C]
            if self.batch_norm and i > 0:
                x = getattr(self, f"norm_{i}")(x)
            x = leaky_relu(x)
        return self.output(x.reshape(len(x), -1))  # [B, 4, 4, C] -> [B, 1]


def log_magnitude(audio: jax.Array, n_fft: int, hop_length: int, mel_filters: np.ndarray | None = None) -> jax.Array:
    """Returns log(magnitude + 1e-6) of each bin, or of each mel band.

    Args:
        audio: `[B, T, C]` in [-1, 1].
        n_fft: samples in a frame.
        hop_length: samples from frame to frame.
        mel_filters: `[M, n_fft // 2 + 1]`; None for bins.

    Returns:
        `[B, ceil(T / hop_length), n_fft // 2 + 1 or M, C]`.
    """
    magnitude = jnp.abs(spectral.stft(jnp.moveaxis(audio, -1, 1), n_fft, hop_length, pad_end=True))  # [B, C, N, F]
    if mel_filters is not None:
        magnitude = jnp.matmul(magnitude, mel_filters.T, precision="highest")
    return jnp.moveaxis(jnp.log(magnitude + _EPSILON), 1, -1)


def measure(batches: Iterable[np.ndarray], config: SpecGANConfig, audio: AudioConfig) -> dict[str, np.ndarray]:
    """Returns mean and standard deviation of each bin over all frames of the dataset.

    Args:
        batches: the clips of the dataset, `[B, T, C]` in [-1, 1].
        config: the fields of the model.
        audio: the rate, channels and length of the clips.

    Returns:
        "mean" and "std" (of the population), float64 `[n_fft // 2 + 1 or M, C]`.

    Raises:
        ValueError: there are no batches.

    Reference: batches are combined as by Chan, Golub, LeVeque, "Updating formulae and a pairwise
    algorithm for computing sample variances", 1979: a dataset of any size takes one pass and the
    memory of one batch.
    """
    filters = _mel_filters(config, audio)
    spectrum = jax.jit(partial(log_magnitude, n_fft=config.n_fft, hop_length=config.hop_length, mel_filters=filters))
    frames, mean, squares = 0, 0.0, 0.0
    for clips in batches:
        x = np.asarray(spectrum(clips), np.float64)
        x = x.reshape(-1, *x.shape[2:])  # [B, N, F, C] -> [B N, F, C]
        batch_mean = x.mean(0)
        difference, total = batch_mean - mean, frames + len(x)
        squares = squares + np.square(x - batch_mean).sum(0) + np.square(difference) * (frames * len(x) / total)
        mean, frames = mean + difference * (len(x) / total), total
    if not frames:
        raise ValueError("specgan: expected clips to measure, got none")
    return {"mean": mean, "std": np.sqrt(squares / frames)}


def build(config: SpecGANConfig, audio: AudioConfig, statistics: dict[str, np.ndarray] | None = None) -> GAN:
    """Returns a SpecGAN. Its x is an image `[B, N, F, C]` in [-1, 1].

    Args:
        config: the fields of the model.
        audio: the rate, channels and length of the clips.
        statistics: what `measure` returned. Without it `encode` and `decode` raise a ValueError.

    Raises:
        FieldError: the clip is shorter than a frame, or a mel band contains no bin.
        ValueError: the statistics have another shape.
    """
    least = f"a whole number of at least config.model.n_fft ({config.n_fft})"
    check_condition(audio.clip_samples >= config.n_fft, "audio.clip_samples", least, audio.clip_samples)
    measured = (config.measured_bins, audio.channels)
    for name, value in (statistics or {}).items():
        if value.shape != measured:
            raise ValueError(f"specgan: expected statistics of {measured} values, got a {name} of {value.shape}")
    generator = functional(partial(Generator, config, audio))
    discriminator = functional(partial(Discriminator, config, audio))
    sample_latents = uniform_latents(config.latent_size)
    filters = _mel_filters(config, audio)

    def generate(g_params, z):
        return in_parts(lambda z: generator.apply(g_params, z), z, config.remat)

    def discriminate(d_params, x, key):
        return (in_parts(lambda x: discriminator.apply(d_params, x), x, config.remat),)

    return GAN(
        sample_latents=sample_latents,
        init_g=generator.init,
        init_d=discriminator.init,
        generate=generate,
        discriminate=discriminate,
        encode=lambda audio: _encode(audio, config, filters, statistics),
        decode=lambda x: _decode(x, config, filters, statistics, audio.clip_samples),
        calibrate=calibration(generator, sample_latents) if config.batch_norm else lambda g_params, key: g_params,
    )


def _encode(audio, config: SpecGANConfig, filters, statistics) -> jax.Array:
    """Returns the images `[B, N, F, C]` of audio `[B, T, C]`."""
    mean, spread = _mean_and_spread(statistics)
    x = (log_magnitude(audio, config.n_fft, config.hop_length, filters) - mean) / spread
    return jnp.clip(x[:, :, : config.bins], -1, 1)  # without the topmost bin, at half the sample rate


def _decode(x, config: SpecGANConfig, filters, statistics, clip_samples: int) -> jax.Array:
    """Returns the audio `[B, T, C]` of images `[B, N, F, C]`."""
    mean, spread = _mean_and_spread(statistics)
    x = jnp.pad(x, ((0, 0), (0, 0), (0, len(mean) - config.bins), (0, 0)))
    magnitude = jnp.moveaxis(jnp.maximum(jnp.exp(x * spread + mean) - _EPSILON, 0), -1, 1)  # [B, C, N, F]
    if filters is not None:
        # Negative magnitudes are clipped. Non-negative least squares was 0 to 7 % closer in trials,
        # and took a second or two for each clip.
        inverse = np.linalg.pinv(filters.astype(np.float64)).astype(np.float32)
        magnitude = jnp.maximum(jnp.matmul(magnitude, inverse.T, precision="highest"), 0)
    audio = spectral.griffin_lim(magnitude, config.n_fft, config.hop_length, config.iterations, config.momentum)
    return jnp.moveaxis(audio[..., :clip_samples], 1, -1)


def _mean_and_spread(statistics) -> tuple[np.ndarray, np.ndarray]:
    """Returns (levels that 0 in an image means, what 1 adds to them).

    Both are float32 `[measured bins, C]`, as logarithms of magnitudes.
    """
    if statistics is None:
        raise ValueError("specgan: no statistics of the training set; pass models.build what models.measure returns")
    spread = CLIP_DEVIATIONS * np.maximum(statistics["std"], _LEAST_STD)
    return statistics["mean"].astype(np.float32), spread.astype(np.float32)


def _count_frames(config: SpecGANConfig, audio: AudioConfig) -> int:
    return -(-audio.clip_samples // config.hop_length)


def _is_power_of_two(value: int) -> bool:
    return value & (value - 1) == 0


def _mel_filters(config: SpecGANConfig, audio: AudioConfig) -> np.ndarray | None:
    """Returns the weights of bins in mel bands, `[M, n_fft // 2 + 1]`; None without mel bands.

    A band is a weighted mean of its bins, not a sum, so that 1e-6 is as small for a band as for a
    bin.
    """
    if config.n_mels is None:
        return None
    filters = spectral.mel_filters(audio.sample_rate_hz, config.n_fft, config.n_mels, 0.0)
    weights = filters.sum(1, keepdims=True)
    if empty := int(np.sum(weights == 0)):
        raise FieldError(
            f"config.model.n_mels: {empty} of {config.n_mels} bands hold none of the bins of config.model.n_fft = "
            f"{config.n_fft} at {audio.sample_rate_hz} Hz; lower n_mels or raise n_fft"
        )
    return filters / weights
