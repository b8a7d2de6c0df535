"""The beat grid of a track: tempo, beat and bar, from its energy in six bands every two milliseconds.

Techno comes from machines whose tempo does not move, so a track, or each section of one that was mixed or played, has one
tempo and one phase, fitted to all of its onsets at once; a breakdown without a beat is bridged. Onsets of all bands give
the tempo, the attack of what sounds on the beat gives its phase, and bars begin where the arrangement changes.

Where no other origin is named, constants were set on 154 tracks of the built-in corpus and on what has no steady beat:
noise, syllables, pads, clicks at random, accelerating or in three.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

RATE_HZ = 24_000  # of the audio that is analysed: hats up to 12 kHz
BEATS = 4  # of a bar
# The corpus has 0.92 and more; without a beat, up to 0.5 in a minute or three; in 20 seconds 0.6, but two of eight voices had 0.7 and 0.84.
MIN_CONFIDENCE = 0.7
FRAMES_HZ = 500  # of the energies
_BANDS_HZ = ((30, 120), (120, 300), (300, 1000), (1000, 3000), (3000, 7000), (7000, None))
_WEIGHTS = (1.0, 0.5, 0.4, 0.4, 0.3, 0.3)  # of the bands' onsets: the kick counts most
_FLOOR_DB = -40.0  # below a band's loud moments: what is quieter counts as silence
_COARSE = 4  # frames that make one where the tempo is looked for
_COARSE_HZ = FRAMES_HZ / _COARSE
_WINDOW = 2048  # coarse frames, 16 s
_HARMONICS = np.arange(1, 9)  # of the beat: down to thirty-second notes
_BLOCK_BEATS = 8
_ALIKE = 0.5  # correlation from which two blocks are taken to play the same
_ON_GRID = 0.012 * _COARSE_HZ  # a block whose beat is at most so far off lies on the grid
_MIN_BLOCKS = 8  # on one grid,
_SHARE = 0.6  # or so much of a shorter track
# A beat whose attack is less than this, summed over four bands, is none over so many blocks. Masters are dense: of 210 songs with one grid
# throughout a third have less, see experiments/log/2026-11-29-decoding-by-beats-and-songs.md.
_SHARP_DB = 10.0
_MOST_BLOCKS = 80  # that count: five minutes at 130 BPM, longer tracks were not tried
_EARLY_S = 0.005  # a bar that begins this much before its stretch is whole


class Section(NamedTuple):
    """A stretch of a track that has one tempo, in whole bars of four beats."""

    start_s: float  # of the first bar, in the track
    bars: int
    bpm: float
    confidence: float  # 0 to 1, that there is a steady beat: how alike its beats are, how sharp, and how many
    downbeat_confidence: float  # 0 to 1, that bars begin there and not at another of the eight eighths

    def time_s(self, bar: float) -> float:
        """When a bar, or a place within one, comes, in the track."""
        return self.start_s + bar * 60 * BEATS / self.bpm

    def samples(self, bar_samples: float) -> int:
        """Its length where a bar has so many samples."""
        return round(self.bars * bar_samples)


class BandEnergyMeter:
    """Energy in six bands, two milliseconds each, of a mono stream at RATE_HZ that arrives in blocks of any length."""

    def __init__(self):
        """Starts at silence."""
        import scipy.signal  # a second, which a set without bars need not pay

        self._filter = scipy.signal.sosfilt
        self._filters = [
            scipy.signal.butter(2, (low, high) if high else low, "band" if high else "high", fs=RATE_HZ, output="sos")
            for low, high in _BANDS_HZ
        ]
        self._states = [np.zeros((len(sos), 2)) for sos in self._filters]
        self._rest = np.zeros(0, np.float32)
        self._energies: list[np.ndarray] = []

    def add(self, samples: np.ndarray) -> None:
        """Takes the next `[T]` of the stream."""
        width = RATE_HZ // FRAMES_HZ
        samples = np.concatenate([self._rest, samples])
        whole = len(samples) // width * width
        self._rest = samples[whole:]
        if not whole:
            return
        frames = np.empty((whole // width, len(_BANDS_HZ)), np.float32)
        for band, sos in enumerate(self._filters):
            filtered, self._states[band] = self._filter(sos, samples[:whole], zi=self._states[band])
            filtered = filtered.reshape(-1, width)
            frames[:, band] = np.einsum("ij,ij->i", filtered, filtered) / width
        self._energies.append(frames)

    def energies(self) -> np.ndarray:
        """Mean square of each whole frame in each band, `[frames, 6]`, float32: 12 kB a second."""
        return np.concatenate(self._energies) if self._energies else np.zeros((0, len(_BANDS_HZ)), np.float32)


def find_sections(energies: np.ndarray, range_bpm: tuple[float, float]) -> tuple[list[Section], float]:
    """The stretches of a track that have a steady beat, in order.

    Args:
        energies: from `BandEnergyMeter`.
        range_bpm: slowest and fastest tempo; less than an octave, or half and double tempo would be confused.

    Returns:
        Sections, and the largest confidence that any stretch reached, used or not.
    """
    onsets = _onsets(energies)
    grids, best = [], 0.0
    todo = [(0, onsets.shape[1])]
    while todo:
        start, stop = todo.pop()
        grid = _fit(onsets, start, stop, range_bpm)
        if grid is None:
            continue
        todo += [(start, grid.start), (grid.stop, stop)]
        grid = _sharpened(energies, grid)
        fewest = min(_MIN_BLOCKS, _SHARE * onsets.shape[1] / (_BLOCK_BEATS * grid.period))
        grid = grid._replace(confidence=grid.confidence * min(1, grid.blocks / fewest))
        best = max(best, grid.confidence)
        if grid.confidence >= MIN_CONFIDENCE:
            grids.append(grid)
    grids.sort(key=lambda grid: grid.start)
    if grids and grids[0].open_start:  # what has no beat of its own there is an intro
        grids[0] = grids[0]._replace(start=0)
    if grids and grids[-1].open_end:
        grids[-1] = grids[-1]._replace(stop=onsets.shape[1])
    sections = [_section(energies, grid, grid.start == 0, grid.stop == onsets.shape[1]) for grid in grids]
    return [section for section in sections if section.bars], best


class _Grid(NamedTuple):
    """Beats at `beat + k * period`, between `start` and `stop`; all in coarse frames."""

    beat: float
    period: float
    start: int
    stop: int
    blocks: int  # that lie on it
    confidence: float
    open_start: bool  # nothing before it speaks against it
    open_end: bool
    attack_ratio: float = 1.0  # on the beat to between the beats


# ----------------------------------------------------------------------------------------------------- tempo and sections


def _onsets(energies: np.ndarray) -> np.ndarray:
    """Rises of the bands' amplitudes, each divided by its mean, weighted and summed; and, mostly, the low ones: `[2, coarse]`."""
    window = np.hanning(11)[1:-1]
    onsets = np.zeros((2, len(energies) // _COARSE))
    for band, weight in enumerate(_WEIGHTS):
        if onsets.size:
            amplitude = np.convolve(np.sqrt(energies[:, band]), window / window.sum(), "same")[::_COARSE]
            rises = np.maximum(0, np.diff(amplitude[: onsets.shape[1]], prepend=amplitude[0]))
            rises *= weight / max(rises.mean(), 1e-12)
            onsets[0] += rises
            onsets[1] += rises if band < 2 else 0.1 * rises
    return onsets


def _fit(onsets: np.ndarray, start: int, stop: int, range_bpm: tuple[float, float]) -> _Grid | None:
    """The grid of the longest stretch with one tempo and phase between two frames; None where there is no room for it.

    From a guess where the kick is clearest, the stretch grows block by block as far as the blocks lie on the grid, which
    is fitted anew to all of them, six times.
    """
    part, low = onsets[:, start:stop]
    if len(part) < 2 * _BLOCK_BEATS * 60 / range_bpm[1] * _COARSE_HZ:
        return None
    period, middle = _guess(part, low, range_bpm)
    beat, run = 0.0, None
    for _ in range(6):
        phasors = _block_phasors(part, beat, period)
        weights = np.abs(phasors).sum(axis=1) + 1e-12
        inside = min(int((middle - beat) / (_BLOCK_BEATS * period)), len(phasors) - 1)
        if run is None:
            run = np.arange(max(0, inside - 1), min(inside + 2, len(phasors)))
        shifts, alike = _shifts(phasors, phasors[run[run < len(phasors)]].sum(axis=0))
        agrees = (alike >= _ALIKE) & (np.abs(shifts) * period <= _ON_GRID)
        # Off-beat hats in a breakdown are no other grid: they lie half a beat or a quarter beside it.
        beside = (alike >= _ALIKE) & ~agrees & (np.abs(shifts - np.rint(4 * shifts) / 4) * period <= _ON_GRID)
        contradicts = (alike >= _ALIKE) & ~agrees & ~beside
        first, last = _best_run(agrees - 1.0 * contradicts - 0.25 * beside, inside)
        run = first + np.flatnonzero(agrees[first : last + 1])
        if len(run) < 2:
            break
        slope, offset = np.polyfit(run + 0.5, shifts[run], 1, w=weights[run] ** 0.5)
        beat, period = beat + offset * period, period * (1 + slope / _BLOCK_BEATS)
    counted = first + np.flatnonzero(~beside[first : last + 1])
    edges = np.rint(beat + np.array([first, last + 1]) * _BLOCK_BEATS * period).astype(int)
    edges = np.clip(edges, [0, max(0, edges[0]) + 1], len(part))
    return _Grid(
        beat=start + beat,
        period=period,
        start=start + int(edges[0]),
        stop=start + int(edges[1]),
        blocks=len(run),
        confidence=_likeness(phasors, run, counted),
        open_start=not _twice_running(contradicts[:first]),
        open_end=not _twice_running(contradicts[last + 1 :]),
    )


def _guess(onsets: np.ndarray, low: np.ndarray, range_bpm: tuple[float, float]) -> tuple[float, int]:
    """The period in coarse frames whose multiples carry most of the onsets' spectrum; the frame where the low ones do."""
    bpm = np.arange(*range_bpm, 0.05)
    size = 8 * _WINDOW
    bins = np.rint(np.outer(bpm / 60, _HARMONICS) * size / _COARSE_HZ).astype(int)
    starts = range(0, max(1, len(onsets) - _WINDOW + 1), _WINDOW // 2)

    def tempogram(of: np.ndarray) -> np.ndarray:
        windows = (of[start : start + _WINDOW] for start in starts)
        tapered = ((window - window.mean()) * np.hanning(len(window)) for window in windows)
        return np.array([np.abs(np.fft.rfft(window, size))[bins].sum(axis=1) for window in tapered])

    near = np.flatnonzero(np.abs(bpm / bpm[tempogram(onsets).sum(axis=0).argmax()] - 1) < 0.005)
    of_low = tempogram(low)[:, near]
    clearest = int(of_low.max(axis=1).argmax())
    middle = min(starts[clearest] + _WINDOW // 2, len(onsets) - 1)
    return 60 / bpm[near[of_low[clearest].argmax()]] * _COARSE_HZ, middle


def _block_phasors(onsets: np.ndarray, beat: float, period: float) -> np.ndarray:
    """Fourier coefficients of the beat in each block of eight, `[blocks, harmonics]`; the last block may be shorter."""
    phase = (np.arange(len(onsets)) - beat) / period
    edges = np.ceil(np.arange(0, phase[-1], _BLOCK_BEATS) * period + beat).astype(int)
    edges = np.clip(edges, 0, len(onsets) - 1)
    turn = np.exp(-2j * np.pi * phase)
    turns, columns = turn, []
    for _ in _HARMONICS:
        columns.append(np.add.reduceat(onsets * turns, edges))
        turns = turns * turn
    return np.stack(columns, axis=1)


def _shifts(phasors: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """By how many beats each block is later than the reference, and how alike they are then."""
    places = np.arange(-64, 64) / 128
    turned = np.exp(2j * np.pi * np.outer(_HARMONICS, places)) * reference.conj()[:, None]
    norms = np.linalg.norm(phasors, axis=1) * np.linalg.norm(reference) + 1e-12
    alike = (phasors @ turned).real / norms[:, None]
    peak = alike.argmax(axis=1)
    rows = np.arange(len(alike))
    left, top, right = (alike[rows, (peak + step) % 128] for step in (-1, 0, 1))
    curve = left - 2 * top + right
    fine = np.where(curve < -1e-9, 0.5 * (left - right) / np.where(curve < -1e-9, curve, 1), 0)
    return places[peak] + fine / 128, top


def _likeness(phasors: np.ndarray, run: np.ndarray, counted: np.ndarray) -> float:
    """Correlation of each counted block with the sum of the run's other blocks, weighted by what plays in it: the mean.

    Of the others, for two blocks of noise are each like their sum.
    """
    others = phasors[run].sum(axis=0) - np.isin(counted, run)[:, None] * phasors[counted]
    norms = np.linalg.norm(phasors[counted], axis=1) * np.linalg.norm(others, axis=1) + 1e-12
    alike = np.maximum(0, (phasors[counted] * others.conj()).real.sum(axis=1) / norms)
    weights = np.abs(phasors[counted]).sum(axis=1)
    return float(weights @ alike / (weights.sum() + 1e-12))


def _best_run(scores: np.ndarray, inside: int) -> tuple[int, int]:
    """First and last of the run with the largest sum that contains `inside`."""
    ahead, behind = np.cumsum(scores[inside:]), np.cumsum(scores[: inside + 1][::-1])
    return inside - int(behind.argmax()), inside + int(ahead.argmax())


def _twice_running(flags: np.ndarray) -> bool:
    """Whether two neighbours are set."""
    return bool((flags[1:] & flags[:-1]).any())


# ---------------------------------------------------------------------------------------------------------- beat and bar


def _sharpened(energies: np.ndarray, grid: _Grid) -> _Grid:
    """The grid with its beat on the attack, and the confidence less where that is soft or bars are of three beats.

    Over n times as many beats a mean is as sure of an attack the root of n softer.
    """
    levels = _levels(energies, grid)
    attacks = _attacks(levels, grid)
    # On the corpus the rise is found half a millisecond early: a cut there keeps the whole attack.
    peak = int(attacks.argmax())
    near = np.arange(-12, 13)  # milliseconds

    def attack_at(share: float) -> float:
        return float(attacks[(peak + round(share * len(attacks)) + near) % len(attacks)].max())

    beat = grid.beat + peak / len(attacks) * grid.period
    sharp = float(attacks[peak] - np.median(attacks)) / _SHARP_DB
    sharp *= (min(max(grid.blocks, _MIN_BLOCKS), _MOST_BLOCKS) / _MIN_BLOCKS) ** 0.5
    # A tempo outside the range comes in at two or four thirds, and its beats on thirds of what are taken for beats.
    in_thirds = min(attack_at(1 / 3), attack_at(2 / 3)) > 0.75 * attacks[peak]
    in_three = in_thirds or _in_three(_eighths(levels, grid)[1])
    return grid._replace(
        beat=beat,
        confidence=0.0 if in_three else grid.confidence * min(1, sharp),
        attack_ratio=max(1.0, float(attacks[peak] / max(attack_at(1 / 2), 1e-3))),  # swing moves no eighth
    )


def _section(energies: np.ndarray, grid: _Grid, at_start: bool, at_end: bool) -> Section:
    """The section of a sharpened grid: which of a bar's eighths comes first."""
    levels = _levels(energies, grid)
    first, eighths = _eighths(levels, grid)
    costs = np.log([_bar_cost(eighths, turn, at_start, at_end) for turn in range(8)])
    # The arrangement may tell two halves of a beat apart no better than the attacks do: they decide a tie.
    costs += 0.02 * math.log(grid.attack_ratio) * ((np.arange(8) + first) % 2)
    turn = int(costs.argmin())
    bar_s = BEATS * grid.period / _COARSE_HZ
    start_s = (grid.beat - grid.start + (first + turn) * grid.period / 2) / _COARSE_HZ
    if start_s < -_EARLY_S:
        start_s += bar_s
    return Section(
        start_s=float(grid.start / _COARSE_HZ + start_s),
        bars=max(0, math.floor((len(levels) / FRAMES_HZ - start_s + _EARLY_S) / bar_s)),
        bpm=float(60 * BEATS / bar_s),
        confidence=grid.confidence,
        downbeat_confidence=float(1 / np.exp(100 * (costs[turn] - costs)).sum()),
    )


def _levels(energies: np.ndarray, grid: _Grid) -> np.ndarray:
    """The stretch's energies in dB of its loud moments in each band, not below the floor by much, `[frames, 6]`."""
    part = energies[grid.start * _COARSE : grid.stop * _COARSE]
    levels = np.empty_like(part)
    for band in range(part.shape[1]):  # one at a time: hours of it fill memory
        loud = np.float32(np.percentile(part[:, band], 95) + 1e-12)
        levels[:, band] = 10 * np.log10(part[:, band] / loud + np.float32(10 ** (_FLOOR_DB / 10)))
    return levels


def _attacks(levels: np.ndarray, grid: _Grid) -> np.ndarray:
    """Rise of the levels up to 3 kHz, summed, in each millisecond from the beat on: the mean of all beats.

    In decibels an attack is a rise in every band at once, however soft; the amplitude of a distorted kick may go on
    rising for 50 ms.
    """
    bins = round(grid.period / _COARSE_HZ * 1000)
    phase = ((np.arange(len(levels)) + 0.5) / _COARSE + grid.start - grid.beat) / grid.period % 1
    places = np.minimum((phase * bins).astype(int), bins - 1)
    counts = np.maximum(1, np.bincount(places, minlength=bins))
    beat = np.array([np.bincount(places, levels[:, band], bins) / counts for band in range(4)])
    rises = np.maximum(0, np.roll(beat, -2, axis=1) - np.roll(beat, 2, axis=1)).sum(axis=0)
    return np.convolve(np.concatenate([rises[-1:], rises, rises[:1]]), (0.25, 0.5, 0.25), "valid")


def _eighths(levels: np.ndarray, grid: _Grid) -> tuple[int, np.ndarray]:
    """Mean levels in both halves of each eighth note, `[eighths, 2 * bands]`, and the number of the first one.

    Number 0 begins at the grid's beat; the first one that touches the stretch comes first, silent where it is outside.
    """
    half = grid.period / 4 * _COARSE
    beat = (grid.beat - grid.start) * _COARSE
    first = math.floor(-beat / (2 * half))
    count = max(0, int((len(levels) - beat) / (2 * half)) - first)
    edges = np.clip(np.rint(beat + (2 * first + np.arange(2 * count + 1)) * half), 0, len(levels)).astype(int)
    widths = np.diff(edges)[:, None]
    sums = np.add.reduceat(levels, np.minimum(edges[:-1], len(levels) - 1), axis=0) if count else np.zeros((0, 6))
    return first, np.where(widths > 2, sums / np.maximum(widths, 1), _FLOOR_DB).reshape(count, -1)


def _in_three(eighths: np.ndarray) -> bool:
    """Whether eighths resemble those three beats later, but not those four beats later."""
    if len(eighths) <= 8:
        return False
    three, four = (np.linalg.norm(eighths[lag:] - eighths[:-lag], axis=1).mean() for lag in (6, 8))
    return bool(three < 0.8 * four and four - three > eighths.shape[1] ** 0.5)  # by a decibel


def _bar_cost(eighths: np.ndarray, turn: int, at_start: bool, at_end: bool) -> float:
    """How much the bars differ from one to the next if one begins with eighth number `turn`.

    The arrangement changes seldom, and at bars. A change at the line between two bars is one large difference, anywhere
    else it is two smaller ones; the root of the difference makes the two cost more than the one. A track most often begins
    with a bar, so silence before and after it counts as bars too, but for less than a change within: it may be cut.
    """
    silence = np.full((8, eighths.shape[1]), _FLOOR_DB)
    padded = np.concatenate([silence] * 2 * at_start + [eighths] + [silence] * 2 * at_end)[turn:]
    bars = padded[: len(padded) // 8 * 8].reshape(len(padded) // 8, -1, len(_BANDS_HZ))
    weights = np.ones(max(0, len(bars) - 1))
    weights[: 2 * at_start] = 0.5
    weights[len(weights) - 2 * at_end :] = 0.5
    differences = np.sqrt(np.linalg.norm(np.diff(bars, axis=0), axis=1)).sum(axis=1)
    return float(differences @ weights / weights.sum()) if len(weights) else 1.0
