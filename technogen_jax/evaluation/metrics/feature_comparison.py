"""How one musical feature (tempo, loudness, ...) differs between two sets of clips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from technogen_jax.evaluation.metrics.embedded_set import check_disjoint, check_tracks
from technogen_jax.evaluation.metrics.permutations import ROUNDING, p_value, permute_tracks

_CHUNK_VALUES = 4_000_000  # of float64 at a time: 32 MB


class Summary(NamedTuple):
    """The distribution of a feature in one set; percentiles are None where no clip has it.

    Attributes:
        median: the median.
        p10: the 10th percentile.
        p90: the 90th percentile.
        clips: number of clips for which the feature is defined.
        defined: their share.
    """

    median: float | None
    p10: float | None
    p90: float | None
    clips: int
    defined: float


class FeatureComparison(NamedTuple):
    """A feature in two sets; `compare_feature` says when a figure is None."""

    wasserstein: float | None
    ks: float | None
    p: float | None
    reference: Summary
    other: Summary


def compare_feature(
    reference_values: Sequence[float | None],
    reference_tracks: ArrayLike,
    other_values: Sequence[float | None],
    other_tracks: ArrayLike,
    *,
    permutations: int = 999,
    seed: int = 0,
) -> FeatureComparison:
    """Returns how a feature differs between two sets.

    Clips whose value is None or NaN are left out; `Summary` has the number of the others. Where
    they are from fewer than two tracks in one of the sets, all three figures are None.

    Args:
        reference_values: `[n]`.
        reference_tracks: `[n]` track ids.
        other_values: `[m]`.
        other_tracks: `[m]` track ids, none of them in the reference.
        permutations: number of permutations; p is a multiple of `1 / (permutations + 1)`.
        seed: the seed of the permutations.

    Returns:
        The comparison: `wasserstein` is the distance of the two distributions in standard
        deviations of the reference, None where that is 0; `ks` the largest difference of the two
        cumulative distributions; `p` the share of random assignments of the tracks with a `ks` as
        large. It is exact for one number of clips a track in both sets.

    Raises:
        ValueError: not one track a value; an infinite value; a track in both sets; no permutation.
    """
    a, tracks_a, summary_a = _summarise(reference_values, reference_tracks, "reference")
    b, tracks_b, summary_b = _summarise(other_values, other_tracks, "other")
    check_disjoint(tracks_a, tracks_b)
    if min(len(np.unique(tracks_a)), len(np.unique(tracks_b))) < 2:
        return FeatureComparison(None, None, None, summary_a, summary_b)
    deviation = a.std()
    # Rounding shifts the mean of equal values, so their deviation is not exactly 0.
    varies = deviation > ROUNDING * np.abs(a).max()
    ks = _kolmogorov_smirnov(a, tracks_a, b, tracks_b, permutations, seed)
    return FeatureComparison(
        wasserstein=float(stats.wasserstein_distance(a / deviation, b / deviation)) if varies else None,
        ks=float(ks[0]),
        p=p_value(ks),
        reference=summary_a,
        other=summary_b,
    )


def _summarise(values: Sequence[float | None], tracks: ArrayLike, name: str) -> tuple[np.ndarray, np.ndarray, Summary]:
    """The defined values, their tracks, and their summary."""
    values = np.asarray(values, np.float64)  # None becomes NaN
    if values.ndim != 1 or not len(values):
        raise ValueError(f"{name}: expected values [n], n at least 1, got shape {values.shape}")
    tracks = check_tracks(tracks, len(values), name)
    if np.isinf(values).any():
        raise ValueError(f"{name}: {np.isinf(values).sum()} of {len(values)} values are infinite; give None instead")
    defined = ~np.isnan(values)
    values, tracks = values[defined], tracks[defined]
    p10, median, p90 = map(float, np.percentile(values, [10, 50, 90])) if len(values) else (None, None, None)
    return values, tracks, Summary(median, p10, p90, len(values), float(defined.mean()))


def _kolmogorov_smirnov(
    a: np.ndarray, tracks_a: np.ndarray, b: np.ndarray, tracks_b: np.ndarray, permutations: int, seed: int
) -> np.ndarray:
    """Kolmogorov-Smirnov statistics `[1 + permutations]`, the observed one first."""
    track_index, assigned = permute_tracks(tracks_a, tracks_b, permutations, seed)
    pooled = np.concatenate([a, b])
    order = np.argsort(pooled)
    last = np.append(np.flatnonzero(np.diff(pooled[order])), len(pooled) - 1)  # of equal values
    statistics = np.empty(assigned.shape[1])
    step = max(1, _CHUNK_VALUES // len(pooled))
    for start in range(0, assigned.shape[1], step):
        columns = slice(start, start + step)
        in_first = assigned[:, columns][track_index[order]]  # [n + m, columns]
        steps = in_first / in_first.sum(0) - (1 - in_first) / (1 - in_first).sum(0)
        statistics[columns] = np.abs(np.cumsum(steps, axis=0)[last]).max(0)
    return statistics
