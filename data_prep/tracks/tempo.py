"""Finds the beat grid of a track: its tempo, its beats and its bars.

The input is the energy of the track in six frequency bands, measured every two milliseconds.

Techno is made with machines that keep one tempo. A track, or each section of a mix, therefore has
one tempo and one phase, and both are fitted to all onsets of the section at once. The section
continues across a breakdown without a beat. The tempo comes from the onsets of all bands. The phase
comes from the attack of the sounds on the beat. Bars begin where the arrangement changes.

Constants without another origin were chosen on 154 tracks of the built-in corpus, and on audio
without a steady beat: noise, syllables, pads, and clicks that are random, accelerate, or are in
triple meter.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

RATE_HZ = 24_000  # sampling rate of the analysed audio: it contains hi-hats up to 12 kHz
BEATS_PER_BAR = 4
# Tracks of the corpus reach 0.92 or more. Audio without a beat reaches up to 0.5 in one to three
# minutes. In 20 seconds it reaches 0.6, but two of eight voice recordings had 0.7 and 0.84.
MIN_CONFIDENCE = 0.7
FRAME_RATE_HZ = 500  # of the energies
_BANDS_HZ = ((30, 120), (120, 300), (300, 1000), (1000, 3000), (3000, 7000), (7000, None))
_BAND_WEIGHTS = (1.0, 0.5, 0.4, 0.4, 0.3, 0.3)  # of the onsets: the bass drum has the most weight
_FLOOR_DB = -40.0  # relative to the loud frames of a band; lower levels count as silence
_COARSE_FRAMES = 4  # frames in one coarse frame; the tempo is fitted to coarse frames
_COARSE_RATE_HZ = FRAME_RATE_HZ / _COARSE_FRAMES
_TEMPOGRAM_WINDOW = 2048  # coarse frames, 16 s
_HARMONICS = np.arange(1, 9)  # of the beat frequency: up to thirty-second notes
_BLOCK_BEATS = 8
_MIN_SIMILARITY = 0.5  # correlation from which two blocks count as the same pattern
_MAX_SHIFT = 0.012 * _COARSE_RATE_HZ  # coarse frames: a block with a smaller shift is on the grid
# A grid has full confidence from this number of blocks on, or this share of a shorter track.
_MIN_BLOCKS = 8
_MIN_SHARE = 0.6
# A grid of `_MIN_BLOCKS` blocks has full confidence if the attack of its mean beat, summed over
# four bands, is at least this. Mastered music is dense: of 210 songs with one grid throughout, a third
# have less. Measured: experiments/log/2026-11-29-decoding-by-beats-and-songs.md.
_FULL_ATTACK_DB = 10.0
_MAX_BLOCKS = 80  # used to adjust that threshold: five minutes at 130 BPM, the longest tested
_MAX_EARLY_S = 0.005  # a bar that begins this much before its section still counts as complete


class Section(NamedTuple):
    """A part of a track with one tempo; it consists of whole bars of four beats."""

    start_s: float  # start of the first bar, in the track
    bars: int
    bpm: float
    # Confidence in a steady beat, 0 to 1: grows with the similarity, attack and number of the beats.
    confidence: float
    # Confidence that bars begin here and not at another of the bar's eight eighth notes, 0 to 1.
    downbeat_confidence: float

    def time_s(self, bar: float) -> float:
        """Returns the time of a bar, or of a position within one, in the track."""
        return self.start_s + bar * 60 * BEATS_PER_BAR / self.bpm

    def samples(self, bar_samples: float) -> int:
        """Returns the length of the section in samples if a bar has `bar_samples`."""
        return round(self.bars * bar_samples)


class BandEnergyAnalyzer:
    """Computes the energy in six bands, every two milliseconds, of audio that arrives in blocks.

    The audio is mono at `RATE_HZ`. Blocks may have any length.
    """

    def __init__(self):
        """Initializes the filters with silence."""
        import scipy.signal  # its import takes a second, and only datasets cut at bars need it

        self._filter = scipy.signal.sosfilt
        self._filters = [
            scipy.signal.butter(2, (low, high) if high else low, "band" if high else "high", fs=RATE_HZ, output="sos")
            for low, high in _BANDS_HZ
        ]
        self._states = [np.zeros((len(sos), 2)) for sos in self._filters]
        self._rest = np.zeros(0, np.float32)
        self._energies: list[np.ndarray] = []

    def add(self, samples: np.ndarray) -> None:
        """Analyses the next block `[T]`."""
        width = RATE_HZ // FRAME_RATE_HZ
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
        """Returns the mean square of each complete frame in each band, float32 `[frames, 6]`.

        It takes 12 kB for each second of audio.
        """
        return np.concatenate(self._energies) if self._energies else np.zeros((0, len(_BANDS_HZ)), np.float32)


def find_sections(energies: np.ndarray, range_bpm: tuple[float, float]) -> tuple[list[Section], float]:
    """Returns the sections of a track that have a steady beat, and the largest confidence.

    Args:
        energies: from `BandEnergyAnalyzer`.
        range_bpm: slowest and fastest tempo. The range must be smaller than an octave: otherwise a
            tempo and its double could not be distinguished.

    Returns:
        The sections in order, and the largest confidence of any candidate, accepted or not.
    """
    onsets = _onset_strength(energies)
    grids, best = [], 0.0
    remaining = [(0, onsets.shape[1])]
    while remaining:
        start, stop = remaining.pop()
        grid = _fit_grid(onsets, start, stop, range_bpm)
        if grid is None:
            continue
        remaining += [(start, grid.start), (grid.stop, stop)]
        grid = _align_to_attacks(energies, grid)
        required = min(_MIN_BLOCKS, _MIN_SHARE * onsets.shape[1] / (_BLOCK_BEATS * grid.period))
        grid = grid._replace(confidence=grid.confidence * min(1, grid.blocks / required))
        best = max(best, grid.confidence)
        if grid.confidence >= MIN_CONFIDENCE:
            grids.append(grid)
    grids.sort(key=lambda grid: grid.start)
    # An intro or an ending without a beat of its own belongs to the section beside it.
    if grids and grids[0].open_start:
        grids[0] = grids[0]._replace(start=0)
    if grids and grids[-1].open_end:
        grids[-1] = grids[-1]._replace(stop=onsets.shape[1])
    sections = [_make_section(energies, grid, grid.start == 0, grid.stop == onsets.shape[1]) for grid in grids]
    return [section for section in sections if section.bars], best


class _Grid(NamedTuple):
    """Beats at `beat + k * period`, between `start` and `stop`; all four in coarse frames."""

    beat: float
    period: float
    start: int
    stop: int
    blocks: int  # number of blocks on the grid
    confidence: float
    open_start: bool  # no block before `start` contradicts the grid
    open_end: bool  # no block after `stop` contradicts it
    attack_ratio: float = 1.0  # attack on the beat divided by the attack half a beat later


# ---------------------------------------------------------------------- tempo and sections


def _onset_strength(energies: np.ndarray) -> np.ndarray:
    """Returns two onset curves `[2, coarse frames]`: of all bands, and mainly of the two lowest.

    An onset is a rise of a band's amplitude. Each band is divided by its mean rise and weighted.
    """
    window = np.hanning(11)[1:-1]
    onsets = np.zeros((2, len(energies) // _COARSE_FRAMES))
    for band, weight in enumerate(_BAND_WEIGHTS):
        if onsets.size:
            amplitude = np.convolve(np.sqrt(energies[:, band]), window / window.sum(), "same")[::_COARSE_FRAMES]
            rises = np.maximum(0, np.diff(amplitude[: onsets.shape[1]], prepend=amplitude[0]))
            rises *= weight / max(rises.mean(), 1e-12)
            onsets[0] += rises
            onsets[1] += rises if band < 2 else 0.1 * rises
    return onsets


def _fit_grid(onsets: np.ndarray, start: int, stop: int, range_bpm: tuple[float, float]) -> _Grid | None:
    """Returns the grid of the longest part with one tempo and phase between two coarse frames.

    The first estimate is made where the bass drum is clearest. From there the part grows block by
    block while the blocks are on the grid. The grid is then fitted to all of them again, six times.

    Returns:
        The grid, or None if the range is shorter than two blocks.
    """
    part, low = onsets[:, start:stop]
    if len(part) < 2 * _BLOCK_BEATS * 60 / range_bpm[1] * _COARSE_RATE_HZ:
        return None
    period, middle = _estimate_period(part, low, range_bpm)
    beat, on_grid = 0.0, None  # `on_grid`: indices of the blocks on the grid
    for _ in range(6):
        spectra = _block_spectra(part, beat, period)
        weights = np.abs(spectra).sum(axis=1) + 1e-12
        middle_block = min(int((middle - beat) / (_BLOCK_BEATS * period)), len(spectra) - 1)
        if on_grid is None:
            on_grid = np.arange(max(0, middle_block - 1), min(middle_block + 2, len(spectra)))
        shifts, similarity = _find_shifts(spectra, spectra[on_grid[on_grid < len(spectra)]].sum(axis=0))
        similar = similarity >= _MIN_SIMILARITY
        agrees = similar & (np.abs(shifts) * period <= _MAX_SHIFT)
        # Off-beat hi-hats in a breakdown are not another grid: they are shifted by a multiple of a
        # quarter of a beat.
        off_beat = similar & ~agrees & (np.abs(shifts - np.rint(4 * shifts) / 4) * period <= _MAX_SHIFT)
        contradicts = similar & ~agrees & ~off_beat
        first, last = _best_range(agrees - 1.0 * contradicts - 0.25 * off_beat, middle_block)
        on_grid = first + np.flatnonzero(agrees[first : last + 1])
        if len(on_grid) < 2:
            break
        slope, offset = np.polyfit(on_grid + 0.5, shifts[on_grid], 1, w=weights[on_grid] ** 0.5)
        beat, period = beat + offset * period, period * (1 + slope / _BLOCK_BEATS)
    compared = first + np.flatnonzero(~off_beat[first : last + 1])
    edges = np.rint(beat + np.array([first, last + 1]) * _BLOCK_BEATS * period).astype(int)
    edges = np.clip(edges, [0, max(0, edges[0]) + 1], len(part))
    return _Grid(
        beat=start + beat,
        period=period,
        start=start + int(edges[0]),
        stop=start + int(edges[1]),
        blocks=len(on_grid),
        confidence=_mean_similarity(spectra, on_grid, compared),
        open_start=not _has_two_in_a_row(contradicts[:first]),
        open_end=not _has_two_in_a_row(contradicts[last + 1 :]),
    )


def _estimate_period(onsets: np.ndarray, low: np.ndarray, range_bpm: tuple[float, float]) -> tuple[float, int]:
    """Returns a first estimate of the beat's period, and where the low bands support it most.

    The period is the one whose harmonics contain most of the spectrum of the onsets.

    Args:
        onsets: onsets of all bands, `[coarse frames]`.
        low: onsets of mainly the low bands, `[coarse frames]`.
        range_bpm: slowest and fastest tempo.

    Returns:
        The period and the position, both in coarse frames.
    """
    bpm = np.arange(*range_bpm, 0.05)
    size = 8 * _TEMPOGRAM_WINDOW
    bins = np.rint(np.outer(bpm / 60, _HARMONICS) * size / _COARSE_RATE_HZ).astype(int)
    starts = range(0, max(1, len(onsets) - _TEMPOGRAM_WINDOW + 1), _TEMPOGRAM_WINDOW // 2)

    def tempogram(curve: np.ndarray) -> np.ndarray:
        windows = (curve[start : start + _TEMPOGRAM_WINDOW] for start in starts)
        tapered = ((window - window.mean()) * np.hanning(len(window)) for window in windows)
        return np.array([np.abs(np.fft.rfft(window, size))[bins].sum(axis=1) for window in tapered])

    near = np.flatnonzero(np.abs(bpm / bpm[tempogram(onsets).sum(axis=0).argmax()] - 1) < 0.005)
    low_tempogram = tempogram(low)[:, near]
    clearest = int(low_tempogram.max(axis=1).argmax())
    middle = min(starts[clearest] + _TEMPOGRAM_WINDOW // 2, len(onsets) - 1)
    return 60 / bpm[near[low_tempogram[clearest].argmax()]] * _COARSE_RATE_HZ, middle


def _block_spectra(onsets: np.ndarray, beat: float, period: float) -> np.ndarray:
    """Returns the Fourier coefficients at the beat's harmonics of each block of eight beats.

    Returns:
        complex `[blocks, harmonics]`; the last block may be shorter.
    """
    phase = (np.arange(len(onsets)) - beat) / period
    edges = np.ceil(np.arange(0, phase[-1], _BLOCK_BEATS) * period + beat).astype(int)
    edges = np.clip(edges, 0, len(onsets) - 1)
    rotation = np.exp(-2j * np.pi * phase)
    power, columns = rotation, []
    for _ in _HARMONICS:
        columns.append(np.add.reduceat(onsets * power, edges))
        power = power * rotation
    return np.stack(columns, axis=1)


def _find_shifts(spectra: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the shift of each block against a reference, and its similarity at this shift.

    Args:
        spectra: complex `[blocks, harmonics]`.
        reference: complex `[harmonics]`.

    Returns:
        shifts: in beats, `[blocks]`; positive if the block is later.
        similarity: correlation, `[blocks]`.
    """
    candidates = np.arange(-64, 64) / 128
    shifted = np.exp(2j * np.pi * np.outer(_HARMONICS, candidates)) * reference.conj()[:, None]
    norms = np.linalg.norm(spectra, axis=1) * np.linalg.norm(reference) + 1e-12
    correlation = (spectra @ shifted).real / norms[:, None]
    peak = correlation.argmax(axis=1)
    rows = np.arange(len(correlation))
    # A parabola through the peak and its neighbours gives the shift between two candidates.
    left, top, right = (correlation[rows, (peak + step) % 128] for step in (-1, 0, 1))
    curve = left - 2 * top + right
    fine = np.where(curve < -1e-9, 0.5 * (left - right) / np.where(curve < -1e-9, curve, 1), 0)
    return candidates[peak] + fine / 128, top


def _mean_similarity(spectra: np.ndarray, on_grid: np.ndarray, compared: np.ndarray) -> float:
    """Returns the mean correlation of blocks with the sum of all other blocks on the grid.

    A block is left out of the sum that it is compared with: otherwise two blocks of noise would
    both resemble their sum.

    Args:
        spectra: complex `[blocks, harmonics]`.
        on_grid: indices of the blocks on the grid.
        compared: indices of the blocks to compare; each is weighted by its magnitude.
    """
    others = spectra[on_grid].sum(axis=0) - np.isin(compared, on_grid)[:, None] * spectra[compared]
    norms = np.linalg.norm(spectra[compared], axis=1) * np.linalg.norm(others, axis=1) + 1e-12
    similarity = np.maximum(0, (spectra[compared] * others.conj()).real.sum(axis=1) / norms)
    weights = np.abs(spectra[compared]).sum(axis=1)
    return float(weights @ similarity / (weights.sum() + 1e-12))


def _best_range(scores: np.ndarray, inside: int) -> tuple[int, int]:
    """Returns the first and last index of the range around `inside` with the largest sum."""
    ahead, behind = np.cumsum(scores[inside:]), np.cumsum(scores[: inside + 1][::-1])
    return inside - int(behind.argmax()), inside + int(ahead.argmax())


def _has_two_in_a_row(flags: np.ndarray) -> bool:
    """Returns whether two neighbouring flags are both true."""
    return bool((flags[1:] & flags[:-1]).any())


# --------------------------------------------------------------------------- beats and bars


def _align_to_attacks(energies: np.ndarray, grid: _Grid) -> _Grid:
    """Returns the grid with its beat moved to the attack, and with an adjusted confidence.

    The confidence is lower if the attack is soft, and 0 if the meter is triple. The mean of n times
    as many beats has less noise, so it needs an attack smaller by the square root of n.
    """
    levels = _relative_levels(energies, grid)
    attacks = _attack_curve(levels, grid)
    # On the corpus the attack is detected half a millisecond early: a cut there keeps all of it.
    peak = int(attacks.argmax())
    near = np.arange(-12, 13)  # milliseconds

    def attack_at(share: float) -> float:
        return float(attacks[(peak + round(share * len(attacks)) + near) % len(attacks)].max())

    beat = grid.beat + peak / len(attacks) * grid.period
    sharpness = float(attacks[peak] - np.median(attacks)) / _FULL_ATTACK_DB
    sharpness *= (min(max(grid.blocks, _MIN_BLOCKS), _MAX_BLOCKS) / _MIN_BLOCKS) ** 0.5
    # A tempo outside the range is detected as two or four thirds of it. Its beats are then at thirds
    # of the detected beats.
    in_thirds = min(attack_at(1 / 3), attack_at(2 / 3)) > 0.75 * attacks[peak]
    triple = in_thirds or _is_triple_meter(_eighth_note_levels(levels, grid)[1])
    return grid._replace(
        beat=beat,
        confidence=0.0 if triple else grid.confidence * min(1, sharpness),
        # Swing does not move the eighth note half a beat later.
        attack_ratio=max(1.0, float(attacks[peak] / max(attack_at(1 / 2), 1e-3))),
    )


def _make_section(energies: np.ndarray, grid: _Grid, at_start: bool, at_end: bool) -> Section:
    """Returns the section of a grid: finds which of a bar's eight eighth notes is the first.

    Args:
        energies: `[frames, 6]`.
        grid: from `_align_to_attacks`.
        at_start: the grid begins where the track begins.
        at_end: the grid ends where the track ends.
    """
    levels = _relative_levels(energies, grid)
    first, eighths = _eighth_note_levels(levels, grid)
    costs = np.log([_bar_change_cost(eighths, offset, at_start, at_end) for offset in range(8)])
    # If the arrangement does not distinguish the two halves of a beat, the attacks decide.
    costs += 0.02 * math.log(grid.attack_ratio) * ((np.arange(8) + first) % 2)
    offset = int(costs.argmin())
    bar_s = BEATS_PER_BAR * grid.period / _COARSE_RATE_HZ
    start_s = (grid.beat - grid.start + (first + offset) * grid.period / 2) / _COARSE_RATE_HZ
    if start_s < -_MAX_EARLY_S:
        start_s += bar_s
    return Section(
        start_s=float(grid.start / _COARSE_RATE_HZ + start_s),
        bars=max(0, math.floor((len(levels) / FRAME_RATE_HZ - start_s + _MAX_EARLY_S) / bar_s)),
        bpm=float(60 * BEATS_PER_BAR / bar_s),
        confidence=grid.confidence,
        downbeat_confidence=float(1 / np.exp(100 * (costs[offset] - costs)).sum()),
    )


def _relative_levels(energies: np.ndarray, grid: _Grid) -> np.ndarray:
    """Returns the levels of the grid's frames in dB relative to the loud frames, `[frames, 6]`.

    The floor is added to the energy, so that silence is at `_FLOOR_DB`.
    """
    part = energies[grid.start * _COARSE_FRAMES : grid.stop * _COARSE_FRAMES]
    levels = np.empty_like(part)
    for band in range(part.shape[1]):  # one band at a time, to save memory in mixes of several hours
        loud = np.float32(np.percentile(part[:, band], 95) + 1e-12)
        levels[:, band] = 10 * np.log10(part[:, band] / loud + np.float32(10 ** (_FLOOR_DB / 10)))
    return levels


def _attack_curve(levels: np.ndarray, grid: _Grid) -> np.ndarray:
    """Returns how much the level rises in each millisecond of the mean beat, `[milliseconds]`.

    The rises of the bands up to 3 kHz are summed. In decibels an attack, even a soft one, is a rise
    in all bands at once. The amplitude of a distorted bass drum may continue to rise for 50 ms.
    """
    bins = round(grid.period / _COARSE_RATE_HZ * 1000)
    phase = ((np.arange(len(levels)) + 0.5) / _COARSE_FRAMES + grid.start - grid.beat) / grid.period % 1
    places = np.minimum((phase * bins).astype(int), bins - 1)
    counts = np.maximum(1, np.bincount(places, minlength=bins))
    beat = np.array([np.bincount(places, levels[:, band], bins) / counts for band in range(4)])
    rises = np.maximum(0, np.roll(beat, -2, axis=1) - np.roll(beat, 2, axis=1)).sum(axis=0)
    return np.convolve(np.concatenate([rises[-1:], rises, rises[:1]]), (0.25, 0.5, 0.25), "valid")


def _eighth_note_levels(levels: np.ndarray, grid: _Grid) -> tuple[int, np.ndarray]:
    """Returns the mean levels in both halves of each eighth note, and the first one's number.

    Eighth note 0 begins at the grid's beat. The first one is the one that contains the start of the
    levels. Halves outside the levels count as silent.

    Returns:
        The number of the first eighth note, and `[eighth notes, 2 * bands]`.
    """
    half = grid.period / 4 * _COARSE_FRAMES
    beat = (grid.beat - grid.start) * _COARSE_FRAMES
    first = math.floor(-beat / (2 * half))
    count = max(0, int((len(levels) - beat) / (2 * half)) - first)
    edges = np.clip(np.rint(beat + (2 * first + np.arange(2 * count + 1)) * half), 0, len(levels)).astype(int)
    widths = np.diff(edges)[:, None]
    sums = np.add.reduceat(levels, np.minimum(edges[:-1], len(levels) - 1), axis=0) if count else np.zeros((0, 6))
    return first, np.where(widths > 2, sums / np.maximum(widths, 1), _FLOOR_DB).reshape(count, -1)


def _is_triple_meter(eighths: np.ndarray) -> bool:
    """Returns whether eighth notes resemble those three beats later more than four beats later.

    The differences must be distinct: three beats by a fifth, and by about one decibel a band.
    """
    if len(eighths) <= 8:
        return False
    three, four = (np.linalg.norm(eighths[lag:] - eighths[:-lag], axis=1).mean() for lag in (6, 8))
    return bool(three < 0.8 * four and four - three > eighths.shape[1] ** 0.5)


def _bar_change_cost(eighths: np.ndarray, offset: int, at_start: bool, at_end: bool) -> float:
    """Returns how much the bars differ from one to the next if eighth note `offset` begins a bar.

    The arrangement changes seldom, and changes between two bars. A change between two bars is one
    large difference; a change elsewhere is two smaller ones. The square root of the differences
    makes two small ones cost more than one large one. Most tracks begin with a whole bar, so silence
    before and after the track counts as bars too. It has half the weight: the track may be cut.
    """
    silence = np.full((8, eighths.shape[1]), _FLOOR_DB)
    padded = np.concatenate([silence] * 2 * at_start + [eighths] + [silence] * 2 * at_end)[offset:]
    bars = padded[: len(padded) // 8 * 8].reshape(len(padded) // 8, -1, len(_BANDS_HZ))
    weights = np.ones(max(0, len(bars) - 1))
    weights[: 2 * at_start] = 0.5
    weights[len(weights) - 2 * at_end :] = 0.5
    differences = np.sqrt(np.linalg.norm(np.diff(bars, axis=0), axis=1)).sum(axis=1)
    return float(differences @ weights / weights.sum()) if len(weights) else 1.0
