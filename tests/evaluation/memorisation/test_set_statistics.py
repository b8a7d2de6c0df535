import numpy as np
import pytest
from scipy import stats
from sklearn.neighbors import NearestNeighbors

from technogen_jax.evaluation.memorisation import set_statistics


def column(*values):
    return np.array(values, np.float64)[:, None]


def test_auth_pct_does_not_count_clips_of_the_same_track():
    train = column(0, 1, 10)
    assert set_statistics.auth_pct(column(0.2, 5, 1.5, 0), train, ["a", "b", "c"]) == 25.0
    assert set_statistics.auth_pct(train, train, ["a", "b", "c"]) == 0
    # 0 and 0.01 are siblings: a copy with a little noise is further from both than they are from each other.
    train = column(0, 0.01, 10, 10.01)
    assert set_statistics.auth_pct(column(0.1, 10.1), train, ["a", "a", "b", "b"]) == 0
    assert set_statistics.auth_pct(column(0.1, 10.1), train, ["a", "b", "c", "d"]) == 100


def test_data_copying_test_agrees_with_mann_whitney():
    random = np.random.default_rng(0)
    train, real, other = (random.standard_normal((n, 3)) for n in (10, 10, 25))
    assert set_statistics.data_copying_test(train, real, train) == pytest.approx(-3.7418, abs=1e-4)
    z = set_statistics.data_copying_test(other, real, train)
    neighbours = NearestNeighbors(n_neighbors=1).fit(train)
    distances = [neighbours.kneighbors(rows)[0][:, 0] for rows in (other, real)]
    oracle = stats.mannwhitneyu(*distances, alternative="less", method="asymptotic")
    assert stats.norm.cdf(z) == pytest.approx(oracle.pvalue, rel=1e-9)
    assert set_statistics.data_copying_test(5 + other, real, train) > 3


def test_data_copying_by_cell_detects_copies_of_one_style():
    random = np.random.default_rng(0)
    train, real, new = (
        np.concatenate([random.standard_normal((n, 2)), 50 + random.standard_normal((n, 2))]) for n in (30, 40, 20)
    )
    generated = np.concatenate([train[:20], new[20:]])
    by_cell = set_statistics.data_copying_by_cell(generated, real, train, cells=2, seed=0)
    halves = [
        set_statistics.data_copying_test(generated[:20], real[:40], train[:30]),
        set_statistics.data_copying_test(generated[20:], real[40:], train[30:]),
    ]
    assert halves[0] < -5 < -2 < halves[1]
    assert by_cell == pytest.approx(np.mean(halves))
    one = set_statistics.data_copying_by_cell(generated, real, train, cells=1, seed=0)
    assert one == pytest.approx(set_statistics.data_copying_test(generated, real, train))
    with pytest.raises(ValueError, match="fewer cells"):
        set_statistics.data_copying_by_cell(generated[:5], real, train, cells=2, seed=0)


def test_self_and_train_distance_agree_with_sklearn():
    random = np.random.default_rng(0)
    values, train = 100 + random.standard_normal((30, 5)), 100 + random.standard_normal((50, 5))
    neighbours = NearestNeighbors(n_neighbors=2).fit(values).kneighbors(values)[0]
    assert set_statistics.self_distance(values) == pytest.approx(neighbours[:, 1].mean(), rel=1e-9)
    assert set_statistics.self_distance(np.concatenate([values, values])) == 0
    assert set_statistics.train_distance(values, train) == pytest.approx(
        NearestNeighbors(n_neighbors=1).fit(train).kneighbors(values)[0].mean(), rel=1e-9
    )
    assert set_statistics.train_distance(train[:7], train) == 0


def test_invalid_sets_raise():
    good = np.ones((3, 2))
    with pytest.raises(ValueError, match="train: expected"):
        set_statistics.train_distance(good, np.ones((3, 4)))
    with pytest.raises(ValueError, match="held_out: has NaN"):
        set_statistics.data_copying_test(good, good * np.nan, good)
    with pytest.raises(ValueError, match="at least 2 tracks"):
        set_statistics.auth_pct(good, good, ["a"] * 3)
    with pytest.raises(ValueError, match="at least 2 clips"):
        set_statistics.self_distance(good[:1])
    with pytest.raises(ValueError, match="values: expected"):
        set_statistics.self_distance(good[:0])
