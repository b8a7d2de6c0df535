"""Rhythm features: tempo, regularity, kick, bars, and the seam of a loop."""

from __future__ import annotations

import numpy as np
import scipy.fft

from technogen_jax.evaluation.features.musical.analysis import ClipAnalysis
from technogen_jax.evaluation.features.musical.beats import Grid
from technogen_jax.evaluation.features.musical.clip import (
    BANDS_HZ,
    Clip,
    cosine_similarity,
    filter_mono,
    is_empty,
    ratio_db,
    wrap,
)


def measure_rhythm(analysis: ClipAnalysis) -> dict[str, float | None]:
    """Returns the rhythm features that are defined for the clip."""
    clip, tempo, grid = analysis.clip, analysis.tempo, analysis.grid
    values = {"pulse_clarity": tempo.clarity}
    if tempo.bpm is not None:
        values |= {"tempo_bpm": tempo.bpm, "tempo_bars": clip.seconds * tempo.bpm / 240}
    if grid is None:
        return values
    values |= _regularity(clip, grid)
    values["kick_similarity"] = _kick_similarity(clip, grid)
    if analysis.bars is not None:
        values["bar_repetition"] = _bar_repetition(analysis.bars)
    if clip.loop:
        values["seam_db"] = _seam_db(clip, grid)
    return values


def beat_periodic_energy_ratio(envelope: np.ndarray, periods: int) -> float | None:
    """Returns the share of an envelope's changes that repeats with each of its N equal periods.

    With E = |rfft(e - mean e)|^2 and r = sum over m >= 1 of E[m N] over the sum of E, it is
    (r - 1/N) / (1 - 1/N): 1 if all periods are the same, 0 on average for noise.

    Args:
        envelope: `[frames]` of a whole number of periods, best a multiple of N.
        periods: N, at least 2.

    Returns:
        The ratio; None for an envelope that does not change.

    Raises:
        ValueError: fewer than two periods, or fewer frames than two a period.
    """
    if periods < 2 or len(envelope) < 2 * periods:
        raise ValueError(
            f"expected at least 2 periods and 2 frames a period, got {periods} periods in {len(envelope)} frames"
        )
    mean = envelope.mean()
    energy = np.abs(scipy.fft.rfft(envelope - mean)[1:]) ** 2
    total = energy.sum()
    # By Parseval's theorem this compares the variance with the squared mean. Rounding gives 1e-30.
    if total <= 1e-12 * (mean * len(envelope)) ** 2 or not total:
        return None
    ratio = energy[periods - 1 :: periods].sum() / total
    return float((ratio - 1 / periods) / (1 - 1 / periods))


def pattern_correlation(reference: np.ndarray, other: np.ndarray) -> float | None:
    """Returns the Pearson correlation of two onset patterns, or of the mean patterns of two sets.

    1 for the same rhythm, 0 for unrelated ones. The mean of each band is subtracted first, so that
    the rhythm counts and not which band is busy.

    Returns:
        The correlation; None where one of the patterns is constant.

    Raises:
        ValueError: different shapes.
    """
    reference, other = np.asarray(reference, np.float64), np.asarray(other, np.float64)
    if reference.shape != other.shape or reference.ndim != 2:
        raise ValueError(f"expected two patterns [steps, bands] of one shape, got {reference.shape} and {other.shape}")
    return cosine_similarity(reference - reference.mean(axis=0), other - other.mean(axis=0))


def _regularity(clip: Clip, grid: Grid) -> dict[str, float | None]:
    """Beat-periodic energy ratio of beats and of sixteenths, in the three bands."""
    values = {}
    for band, (low_hz, high_hz) in BANDS_HZ.items():
        if low_hz >= clip.rate_hz / 2:
            continue
        audio, rate_hz = filter_mono(clip, low_hz, high_hz, 4 * min(high_hz, clip.rate_hz))
        totals = np.concatenate([[0.0], np.cumsum(audio**2)])
        if is_empty(clip, totals[-1] / len(audio)):
            continue
        for name, periods in (("beat", grid.beats), ("sixteenth", 4 * grid.beats)):
            if periods >= 2:
                edges = np.linspace(0, grid.beats * grid.beat_s * rate_hz, 48 * periods + 1)
                sums = np.diff(np.interp(edges, np.arange(len(totals)), totals))
                envelope = np.sqrt(np.maximum(sums, 0) / (edges[1] - edges[0]))
                values[f"{name}_regularity_{band}"] = beat_periodic_energy_ratio(envelope, periods)
    return values


def _kick_similarity(clip: Clip, grid: Grid) -> float | None:
    """Median similarity of the waveform below 150 Hz from beat to beat; None for an empty band.

    The similarity of two beats is the largest normalised cross-correlation of their first 200 ms
    over shifts of up to 1 ms.
    """
    audio, rate_hz = filter_mono(clip, 0, 150, 8000)
    if is_empty(clip, np.vdot(audio, audio) / len(audio)):
        return None
    length, slack = round(0.2 * rate_hz), round(0.001 * rate_hz)
    count = grid.beats + 1 if clip.loop else int((clip.seconds - grid.first_s - 0.2) / grid.beat_s + 1.01)
    starts = np.round((grid.first_s + np.arange(count) * grid.beat_s) * rate_hz).astype(int)
    windows = np.take(audio, starts[:, None] + np.arange(-slack, length + slack), mode="wrap" if clip.loop else "clip")
    similarities = []
    for beat, next_beat in zip(windows[:-1, slack : slack + length], windows[1:], strict=True):
        shifted = np.lib.stride_tricks.sliding_window_view(next_beat, length)
        energies = np.vdot(beat, beat) * np.einsum("ij,ij->i", shifted, shifted)
        if energies.min() > 0:
            similarities.append((shifted @ beat / np.sqrt(energies)).max())
    return float(np.median(similarities)) if similarities else None


def _bar_repetition(bars: np.ndarray) -> float | None:
    """Mean correlation of the onsets of consecutive bars, each band minus its mean over the bar."""
    if len(bars) < 2:
        return None
    bars = bars - bars.mean(axis=1, keepdims=True)
    found = [cosine_similarity(bar, next_bar) for bar, next_bar in zip(bars[:-1], bars[1:], strict=True)]
    found = [value for value in found if value is not None]
    return float(np.mean(found)) if found else None


def _seam_db(clip: Clip, grid: Grid) -> float | None:
    """Largest second difference within 3 samples of the seam over that within 5 ms of other beats.

    The beats are counted from the seam: a loop that begins off the beat is compared with its other
    off-beats. A click detector alone would reject good loops, which have a downbeat at the seam.
    """
    if grid.beats < 2:
        return None
    curve = np.abs(np.diff(wrap(clip.audio, 1), 2)).max(axis=0)
    reach = round(0.005 * clip.rate_hz)
    beats = np.round(np.arange(1, grid.beats) * len(curve) / grid.beats).astype(int)
    around = np.take(curve, beats[:, None] + np.arange(-reach, reach + 1), mode="wrap")
    seam = np.take(curve, np.arange(-3, 4), mode="wrap")
    return ratio_db(max(float(seam.max()) ** 2, 1e-12), max(float(around.max()) ** 2, 1e-12))
