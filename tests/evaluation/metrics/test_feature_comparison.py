import numpy as np
import pytest
import scipy.stats

from technogen_jax.evaluation.metrics.feature_comparison import compare_feature


def test_compare_feature_agrees_with_scipy():
    rng = np.random.default_rng(0)
    x, y = rng.normal(130, 4, 80), rng.normal(131, 6, 60).round()  # with ties
    tracks_x, tracks_y = np.arange(80), np.arange(100, 160)
    result = compare_feature(x, tracks_x, y, tracks_y, permutations=4000)
    expected = scipy.stats.wasserstein_distance((x - x.mean()) / x.std(), (y - x.mean()) / x.std())
    assert result.wasserstein == pytest.approx(expected, rel=1e-12)
    assert result.ks == pytest.approx(scipy.stats.ks_2samp(x, y).statistic, abs=1e-12)
    assert result.reference == (*np.percentile(x, [50, 10, 90]), 80, 1.0)
    same = compare_feature(x, tracks_x, x, tracks_x + 1000)
    assert same.wasserstein == 0 and same.ks == 0 and same.p == 1


def test_the_p_value_is_exact_for_one_clip_a_track_and_keeps_its_level_for_more():
    rng = np.random.default_rng(1)
    x, y = rng.normal(0, 1, 40), rng.normal(0.4, 1, 30)
    result = compare_feature(x, np.arange(40), y, np.arange(40, 70), permutations=4000)
    exact = scipy.stats.ks_2samp(x, y, method="exact").pvalue
    assert 0.02 < exact < 0.5
    assert result.p == pytest.approx(exact, abs=4 * np.sqrt(exact / 4000))
    by_track, by_clip = [], []
    for _ in range(100):
        x, y = np.repeat(rng.standard_normal((2, 15)), 6, axis=1)
        tracks = np.repeat(np.arange(30), 6)
        by_track.append(compare_feature(x, tracks[:90], y, tracks[90:], permutations=99).p)
        by_clip.append(scipy.stats.ks_2samp(x, y).pvalue)
    assert np.mean(np.array(by_track) <= 0.05) <= 0.1
    assert np.mean(np.array(by_clip) <= 0.05) > 0.3


def test_clips_without_the_feature_are_left_out_and_counted():
    values = [1.0, None, 3.0, np.nan, 2.0]
    result = compare_feature(values, range(5), [4.0, 6.0, None], [10, 11, 12], permutations=9)
    assert result.reference == pytest.approx((2, 1.2, 2.8, 3, 0.6))
    assert result.other == pytest.approx((5, 4.2, 5.8, 2, 2 / 3))
    assert result.wasserstein == pytest.approx(3 / np.std([1, 2, 3]))
    nothing = compare_feature([1.0, 2.0], [1, 2], [None, None, 7.0], [3, 4, 5])
    assert nothing[:3] == (None, None, None)
    assert nothing.other == (7, 7, 7, 1, 1 / 3)
    assert compare_feature([1.0, 2.0], [1, 2], [None], [3]).other == (None, None, None, 0, 0)


def test_a_constant_reference_has_no_wasserstein_distance():
    result = compare_feature([0.1] * 30, range(30), [0.1] * 20 + [0.2] * 10, range(30, 60))
    assert result.wasserstein is None
    assert result.ks == pytest.approx(1 / 3)
    assert result.p < 0.01


@pytest.mark.parametrize(
    "values, tracks, message",
    [
        ([1.0, np.inf], [3, 4], "other: 1 of 2 values are infinite"),
        ([1.0, 2.0], [3], "other: expected one track id .* each of 2 clips, got shape .1,."),
        ([1.0, 2.0], [2, 3], "expected different tracks in the two sets, got 1 in both"),
        ([], [], r"other: expected values \[n\], n at least 1"),
    ],
)
def test_invalid_values_raise(values, tracks, message):
    with pytest.raises(ValueError, match=message):
        compare_feature([1.0, 2.0], [1, 2], values, tracks)
