"""Spectra of audio in pure JAX: short-time Fourier transform and log-mel spectrogram; jit-compiled by whoever calls."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np


def stft(audio: jax.Array, n_fft: int, hop_length: int) -> jax.Array:
    """Complex spectrum of whole frames only: no padding at either end.

    Args:
        audio: `[..., T]`, T not below `n_fft`.
        n_fft: frame length; the window is a periodic Hann window of this length.
        hop_length: samples from frame to frame.

    Returns:
        complex64 `[..., N, n_fft // 2 + 1]`, N = 1 + (T - n_fft) // hop_length.

    Raises:
        ValueError: the audio is shorter than a frame.
    """
    samples = audio.shape[-1]
    if samples < n_fft:
        raise ValueError(f"stft: expected at least n_fft = {n_fft} samples, got {samples}")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    starts = np.arange(0, samples - n_fft + 1, hop_length)
    frames = audio[..., starts[:, None] + np.arange(n_fft)]  # [..., N, n_fft]
    return jnp.fft.rfft(frames * window.astype(np.float32))


def log_mel(
    audio: jax.Array, sample_rate_hz: int, *, n_fft: int, hop_length: int, n_mels: int, fmin_hz: float
) -> jax.Array:
    """Natural logarithm of the mel power spectrogram, `log(mel + 1e-5)`, from `fmin_hz` to half the rate.

    Args:
        audio: `[..., T]` in [-1, 1].
        sample_rate_hz: its rate.
        n_fft: frame length.
        hop_length: samples from frame to frame.
        n_mels: number of bands, Slaney's scale and area normalisation.
        fmin_hz: lower edge of the lowest band.

    Returns:
        `[..., N, n_mels]`.
    """
    power = jnp.abs(stft(audio, n_fft, hop_length)) ** 2
    filters = _mel_filters(sample_rate_hz, n_fft, n_mels, fmin_hz)
    return jnp.log(jnp.matmul(power, filters.T, precision="highest") + 1e-5)


@functools.cache
def _mel_filters(sample_rate_hz: int, n_fft: int, n_mels: int, fmin_hz: float) -> np.ndarray:
    """`[n_mels, n_fft // 2 + 1]`."""
    import librosa  # a second to import: only where a mel spectrogram is made

    return librosa.filters.mel(sr=sample_rate_hz, n_fft=n_fft, n_mels=n_mels, fmin=fmin_hz)
