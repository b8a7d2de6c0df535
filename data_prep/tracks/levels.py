"""Measures what spoils a track's level: single wild samples, a DC offset, channels that cancel, no treble."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from data_prep import clips

_WILD_RATIO = 4.0  # a wild sample is 12 dB or more above all others (chosen: mixes reach 3 dB)
_WILD_IN_BLOCK = 32  # more samples near the peak of a block are a sound
_MOST_WILD = 64  # in a track
_SUSPICIOUS_CREST = 10.0  # peak over RMS of a block; below it the peak is not examined
_EVERY_BLOCK = 4  # of the blocks in which channels are compared; all would slow decoding by a tenth (measured)
_DC_SHARE = 2e-3  # of the peak (chosen); the built-in corpus has less
_PIECE_S = 0.25
_SHORTEST_FOR_DC_S = 2.0  # the mean of a single hit is no offset
_WINDOW_SAMPLES, _WINDOWS = 4096, 32
# Relative to the loudest band: above the rounding of 16-bit files, below the softest treble of mixes.
_TREBLE_FLOOR_DB = -95.0
CANCELLED_DB = -20.0  # of the mono mix relative to the channels: what is left is noise
_WEAK_DB = -10.0


class StreamMeter:
    """Measures a track's own samples while it is decoded."""

    def __init__(self, silent_amplitude: float):
        """Starts with no samples; `silent_amplitude` is the level of `passed`."""
        self._amplitude = silent_amplitude
        self._low, self._high = np.inf, -np.inf
        self._blocks, self._samples, self._sums, self._products = 0, 0, 0.0, 0.0
        self._usual_peak, self._large = 0.0, np.zeros(0, np.float32)
        self.passed = False  # whether a channel spans more than twice the amplitude: DC alone does not

    def watch(self, blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        """Yields the blocks `[T, C]` and measures them."""
        for block in blocks:
            if not self.passed:
                self._low = np.minimum(self._low, block.min(0))
                self._high = np.maximum(self._high, block.max(0))
                self.passed = bool(np.any(self._high - self._low >= 2 * self._amplitude))
            if self._blocks % _EVERY_BLOCK == 0 and block.shape[1] == 2:
                self._add_moments(block)
            self._blocks += 1
            self._add_peak(block)
            yield block

    def _add_moments(self, block: np.ndarray) -> None:
        self._samples += len(block)
        with np.errstate(over="ignore", invalid="ignore"):  # integers stored as floats
            self._sums = self._sums + (np.ones(len(block), np.float32) @ block).astype(np.float64)
            self._products = self._products + (block.T @ block).astype(np.float64)

    def _add_peak(self, block: np.ndarray) -> None:
        peak = max(float(block.max()), -float(block.min()))
        mean_square = float(np.vdot(block, block)) / block.size
        if peak * peak > _SUSPICIOUS_CREST**2 * mean_square and math.isfinite(mean_square):
            magnitudes = np.abs(block)
            near = magnitudes > peak / _WILD_RATIO
            if np.count_nonzero(near) <= _WILD_IN_BLOCK:
                self._large = np.append(self._large, magnitudes[near])
                peak = float(magnitudes[~near].max(initial=0))
        self._usual_peak = max(self._usual_peak, peak)

    def wild_samples(self) -> tuple[int, float, float]:
        """Returns how many samples are wild, the largest of them, and the largest of all others.

        A track with many such samples is made of clicks: none of them is wild.
        """
        wild = self._large > _WILD_RATIO * self._usual_peak
        count = int(np.count_nonzero(wild))
        if not 0 < count <= _MOST_WILD or not self._usual_peak:
            return 0, 0.0, math.inf
        limit = max(self._usual_peak, float(self._large[~wild].max(initial=0)))
        return count, float(self._large.max()), limit

    def mono_db(self) -> float:
        """Returns the level of the mean of two channels relative to theirs, in dB; 0 for one channel."""
        if not self._samples or np.shape(self._products) != (2, 2):
            return 0.0
        covariance = self._products - np.outer(self._sums, self._sums) / self._samples
        both, mean = np.trace(covariance) / 2, covariance.sum() / 4
        return 10 * math.log10(max(mean, 1e-12 * both) / both) if both > 0 else 0.0


class OffsetMeter:
    """Finds the DC offset of each channel of a stream, from the means of its pieces."""

    def __init__(self, rate_hz: int):
        """Starts with no samples."""
        self._rate_hz = rate_hz
        self._means: list[np.ndarray] = []
        self._sum, self._count = 0.0, 0  # of the piece that is not complete
        self._samples = 0

    def add(self, block: np.ndarray) -> None:
        """Adds the next samples, `[T, C]`."""
        self._sum = self._sum + np.ones(len(block), np.float32) @ block
        self._count += len(block)
        self._samples += len(block)
        if self._count >= _PIECE_S * self._rate_hz:
            self._means.append(self._sum / self._count)
            self._sum, self._count = 0.0, 0

    def offset(self, peak: float) -> np.ndarray | None:
        """Returns the offset of each channel, float32 `[C]`; None where there is none worth removing.

        An offset is in all pieces; a loud hit has a mean too, and so has noise.
        """
        if not self._means or self._samples < _SHORTEST_FOR_DC_S * self._rate_hz:
            return None
        offset, spread = np.median(self._means, axis=0), np.std(self._means, axis=0)
        steady = np.where((np.abs(offset) > _DC_SHARE * peak) & (spread < 0.3 * np.abs(offset)), offset, 0)
        return steady.astype(np.float32) if steady.any() else None


def measure_bandwidth(read: Callable[[int, int], np.ndarray], samples: int, rate_hz: int) -> float:
    """Returns the highest frequency in Hz at which a track has sound.

    Args:
        read: returns samples start to stop, `[T, C]`.
        samples: length of the track.
        rate_hz: its rate.
    """
    length = min(_WINDOW_SAMPLES, samples)
    count = min(_WINDOWS, max(1, samples // length))
    starts = [round((samples - length) * (index + 0.5) / count) for index in range(count)]
    window = np.hanning(length)[:, None].astype(np.float32)
    powers = [np.square(np.abs(np.fft.rfft(read(s, s + length) * window, axis=0))).sum(1) for s in starts]
    # Of the loud windows: a track may have treble in some of its parts only.
    spectrum = np.quantile(powers, 0.9, axis=0)
    width = max(1, length // 256)
    smooth = np.convolve(spectrum, np.full(width, 1 / width), "same")
    above = np.flatnonzero(smooth > smooth.max() * 10 ** (_TREBLE_FLOOR_DB / 10))
    return float((above[-1] if len(above) else 0) * rate_hz / length)


def describe(meter: StreamMeter, channels: int, offset: np.ndarray | None, clipped: float) -> list[str]:
    """Returns what the user should know about a track's level, one text each.

    Args:
        meter: of its samples.
        channels: of the dataset.
        offset: that was removed, in full scales.
        clipped: share of the samples that were clipped.
    """
    notes = []
    count, largest, limit = meter.wild_samples()
    if count:
        above = clips.decibels(largest) - clips.decibels(limit)
        notes.append(f"{count} wild samples, up to {above:.0f} dB above all others, were limited")
    if offset is not None:
        notes.append(f"a DC offset of {100 * float(np.abs(offset).max()):.2g} % of full scale was removed")
    if clipped >= 1e-4:
        notes.append(f"{100 * clipped:.2g} % of its samples are above full scale and were clipped: see --normalise")
    if channels == 1 and (lost := meter.mono_db()) < _WEAK_DB:
        notes.append(f"left and right partly cancel: mono is {-lost:.0f} dB softer; --channels 2 keeps both")
    return notes
