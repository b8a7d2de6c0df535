"""Level features: loudness, true peak, crest factor, DC offset, clipping."""

from __future__ import annotations

import functools
import math

import numpy as np
import scipy.signal

from technogen_jax.audio import loudness
from technogen_jax.evaluation.features.musical.clip import FRAMES_IN_CACHE, Clip, to_db, wrap

# The true peak is computed in rows of 16 samples; its filter reaches 10 samples to each side.
_ROW, _REACH = 16, 10


def measure_level(clip: Clip, loudness_lufs: float | None) -> dict[str, float | None]:
    """Returns the level features; `crest_db` only where the clip is not silent."""
    audio = clip.audio
    peak = max(float(audio.max()), -float(audio.min()))
    means = audio.mean(axis=1)
    values = {
        "loudness_lufs": loudness_lufs,
        "true_peak_dbtp": float(to_db(_true_peak(audio, peak, clip.loop) ** 2)),
        "dc": float(means[np.abs(means).argmax()]),
        "clipped_share": _clipped_share(audio, peak),
    }
    if loudness_lufs is not None:
        values["crest_db"] = float(20 * np.log10(peak) - 10 * np.log10(np.vdot(audio, audio) / audio.size))
    return values


def measure_loudness(clip: Clip) -> float | None:
    """Returns the gated loudness in LUFS; None for silence.

    A clip below 3 s is repeated eight times or more: alone it would have few gating blocks or none.
    """
    meter = loudness.LoudnessMeter(clip.rate_hz, len(clip.audio))
    for _ in range(1 if clip.seconds >= 3 else max(8, math.ceil(3 / clip.seconds))):
        meter.add(clip.audio.T)
    lufs = loudness.gated_loudness(meter.energies())
    return lufs if math.isfinite(lufs) else None


@functools.cache
def _oversampling() -> np.ndarray:
    """`[36, 64]`: from 16 samples and their neighbours to four times the rate."""
    return scipy.signal.resample_poly(np.eye(_ROW + 2 * _REACH), 4, 1, axis=1)[:, 4 * _REACH : -4 * _REACH]


def _true_peak(audio: np.ndarray, peak: float, loop: bool) -> float:
    """Largest magnitude at four times the rate; without the first and last samples, unless the clip is a loop."""
    if loop:
        audio = wrap(audio, _REACH)
    width = _ROW + 2 * _REACH
    if audio.shape[1] < width:
        return peak
    for channel in audio:
        rows = np.lib.stride_tricks.sliding_window_view(channel, width)
        starts = np.append(np.arange(0, len(rows), _ROW), len(rows) - 1)
        for first in range(0, len(starts), 4 * FRAMES_IN_CACHE):
            curve = rows[starts[first : first + 4 * FRAMES_IN_CACHE]] @ _oversampling()
            peak = max(peak, float(curve.max()), -float(curve.min()))
    return peak


def _clipped_share(audio: np.ndarray, peak: float) -> float:
    """Share of the samples that are within 0.1 % of the peak, in runs of three or more."""
    clipped = 0
    for channel in audio if peak else ():
        near = np.flatnonzero(np.abs(channel) >= 0.999 * peak)
        starts = np.flatnonzero(near[2:] - near[:-2] == 2)
        clipped += len(np.unique(starts + [[0], [1], [2]]))
    return clipped / audio.size
