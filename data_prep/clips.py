"""Pure functions that cut tracks into clips: positions, gain, and the assignment to splits."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

FULL_SCALE = 32767 / 32768  # the largest positive value of 16-bit PCM


class Gain(NamedTuple):
    """The gain of a whole track."""

    factor: float
    limited: bool  # the factor is smaller than requested, so that no sample clips


def count_clips(samples: int, clip_samples: int, stride_samples: int) -> int:
    """Returns the number of whole clips in a track; clip i starts at `i * stride_samples`."""
    return 0 if samples < clip_samples else 1 + (samples - clip_samples) // stride_samples


def piece_bounds(starts: Sequence[int], clip_samples: int, longest: int) -> np.ndarray:
    """Returns the bounds of pieces such that each clip consists of whole pieces.

    Args:
        starts: first sample of each clip; increasing, the first is 0.
        clip_samples: length of a clip.
        longest: largest length of a piece, in samples.

    Returns:
        int64, increasing, from 0 to the end of the last clip.
    """
    starts = np.asarray(starts, np.int64)
    end = int(starts[-1]) + clip_samples
    return np.unique(np.concatenate([starts, starts + clip_samples, np.arange(0, end, longest)]))


def track_gain(mode: str, peak: float, loudness_lufs: float, target_lufs: float) -> Gain:
    """Returns the gain that normalises a track.

    Args:
        mode: "peak" brings the peak to full scale; "loudness" brings the loudness to the target, or as
            near as the peak allows; "none" gives a gain of 1.
        peak: the track's largest magnitude, above 0.
        loudness_lufs: the track's gated loudness; -inf if the whole track is below the gate.
        target_lufs: target of mode "loudness".

    Raises:
        ValueError: an unknown mode.
    """
    to_full_scale = FULL_SCALE / peak
    if mode == "none":
        return Gain(1.0, False)
    if mode == "peak":
        return Gain(to_full_scale, False)
    if mode != "loudness":
        raise ValueError(f"normalise: expected peak, loudness or none, got {mode!r}")
    requested = math.inf if loudness_lufs == -math.inf else 10 ** ((target_lufs - loudness_lufs) / 20)
    return Gain(min(requested, to_full_scale), requested > to_full_scale)


def decibels(amplitude: float) -> float:
    """Returns an amplitude in dB; -inf for 0."""
    return 20 * math.log10(amplitude) if amplitude > 0 else -math.inf


# Fewer tracks than this are few: with the usual shares, 0.8, 0.1 and 0.1, valid and test would have
# less than a track each.
FEW_TRACKS = 10


def assign_splits(hashes: Sequence[str], labels: Sequence[str], shares: Sequence[float], seed: int) -> list[int]:
    """Returns the index of each track's split; each label is distributed by the same shares.

    The assignment depends on the tracks' audio and the seed, not on their names. Tracks with
    equal audio are in the same split. The tracks of each label are sorted by a hash and spaced evenly over
    (0, 1). All labels together are then sorted by this position and divided into the splits.

    Args:
        hashes: hash of each track's audio.
        labels: label of each track; tracks with the same audio have the label of the first one.
        shares: share of each split; they sum to 1.
        seed: determines the assignment.
    """
    by_label = defaultdict(list)
    for value, label in dict(zip(reversed(hashes), reversed(labels), strict=True)).items():
        by_label[label].append((hashlib.blake2b(f"{seed} {value}".encode(), digest_size=16).hexdigest(), value))
    positions = {}
    for members in by_label.values():
        for rank, (key, value) in enumerate(sorted(members)):
            positions[value] = ((rank + 0.5) / len(members), key)
    bounds = np.cumsum(split_counts(len(positions), shares))
    order = sorted(positions, key=positions.__getitem__)
    splits = dict(zip(order, np.searchsorted(bounds, np.arange(len(order)), side="right").tolist(), strict=True))
    return [splits[value] for value in hashes]


def split_counts(tracks: int, shares: Sequence[float]) -> list[int]:
    """Returns the number of tracks in each split, rounded by the largest remainder method.

    Each split with a share above zero has at least one track. With fewer than `FEW_TRACKS` tracks
    that would cost too much of the largest split, the training tracks: of the splits whose share is
    less than a track, at most one then has a track.
    """
    used = [index for index, share in enumerate(shares) if share > 0]
    largest = int(np.argmax(shares))
    exact = [tracks * share for share in shares]
    counts = [math.floor(value + 1e-9) for value in exact]
    by_remainder = sorted(used, key=lambda index: (counts[index] - exact[index], index))
    for index in by_remainder[: tracks - sum(counts)]:
        counts[index] += 1
    small = [index for index in used if index != largest and exact[index] < 1 - 1e-9]
    if tracks >= FEW_TRACKS:
        for index in small:
            if not counts[index]:
                counts[counts.index(max(counts))] -= 1
                counts[index] = 1
    else:
        for index in [index for index in small if counts[index]][1:]:
            counts[largest] += counts[index]
            counts[index] = 0
    return counts
