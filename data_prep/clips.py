"""From a track to clips, as pure functions: where they start, what their level is, which split they go to."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

FULL_SCALE = 32767 / 32768  # the largest positive value of 16-bit PCM


class Gain(NamedTuple):
    """A factor for a whole track, and whether it is smaller than asked for so that no sample clips."""

    factor: float
    limited: bool


def count_clips(samples: int, clip_samples: int, stride_samples: int) -> int:
    """Number of whole clips in a track; clip i starts at `i * stride_samples`."""
    return 0 if samples < clip_samples else 1 + (samples - clip_samples) // stride_samples


def piece_bounds(starts: Sequence[int], clip_samples: int, longest: int) -> np.ndarray:
    """Where to cut a track so that every clip is a run of whole pieces, none longer than `longest`.

    Args:
        starts: of the clips, increasing, from 0.
        clip_samples: length of a clip.
        longest: piece.

    Returns:
        int64, increasing, from 0 to the last clip's end.
    """
    starts = np.asarray(starts, np.int64)
    end = int(starts[-1]) + clip_samples
    return np.unique(np.concatenate([starts, starts + clip_samples, np.arange(0, end, longest)]))


def track_gain(mode: str, peak: float, loudness_lufs: float, target_lufs: float) -> Gain:
    """The gain that normalises a track.

    Args:
        mode: "peak" brings the peak to just full scale, "loudness" the loudness to the target as far as the peak
            allows, "none" changes nothing.
        peak: the track's largest magnitude, above 0.
        loudness_lufs: its gated loudness; -inf if all of it is below the gate.
        target_lufs: for mode "loudness".
    """
    to_full_scale = FULL_SCALE / peak
    if mode == "none":
        return Gain(1.0, False)
    if mode == "peak":
        return Gain(to_full_scale, False)
    if mode != "loudness":
        raise ValueError(f"normalise: expected peak, loudness or none, got {mode!r}")
    wanted = math.inf if loudness_lufs == -math.inf else 10 ** ((target_lufs - loudness_lufs) / 20)
    return Gain(min(wanted, to_full_scale), wanted > to_full_scale)


def decibels(amplitude: float) -> float:
    """20 log10, with -inf at 0."""
    return 20 * math.log10(amplitude) if amplitude > 0 else -math.inf


def assign_splits(hashes: Sequence[str], labels: Sequence[str], shares: Sequence[float], seed: int) -> list[int]:
    """For each track the index of its split; every label is spread over the splits by the same shares.

    A track's place depends on its audio and the seed, not on its name; tracks with the same audio share it. Within a
    label the audio is put in the order of a hash and spread evenly over (0, 1); all labels together are then cut at the
    quotas.

    Args:
        hashes: of the tracks' audio.
        labels: of the tracks; of tracks with the same audio, the first one's counts.
        shares: of the splits; they sum to 1.
        seed: another one gives another assignment.
    """
    by_label = defaultdict(list)
    for value, label in dict(zip(reversed(hashes), reversed(labels), strict=True)).items():
        by_label[label].append((hashlib.blake2b(f"{seed} {value}".encode(), digest_size=16).hexdigest(), value))
    places = {}
    for members in by_label.values():
        for rank, (key, value) in enumerate(sorted(members)):
            places[value] = ((rank + 0.5) / len(members), key)
    bounds = np.cumsum(split_counts(len(places), shares))
    order = sorted(places, key=places.__getitem__)
    splits = dict(zip(order, np.searchsorted(bounds, np.arange(len(order)), side="right").tolist(), strict=True))
    return [splits[value] for value in hashes]


def split_counts(tracks: int, shares: Sequence[float]) -> list[int]:
    """How many tracks each split gets: largest remainder, and at least one where the share is not zero.

    With fewer tracks than splits the first splits get them.
    """
    wanted = [index for index, share in enumerate(shares) if share > 0]
    if tracks <= len(wanted):
        return [int(index in wanted[:tracks]) for index in range(len(shares))]
    exact = [tracks * share for share in shares]
    counts = [math.floor(value + 1e-9) for value in exact]
    by_remainder = sorted(wanted, key=lambda index: (counts[index] - exact[index], index))
    for index in by_remainder[: tracks - sum(counts)]:
        counts[index] += 1
    for index in wanted:
        if not counts[index]:
            counts[counts.index(max(counts))] -= 1
            counts[index] = 1
    return counts
