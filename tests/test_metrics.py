import numpy as np
import pytest

from technogen_jax import metrics


def test_rbf_mmd_by_its_definition():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((7, 3)) * [1, 10, 0.1] + 5, rng.standard_normal((5, 3)) + 4
    a, b = (x - x.mean(0)) / x.std(0), (y - x.mean(0)) / x.std(0)
    width = np.median([np.linalg.norm(a[i] - a[j]) for i in range(7) for j in range(i)])

    def kernel(u, v):
        return np.exp(-((u - v) ** 2).sum() / (2 * width**2))

    within_a = np.mean([kernel(a[i], a[j]) for i in range(7) for j in range(7) if i != j])
    within_b = np.mean([kernel(b[i], b[j]) for i in range(5) for j in range(5) if i != j])
    between = np.mean([kernel(u, v) for u in a for v in b])
    assert metrics.rbf_mmd(x, y) == pytest.approx(within_a + within_b - 2 * between, abs=1e-12)


def test_rbf_mmd_is_about_zero_for_one_distribution_and_grows_with_a_shift():
    rng = np.random.default_rng(1)
    reference = rng.standard_normal((300, 8))
    same = [metrics.rbf_mmd(reference, rng.standard_normal((300, 8))) for _ in range(10)]
    assert abs(np.mean(same)) < 2e-3
    shifted = [metrics.rbf_mmd(reference, rng.standard_normal((300, 8)) + shift) for shift in (0.2, 0.5, 1.0)]
    assert max(same) < shifted[0] < shifted[1] < shifted[2]


def test_rbf_mmd_sees_a_collapse():
    rng = np.random.default_rng(2)
    reference = rng.standard_normal((200, 8))
    collapsed = np.repeat(rng.standard_normal((1, 8)), 200, axis=0)
    varied = [abs(metrics.rbf_mmd(reference, rng.standard_normal((200, 8)))) for _ in range(10)]
    assert metrics.rbf_mmd(reference, collapsed) > 10 * max(varied)


def test_a_dimension_that_is_constant_in_the_reference_does_not_decide_alone():
    rng = np.random.default_rng(3)
    reference, other = rng.standard_normal((2, 100, 4))
    constant = np.full((100, 1), 3.0)
    assert np.isfinite(metrics.rbf_mmd(np.hstack([reference, constant]), np.hstack([other, constant])))


@pytest.mark.parametrize(
    "reference, other, message",
    [
        (np.zeros((1, 2)), np.zeros((3, 2)), "reference: expected .* n at least 2"),
        (np.eye(3), np.zeros((3, 2)), "expected one dimension, got 3 and 2"),
        (np.eye(3), np.full((3, 3), np.nan), "other: holds NaN or Inf"),
        (np.ones((3, 2)), np.eye(2), "all the same"),
        (np.vstack([np.zeros((9, 2)), np.ones((1, 2))]), np.eye(2), "most rows .* the same"),
    ],
)
def test_bad_sets_are_errors(reference, other, message):
    with pytest.raises(ValueError, match=message):
        metrics.rbf_mmd(reference, other)
