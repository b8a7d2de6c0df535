import numpy as np
import pytest
import scipy.stats

from technogen_jax.evaluation.metrics import two_sample
from technogen_jax.evaluation.metrics.embedded_set import EmbeddedSet, choose_one_a_track, make_embedded_set


def normal(seed, tracks, dims, clips_a_track=1, within=0.1, shift=0.0, prefix="r"):
    """Tracks are normal draws, and the clips of a track lie close together."""
    rng = np.random.default_rng(seed)
    values = np.repeat(rng.standard_normal((tracks, dims)) + shift, clips_a_track, axis=0)
    values += within * rng.standard_normal(values.shape)
    return make_embedded_set(values, [f"{prefix}{i // clips_a_track}" for i in range(len(values))], prefix)


def result(correct, clips):
    return two_sample._result("logistic", correct, clips, correct / clips)


# Statistics


@pytest.mark.parametrize(
    "correct, clips, p, exact",
    [
        (60, 100, 0.02844, (0.4972, 0.6967)),
        (110, 200, 0.08948, None),
        (530, 1000, 0.03101, None),
    ],
)
def test_intervals_and_p_values_have_the_published_figures(correct, clips, p, exact):
    test = result(correct, clips)
    assert test.p == pytest.approx(p, abs=5e-6)
    assert (test.low, test.high) == two_sample.clopper_pearson(correct, clips)
    if exact:
        assert (test.low, test.high) == pytest.approx(exact, abs=5e-5)


@pytest.mark.parametrize("correct, clips", [(0, 10), (7, 10), (10, 10), (51, 100)])
def test_the_bounds_invert_the_binomial_test(correct, clips):
    low, high = two_sample.clopper_pearson(correct, clips)
    if correct:
        assert scipy.stats.binom.sf(correct - 1, clips, low) == pytest.approx(0.025)
    if correct < clips:
        assert scipy.stats.binom.cdf(correct, clips, high) == pytest.approx(0.025)
        bound = two_sample.upper_bound(correct, clips)
        assert scipy.stats.binom.cdf(correct, clips, bound) == pytest.approx(0.05)
    else:
        assert two_sample.upper_bound(correct, clips) == high == 1


@pytest.mark.parametrize("accuracy, clips", [(0.55, 617), (0.6, 153), (0.65, 67)])
def test_clips_for_power_has_the_published_values(accuracy, clips):
    assert two_sample.clips_for_power(accuracy) == clips
    # The exact test is a step function of the clips, the plan is not.
    assert two_sample.detectable_accuracy(clips) == pytest.approx(accuracy, abs=0.015)


@pytest.mark.parametrize("clips, alpha", [(6, 0.05), (60, 0.05), (200, 0.05 / 3)])
def test_the_detectable_accuracy_has_a_power_of_four_fifths(clips, alpha):
    accuracy = two_sample.detectable_accuracy(clips, alpha=alpha)
    p = np.array([scipy.stats.binomtest(k, clips, alternative="greater").pvalue for k in range(clips + 1)])
    found = scipy.stats.binom.pmf(np.arange(clips + 1), clips, accuracy)[p <= alpha].sum()
    assert found == pytest.approx(0.8, abs=1e-6)


def test_too_few_clips_detect_nothing():
    with pytest.raises(ValueError, match="4 right answers of 4 are not significant at 0.05"):
        two_sample.detectable_accuracy(4)


# The test


@pytest.mark.parametrize("classifier", ["logistic", "forest"])
def test_classifier_test_detects_a_difference(classifier):
    test = two_sample.classifier_test(
        normal(0, 120, 8, 2), normal(1, 120, 8, 2, shift=1.0, prefix="g"), classifier=classifier
    )
    assert test.classifier == classifier and test.clips == 120
    assert test.accuracy == test.correct / 120 > 0.8
    assert test.auc > 0.9 and test.p < 1e-9 and test.low > 0.7
    again = two_sample.classifier_test(
        normal(0, 120, 8, 2), normal(1, 120, 8, 2, shift=1.0, prefix="g"), classifier=classifier
    )
    assert again == test


def test_a_forest_separates_what_no_plane_separates():
    real, generated = normal(0, 200, 4), normal(1, 200, 4, prefix="g")
    generated = generated._replace(values=3 * generated.values)
    assert two_sample.classifier_test(real, generated, classifier="forest").accuracy > 0.85
    assert two_sample.classifier_test(real, generated, classifier="logistic").accuracy < 0.7


def test_more_clips_a_track_on_one_side_do_not_bias_the_forest():
    one, ten = [], []
    for seed in range(4):
        real, generated = normal((seed, 0), 100, 6, 10), normal((seed, 1), 100, 6, shift=0.8, prefix="g")
        ten.append(two_sample.classifier_test(real, generated, classifier="forest").accuracy)
        real = choose_one_a_track(real)
        one.append(two_sample.classifier_test(real, generated, classifier="forest").accuracy)
    assert np.mean(ten) > 0.7
    assert np.mean(ten) > np.mean(one) - 0.05


def test_splitting_by_track_keeps_the_level_and_splitting_by_clip_does_not():
    by_track, by_clip = [], []
    for seed in range(200):
        real, generated = (normal((seed, side), 40, 8, 4, prefix="rg"[side]) for side in (0, 1))
        by_track.append(two_sample.classifier_test(real, generated, seed=seed).p)
        if len(by_clip) == 60:
            continue
        clips = [s._replace(tracks=np.array([f"{s.tracks[0]}-{i}" for i in range(160)])) for s in (real, generated)]
        by_clip.append(two_sample.classifier_test(*clips, seed=seed).p)
    assert np.mean(np.array(by_track) <= 0.05) <= 0.09
    assert np.mean(np.array(by_clip) <= 0.05) > 0.3


def test_the_interval_contains_chance_for_two_halves_of_one_pool():
    holds = 0
    for seed in range(100):
        pool = normal(seed, 80, 8, 3)
        first = np.isin(pool.tracks, np.random.default_rng(seed).permutation(np.unique(pool.tracks))[:40])
        halves = (EmbeddedSet(pool.values[part], pool.tracks[part]) for part in (first, ~first))
        test = two_sample.classifier_test(*halves, seed=seed)
        holds += test.low <= 0.5 <= test.high
    assert holds >= 90


@pytest.mark.parametrize("generated_clips", [1, 3])
def test_half_of_the_tracks_train_and_one_clip_of_each_other_is_tested(generated_clips):
    """Rows carry their track, so that a classifier sees which it gets."""
    sizes = {"r": 3, "g": generated_clips}
    real, generated = (
        make_embedded_set(
            np.repeat(start + np.arange(count), sizes[prefix])[:, None],
            np.repeat([f"{prefix}{i}" for i in range(count)], sizes[prefix]),
            prefix,
        )
        for prefix, start, count in (("r", 0, 21), ("g", 1000, 33))
    )
    seen = []

    def spy(train_x, train_y, test_x, seed):
        seen.append((train_x[:, 0], train_y, test_x[:, 0], seed))
        return (test_x[:, 0] >= 1000).astype(float)

    for seed in (3, 3, 4):
        test = two_sample.classifier_test(real, generated, classifier=spy, seed=seed)
        assert (test.classifier, test.correct, test.clips, test.auc) == ("spy", 20, 20, 1)
    train, labels, tested, seed = seen[0]
    assert seed == 3
    assert ((train >= 1000) == labels).all()
    assert (labels == 0).sum() == (labels == 1).sum() == 11 * generated_clips
    assert len(np.unique(train[labels == 1])) == 11 and len(np.unique(train[labels == 0])) <= 11
    assert len(np.unique(tested)) == 20 and (tested >= 1000).sum() == 10
    assert not np.intersect1d(train, tested).size
    assert (seen[1][2] == tested).all() and not np.array_equal(seen[2][2], tested)


def test_sets_that_cannot_be_tested_raise():
    real, generated = normal(0, 20, 4), normal(1, 20, 4, prefix="g")
    with pytest.raises(ValueError, match="20 in both .* split by tracks"):
        two_sample.classifier_test(real, real)
    with pytest.raises(ValueError, match="at least 6 tracks in both sets, got 5"):
        two_sample.classifier_test(real, normal(1, 5, 4, 9, prefix="g"))
    with pytest.raises(TypeError, match="track of each clip"):
        two_sample.classifier_test(real.values, generated.values)
    with pytest.raises(ValueError, match="'forest', 'logistic'.* got 'tree'"):
        two_sample.classifier_test(real, generated, classifier="tree")
    with pytest.raises(ValueError, match="20 finite scores, got shape .20,. with 0 finite ones"):
        two_sample.classifier_test(real, generated, classifier=lambda *_: np.full(20, np.nan))


# Words


def test_best_of_corrects_for_the_choice():
    tests = [result(115, 200), result(118, 200), result(90, 200)]
    best = two_sample.best_of(tests)
    assert (best.correct, best.compared) == (118, 3)
    assert best.p == pytest.approx(3 * tests[1].p)
    assert (best.low, best.high) == two_sample.clopper_pearson(118, 200, level=1 - 0.05 / 3)
    assert best.upper == max(test.upper for test in tests)
    assert best.detectable > tests[1].detectable
    assert two_sample.best_of([tests[2]]) == tests[2]
    assert two_sample.best_of([result(90, 200)] * 3).p == 1
    for bad in ([], [result(9, 10), result(9, 20)]):
        with pytest.raises(ValueError, match="one pair of sets"):
            two_sample.best_of(bad)


def test_verdict_claims_no_more_than_the_figures():
    assert two_sample.verdict(result(90, 100)) == "distinguishable (p < .01): 90 of 100 right"
    few = two_sample.verdict(result(30, 60))
    assert few.startswith("not distinguished by this test at n = 60 (p = 0.55); smallest detectable accuracy 6")
    assert two_sample.verdict(result(108, 200)).endswith("within 10% for this test: accuracy below 60.0% (95 % bound)")
    assert "smallest detectable accuracy" in two_sample.verdict(result(109, 200))
    assert "smallest detectable accuracy" in two_sample.verdict(result(108, 200), delta=0.05)
    # Found, although small: a large set shows it.
    assert two_sample.verdict(result(5200, 10000)).startswith("distinguishable")


def test_machine_results_allow_claims_up_to_l2():
    found, missed = result(90, 100), result(52, 100)
    assert two_sample.claim(None, None) == ("L0", "No claim: no test was made.")
    assert two_sample.claim(found, None).level == two_sample.claim(found, missed).level == "L1"
    assert two_sample.claim(missed, found).level == "L2"
    assert "n = 100" in two_sample.claim(missed, found).sentence
    assert two_sample.claim(missed, None).level == two_sample.claim(missed, missed).level == "L0"
    assert "misses a known difference" in two_sample.claim(missed, missed).sentence
    assert list(two_sample.CLAIMS) == ["L0", "L1", "L2", "L3", "L4"]


@pytest.mark.parametrize("correct", [0, 50, 60, 100])
def test_machine_results_never_claim_indistinguishable(correct):
    test = result(correct, 100)
    sentences = [two_sample.verdict(test), *(two_sample.claim(test, other).sentence for other in (None, test))]
    assert not any("indistinguishable" in sentence.lower() for sentence in sentences)
