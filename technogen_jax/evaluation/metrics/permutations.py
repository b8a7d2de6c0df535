"""Permutation tests by track: all clips of a track change sets together."""

from __future__ import annotations

import numpy as np

# One assignment that is drawn twice may differ in its last bits: a matrix product sums its columns
# in different orders.
ROUNDING = 1e-12


def permute_tracks(
    tracks_a: np.ndarray, tracks_b: np.ndarray, permutations: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns random assignments of the tracks of two sets to the first set.

    A track id that is in both sets counts as two tracks.

    Returns:
        (index of the track of each pooled clip, from 0 to T - 1; 1.0 where a track is assigned to
        the first set, `[T, 1 + permutations]`, with the observed assignment in column 0).
    """
    index_a, index_b = (np.unique(tracks, return_inverse=True)[1] for tracks in (tracks_a, tracks_b))
    count_a, count_b = index_a.max() + 1, index_b.max() + 1
    observed = np.repeat([1.0, 0.0], [count_a, count_b])
    permuted = np.random.default_rng(seed).permuted(np.tile(observed, (permutations, 1)), axis=1)
    return np.concatenate([index_a, count_a + index_b]), np.vstack([observed, permuted]).T


def p_value(statistics: np.ndarray) -> float:
    """Returns the one-sided p-value of the first of `[1 + permutations]` statistics.

    Raises:
        ValueError: no permutation.
    """
    if len(statistics) < 2:
        raise ValueError("expected at least 1 permutation for a p-value, got 0")
    return float((statistics >= statistics[0] - ROUNDING).mean())
