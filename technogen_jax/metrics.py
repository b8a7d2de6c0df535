"""Distances between sets of embeddings, in numpy and float64."""

from __future__ import annotations

import numpy as np


def rbf_mmd(reference: np.ndarray, other: np.ndarray) -> float:
    """Unbiased squared maximum mean discrepancy with a Gaussian kernel; 0 for one distribution, and then often below.

    Both sets are first scaled by the reference's mean and deviation in each dimension; the kernel's width is the median
    distance within the reference.

    Args:
        reference: `[n, D]`, n at least 2.
        other: `[m, D]`, m at least 2.

    Raises:
        ValueError: fewer than two rows, different dimensions, values that are not finite, or a reference whose rows are
            all the same.

    *Source*: Gretton et al., "A Kernel Two-Sample Test", JMLR 13 (2012), eq. 3.
    """
    reference, other = np.asarray(reference, np.float64), np.asarray(other, np.float64)
    for name, rows in (("reference", reference), ("other", other)):
        if rows.ndim != 2 or len(rows) < 2:
            raise ValueError(f"rbf_mmd: {name}: expected [n, D] with n at least 2, got shape {rows.shape}")
        if not np.isfinite(rows).all():
            raise ValueError(f"rbf_mmd: {name}: holds NaN or Inf")
    if reference.shape[1] != other.shape[1]:
        raise ValueError(f"rbf_mmd: expected one dimension, got {reference.shape[1]} and {other.shape[1]}")
    mean, deviation = reference.mean(0), reference.std(0)
    if not deviation.any():
        raise ValueError("rbf_mmd: the rows of the reference are all the same")
    # A dimension that is constant in the reference (an empty band) must not divide by zero, nor dominate.
    deviation = np.maximum(deviation, 1e-3 * deviation.max())
    reference, other = (reference - mean) / deviation, (other - mean) / deviation

    n, m = len(reference), len(other)
    within = _squared_distances(reference, reference)
    pairs = np.triu_indices(n, 1)
    width = np.median(np.sqrt(within[pairs]))
    if width == 0:
        raise ValueError("rbf_mmd: most rows of the reference are the same")
    gamma = 1 / (2 * width**2)
    k_reference = np.exp(-gamma * within)
    k_other = np.exp(-gamma * _squared_distances(other, other))
    k_between = np.exp(-gamma * _squared_distances(reference, other))
    return float(
        (k_reference.sum() - np.trace(k_reference)) / (n * (n - 1))
        + (k_other.sum() - np.trace(k_other)) / (m * (m - 1))
        - 2 * k_between.mean()
    )


def _squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.maximum(0, (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T)
