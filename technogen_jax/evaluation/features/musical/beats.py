"""Onsets, tempo and the beat grid of a clip, from which the rhythm features are computed.

A beat is a quarter note and a bar is four beats. Where the number of beats of a clip is known, the
clip begins on a downbeat. Otherwise its tempo is estimated, the grid ends with the last whole beat,
and it begins where the low end has its onsets.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np
import scipy.fft
import scipy.signal

from technogen_jax.evaluation.features.musical.clip import BANDS_HZ, FRAMES_IN_CACHE, Clip, filter_mono, wrap

STEPS = 16  # of a bar
TEMPO_RANGE_BPM = (100.0, 180.0)
MIN_TEMPO_S = 0.9  # one and a half of the slowest beat: a shorter clip lacks a period of some tempos

_N_MELS, _FMIN_HZ = 64, 30.0
_LAGS_A_FRAME = 4  # linear interpolation between whole frames would shift a tempo by 0.3 BPM
_PLACES = 48  # a beat is divided into, to find the first one


class Onsets(NamedTuple):
    """Rise of the level from frame to frame, averaged over mel bands, in dB.

    Attributes:
        all: `[N]`, over all bands.
        bands: `[N, 3]`, over those of `BANDS_HZ`.
        rate_hz: frames a second.
    """

    all: np.ndarray
    bands: np.ndarray
    rate_hz: float


class Tempo(NamedTuple):
    """An estimated tempo; both None where the clip has none.

    Attributes:
        bpm: beats a minute.
        clarity: autocorrelation of the onsets at the best lag of one beat, up to 1.
    """

    bpm: float | None
    clarity: float | None


class Grid(NamedTuple):
    """The beats of a clip.

    Attributes:
        first_s: time of the first beat.
        beat_s: length of a beat.
        beats: number of whole beats in the clip.
    """

    first_s: float
    beat_s: float
    beats: int


def find_onsets(clip: Clip) -> Onsets:
    """Returns the half-wave rectified changes of 64 mel bands in dB, every 3 ms.

    The frames are short because a tempo is a lag: with librosa's default hop of 23 ms no tempo lies
    between 123 and 129.2 BPM. Frames at the ends of a clip wrap around even where it is no loop:
    with zeros beyond the ends there would be a false onset, with a mirrored end one could be hidden.
    """
    audio, rate_hz = filter_mono(clip, 0, math.inf, clip.rate_hz / max(1, round(clip.rate_hz / 22050)))
    size = 1 << round(math.log2(0.046 * rate_hz))  # 1024 samples at 22.05 kHz
    frames = max(2, round(len(audio) / (0.0029 * rate_hz)))
    views = np.lib.stride_tricks.sliding_window_view(wrap(audio, size // 2), size)
    starts = np.arange(frames) * len(audio) // frames
    window = scipy.signal.get_window("hann", size)
    filters, centres_hz = _mel_filters(round(rate_hz), size)
    power = np.empty((frames, filters.shape[1]))
    for first in range(0, frames, FRAMES_IN_CACHE):
        spectra = scipy.fft.rfft(views[starts[first : first + FRAMES_IN_CACHE]] * window)
        power[first : first + FRAMES_IN_CACHE] = (spectra.real**2 + spectra.imag**2) @ filters
    levels_db = 10 * np.log10(np.maximum(power, 1e-8 * power.max() + 1e-300))  # 80 dB below the loudest
    rises = np.maximum(levels_db - np.roll(levels_db, 1, axis=0), 0)
    bands = np.zeros((frames, len(BANDS_HZ)))
    for index, (low_hz, high_hz) in enumerate(BANDS_HZ.values()):
        inside = (centres_hz >= low_hz) & (centres_hz < high_hz)
        if inside.any():
            bands[:, index] = rises[:, inside].mean(axis=1)
    return Onsets(rises.mean(axis=1), bands, frames / clip.seconds)


@functools.cache
def _mel_filters(rate_hz: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """(`[F, 64]` triangular filters from 30 Hz to the Nyquist frequency, their centres in Hz)."""
    import librosa  # takes a second to import

    options = {"n_mels": _N_MELS, "fmin": _FMIN_HZ, "htk": True, "norm": None, "dtype": np.float64}
    filters = librosa.filters.mel(sr=rate_hz, n_fft=size, **options)
    centres_hz = librosa.mel_frequencies(_N_MELS + 2, fmin=_FMIN_HZ, fmax=rate_hz / 2, htk=True)[1:-1]
    return np.ascontiguousarray(filters.T), centres_hz


def estimate_tempo(clip: Clip, onsets: Onsets) -> Tempo:
    """Returns the tempo at whose first eight beats the autocorrelation of the onsets is highest.

    For a clip that does not loop, a lag is weighted by the length of the clip that overlaps.
    """
    values = _autocorrelate(onsets, clip.loop) if clip.seconds >= MIN_TEMPO_S else None
    if values is None:
        return Tempo(None, None)
    low_bpm, high_bpm = TEMPO_RANGE_BPM
    tempos_bpm = np.linspace(low_bpm, high_bpm, round((high_bpm - low_bpm) * 10) + 1)
    rate_hz = _LAGS_A_FRAME * onsets.rate_hz
    lags = np.arange(1, 9) * 60 / tempos_bpm[:, None] * rate_hz  # [tempos, 8]
    places = np.arange(len(values))
    if clip.loop:
        scores = np.interp(lags, places, values, period=len(values)).mean(axis=1)
        weights = np.ones(len(values))
    else:
        weights = 1 - places / len(values)
        scores = np.interp(lags, places, values, right=0).sum(axis=1) / np.interp(lags, places, weights, right=0).sum(1)
    first, last = round(60 / high_bpm * rate_hz), round(60 / low_bpm * rate_hz)
    clarity = (values[first : last + 1] / weights[first : last + 1]).max()
    return Tempo(float(tempos_bpm[scores.argmax()]), float(clarity))


def _autocorrelate(onsets: Onsets, loop: bool) -> np.ndarray | None:
    """Autocorrelation of the onsets, 1 at lag 0, four lags a frame; None without onsets.

    Circular for a loop.
    """
    changes = onsets.all - onsets.all.mean()
    if np.mean(changes**2) < 1e-4:  # 0.01 dB; rounding gives a steady tone 0.002 dB, noise has 0.04 dB
        return None
    size = len(changes) if loop else scipy.fft.next_fast_len(2 * len(changes), real=True)
    power = np.abs(scipy.fft.rfft(changes, size)) ** 2
    values = scipy.fft.irfft(power, _LAGS_A_FRAME * size)[: _LAGS_A_FRAME * len(changes)]
    return values / values[0]


def find_grid(clip: Clip, onsets: Onsets, tempo_bpm: float | None, beats: int | None) -> Grid | None:
    """Returns the beats of the clip; None where it has no tempo or no whole beat.

    Args:
        clip: the clip.
        onsets: its onsets.
        tempo_bpm: its estimated tempo.
        beats: number of beats in the clip, if known.
    """
    if beats is not None:
        return Grid(0.0, clip.seconds / beats, beats)
    if tempo_bpm is None:
        return None
    exact = clip.seconds * tempo_bpm / 60
    count = round(exact) if clip.loop else math.floor(exact + 0.02)  # the tempo is accurate to 0.2 %
    if count < 1:
        return None
    beat_s = clip.seconds / count if clip.loop else min(60 / tempo_bpm, clip.seconds / count)
    rises = onsets.bands[:, 0] if onsets.bands[:, 0].any() else onsets.all
    # The first beat is at the offset at which a comb of beats has the largest sum of onsets: of 48
    # places a beat, each is as wide as 3.
    folded = np.zeros(_PLACES)
    places = np.arange(len(rises)) / onsets.rate_hz / beat_s
    np.add.at(folded, (places * _PLACES).astype(int) % _PLACES, rises)
    folded += np.roll(folded, 1) + np.roll(folded, -1)
    # An onset is detected up to half a window early, so just before the end of a beat is the start
    # of the clip.
    first = (int(folded.argmax()) + 6) % _PLACES - 6
    return Grid(first / _PLACES * beat_s, beat_s, count)


def cut_bars(onsets: Onsets, grid: Grid, loop: bool) -> np.ndarray | None:
    """Returns the onsets at each sixteenth of the whole bars; None without a whole bar.

    A sixteenth gets the onsets from half a step before it to half a step after it.

    Returns:
        `[bars, 16, 3]`.
    """
    frames, bands = onsets.bands.shape
    step = grid.beat_s / 4 * onsets.rate_hz
    whole = frames if loop else frames - grid.first_s * onsets.rate_hz
    bars = int(whole / (STEPS * step) + 1e-2)
    if not bars:
        return None
    edges = grid.first_s * onsets.rate_hz + (np.arange(bars * STEPS + 1) - 0.5) * step
    totals = np.concatenate([np.zeros((1, bands)), np.cumsum(np.tile(onsets.bands, (3, 1)), axis=0)])
    sums = [np.diff(np.interp(edges + frames, np.arange(len(totals)), totals[:, band])) for band in range(bands)]
    return np.stack(sums, axis=1).reshape(bars, STEPS, bands)
