"""Fixed filters and small helpers for the sounds of the built-in corpus."""

from __future__ import annotations

import math

import numba
import numpy as np
from scipy import signal

CONTROL_SAMPLES = 16  # a third of a millisecond: shorter than any envelope here
OVERSAMPLING = 4  # of distorted one-shots
HIGHEST = 0.45  # of the rate: the highest frequency asked of a filter
SETTLED = 1e-18  # added to the input of recursive filters: denormal numbers are 100 times as slow

compiled = numba.njit(cache=True, error_model="numpy")


def low_pass(audio: np.ndarray, cutoff_hz: float, rate_hz: int) -> np.ndarray:
    """Returns the audio through a second-order Butterworth low-pass along the last axis.

    A cutoff too high for the sampling rate is lowered.
    """
    return _butterworth(audio, "lowpass", cutoff_hz, rate_hz)


def high_pass(audio: np.ndarray, cutoff_hz: float, rate_hz: int) -> np.ndarray:
    """Returns the audio through a second-order Butterworth high-pass along the last axis.

    A cutoff too high for the sampling rate is lowered.
    """
    return _butterworth(audio, "highpass", cutoff_hz, rate_hz)


def band_pass(audio: np.ndarray, centre_hz: float, rate_hz: int) -> np.ndarray:
    """Returns the audio through a Butterworth band-pass, an octave wide, along the last axis.

    A centre too high for the sampling rate is lowered.
    """
    centre_hz = min(centre_hz, 0.6 * HIGHEST * rate_hz)
    return low_pass(high_pass(audio, centre_hz / 2**0.5, rate_hz), centre_hz * 2**0.5, rate_hz)


def _butterworth(audio: np.ndarray, kind: str, cutoff_hz: float, rate_hz: int) -> np.ndarray:
    sos = signal.butter(2, min(cutoff_hz, HIGHEST * rate_hz), kind, fs=rate_hz, output="sos")
    # In float32 the poles of low cutoffs are too close to 1; float64 coefficients avoid this.
    return signal.sosfilt(sos.astype(np.float64), audio, axis=-1).astype(np.float32)


def time_axis(seconds: float, rate_hz: int) -> np.ndarray:
    """Returns the time of each sample in seconds, float32 `[T]`, T at least 16."""
    return np.arange(max(16, round(seconds * rate_hz)), dtype=np.float32) / np.float32(rate_hz)


def white_noise(draw: np.random.Generator, samples: int, channels: int | None = None) -> np.ndarray:
    """Returns Gaussian noise of unit deviation, `[T]` or `[C, T]`."""
    return draw.standard_normal(samples if channels is None else (channels, samples), np.float32)


def rms(audio: np.ndarray) -> np.float32:
    """Returns the root mean square, at least 1e-9."""
    return np.float32(max(1e-9, math.sqrt(float(np.mean(np.square(audio, dtype=np.float64))))))


def square_bank(
    draw: np.random.Generator, t: np.ndarray, rate_hz: int, base_hz: float, spread: float, count: int
) -> np.ndarray:
    """Returns the sum of `count` square waves with frequencies from `base_hz` to `spread * base_hz`.

    The intervals between neighbouring frequencies are random.
    """
    steps = np.cumsum(draw.uniform(0.5, 1.5, count))
    hz = base_hz * spread ** ((steps - steps[0]) / (steps[-1] - steps[0]))
    out = np.zeros_like(t)
    for one_hz, start in zip(hz, draw.uniform(size=count), strict=True):
        phase = t * np.float32(min(one_hz, 0.4 * rate_hz)) + np.float32(start)
        out += np.where(phase - np.floor(phase) < 0.5, np.float32(1), np.float32(-1))
    return out


def decimate(audio: np.ndarray) -> np.ndarray:
    """Lowers the rate of oversampled audio by `OVERSAMPLING`."""
    return signal.resample_poly(audio, 1, OVERSAMPLING, axis=-1).astype(np.float32)


def finish_one_shot(sound: np.ndarray, rate_hz: int) -> np.ndarray:
    """Scales a sound to a peak of 1 and fades out its last 5 ms."""
    sound = sound / np.float32(max(1e-9, float(np.abs(sound).max())))
    fade = min(sound.shape[-1], max(1, round(0.005 * rate_hz)))
    sound[..., -fade:] *= np.linspace(1, 0, fade, dtype=np.float32)
    return sound.astype(np.float32)
