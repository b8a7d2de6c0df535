"""Distances between two sets of embedded clips, with the track of each clip as part of the set.

`DISTANCES` is the table of the figures that an evaluation reports. All are computed in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special
from scipy.spatial.distance import cdist, pdist
from threadpoolctl import threadpool_limits

from technogen_jax.evaluation.metrics.embedded_set import EmbeddedSet, check_pair
from technogen_jax.evaluation.metrics.permutations import p_value, permute_tracks

NEIGHBOURS = 5  # of precision, recall, density and coverage, as in Naeem et al.

_CHUNK_VALUES = 4_000_000  # float64 values of a distance matrix at a time: 32 MB
_PARTITIONS = 16  # into halves, for `frechet_at_infinity`
_JACKKNIFE_GROUPS = 10


class MMDTest(NamedTuple):
    """A squared MMD with its permutation test.

    Attributes:
        mmd: the squared MMD.
        p: share of random assignments of the tracks with an MMD as large.
        null_95: the 95th percentile of the MMD of random assignments.
    """

    mmd: float
    p: float
    null_95: float


class PRDC(NamedTuple):
    """Precision, recall and coverage in [0, 1]; density from 0 up."""

    precision: float
    recall: float
    density: float
    coverage: float


class Distance(NamedTuple):
    """Figures that one function computes from real and other clips.

    Attributes:
        titles: name in the result -> title in the report.
        compute: (real clips, other clips) -> {name: value}.
    """

    titles: dict[str, str]
    compute: Callable[[EmbeddedSet, EmbeddedSet], dict[str, float]]


def rbf_mmd(reference: EmbeddedSet, other: EmbeddedSet) -> float:
    """Returns the unbiased squared maximum mean discrepancy with a Gaussian kernel.

    For two sets of one distribution it is 0 on average, and often negative. The kernel's width is
    the median distance between clips of the reference, so the sets cannot be exchanged. Nothing is
    scaled: whiten the values first. Within a set only pairs of clips of different tracks count,
    with equal weights; for one clip a track this is Gretton's estimate. The published KAD is 100
    times this value.

    Raises:
        ValueError: sets that do not fit (`check_pair`); most clips of the reference are equal.

    Reference: Gretton et al., "A Kernel Two-Sample Test", JMLR 13 (2012), equation 3; Chung et al.,
    "KAD: No More FAD!" (arXiv 2502.15602).
    """
    check_pair(reference, other)
    return float(_mmd(_rbf_kernel(reference), reference, other)[0])


def rbf_mmd_test(reference: EmbeddedSet, other: EmbeddedSet, *, permutations: int = 999, seed: int = 0) -> MMDTest:
    """Returns `rbf_mmd` and its one-sided p-value, with tracks as the permuted units.

    p is exact where every track of both sets has the same number of clips: the mean of four clips varies less
    than one clip. Memory: 0.2 GB for 5,000 and 5,000 clips.

    Args:
        reference: gives the kernel's width, which is kept for all permutations.
        other: has no track of the reference.
        permutations: number of permutations; p is a multiple of `1 / (permutations + 1)`.
        seed: the seed of the permutations.

    Raises:
        ValueError: as `rbf_mmd`; a track in both sets; no permutation.
    """
    check_pair(reference, other, disjoint=True)
    mmd = _mmd(_rbf_kernel(reference), reference, other, permutations, seed)
    return MMDTest(float(mmd[0]), p_value(mmd), float(np.percentile(mmd[1:], 95)))


def frechet_distance(reference: EmbeddedSet, other: EmbeddedSet) -> float:
    """Returns the squared Fréchet distance of two Gaussians with the sets' means and covariances.

    It is 0 for a set and itself. For finite sets it is too large by about `frechet_bias`: read it
    beside the distance between real sets of as many tracks.

    Raises:
        ValueError: sets that do not fit (`check_pair`).

    Reference: Dowson and Landau, "The Fréchet distance between multivariate normal distributions"
    (1982).
    """
    check_pair(reference, other)
    return _frechet(reference.values, other.values)


def frechet_bias(eigenvalues: ArrayLike, tracks_reference: int, tracks_other: int) -> float:
    """Returns the mean Fréchet distance of two finite sets of one normal distribution.

    Args:
        eigenvalues: `[D]`, of the distribution's covariance.
        tracks_reference: independent draws in the reference: tracks, not clips. If the clips of a
            track differ much, the true bias is smaller.
        tracks_other: the same for the other set.

    Reference: second-order expansion of the distance in the errors of means and covariances.
    """
    values = np.asarray(eigenvalues, np.float64)
    values = values[values > 0]
    pairs = values[:, None] * values / (values[:, None] + values)
    return float((1 / tracks_reference + 1 / tracks_other) * (values.sum() + (pairs.sum() + np.trace(pairs)) / 2))


# Many small decompositions: threads that wait for each other would take far longer than one thread.
@threadpool_limits.wrap(limits=1, user_api="blas")
def frechet_at_infinity(reference: EmbeddedSet, other: EmbeddedSet, *, seed: int = 0) -> tuple[float, float]:
    """Returns the Fréchet distance extrapolated to infinitely many tracks, and its standard error.

    The distance is taken as linear in `1 / tracks`: the result is twice the distance of the whole
    sets minus the mean distance of their halves, over random partitions of the tracks. No track is
    drawn twice: draws with replacement would converge to the distance of the two finite sets. A
    second-order bias remains, so a half should have many more tracks than there are dimensions.
    The error is estimated by a jackknife over groups of tracks; near 0 it is too large.

    Raises:
        ValueError: sets that do not fit (`check_pair`), or with fewer than 20 tracks.

    Reference: Chong and Forsyth, "Effectively Unbiased FID and Inception Score" (arXiv 1911.07023);
    by tracks, and with halves of both sets, is ours.
    """
    check_pair(reference, other)
    rng = np.random.default_rng(seed)
    sides = []
    for name, clips in (("reference", reference), ("other", other)):
        tracks, index = np.unique(clips.tracks, return_inverse=True)
        if len(tracks) < 2 * _JACKKNIFE_GROUPS:
            raise ValueError(f"{name}: expected at least {2 * _JACKKNIFE_GROUPS} tracks, got {len(tracks)}; add tracks")
        group = rng.permutation(len(tracks)) % _JACKKNIFE_GROUPS
        halves = np.array([rng.permutation(len(tracks)) % 2 for _ in range(_PARTITIONS)])
        sides.append((clips.values, group[index], halves[:, index]))

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

    # The same halves with and without a group: the error must not include the choice of partitions.
    without = [extrapolated(group) for group in range(_JACKKNIFE_GROUPS)]
    return extrapolated(-1), float(np.sqrt(_JACKKNIFE_GROUPS - 1) * np.std(without))


def prdc(reference: EmbeddedSet, other: EmbeddedSet, k: int = NEIGHBOURS) -> PRDC:
    """Returns precision and density of the other set, recall and coverage of the reference.

    Compare sets of one size with one clip a track (`choose_one_a_track`), since the nearest
    neighbours of a clip are the other clips of its track. For two sets of one distribution density
    is about 1 and coverage about `1 - 2**-k`; precision and recall need not be 1.

    Args:
        reference: n clips.
        other: m clips.
        k: the ball of a clip ends at its k-th neighbour, without the clip itself, and is open.

    Raises:
        ValueError: sets that do not fit (`check_pair`); a set of k clips or fewer; a clip of the
            reference with k exact copies or more, whose ball is empty. The other set may have
            copies: recall and coverage then show it.

    Reference: Kynkäänniemi et al., "Improved Precision and Recall Metric" (arXiv 1904.06991); Naeem
    et al., "Reliable Fidelity and Diversity Metrics" (arXiv 2002.09797).
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


def vendi_score(values: ArrayLike) -> float:
    """Returns the effective number of different clips in `[n, D]`, by the cosine of their vectors.

    It is 1 if all are alike and n if all are orthogonal. Subtract the mean first: a common mean
    makes all clips alike.

    Raises:
        ValueError: a row without direction (zeros), or values that are not finite.

    Reference: Friedman and Dieng, "The Vendi Score" (arXiv 2210.02410).
    """
    values = np.asarray(values, np.float64)
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    if not (np.isfinite(norms).all() and norms.all()):
        raise ValueError("expected finite rows [n, D] that are not zero; drop silent clips")
    # The eigenvalues of the kernel matrix are the squared singular values of its factor.
    eigenvalues = np.linalg.svd(values / norms / np.sqrt(len(values)), compute_uv=False) ** 2
    return float(np.exp(special.entr(eigenvalues[eigenvalues > 1e-12]).sum()))


def inception_score(probabilities: ArrayLike) -> float:
    """Returns `exp(E KL(p(y|x) || p(y)))`, from 1 to K; too small for few clips.

    Args:
        probabilities: `[n, K]`, a classifier's for each clip; rows sum to one.

    Raises:
        ValueError: rows that are not probabilities.

    Reference: Salimans et al., "Improved Techniques for Training GANs" (arXiv 1606.03498).
    """
    probabilities = np.asarray(probabilities, np.float64)
    if probabilities.ndim != 2 or not (
        (probabilities >= 0).all() and np.allclose(probabilities.sum(1), 1, rtol=0, atol=1e-3)
    ):
        raise ValueError(f"expected probabilities [n, K] whose rows sum to 1, got shape {probabilities.shape}")
    return float(np.exp(special.rel_entr(probabilities, probabilities.mean(0)).sum(1).mean()))


def _neighbour_figures(real: EmbeddedSet, other: EmbeddedSet) -> dict[str, float]:
    size = min(len(real.values), len(other.values))
    equal = [EmbeddedSet(clips.values[:size], clips.tracks[:size]) for clips in (real, other)]
    return prdc(*equal)._asdict()


def _vendi(real: EmbeddedSet, other: EmbeddedSet) -> dict[str, float]:
    # Around the centre of the real clips: around their own, copies of one clip that differ only by
    # rounding would all look different.
    return {"vendi": vendi_score(other.values - real.values.mean(axis=0))}


# The recipe for a distance: add it here. The evaluation computes it for every embedding, beside its
# floor, and the report shows it.
DISTANCES = [
    Distance({"mmd": "kernel distance (MMD²)"}, lambda real, other: {"mmd": rbf_mmd(real, other)}),
    Distance({"frechet": "Fréchet distance"}, lambda real, other: {"frechet": frechet_distance(real, other)}),
    Distance(
        {
            "precision": "precision: generated clips that lie among real ones",
            "recall": "recall: real clips that lie among generated ones",
            "density": "density",
            "coverage": "coverage: real clips with a generated one near by",
        },
        _neighbour_figures,
    ),
    Distance({"vendi": "Vendi score: effective number of different clips"}, _vendi),
]


def compute_all(real: EmbeddedSet, other: EmbeddedSet) -> dict[str, float]:
    """Returns every figure of `DISTANCES` by name."""
    return {name: value for distance in DISTANCES for name, value in distance.compute(real, other).items()}


def titles() -> dict[str, str]:
    """Returns the titles of all figures by name."""
    return {name: title for distance in DISTANCES for name, title in distance.titles.items()}


def _chunks(rows: int, columns: int) -> Iterator[slice]:
    """Slices of rows, so that a part of a matrix fits in memory."""
    step = max(1, _CHUNK_VALUES // columns)
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def _rbf_kernel(reference: EmbeddedSet) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    width = np.median(pdist(reference.values), overwrite_input=True)
    if width == 0:
        raise ValueError("reference: most clips have the same values, so that no kernel's width fits; drop copies")

    def kernel(a, b):
        distance = cdist(a, b, "sqeuclidean")
        distance *= -1 / (2 * width**2)
        return np.exp(distance, out=distance)

    return kernel


def _mmd(
    kernel: Callable[[np.ndarray, np.ndarray], np.ndarray],
    reference: EmbeddedSet,
    other: EmbeddedSet,
    permutations: int = 0,
    seed: int = 0,
) -> np.ndarray:
    """Unbiased squared MMD `[1 + permutations]`, the observed one first."""
    values = np.concatenate([reference.values, other.values])
    blocks, sides = permute_tracks(reference.tracks, other.tracks, permutations, seed)
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
    """The squared distance of two sets of rows, computed without covariances, for any rank."""
    mean_a, mean_b = a.mean(0), b.mean(0)
    root_a, root_b = (
        np.linalg.qr((rows - mean) / np.sqrt(len(rows) - 1), mode="r") for rows, mean in ((a, mean_a), (b, mean_b))
    )
    overlap = np.linalg.svd(root_a @ root_b.T, compute_uv=False).sum()
    return float(((mean_a - mean_b) ** 2).sum() + (root_a**2).sum() + (root_b**2).sum() - 2 * overlap)


def _radii(values: np.ndarray, k: int, name: str) -> np.ndarray:
    """Distance from each clip to its k-th neighbour, `[n]`."""
    if not 1 <= k < len(values):
        raise ValueError(f"{name}: expected more than k = {k} clips, and k at least 1, got {len(values)} clips")
    radii = np.empty(len(values))
    for rows in _chunks(len(values), len(values)):
        distance = cdist(values[rows], values)
        distance[np.arange(len(distance)), np.arange(len(values))[rows]] = np.inf
        radii[rows] = np.partition(distance, k - 1, axis=1)[:, k - 1]
    return radii
