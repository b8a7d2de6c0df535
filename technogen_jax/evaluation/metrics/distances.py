"""Distances between two sets of embedded clips; the track of each clip is part of a set. Numpy, scipy, float64.

Clips of one track are alike, so that they are no independent draws: what needs independent draws (p-values, the terms
within a set, the law of the Fréchet distance's bias) goes by tracks. `embedded` makes the sets that all else takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special, stats
from scipy.spatial.distance import cdist, jensenshannon, pdist
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

_CHUNK_VALUES = 4_000_000  # of float64 in one piece of a distance matrix: 32 MB
_PARTITIONS = 16  # into halves, for `frechet_at_infinity`
_JACKKNIFE_GROUPS = 10
# One assignment met twice may differ in its last bits: a matrix product sums its columns in different orders.
_ROUNDING = 1e-12


class Embedded(NamedTuple):
    """A set of embedded clips; `embedded` makes and checks it."""

    values: np.ndarray  # [n, D] float64
    tracks: np.ndarray  # [n] ids


class MMDTest(NamedTuple):
    """An MMD², how often tracks dealt out at random give one as large, and what 95 % of such deals stay below."""

    mmd: float
    p: float
    null_95: float


class PRDC(NamedTuple):
    """Precision, recall and coverage in [0, 1]; density from 0 up."""

    precision: float
    recall: float
    density: float
    coverage: float


class NDB(NamedTuple):
    """Clusters that the other set fills differently."""

    different: int  # clusters with p < .05 each; a twentieth of them for one distribution
    clusters: int
    js: float  # Jensen-Shannon divergence of the two histograms, in nats


class Summary(NamedTuple):
    """One feature in one set; None where no clip has it."""

    median: float | None
    p10: float | None
    p90: float | None
    clips: int  # that have the feature
    defined: float  # their share


class FeatureComparison(NamedTuple):
    """One feature in two sets; see `compare_feature` for when a figure is None."""

    wasserstein: float | None
    ks: float | None
    p: float | None
    reference: Summary
    other: Summary


def embedded(values: ArrayLike, tracks: ArrayLike, name: str, *, may_be_alike: bool = False) -> Embedded:
    """A set that every distance takes.

    Args:
        values: `[n, D]`, one row a clip.
        tracks: `[n]`, the id of each clip's track, strings or integers; a generated clip is a track of its own, unless
            several share a label or a seed.
        name: of the set, for errors.
        may_be_alike: all clips may have the same values, as those of a generator that has collapsed.

    Raises:
        ValueError: values that are not `[n, D]`, not finite or all alike (a silent set); not one track a clip; fewer
            than two tracks.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 2 or not values.shape[1]:
        raise ValueError(f"{name}: expected values [n, D], got shape {values.shape}")
    tracks = _checked_tracks(tracks, len(values), name)
    if not np.isfinite(values).all():
        bad = np.flatnonzero(~np.isfinite(values).all(1))
        raise ValueError(f"{name}: {len(bad)} of {len(values)} clips hold NaN or Inf, the first is clip {bad[0]}")
    count = len(np.unique(tracks))
    if count < 2:
        raise ValueError(f"{name}: expected clips of at least 2 tracks, got {len(values)} clips of {count}; add tracks")
    if not may_be_alike and (values == values[0]).all():
        raise ValueError(f"{name}: all {len(values)} clips have the same values; is the set silent?")
    return Embedded(values, tracks)


def check_pair(reference: Embedded, other: Embedded, *, disjoint: bool = False) -> None:
    """Raises unless two sets can be compared.

    Raises:
        TypeError: not made by `embedded`.
        ValueError: different dimensions; `disjoint` and a track is in both.
    """
    if not (isinstance(reference, Embedded) and isinstance(other, Embedded)):
        raise TypeError("expected two sets made by embedded(values, tracks, name): the track of each clip is needed")
    dims = reference.values.shape[1], other.values.shape[1]
    if dims[0] != dims[1]:
        raise ValueError(f"expected one embedding for both sets, got {dims[0]} and {dims[1]} dimensions")
    if disjoint:
        _check_disjoint(reference.tracks, other.tracks)


def one_a_track(clips: Embedded, *, seed: int = 0) -> Embedded:
    """One clip of each track, drawn by the seed; tracks in the order of their ids."""
    order = np.random.default_rng(seed).permutation(len(clips.tracks))
    _, first = np.unique(clips.tracks[order], return_index=True)
    return Embedded(clips.values[order[first]], clips.tracks[order[first]])


def rbf_mmd(reference: Embedded, other: Embedded) -> float:
    """Unbiased squared maximum mean discrepancy with a Gaussian kernel; 0 for one distribution, and then often below.

    The kernel's width is the median distance between clips of the reference, so that the two sets are not
    exchangeable. Nothing is scaled: the caller whitens. Within a set only pairs of clips of different tracks count, each
    pair the same; with one clip a track this is Gretton's estimate. Times 100 it is the figure of KAD.

    Raises:
        ValueError: the sets do not fit (`check_pair`), or most clips of the reference are alike.

    *Source*: Gretton et al., "A Kernel Two-Sample Test", JMLR 13 (2012), eq. 3; Chung et al., "KAD: No More FAD!"
    (arXiv 2502.15602).
    """
    check_pair(reference, other)
    return float(_mmd(_rbf_kernel(reference), reference, other)[0])


def rbf_mmd_test(reference: Embedded, other: Embedded, *, permutations: int = 999, seed: int = 0) -> MMDTest:
    """`rbf_mmd` and its one-sided p-value: all clips of a track change sides together.

    p is exact where both sets have the same number of clips a track: a track of four clips and a track of one do not
    vary alike. Memory: 0.2 GB for 5,000 and 5,000 clips.

    Args:
        reference: gives the kernel's width, which is kept for all permutations.
        other: shares no track with the reference.
        permutations: p is a multiple of `1 / (permutations + 1)`.
        seed: of the permutations.

    Raises:
        ValueError: as `rbf_mmd`; a track is in both sets; no permutation.
    """
    check_pair(reference, other, disjoint=True)
    mmd = _mmd(_rbf_kernel(reference), reference, other, permutations, seed)
    return MMDTest(float(mmd[0]), _p_value(mmd), float(np.percentile(mmd[1:], 95)))


def polynomial_mmd(reference: Embedded, other: Embedded) -> float:
    """Unbiased squared MMD with the kernel `(<x, y> / D + 1)³`, the kernel inception distance's; pairs as in `rbf_mmd`.

    *Source*: Bińkowski et al., "Demystifying MMD GANs" (arXiv 1801.01401).
    """
    check_pair(reference, other)
    return float(_mmd(lambda a, b: (a @ b.T / a.shape[1] + 1) ** 3, reference, other)[0])


def frechet_distance(reference: Embedded, other: Embedded) -> float:
    """Squared Fréchet distance of the Gaussians with the sets' means and covariances; 0 for a set and itself.

    For finite sets it is too large by about `frechet_bias`: read it beside the distance between real sets of as many
    tracks.

    Raises:
        ValueError: the sets do not fit (`check_pair`).

    *Source*: Dowson & Landau, "The Fréchet distance between multivariate normal distributions" (1982).
    """
    check_pair(reference, other)
    return _frechet(reference.values, other.values)


def frechet_from_moments(
    mean_a: ArrayLike, covariance_a: ArrayLike, mean_b: ArrayLike, covariance_b: ArrayLike
) -> float:
    """Squared Fréchet distance of two Gaussians, from means `[D]` and covariances `[D, D]`.

    Raises:
        ValueError: the distance is negative beyond rounding: one of the matrices is no covariance.

    *Source*: as `frechet_distance`.
    """
    mean_a, covariance_a, mean_b, covariance_b = (
        np.asarray(moment, np.float64) for moment in (mean_a, covariance_a, mean_b, covariance_b)
    )
    eigenvalues, vectors = np.linalg.eigh(covariance_a)
    root = vectors * np.sqrt(np.maximum(eigenvalues, 0)) @ vectors.T
    # A matrix square root of the product of the covariances is complex or wrong where they have no full rank.
    product = root @ covariance_b @ root
    overlap = np.sqrt(np.maximum(np.linalg.eigvalsh((product + product.T) / 2), 0)).sum()
    traces = np.trace(covariance_a) + np.trace(covariance_b)
    distance = ((mean_a - mean_b) ** 2).sum() + traces - 2 * overlap
    if not distance >= -1e-6 * traces:
        raise ValueError(
            f"expected two covariance matrices, got a distance of {distance:.3g} beside traces of {traces:.3g}"
        )
    return float(distance)


def frechet_bias(eigenvalues: ArrayLike, tracks_reference: int, tracks_other: int) -> float:
    """What the Fréchet distance of two sets of one normal distribution is on average, above its true 0.

    Args:
        eigenvalues: `[D]`, of the distribution's covariance.
        tracks_reference: independent draws in the reference: tracks, not clips. Clips of a track that are far from
            alike make the true figure smaller.
        tracks_other: the same of the other set.

    *Source*: the distance expanded to second order in the errors of means and covariances (a Gaussian's).
    """
    values = np.asarray(eigenvalues, np.float64)
    values = values[values > 0]
    pairs = values[:, None] * values / (values[:, None] + values)
    return float((1 / tracks_reference + 1 / tracks_other) * (values.sum() + (pairs.sum() + np.trace(pairs)) / 2))


# Threads that wait for each other in hundreds of small decompositions take far longer than one thread.
@threadpool_limits.wrap(limits=1, user_api="blas")
def frechet_at_infinity(reference: Embedded, other: Embedded, *, seed: int = 0) -> tuple[float, float]:
    """The Fréchet distance extrapolated to endless tracks on both sides, and its standard error by tracks.

    Taken as linear in `1 / tracks`: twice the distance of the whole sets less that of halves of both, the mean over
    random partitions of the tracks. No track is drawn twice: draws with replacement lead to the distance of the two
    finite sets. A bias of second order is left: a half wants many more tracks than there are dimensions. The error is
    a jackknife's over groups of tracks, which errs on the wide side near 0.

    Raises:
        ValueError: the sets do not fit (`check_pair`), or have fewer than 20 tracks.

    *Source*: Chong & Forsyth, "Effectively Unbiased FID and Inception Score" (arXiv 1911.07023), here by tracks, with
    halves of both sets.
    """
    check_pair(reference, other)
    rng = np.random.default_rng(seed)
    sides = []
    for name, clips in (("reference", reference), ("other", other)):
        tracks, codes = np.unique(clips.tracks, return_inverse=True)
        if len(tracks) < 2 * _JACKKNIFE_GROUPS:
            raise ValueError(f"{name}: expected at least {2 * _JACKKNIFE_GROUPS} tracks, got {len(tracks)}; add tracks")
        group = rng.permutation(len(tracks)) % _JACKKNIFE_GROUPS
        halves = np.array([rng.permutation(len(tracks)) % 2 for _ in range(_PARTITIONS)])
        sides.append((clips.values, group[codes], halves[:, codes]))

    def extrapolated(left_out: int) -> float:
        (a, halves_a), (b, halves_b) = (
            (values[group != left_out], halves[:, group != left_out]) for values, group, halves in sides
        )
        by_half = [
            _frechet(a[half_a == part], b[half_b == part])
            for half_a, half_b in zip(halves_a, halves_b, strict=True)
            for part in (0, 1)
        ]
        return float(2 * _frechet(a, b) - np.mean(by_half))

    # The same halves with and without a group: the luck of the partitions must not pass for an error.
    without = [extrapolated(group) for group in range(_JACKKNIFE_GROUPS)]
    return extrapolated(-1), float(np.sqrt(_JACKKNIFE_GROUPS - 1) * np.std(without))


def prdc(reference: Embedded, other: Embedded, k: int = 5) -> PRDC:
    """Precision (of the other set), recall, density and coverage (of the reference), by k-th neighbours.

    Compare sets of one size with one clip a track (`one_a_track`): a clip's siblings are its nearest neighbours. For one
    distribution density is about 1 and coverage about `1 - 2**-k`; precision and recall need not be 1.

    Args:
        reference: n clips.
        other: m clips.
        k: the neighbour, not counting the clip itself, at whose distance a clip's ball ends (and is open).

    Raises:
        ValueError: the sets do not fit (`check_pair`); a set of k clips or fewer; a clip of the reference with k exact copies
            or more, whose ball is empty. A generator may repeat itself: that is what recall and coverage are to show.

    *Source*: Kynkäänniemi et al., "Improved Precision and Recall Metric" (arXiv 1904.06991); Naeem et al.,
    "Reliable Fidelity and Diversity Metrics" (arXiv 2002.09797).
    """
    check_pair(reference, other)
    reference_radius, other_radius = _radii(reference.values, k, "reference"), _radii(other.values, k, "other")
    if not reference_radius.all():
        copies = (reference_radius == 0).sum()
        raise ValueError(
            f"reference: {copies} of {len(reference.values)} clips have {k} exact copies or more; drop copies"
        )
    precise = np.zeros(len(other.values), bool)
    recalled = np.zeros(len(reference.values), bool)
    nearest = np.full(len(reference.values), np.inf)
    inside = 0
    for rows in _chunks(len(other.values), len(reference.values)):
        distance = cdist(other.values[rows], reference.values)
        in_ball = distance < reference_radius
        precise[rows] = in_ball.any(1)
        inside += in_ball.sum()
        recalled |= (distance < other_radius[rows, None]).any(0)
        nearest = np.minimum(nearest, distance.min(0))
    return PRDC(
        precision=float(precise.mean()),
        recall=float(recalled.mean()),
        density=float(inside / (k * len(other.values))),
        coverage=float((nearest < reference_radius).mean()),
    )


def inception_score(probabilities: ArrayLike, *, splits: int = 1) -> tuple[float, float]:
    """Mean and deviation over the splits of `exp(E KL(p(y|x) || p(y)))`: 1 to K. Few clips a split make it too small.

    Args:
        probabilities: `[n, K]`, a classifier's for each clip; rows sum to one.
        splits: parts, in the clips' order, that are scored by themselves.

    Raises:
        ValueError: rows that are no probabilities, or fewer clips than splits.

    *Source*: Salimans et al., "Improved Techniques for Training GANs" (arXiv 1606.03498).
    """
    probabilities = np.asarray(probabilities, np.float64)
    if probabilities.ndim != 2 or not (
        (probabilities >= 0).all() and np.allclose(probabilities.sum(1), 1, rtol=0, atol=1e-3)
    ):
        raise ValueError(f"expected probabilities [n, K] whose rows sum to 1, got shape {probabilities.shape}")
    if not 1 <= splits <= len(probabilities):
        raise ValueError(f"expected 1 to {len(probabilities)} splits for as many clips, got {splits}")
    scores = [
        np.exp(special.rel_entr(part, part.mean(0)).sum(1).mean()) for part in np.array_split(probabilities, splits)
    ]
    return float(np.mean(scores)), float(np.std(scores))


def vendi_score(values: ArrayLike) -> float:
    """How many different clips a set is worth: 1 (all alike) to n (all at right angles), by the cosine of `[n, D]`.

    Centre the values first: a common mean makes all clips alike.

    Raises:
        ValueError: a row without direction (zeros), or values that are not finite.

    *Source*: Friedman & Dieng, "The Vendi Score" (arXiv 2210.02410).
    """
    values = np.asarray(values, np.float64)
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    if not (np.isfinite(norms).all() and norms.all()):
        raise ValueError("expected finite rows [n, D] that are not zero; drop silent clips")
    # The kernel matrix has the squared singular values of its factor.
    eigenvalues = np.linalg.svd(values / norms / np.sqrt(len(values)), compute_uv=False) ** 2
    return float(np.exp(special.entr(eigenvalues[eigenvalues > 1e-12]).sum()))


def ndb(reference: Embedded, other: Embedded, *, clusters: int, seed: int = 0) -> NDB:
    """Clusters of the reference (k-means) that hold another share of the other set, each by a test of two proportions.

    The test takes clips for independent: give one clip a track (`one_a_track`).

    Raises:
        ValueError: the sets do not fit (`check_pair`), or the reference has fewer than 20 clips a cluster.

    *Source*: Richardson & Weiss, "On GANs and GMMs" (arXiv 1805.12462).
    """
    check_pair(reference, other)
    n, m = len(reference.values), len(other.values)
    if not 2 <= clusters <= n / 20:
        raise ValueError(f"expected 2 to {n // 20} clusters (a twentieth of the reference's {n} clips), got {clusters}")
    means = KMeans(clusters, n_init=1, random_state=seed).fit(reference.values)
    share_a = np.bincount(means.labels_, minlength=clusters) / n
    share_b = np.bincount(means.predict(other.values), minlength=clusters) / m
    p = 2 * stats.norm.sf(np.abs(proportions_z(share_a, n, share_b, m)))
    return NDB(int((p < 0.05).sum()), clusters, float(jensenshannon(share_a, share_b) ** 2))


def proportions_z(share_a: ArrayLike, n_a: int, share_b: ArrayLike, n_b: int) -> np.ndarray:
    """The z of the difference of two proportions, with the deviation of the pooled one, which is neither 0 nor 1."""
    share_a, share_b = np.asarray(share_a), np.asarray(share_b)
    pooled = (share_a * n_a + share_b * n_b) / (n_a + n_b)
    return (share_a - share_b) / np.sqrt(pooled * (1 - pooled) * (1 / n_a + 1 / n_b))


def compare_feature(
    reference_values: Sequence[float | None],
    reference_tracks: ArrayLike,
    other_values: Sequence[float | None],
    other_tracks: ArrayLike,
    *,
    permutations: int = 999,
    seed: int = 0,
) -> FeatureComparison:
    """How one feature (tempo, loudness ...) differs between two sets.

    Clips whose value is None or NaN have no such feature: they are left out, and `Summary` says how many are left. Where
    they are of fewer than two tracks in one of the sets, there is no comparison (None). `wasserstein` is the
    distance of the two distributions in deviations of the reference, and None where that has none; `ks` the
    largest difference of the two cumulative distributions, `p` how often tracks dealt out at random give one as large
    (exact for as many clips a track in both sets).

    Args:
        reference_values: `[n]`.
        reference_tracks: `[n]` ids.
        other_values: `[m]`.
        other_tracks: `[m]` ids, none of them in the reference.
        permutations: p is a multiple of `1 / (permutations + 1)`.
        seed: of the permutations.

    Raises:
        ValueError: not one track a value; an infinite value; a track in both sets; no permutation.
    """
    a, tracks_a, summary_a = _feature(reference_values, reference_tracks, "reference")
    b, tracks_b, summary_b = _feature(other_values, other_tracks, "other")
    _check_disjoint(tracks_a, tracks_b)
    if min(len(np.unique(tracks_a)), len(np.unique(tracks_b))) < 2:
        return FeatureComparison(None, None, None, summary_a, summary_b)
    deviation = a.std()
    # The mean of equal values is off by rounding, and so their deviation is not 0.
    spread = deviation > _ROUNDING * np.abs(a).max()
    ks = _ks(a, tracks_a, b, tracks_b, permutations, seed)
    return FeatureComparison(
        wasserstein=float(stats.wasserstein_distance(a / deviation, b / deviation)) if spread else None,
        ks=float(ks[0]),
        p=_p_value(ks),
        reference=summary_a,
        other=summary_b,
    )


def _checked_tracks(tracks: ArrayLike, clips: int, name: str) -> np.ndarray:
    tracks = np.asarray(tracks)
    if tracks.shape != (clips,) or tracks.dtype.kind not in "iuU":
        raise ValueError(
            f"{name}: expected one track id (string or integer) for each of {clips} clips, "
            f"got shape {tracks.shape} of {tracks.dtype}"
        )
    return tracks


def _check_disjoint(tracks_a: np.ndarray, tracks_b: np.ndarray) -> None:
    shared = np.intersect1d(tracks_a, tracks_b)
    if len(shared):
        raise ValueError(
            f"expected different tracks in the two sets, got {len(shared)} in both ({shared[0]!s} ...); "
            "split by tracks, or give the tracks of different sets different ids"
        )


def _chunks(rows: int, columns: int) -> Iterator[slice]:
    """Slices of rows, so that a piece of a matrix fits in memory."""
    step = max(1, _CHUNK_VALUES // columns)
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def _rbf_kernel(reference: Embedded) -> Callable:
    width = np.median(pdist(reference.values), overwrite_input=True)
    if width == 0:
        raise ValueError("reference: most clips have the same values, so that no kernel's width fits; drop copies")

    def kernel(a, b):
        distance = cdist(a, b, "sqeuclidean")
        distance *= -1 / (2 * width**2)
        return np.exp(distance, out=distance)

    return kernel


def _dealt(tracks_a: np.ndarray, tracks_b: np.ndarray, permutations: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The block of each pooled clip, 0 to T - 1, and who is in the reference: `[T, 1 + permutations]`, as it is first.

    A track is a block of each set by itself, also where both have it.
    """
    blocks_a, blocks_b = (np.unique(tracks, return_inverse=True)[1] for tracks in (tracks_a, tracks_b))
    count_a, count_b = blocks_a.max() + 1, blocks_b.max() + 1
    observed = np.repeat([1.0, 0.0], [count_a, count_b])
    dealt = np.random.default_rng(seed).permuted(np.tile(observed, (permutations, 1)), axis=1)
    return np.concatenate([blocks_a, count_a + blocks_b]), np.vstack([observed, dealt]).T


def _p_value(statistics: np.ndarray) -> float:
    """One-sided p of the first of `[1 + permutations]`; the observed one is one of the permutations."""
    if len(statistics) < 2:
        raise ValueError("expected at least 1 permutation for a p-value, got 0")
    return float((statistics >= statistics[0] - _ROUNDING).mean())


def _mmd(kernel: Callable, reference: Embedded, other: Embedded, permutations: int = 0, seed: int = 0) -> np.ndarray:
    """Unbiased squared MMD `[1 + permutations]`, the observed one first; a track's clips change sides together."""
    values = np.concatenate([reference.values, other.values])
    blocks, sides = _dealt(reference.tracks, other.tracks, permutations, seed)
    order = np.argsort(blocks, kind="stable")
    values, blocks = values[order], blocks[order]
    counts = np.bincount(blocks)  # [T] clips
    starts = np.cumsum(counts) - counts
    within_a, within_b, between = np.zeros((3, sides.shape[1]))
    for rows in _chunks(len(values), len(values)):
        sums = np.add.reduceat(kernel(values[rows], values), starts, axis=1)  # [rows, T]
        sums[np.arange(len(sums)), blocks[rows]] = 0  # pairs within a track
        first = np.flatnonzero(np.diff(blocks[rows], prepend=-1))
        sums = np.add.reduceat(sums, first, axis=0)
        side = sides[blocks[rows][first]]
        to_a = sums @ sides  # [t, 1 + permutations]
        to_b = sums.sum(1, keepdims=True) - to_a
        within_a += (side * to_a).sum(0)
        within_b += ((1 - side) * to_b).sum(0)
        between += (side * to_b).sum(0)
    clips_a, same_a = counts @ sides, counts**2 @ sides
    clips_b, same_b = counts.sum() - clips_a, (counts**2).sum() - same_a
    return within_a / (clips_a**2 - same_a) + within_b / (clips_b**2 - same_b) - 2 * between / (clips_a * clips_b)


def _frechet(a: np.ndarray, b: np.ndarray) -> float:
    """The squared distance from rows: the overlap is a sum of singular values, with no covariance and any rank."""
    mean_a, mean_b = a.mean(0), b.mean(0)
    root_a, root_b = (
        np.linalg.qr((rows - mean) / np.sqrt(len(rows) - 1), mode="r") for rows, mean in ((a, mean_a), (b, mean_b))
    )
    overlap = np.linalg.svd(root_a @ root_b.T, compute_uv=False).sum()
    return float(((mean_a - mean_b) ** 2).sum() + (root_a**2).sum() + (root_b**2).sum() - 2 * overlap)


def _radii(values: np.ndarray, k: int, name: str) -> np.ndarray:
    """Distance of each clip to its k-th neighbour, `[n]`."""
    if not 1 <= k < len(values):
        raise ValueError(f"{name}: expected more than k = {k} clips, and k at least 1, got {len(values)} clips")
    radii = np.empty(len(values))
    for rows in _chunks(len(values), len(values)):
        distance = cdist(values[rows], values)
        distance[np.arange(len(distance)), np.arange(len(values))[rows]] = np.inf
        radii[rows] = np.partition(distance, k - 1, axis=1)[:, k - 1]
    return radii


def _feature(values: Sequence[float | None], tracks: ArrayLike, name: str) -> tuple[np.ndarray, np.ndarray, Summary]:
    """The values that are defined, their tracks, and their summary."""
    values = np.asarray(values, np.float64)  # None becomes NaN
    if values.ndim != 1 or not len(values):
        raise ValueError(f"{name}: expected values [n], n at least 1, got shape {values.shape}")
    tracks = _checked_tracks(tracks, len(values), name)
    if np.isinf(values).any():
        raise ValueError(f"{name}: {np.isinf(values).sum()} of {len(values)} values are infinite; give None instead")
    defined = ~np.isnan(values)
    values, tracks = values[defined], tracks[defined]
    p10, median, p90 = map(float, np.percentile(values, [10, 50, 90])) if len(values) else (None, None, None)
    return values, tracks, Summary(median, p10, p90, len(values), float(defined.mean()))


def _ks(
    a: np.ndarray, tracks_a: np.ndarray, b: np.ndarray, tracks_b: np.ndarray, permutations: int, seed: int
) -> np.ndarray:
    """Kolmogorov-Smirnov statistics `[1 + permutations]`, the observed one first."""
    blocks, sides = _dealt(tracks_a, tracks_b, permutations, seed)
    pooled = np.concatenate([a, b])
    order = np.argsort(pooled)
    last = np.append(np.flatnonzero(np.diff(pooled[order])), len(pooled) - 1)  # of equal values
    statistics = np.empty(sides.shape[1])
    for columns in _chunks(sides.shape[1], len(pooled)):
        side = sides[:, columns][blocks[order]]  # [n + m, columns]
        steps = side / side.sum(0) - (1 - side) / (1 - side).sum(0)
        statistics[columns] = np.abs(np.cumsum(steps, axis=0)[last]).max(0)
    return statistics
