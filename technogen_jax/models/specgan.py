"""SpecGAN: the spectrogram of a clip as an image, made and judged by WaveGAN's networks with square kernels.

*Source*: Donahue, McAuley, Puckette, "Adversarial Audio Synthesis", ICLR 2019 (arXiv:1802.04208), section 4, and the
authors' TensorFlow code: parameter counts, initial values, padding, and the transform of 16,384 samples into 128 frames
of 128 bins. A bin is log(|X| + 1e-6) of an STFT 256 / 128, less its mean over the training set, divided by three of its
standard deviations, clipped to [-1, 1]. The topmost bin is left out; to make sound it is set to its mean.

What differs, and why:

- the inverse STFT divides by the sum of the squared windows. The authors' leaves it out, and with it the level of all
  sound swings by 6 dB 125 times a second.
- magnitudes come back as exp(x) - 1e-6, the exact inverse; the authors leave the 1e-6 in.
- a bin that is the same in all frames (a band that is silent) is held at its mean, not divided by a deviation of zero.
- other sizes: as many layers of stride 2 as bring the bins down to 4; frames are padded and cropped to match; channels
  stop doubling at `max_channels`. Mel bands instead of bins, and the fast Griffin-Lim algorithm, are options. Stereo is
  an image of two channels; the phases of each are found by themselves.
- batch norm uses, for making sound, statistics of many latents, as in `wavegan`.
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
CLIP_DEVIATIONS = 3.0
_EPSILON = 1e-6  # against log(0)
_LEAST_STD = 1e-3  # 0.01 dB: a bin that changes less is constant, and dividing by its deviation would blow up rounding


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpecGANConfig(ConvolutionalConfig):
    """The fields of SpecGAN. The defaults are the paper's, for clips of 16,384 samples."""

    n_fft: int = field(
        256,
        "Samples in a frame of the spectrogram; a power of two if n_mels is None.",
        unit="samples",
        least=32,
        most=2**16,
    )
    hop_length: int = field(
        128,
        "Samples from frame to frame: n_fft divided by a whole number of at least 2.",
        unit="samples",
        least=1,
        most=2**16,
    )
    n_mels: int | None = field(
        None,
        "Mel bands, a power of two. None: the n_fft // 2 bins below half the sample rate.",
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
            check_condition(self.n_fft & (self.n_fft - 1) == 0, "model.n_fft", power, self.n_fft)
        else:
            power = "None, or 16, 32, 64 ..., a power of two"
            check_condition(self.n_mels & (self.n_mels - 1) == 0, "model.n_mels", power, self.n_mels)
        fits = self.n_fft % self.hop_length == 0 and self.hop_length <= self.n_fft // 2
        divisor = f"n_fft ({self.n_fft}) divided by a whole number of at least 2"
        check_condition(fits, "model.hop_length", divisor, self.hop_length)


class Generator(nnx.Module):
    """z `[B, Z]` to images `[B, N, F, C]` in [-1, 1]. The arguments are `build`'s."""

    def __init__(
        self, frames, bins, audio_channels, latent_size, channels, max_channels, batch_norm, form, dtype, *, rngs
    ):
        self.layers, self.inner_frames = geometry(frames, bins)
        self.frames, self.batch_norm = frames, batch_norm
        sizes = [*widths(self.layers, channels, max_channels), audio_channels]
        self.inner_channels = sizes[0]
        self.z_project = Dense(latent_size, self.inner_frames * INNER_BINS * sizes[0], rngs=rngs)
        if batch_norm:
            self.norm_z = BatchNorm(sizes[0])
        for i in range(self.layers):
            how = dict(direction="transpose", form=form, dtype=dtype if i < self.layers - 1 else None)
            setattr(self, f"upconv_{i}", Conv(sizes[i], sizes[i + 1], KERNEL_TAPS, 2, **how, rngs=rngs))
            if batch_norm and i < self.layers - 1:
                setattr(self, f"norm_{i}", BatchNorm(sizes[i + 1]))

    def __call__(self, z):
        """The image for each latent."""

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
    """Images `[B, N, F, C]` to logits `[B, 1]`. The arguments are `build`'s."""

    def __init__(self, frames, bins, audio_channels, channels, max_channels, batch_norm, form, dtype, *, rngs):
        self.layers, inner_frames = geometry(frames, bins)
        self.padding = inner_frames * 2**self.layers - frames
        self.batch_norm = batch_norm
        sizes = [audio_channels, *reversed(widths(self.layers, channels, max_channels))]
        for i in range(self.layers):
            how = dict(form=form, dtype=dtype if i > 0 else None)
            setattr(self, f"downconv_{i}", Conv(sizes[i], sizes[i + 1], KERNEL_TAPS, 2, **how, rngs=rngs))
            if batch_norm and i > 0:
                setattr(self, f"norm_{i}", BatchNorm(sizes[i + 1]))
        self.output = Dense(inner_frames * INNER_BINS * sizes[-1], 1, rngs=rngs)

    def __call__(self, x):
        """One logit an image."""
        before = self.padding // 2
        x = jnp.pad(x, ((0, 0), (before, self.padding - before), (0, 0), (0, 0)))
        for i in range(self.layers):
            x = getattr(self, f"downconv_{i}")(x)  # [B, N, F, C] -> [B, N/2, F/2, 2 C]
            if self.batch_norm and i > 0:
                x = getattr(self, f"norm_{i}")(x)
            x = leaky_relu(x)
        return self.output(x.reshape(len(x), -1))  # [B, 4, 4, C] -> [B, 1]


def geometry(frames: int, bins: int) -> tuple[int, int]:
    """(layers of stride 2, frames at the inner end) for images of that size, the inner end having 4 bins."""
    layers = (bins // INNER_BINS).bit_length() - 1
    return layers, -(-frames // 2**layers)


def log_magnitude(audio: jax.Array, n_fft: int, hop_length: int, mel_filters: np.ndarray | None = None) -> jax.Array:
    """log(magnitude + 1e-6) of each bin, or of each mel band.

    Args:
        audio: `[B, T, C]` in [-1, 1].
        n_fft: frame length.
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
    """Returns mean and standard deviation of each bin over all frames of the dataset: the `statistics` of `build`.

    Args:
        batches: the clips of the dataset, `[B, T, C]` in [-1, 1].
        config: of the model.
        audio: of the clips.

    Returns:
        "mean" and "std", float64 `[n_fft // 2 + 1 or M, C]`; the deviation is the population's.

    Raises:
        ValueError: no batches.

    Reference: batches are joined as by Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing
    sample variances", 1979: a dataset of any size needs one pass and the memory of a batch.
    """
    n_fft, hop_length, n_mels = config.n_fft, config.hop_length, config.n_mels
    filters = _mel_filters(audio.sample_rate_hz, n_fft, n_mels) if n_mels else None
    spectrum = jax.jit(partial(log_magnitude, n_fft=n_fft, hop_length=hop_length, mel_filters=filters))
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
    """Returns a SpecGAN; x is an image `[B, N, F, C]` in [-1, 1].

    Args:
        config: its fields.
        audio: of the clips; at least n_fft samples.
        statistics: what `measure` returned; without it `encode` and `decode` raise.

    Raises:
        FieldError: a clip that is too short, mel bands without a bin.
        ValueError: statistics of another size.
    """
    n_fft, hop_length, n_mels, clip_samples = config.n_fft, config.hop_length, config.n_mels, audio.clip_samples
    least = f"a whole number of at least config.model.n_fft ({n_fft})"
    check_condition(clip_samples >= n_fft, "audio.clip_samples", least, clip_samples)
    bins = n_mels or n_fft // 2
    filters = _mel_filters(audio.sample_rate_hz, n_fft, n_mels) if n_mels else None
    measured = (n_mels or n_fft // 2 + 1, audio.channels)
    for name, value in (statistics or {}).items():
        if value.shape != measured:
            raise ValueError(f"specgan: expected statistics of {measured} values, got a {name} of {value.shape}")

    shared = dict(
        frames=-(-clip_samples // hop_length),
        bins=bins,
        audio_channels=audio.channels,
        channels=config.channels,
        max_channels=config.max_channels,
        batch_norm=config.batch_norm,
        form=config.form,
        dtype=DTYPES[config.dtype],
    )
    generator = functional(partial(Generator, latent_size=config.latent_size, **shared))
    discriminator = functional(partial(Discriminator, **shared))
    sample_latents = uniform_latents(config.latent_size)

    def moments():
        if statistics is None:
            raise ValueError(
                "specgan: no statistics of the training set; pass models.build what models.measure returns"
            )
        spread = CLIP_DEVIATIONS * np.maximum(statistics["std"], _LEAST_STD)
        return statistics["mean"].astype(np.float32), spread.astype(np.float32)

    def encode(audio):
        mean, spread = moments()
        x = (log_magnitude(audio, n_fft, hop_length, filters) - mean) / spread
        return jnp.clip(x[:, :, :bins], -1, 1)  # without the topmost of the bins, at half the rate

    def decode(x):
        mean, spread = moments()
        x = jnp.pad(x, ((0, 0), (0, 0), (0, len(mean) - bins), (0, 0)))
        magnitude = jnp.moveaxis(jnp.maximum(jnp.exp(x * spread + mean) - _EPSILON, 0), -1, 1)  # [B, C, N, F]
        if filters is not None:
            # Clipped at zero; non-negative least squares came 0 to 7 % nearer in trials and took a second or two a clip.
            inverse = np.linalg.pinv(filters.astype(np.float64)).astype(np.float32)
            magnitude = jnp.maximum(jnp.matmul(magnitude, inverse.T, precision="highest"), 0)
        audio = spectral.griffin_lim(magnitude, n_fft, hop_length, config.iterations, config.momentum)
        return jnp.moveaxis(audio[..., :clip_samples], 1, -1)

    return GAN(
        sample_latents=sample_latents,
        init_g=generator.init,
        init_d=discriminator.init,
        generate=lambda g_params, z: in_parts(lambda z: generator.apply(g_params, z), z, config.remat),
        discriminate=lambda d_params, x, key: (in_parts(lambda x: discriminator.apply(d_params, x), x, config.remat),),
        encode=encode,
        decode=decode,
        calibrate=calibration(generator, sample_latents) if config.batch_norm else lambda g_params, key: g_params,
    )


def _mel_filters(sample_rate_hz: int, n_fft: int, n_mels: int) -> np.ndarray:
    """`[M, n_fft // 2 + 1]`: each band the weighted mean of its bins, so that 1e-6 is as little as for a bin."""
    filters = spectral.mel_filters(sample_rate_hz, n_fft, n_mels, 0.0)
    weights = filters.sum(1, keepdims=True)
    empty = int(np.sum(weights == 0))
    if empty:
        raise FieldError(
            f"config.model.n_mels: {empty} of {n_mels} bands hold none of the bins of config.model.n_fft = {n_fft} at "
            f"{sample_rate_hz} Hz; lower n_mels or raise n_fft"
        )
    return filters / weights
