"""Spectral features: low end, sustained partials, and the long-term spectrum with its distance."""

from __future__ import annotations

import functools
import math

import numpy as np
import scipy.fft
import scipy.ndimage
import scipy.signal
import scipy.special

from technogen_jax.evaluation.features.musical.clip import (
    BANDS_HZ,
    Clip,
    band_energy,
    check_audio,
    filter_mono,
    is_empty,
    ratio_db,
    to_db,
)

_LOW_END_HZ = (30.0, 230.0)  # kick and bass


def measure_spectrum(clip: Clip) -> dict[str, float | None]:
    """Returns the spectral features."""
    low, full = (band_energy(clip, *band, clip.spectra) for band in (BANDS_HZ["low"], (0, math.inf)))
    spread_hz, change_db = _low_end(clip)
    return {
        "sub_ratio_db": None if is_empty(clip, full / clip.audio.size) else ratio_db(low, full),
        "low_spread_hz": spread_hz,
        "low_change_db": change_db,
        "line_share": _partial_share(clip),
    }


def ltas_db(audio: np.ndarray, sample_rate_hz: int, *, loop: bool = False) -> np.ndarray:
    """Returns the long-term average spectrum: power in third-octave bands, dB, mean of channels.

    Welch's method with Hann windows of 4096 samples that overlap by half. A loop, and a clip shorter
    than a window, is repeated. The bands are those of IEC 61260 from 25 Hz up; the last one ends at
    the Nyquist frequency. Values below -120 dB become -120.

    Args:
        audio: float `[T, C]` in [-1, 1], one or two channels.
        sample_rate_hz: sample rate; only spectra of one sample rate have the same bands.
        loop: whether the clip will be repeated without a gap.

    Returns:
        float64 `[bands]`.

    Raises:
        ValueError: audio that `measure` refuses.
    """
    audio = np.ascontiguousarray(check_audio(audio, sample_rate_hz).T)
    samples, size, hop = audio.shape[1], 4096, 2048
    if loop or samples < size:
        # Evenly spaced frames on a circle: every sample has the same weight.
        starts = np.arange(0, samples, samples / math.ceil(samples / hop)).astype(int)
        audio = np.take(audio, np.arange(samples + size), axis=1, mode="wrap")
    else:
        starts = np.arange(0, samples - size + 1, hop)
    window = scipy.signal.get_window("hann", size)
    power = np.zeros(size // 2 + 1)
    for start in starts:
        spectra = scipy.fft.rfft(audio[:, start : start + size] * window)
        power += (spectra.real**2 + spectra.imag**2).mean(axis=0)
    power *= 2 / (len(starts) * size * np.sum(window**2))
    # A band may be narrower than a bin: it then gets its share of the bin.
    edges_hz = _third_octave_edges_hz(sample_rate_hz)
    totals = np.concatenate([[0.0], np.cumsum(power)])
    bounds_hz = (np.arange(len(totals)) - 0.5) * sample_rate_hz / size
    return to_db(np.diff(np.interp(edges_hz, bounds_hz, totals)))


def ltas_centres_hz(sample_rate_hz: int) -> np.ndarray:
    """Returns the geometric centres of the bands of `ltas_db`, `[bands]`."""
    edges_hz = _third_octave_edges_hz(sample_rate_hz)
    return np.sqrt(edges_hz[:-1] * edges_hz[1:])


def ltas_distance(reference_db: np.ndarray, other_db: np.ndarray) -> tuple[float, float]:
    """Returns (shape, offset) in dB of two spectra of `ltas_db`, or of the means of two sets.

    The offset is the mean difference over the bands: how much louder the other is. The shape is the
    RMS of the difference minus the offset, so it does not depend on gain.

    Raises:
        ValueError: different numbers of bands.
    """
    reference_db, other_db = np.asarray(reference_db, np.float64), np.asarray(other_db, np.float64)
    if reference_db.shape != other_db.shape or reference_db.ndim != 1:
        raise ValueError(
            f"expected two spectra [bands] of one sample rate, got {reference_db.shape} and {other_db.shape}"
        )
    difference = other_db - reference_db
    offset = difference.mean()
    return float(np.sqrt(np.mean((difference - offset) ** 2))), float(offset)


@functools.cache
def _third_octave_edges_hz(sample_rate_hz: int) -> np.ndarray:
    """From 22.4 Hz to the Nyquist frequency (IEC 61260: the centres are powers of 10^0.1)."""
    edges_hz = 1000 * 10 ** ((np.arange(-16, 40) - 0.5) / 10)
    return np.append(edges_hz[edges_hz < sample_rate_hz / 2], sample_rate_hz / 2)


def _low_end(clip: Clip) -> tuple[float | None, float | None]:
    """(spread in Hz, change in dB) of the low end; both None for a clip below 0.2 s or without one.

    The spread is the width of a flat spectrum with the same entropy, in frames of 0.186 s; the mean
    is weighted by energy. The change is the mean difference of a bin's level from one frame of 46 ms
    to the next, with levels limited to 40 dB below the loudest.
    """
    signal, rate_hz = filter_mono(clip, 0, math.inf, 1000)
    if len(signal) < 0.2 * rate_hz:
        return None, None
    long_power = _low_end_power(clip, signal, rate_hz, 0.186)
    short_power = _low_end_power(clip, signal, rate_hz, 0.0464)
    energy = long_power.sum(1)
    low_energy = band_energy(clip, *_LOW_END_HZ, clip.mono_spectrum)
    if is_empty(clip, low_energy / clip.audio.shape[1]) or not energy.any():
        return None, None
    entropy = np.sum(scipy.special.entr(long_power / np.maximum(energy, 1e-300)[:, None]), 1)
    width_hz = (_LOW_END_HZ[1] - _LOW_END_HZ[0]) / long_power.shape[1]
    levels = 10 * np.log10(np.maximum(short_power, 1e-4 * short_power.max()))
    before = np.roll(levels, 1, 0) if clip.loop else levels[:-1]
    change = np.abs((levels if clip.loop else levels[1:]) - before).mean()
    return float(width_hz * np.exp(np.average(entropy, weights=energy))), float(change)


def _low_end_power(clip: Clip, signal: np.ndarray, rate_hz: float, frame_s: float) -> np.ndarray:
    """Power in the bins of the low end, `[frames, bins]`, with a hop of a quarter of a frame."""
    size = round(frame_s * rate_hz)
    if clip.loop:
        starts = np.linspace(0, len(signal), math.ceil(4 * len(signal) / size), endpoint=False).astype(int)
        signal = np.take(signal, np.arange(len(signal) + size), mode="wrap")
    else:
        starts = np.arange(0, len(signal) - size + 1, max(1, size // 4))
    frames = np.lib.stride_tricks.sliding_window_view(signal, size)[starts]
    power = np.abs(scipy.fft.rfft(frames * scipy.signal.get_window("hann", size))) ** 2
    frequencies_hz = np.arange(power.shape[1]) * rate_hz / size
    return power[:, (frequencies_hz > _LOW_END_HZ[0]) & (frequencies_hz < _LOW_END_HZ[1])]


def _partial_share(clip: Clip) -> float | None:
    """Share of the energy from 200 Hz to 5 kHz in spectral peaks; None for a clip below 0.1 s.

    A peak is a bin above four times the mean magnitude within 200 Hz, with its two neighbours.
    """
    signal, rate_hz = filter_mono(clip, 200, 5000, 12000)
    size = 2 * round(0.05 * rate_hz)
    if len(signal) < size:
        return None
    frames = np.lib.stride_tricks.sliding_window_view(signal, size)[:: size // 2]
    magnitude = np.abs(scipy.fft.rfft(frames * scipy.signal.get_window("hann", size)))
    around = scipy.ndimage.uniform_filter1d(magnitude, 2 * round(200 * size / rate_hz) + 1, mode="nearest")
    # In white noise one bin in 300,000 is that far above the mean (Rayleigh distribution).
    above = np.where(magnitude > 4 * around, 1.0, 0.0)
    peaks = scipy.ndimage.maximum_filter1d(above, 3)  # the window spreads a partial over three bins
    power = magnitude**2
    return float(np.sum(power * peaks) / power.sum()) if power.any() else None
