"""A clip with its spectrum, and the filters and energies that all features use."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np
import scipy.fft

BANDS_HZ = {"low": (30.0, 120.0), "mid": (300.0, 2000.0), "high": (5000.0, math.inf)}  # kick; claps, acid; hats
FLOOR_DB = -120.0  # in place of minus infinity; 16-bit noise is at -98 dB
LEAST_RATE_HZ = 4000
FRAMES_IN_CACHE = 64  # processed at a time, so that they stay in the processor's cache


class Clip(NamedTuple):
    """A clip and its spectrum: for a loop its exact one, else that of the clip and zeros after it.

    Attributes:
        audio: float64 `[C, T]`.
        rate_hz: sample rate.
        seconds: length.
        loop: whether the end continues at the start.
        spectra: `[C, F]`, of the audio minus its mean.
        mono_spectrum: `[F]`, their mean.
        size: number of samples that the spectra are computed from.
    """

    audio: np.ndarray
    rate_hz: int
    seconds: float
    loop: bool
    spectra: np.ndarray
    mono_spectrum: np.ndarray
    size: int


def check_audio(audio: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    """Returns the audio as float64 `[T, C]`.

    Raises:
        ValueError: audio of another shape or type, empty, or with NaN or Inf; a rate below 4000 Hz.
    """
    audio = np.asarray(audio)
    if audio.ndim != 2 or audio.shape[1] not in (1, 2):
        raise ValueError(f"expected audio [T, C] with one or two channels, last, got shape {audio.shape}")
    if not np.issubdtype(audio.dtype, np.floating):
        raise ValueError(
            f"expected float audio in [-1, 1], got {audio.dtype}; audio_files.from_int16 converts 16-bit PCM"
        )
    if not len(audio):
        raise ValueError("expected audio [T, C], got an empty clip")
    if sample_rate_hz < LEAST_RATE_HZ:
        raise ValueError(f"expected a sample rate of at least {LEAST_RATE_HZ} Hz, got {sample_rate_hz}")
    audio = audio.astype(np.float64)
    if not np.isfinite(audio).all():
        bad = audio[~np.isfinite(audio)]
        raise ValueError(f"expected finite audio, got {len(bad)} samples that are NaN or Inf, the first {bad[0]}")
    return audio


def make_clip(audio: np.ndarray, sample_rate_hz: int, loop: bool) -> Clip:
    """Returns the clip with its spectrum.

    Args:
        audio: float `[T, C]` in [-1, 1], one or two channels.
        sample_rate_hz: sample rate, 4000 or more.
        loop: whether the end continues at the start.

    Raises:
        ValueError: audio that `check_audio` refuses.
    """
    audio = np.ascontiguousarray(check_audio(audio, sample_rate_hz).T)
    samples = audio.shape[1]
    # Zeros keep the response of a filter to the end of a clip away from its start: 50 ms is more
    # than one period of 30 Hz.
    size = samples if loop else scipy.fft.next_fast_len(samples + sample_rate_hz // 20, real=True)
    spectra = scipy.fft.rfft(audio - audio.mean(axis=1, keepdims=True), size)
    return Clip(audio, sample_rate_hz, samples / sample_rate_hz, loop, spectra, spectra.mean(axis=0), size)


def filter_mono(clip: Clip, low_hz: float, high_hz: float, rate_hz: float) -> tuple[np.ndarray, float]:
    """Returns the mean of the channels between two frequencies, and its sample rate.

    The gain is that of a fourth-order Butterworth filter that runs forwards and backwards: no
    phase shift and little ringing.

    Args:
        clip: the clip.
        low_hz: lower edge; 0 for none.
        high_hz: upper edge; infinity for none.
        rate_hz: the result is resampled to about this rate, if that is below the clip's rate.

    Returns:
        (`[t]`, its rate in Hz).
    """
    size = clip.size
    if rate_hz < clip.rate_hz:
        size = min(size, scipy.fft.next_fast_len(math.ceil(size * rate_hz / clip.rate_hz), real=True))
    spectrum = clip.mono_spectrum[: size // 2 + 1]
    if low_hz > 0 or high_hz < math.inf:
        spectrum = spectrum * _butterworth_gain(clip.size, size // 2 + 1, clip.rate_hz, low_hz, high_hz)
    rate_hz = clip.rate_hz * size / clip.size
    return scipy.fft.irfft(spectrum, size)[: max(1, round(clip.seconds * rate_hz))] * (size / clip.size), rate_hz


@functools.lru_cache(maxsize=16)
def _butterworth_gain(size: int, bins: int, rate_hz: float, low_hz: float, high_hz: float) -> np.ndarray:
    frequencies_hz = np.arange(bins) * (rate_hz / size)
    high_pass = 1 - 1 / (1 + (frequencies_hz / low_hz) ** 8) if low_hz else 1.0
    return high_pass / (1 + (frequencies_hz / high_hz) ** 8)


def band_energy(clip: Clip, low_hz: float, high_hz: float, spectra: np.ndarray) -> float:
    """Returns the sum of squares over channels and samples between two frequencies."""
    first, last = (math.ceil(hz * clip.size / clip.rate_hz) for hz in (low_hz, min(high_hz, clip.rate_hz)))
    part = spectra[..., max(1, first) : last]
    return float(np.vdot(part, part).real) * 2 / clip.size


def is_empty(clip: Clip, mean_square: float) -> bool:
    """Returns whether a band is 60 dB below the clip: leakage of other bands, or rounding."""
    return mean_square <= 1e-6 * np.vdot(clip.audio, clip.audio) / clip.audio.size


def wrap(audio: np.ndarray, reach: int) -> np.ndarray:
    """Returns `[..., T]` as `[..., T + 2 reach]`, continued as a loop at both ends."""
    return np.take(audio, np.arange(-reach, audio.shape[-1] + reach), axis=-1, mode="wrap")


def to_db(energy: np.ndarray | float) -> np.ndarray:
    """Returns 10 log10 of an energy, at least -120."""
    return np.maximum(10 * np.log10(np.maximum(energy, 1e-300)), FLOOR_DB)


def ratio_db(above: float, below: float) -> float:
    """Returns 10 log10 of the ratio of two energies, not both 0, limited to 120 dB either way."""
    return float(np.clip(10 * math.log10(max(above, 1e-300) / max(below, 1e-300)), FLOOR_DB, -FLOOR_DB))


def cosine_similarity(a: np.ndarray, b: np.ndarray) -> float | None:
    """Returns the normalised inner product of two arrays; None where one of them is zero."""
    energy = math.sqrt(np.vdot(a, a) * np.vdot(b, b))
    return float(np.vdot(a, b) / energy) if energy > 0 else None
