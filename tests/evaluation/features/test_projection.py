import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from technogen_jax.evaluation.features.projection import LEAST_TRACKS, fit_projection


@pytest.fixture
def embedded_set():
    """100 clips of 25 tracks, 30 columns of unlike scale in two blocks, one of them constant."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal((100, 30)) @ rng.standard_normal((30, 30)) * rng.uniform(0.5, 2, 30) + 5
    values[:, 7] = 3
    return values, np.repeat(np.arange(25), 4), {"T": slice(0, 12), "M": slice(12, 30)}


def test_projection_equals_sklearns_standardised_and_whitened_pca(embedded_set):
    values, tracks, blocks = embedded_set
    projection = fit_projection(values, tracks, blocks)
    assert projection.tracks == 25
    found = projection.apply(values)
    for name, columns in {**blocks, "all": slice(None)}.items():
        assert found[name].shape == (100, 5)
        block = np.delete(values, 7, axis=1) if name == "all" else values[:, columns]
        scaled = StandardScaler().fit_transform(np.delete(block, 7, axis=1) if name == "T" else block)
        expected = PCA(5, whiten=True, svd_solver="full").fit_transform(scaled)
        np.testing.assert_allclose(np.abs(found[name]), np.abs(expected), atol=1e-9)


def test_without_whitening_it_equals_sklearns_pca(embedded_set):
    values, tracks, blocks = embedded_set
    projection = fit_projection(values, tracks, blocks, whiten=False)
    found = projection.apply(values + 1)
    for name, columns in {**blocks, "all": slice(None)}.items():
        block = values[:, columns]
        varying = int(np.sum(block.std(axis=0) > 0))
        expected = PCA(varying, svd_solver="full").fit(block).transform(block + 1)
        assert found[name].shape == (100, varying)
        np.testing.assert_allclose(np.abs(found[name]), np.abs(expected), atol=1e-9)
    wide = np.random.default_rng(0).standard_normal((100, 60))
    assert fit_projection(wide, tracks, {}, whiten=False).apply(wide)["all"].shape == (100, 32)  # of 25 tracks


def test_the_hash_is_that_of_the_arrays(embedded_set):
    values, tracks, blocks = embedded_set
    projection = fit_projection(values, tracks, blocks, dimensions=3)
    assert projection.sha256 == fit_projection(values.copy(), tracks, blocks, dimensions=3).sha256
    assert projection.sha256 != fit_projection(values[::-1], tracks, blocks, dimensions=2).sha256


def test_values_that_cannot_be_projected_raise(embedded_set):
    values, tracks, blocks = embedded_set
    few = tracks < LEAST_TRACKS - 1
    with pytest.raises(ValueError, match="at least 10 tracks, got 9; prepare"):
        fit_projection(values[few], tracks[few], blocks)
    with pytest.raises(ValueError, match="one track per clip, got 99 for 100"):
        fit_projection(values, tracks[1:], blocks)
    with pytest.raises(ValueError, match="NaN or Inf"):
        fit_projection(np.where(values > 6, np.nan, values), tracks, blocks)
    with pytest.raises(ValueError, match="block T is the same for all clips"):
        fit_projection(np.where(np.arange(30) < 12, 1.0, values), tracks, blocks)
    projection = fit_projection(values, tracks, blocks)
    with pytest.raises(ValueError, match=r"expected embeddings \[n, 30\], got \(100, 29\)"):
        projection.apply(values[:, 1:])
    with pytest.raises(ValueError, match="NaN or Inf"):
        projection.apply(np.full((1, 30), np.inf))


def test_a_nearly_constant_column_is_not_amplified(embedded_set):
    values, tracks, blocks = embedded_set
    values[:, 7] = 3 + 1e-9 * np.random.default_rng(1).standard_normal(100)
    projection = fit_projection(values, tracks, blocks)
    moved = values.copy()
    moved[:, 7] += 1e-6
    np.testing.assert_allclose(projection.apply(moved)["T"], projection.apply(values)["T"], atol=1e-3)
