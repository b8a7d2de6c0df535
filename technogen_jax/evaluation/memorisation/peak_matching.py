"""The share of each clip's peak pairs that agree with training audio in one alignment."""

from __future__ import annotations

import numpy as np

from technogen_jax.evaluation.memorisation.fingerprints import (
    FRAMES,
    PEAK_BANDS,
    Fingerprints,
    count_low_bands,
    peak_frames,
)
from technogen_jax.evaluation.memorisation.image_matching import BestMatches

_LEAST_PAIRS = 60  # of a clip: with fewer pairs a large share agrees by chance
_CLIPS = 1024  # training clips compared at a time


def match_peaks(queries: Fingerprints, train: Fingerprints) -> BestMatches:
    """Returns the best share of agreeing pairs of each query; its shift is in frames of the peaks.

    Reference: Wang, "An Industrial-Strength Audio Search Algorithm", ISMIR 2003: every equal hash
    votes for one alignment.
    """
    n = len(queries.ids)
    frames, low_bands = peak_frames(queries.seconds), count_low_bands(queries.sample_rate_hz)
    best = BestMatches(np.zeros(n), np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros(n))
    hashes = np.split(queries.hashes, np.cumsum(queries.counts)[:-1])
    times = np.split(queries.times, np.cumsum(queries.counts)[:-1])
    ends = np.cumsum(train.counts)
    for first in range(0, len(train.ids), _CLIPS):
        part = np.arange(first, min(first + _CLIPS, len(train.ids)))
        rows = slice(ends[first] - train.counts[first], ends[part[-1]])
        circular = train.frames[part] == FRAMES
        # The bins of a clip: one an alignment, from one window before its start if not circular.
        bins = np.where(circular, frames, train.frames[part] * frames // FRAMES + frames + 1)
        base = np.cumsum(bins) - bins
        order = np.argsort(train.hashes[rows], kind="stable")
        known = train.hashes[rows][order]
        owner = np.repeat(part - first, train.counts[part])[order]
        time = train.times[rows][order]
        for i in range(n):
            if len(hashes[i]) < _LEAST_PAIRS:
                continue
            low = np.searchsorted(known, hashes[i], "left")
            counts = np.searchsorted(known, hashes[i], "right") - low
            equal = np.repeat(low - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum())
            offset = time[equal] - np.repeat(times[i], counts)
            clips = owner[equal]
            offset = np.where(circular[clips], offset % frames, offset + frames)
            votes = np.bincount(base[clips] + offset, minlength=1)
            most = int(np.argmax(votes))
            if votes[most] > best.score[i] * len(hashes[i]):
                found = int(np.searchsorted(base, most, "right")) - 1
                best.score[i] = votes[most] / len(hashes[i])
                best.clip[i] = first + found
                best.shift[i] = most - base[found] - (0 if circular[found] else frames)
                agreed = np.repeat(np.arange(len(counts)), counts)[base[clips] + offset == most]
                above = _is_above(hashes[i], frames, low_bands)
                best.rest[i] = above[agreed].sum() / max(1, above.sum())
    return best


def _is_above(hashes: np.ndarray, frames: int, low_bands: int) -> np.ndarray:
    """Whether at least one peak of each pair is above the low bands."""
    bands = hashes // frames
    return (bands // PEAK_BANDS >= low_bands) | (bands % PEAK_BANDS >= low_bands)
