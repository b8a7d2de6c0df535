"""Statistics of whole sets that show copying: authenticity, data copying, WaveGAN's distances.

All compare embeddings or images by Euclidean nearest neighbours. A figure has a meaning only relative to
the same figure of as many held-out real clips.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.spatial.distance import cdist
from scipy.stats import rankdata
from sklearn.cluster import KMeans

_LEAST_IN_CELL = 10  # a cell counts if it has this many generated and held-out clips
_CHUNK_VALUES = 4_000_000  # float64 values of a distance matrix at a time: 32 MB


def auth_pct(generated: np.ndarray, train: np.ndarray, train_tracks: Sequence) -> float:
    """Returns the percentage of generated clips that are authentic; 0 for copies.

    A clip is authentic if it is further from its nearest training clip than that one is from the
    nearest clip of *another* track. Clips of one track lie so close together that otherwise any
    copy with a little noise would count as authentic.

    Args:
        generated: embeddings `[n, D]`.
        train: `[m, D]`.
        train_tracks: `[m]`, at least two different ones.

    Raises:
        ValueError: a single track, not one track a training clip, other shapes, NaN or Inf.

    Reference: Alaa et al., "How Faithful is your Synthetic Data?", ICML 2022 (authenticity). That
    clips of the same track do not count is ours.
    """
    generated, train = _check_sets("auth_pct", generated=generated, train=train)
    tracks = np.asarray(train_tracks)
    if len(tracks) != len(train) or len(np.unique(tracks)) < 2:
        raise ValueError(
            f"auth_pct: expected a track for each of {len(train)} training clips and at least 2 tracks, got {len(tracks)}"
            f" and {len(np.unique(tracks))}"
        )
    distance, nearest = _nearest(generated, train)
    used, place = np.unique(nearest, return_inverse=True)
    spacing, _ = _nearest(train[used], train, excluded=lambda rows: tracks[used[rows]][:, None] == tracks[None])
    return float(100 * np.mean(distance > spacing[place]))


def data_copying_test(generated: np.ndarray, held_out: np.ndarray, train: np.ndarray) -> float:
    """Returns Z_U: about 0 for new music, far below 0 for copies, far above 0 for distant clips.

    It compares the distances to the nearest training clip of the generated clips with those of
    held-out clips. Noise on copies hides them. It is a standard score for independent clips: pass
    one clip of each held-out track.

    Args:
        generated: embeddings `[m, D]`.
        held_out: `[n, D]`, real clips that were not trained on.
        train: `[l, D]`.

    Raises:
        ValueError: other shapes, NaN or Inf.

    Reference: Meehan, Chaudhuri and Dasgupta, "A Non-Parametric Test to Detect Data-Copying in
    Generative Models", AISTATS 2020, section 3.
    """
    generated, held_out, train = _check_sets("data_copying_test", generated=generated, held_out=held_out, train=train)
    return _z_u(_nearest(generated, train)[0], _nearest(held_out, train)[0])


def data_copying_by_cell(
    generated: np.ndarray, held_out: np.ndarray, train: np.ndarray, *, cells: int, seed: int
) -> float:
    """Returns C_T: the mean Z_U of the cells of the training set; finds copies of a few styles.

    The mean is weighted by the number of held-out clips of a cell.

    Args:
        generated: embeddings `[m, D]`.
        held_out: `[n, D]`.
        train: `[l, D]`.
        cells: number of cells of k-means on the training set.
        seed: the seed of k-means.

    Raises:
        ValueError: more cells than training clips, or no cell with enough clips.

    Reference: as for `data_copying_test`, section 4.
    """
    generated, held_out, train = _check_sets(
        "data_copying_by_cell", generated=generated, held_out=held_out, train=train
    )
    if cells > len(train):
        raise ValueError(f"data_copying_by_cell: expected at most {len(train)} cells, one a training clip, got {cells}")
    means = KMeans(cells, n_init=4, random_state=seed).fit(train)
    cell_generated, cell_held_out = means.predict(generated), means.predict(held_out)
    scores, weights = [], []
    for cell in range(cells):
        own, real, known = (
            values[labels == cell]
            for values, labels in ((generated, cell_generated), (held_out, cell_held_out), (train, means.labels_))
        )
        if min(len(own), len(real)) >= _LEAST_IN_CELL:
            scores.append(_z_u(_nearest(own, known)[0], _nearest(real, known)[0]))
            weights.append(len(real))
    if not scores:
        raise ValueError(
            f"data_copying_by_cell: none of {cells} cells has {_LEAST_IN_CELL} generated and {_LEAST_IN_CELL} held-out clips of"
            f" {len(generated)} and {len(held_out)}; take fewer cells or more clips"
        )
    return float(np.average(scores, weights=weights))


def self_distance(values: np.ndarray) -> float:
    """Returns WaveGAN's |D|_self: the mean distance to the nearest other clip; small for repeats.

    Args:
        values: `[n, D]`, n at least 2; flattened log-mel spectrograms in the paper.

    Raises:
        ValueError: fewer than 2 clips, other shapes, NaN or Inf.

    Reference: Donahue, McAuley and Puckette, "Adversarial Audio Synthesis" (arXiv 1802.04208),
    section on evaluation.
    """
    (values,) = _check_sets("self_distance", values=values)
    if len(values) < 2:
        raise ValueError("self_distance: expected at least 2 clips, got 1")
    return float(_nearest(values, values, excluded=lambda rows: rows[:, None] == np.arange(len(values)))[0].mean())


def train_distance(values: np.ndarray, train: np.ndarray) -> float:
    """Returns WaveGAN's |D|_train: the mean distance to the nearest training clip; 0 for copies.

    It does not detect rotated copies.

    Args:
        values: `[n, D]`.
        train: `[m, D]`.

    Raises:
        ValueError: other shapes, NaN or Inf.

    Reference: as for `self_distance`.
    """
    values, train = _check_sets("train_distance", values=values, train=train)
    return float(_nearest(values, train)[0].mean())


def _check_sets(caller: str, **sets: np.ndarray) -> list[np.ndarray]:
    """The sets as checked float64 arrays `[n, D]`."""
    arrays = {name: np.asarray(values, np.float64) for name, values in sets.items()}
    width = next(iter(arrays.values())).shape[-1:]
    for name, values in arrays.items():
        if values.ndim != 2 or not len(values) or values.shape[1:] != width:
            shapes = ", ".join(f"{name} {values.shape}" for name, values in arrays.items())
            raise ValueError(f"{caller}: {name}: expected [n, D], n at least 1 and one D, got {shapes}")
        if not np.isfinite(values).all():
            raise ValueError(f"{caller}: {name}: has NaN or Inf")
    return list(arrays.values())


def _nearest(
    queries: np.ndarray, known: np.ndarray, *, excluded: Callable[[np.ndarray], np.ndarray] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(distance, index) of the nearest known row.

    `excluded(rows)` returns which pairs `[rows, m]` do not count.
    """
    distance, index = np.empty(len(queries)), np.empty(len(queries), np.int64)
    step = max(1, _CHUNK_VALUES // len(known))
    for first in range(0, len(queries), step):
        rows = np.arange(first, min(first + step, len(queries)))
        apart = cdist(queries[rows], known)
        if excluded is not None:
            apart[excluded(rows)] = np.inf
        index[rows] = apart.argmin(1)
        distance[rows] = apart[np.arange(len(rows)), index[rows]]
    return distance, index


def _z_u(generated: np.ndarray, held_out: np.ndarray) -> float:
    """The Mann-Whitney statistic as a standard score, without correction for ties."""
    m, n = len(generated), len(held_out)
    u = rankdata(np.concatenate([generated, held_out]))[:m].sum() - m * (m + 1) / 2
    return float((u - (m * n / 2 - 0.5)) / np.sqrt(m * n * (m + n + 1) / 12))
