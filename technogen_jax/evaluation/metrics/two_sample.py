"""Can a classifier distinguish generated clips from real ones? The two-sample test and its claims.

Whole tracks are held out, and one clip of each is tested. Only then are the answers independent, and
the number of right answers binomial for two sets of one distribution.

Reference: Lopez-Paz and Oquab, "Revisiting Classifier Two-Sample Tests" (arXiv 1610.06545).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import optimize, stats
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from technogen_jax.evaluation.metrics.embedded_set import EmbeddedSet, check_pair, choose_one_a_track

_ALPHA = 0.01  # significance level of the claims; intervals and the detectable accuracy are at .05
_POWER = 0.8
LEAST_TRACKS = 6  # half of each set is tested; six right answers of six are significant at .05, five are not

CLAIMS = {
    "L0": "No claim: {reason}.",
    "L1": "A machine test distinguishes generated clips from real ones (p = {p:.2g}, {accuracy:.1%} of {clips} right).",
    "L2": "A machine test does not distinguish generated clips from real ones at n = {clips} (smallest detectable accuracy {detectable:.1%}).",
    "L3": "Listeners do not distinguish generated from real clips above chance ({correct} of {clips} right, 95 % interval {low:.1%} to {high:.1%}).",
    "L4": "Generated {clip_kind} are indistinguishable from real ones for {population} within {delta:.0%} of chance.",
}


class TwoSample(NamedTuple):
    """The result of a test.

    Attributes:
        classifier: its name.
        correct: number of right answers.
        clips: number of clips tested, as many real as generated.
        accuracy: `correct / clips`.
        p: one-sided: the probability of as many right answers by chance.
        low: lower end of the exact 95 % interval of the accuracy.
        high: its upper end.
        upper: one-sided 95 % upper bound of the accuracy.
        auc: area under the ROC curve.
        detectable: smallest accuracy that is detected with power .8 at one-sided .05.
        compared: number of classifiers that this one is the best of. p, interval and detectable
            accuracy are corrected for it.
    """

    classifier: str
    correct: int
    clips: int
    accuracy: float
    p: float
    low: float
    high: float
    upper: float
    auc: float
    detectable: float
    compared: int = 1


class Claim(NamedTuple):
    """A level of `CLAIMS` and its sentence."""

    level: str
    sentence: str


# (training rows `[n, D]`, their labels (0 real, 1 generated), test rows `[m, D]`, seed) -> scores
# `[m]`; a score above .5 means generated.
Classifier = Callable[[np.ndarray, np.ndarray, np.ndarray, int], np.ndarray]


# Many small products: threads that wait for each other would take far longer than one thread.
@threadpool_limits.wrap(limits=1, user_api="blas")
def _logistic(train_x: np.ndarray, train_y: np.ndarray, test_x: np.ndarray, seed: int) -> np.ndarray:
    del seed  # the problem is convex
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    return model.fit(train_x, train_y).predict_proba(test_x)[:, 1]


def _forest(train_x: np.ndarray, train_y: np.ndarray, test_x: np.ndarray, seed: int) -> np.ndarray:
    model = RandomForestClassifier(n_jobs=1, random_state=seed)
    return model.fit(train_x, train_y).predict_proba(test_x)[:, 1]


CLASSIFIERS: dict[str, Classifier] = {"logistic": _logistic, "forest": _forest}


def classifier_test(
    real: EmbeddedSet,
    generated: EmbeddedSet,
    *,
    classifier: str | Classifier = "logistic",
    seed: int = 0,
) -> TwoSample:
    """Returns how often a classifier is right about clips of tracks that it was not trained on.

    As many tracks of both sets are drawn by the seed. Half of them train the classifier with all
    their clips (of the larger set only as many as the other has). Of each of the other tracks one
    clip is tested. Choose the classifier and the seed before you look at a result.

    Args:
        real: clips that neither the model nor the embedding was trained on.
        generated: clips of the same sample rate, level, bit depth and length as the real ones; if
            they differ, the test detects that difference.
        classifier: a name in `CLASSIFIERS`, or a function of the same form.
        seed: the seed of the tracks and the classifier.

    Raises:
        ValueError: an unknown name; sets that do not fit (`check_pair`); a track in both sets;
            fewer than 6 tracks; scores that are not one finite number a clip.
    """
    if isinstance(classifier, str) and classifier not in CLASSIFIERS:
        raise ValueError(f"expected a classifier of {sorted(CLASSIFIERS)} or a function, got {classifier!r}")
    fit_predict = CLASSIFIERS[classifier] if isinstance(classifier, str) else classifier
    check_pair(real, generated, disjoint=True)
    count = min(len(np.unique(clips.tracks)) for clips in (real, generated))
    if count < LEAST_TRACKS:
        raise ValueError(f"expected at least {LEAST_TRACKS} tracks in both sets, got {count}; add tracks")

    train, test = zip(*(_split_tracks(clips, count, seed) for clips in (real, generated)), strict=True)
    # A forest that is trained on more clips of one class prefers it, even with class weights.
    rng, most = np.random.default_rng(seed), min(len(part) for part in train)
    train = [rng.permutation(part)[:most] for part in train]
    train_y, test_y = (np.repeat([0, 1], [len(part) for part in parts]) for parts in (train, test))
    scores = np.asarray(fit_predict(np.concatenate(train), train_y, np.concatenate(test), seed))
    if scores.shape != test_y.shape or not np.isfinite(scores).all():
        finite = int(np.isfinite(scores).sum())
        raise ValueError(f"expected {len(test_y)} finite scores, got shape {scores.shape} with {finite} finite ones")
    correct = int(((scores > 0.5) == test_y).sum())
    name = classifier if isinstance(classifier, str) else getattr(classifier, "__name__", "function")
    return _result(name, correct, len(test_y), float(roc_auc_score(test_y, scores)))


def best_of(tests: Sequence[TwoSample]) -> TwoSample:
    """Returns the test with most right answers, corrected for the choice (Bonferroni).

    Raises:
        ValueError: no test, or tests of different sizes.
    """
    sizes = {test.clips for test in tests}
    if len(sizes) != 1:
        raise ValueError(f"expected tests of one pair of sets, got sizes {sorted(sizes)}")
    best = max(tests, key=lambda test: test.correct)
    return _result(best.classifier, best.correct, best.clips, best.auc, len(tests))


def verdict(test: TwoSample, *, delta: float = 0.1) -> str:
    """Returns the result of a test in words.

    Args:
        test: from `classifier_test` or `best_of`.
        delta: accuracies below `.5 + delta` count as chance; chosen before the test.
    """
    if test.p < _ALPHA:
        return f"distinguishable (p < .01): {test.correct} of {test.clips} right"
    words = f"not distinguished by this test at n = {test.clips} (p = {test.p:.2g})"
    if test.upper < 0.5 + delta:
        return f"{words}; equivalent to chance within {delta:.0%} for this test: accuracy below {test.upper:.1%} (95 % bound)"
    return f"{words}; smallest detectable accuracy {test.detectable:.1%}"


def claim(test: TwoSample | None, control: TwoSample | None) -> Claim:
    """Returns the highest claim that machine results allow: L0, L1 or L2. L3 and L4 need listeners.

    Args:
        test: the test of real and generated clips; None where there were too few.
        control: the same test of real clips and of real clips with noise 40 dB below them, which a
            sensitive test distinguishes; None where it was not made.
    """
    if test is None:
        return Claim("L0", CLAIMS["L0"].format(reason="no test was made"))
    if test.p < _ALPHA:
        return Claim("L1", CLAIMS["L1"].format(**test._asdict()))
    if control is None or control.p >= _ALPHA:
        missing = "was not tried on a known difference" if control is None else "misses a known difference"
        return Claim("L0", CLAIMS["L0"].format(reason=f"the test finds no difference, but {missing}"))
    return Claim("L2", CLAIMS["L2"].format(**test._asdict()))


def clopper_pearson(correct: int, clips: int, *, level: float = 0.95) -> tuple[float, float]:
    """Returns the exact two-sided confidence interval of a proportion."""
    interval = stats.binomtest(correct, clips).proportion_ci(level, method="exact")
    return float(interval.low), float(interval.high)


def upper_bound(correct: int, clips: int, *, level: float = 0.95) -> float:
    """Returns the exact one-sided upper bound of a proportion (Clopper-Pearson)."""
    return float(stats.binomtest(correct, clips, alternative="less").proportion_ci(level, method="exact").high)


def clips_for_power(accuracy: float) -> int:
    """Returns how many clips detect an accuracy with power .8 at one-sided .05.

    By the normal approximation.
    """
    deviations = stats.norm.isf(0.05) / 2 + stats.norm.ppf(_POWER) * np.sqrt(accuracy * (1 - accuracy))
    return int(np.ceil((deviations / (accuracy - 0.5)) ** 2))


def detectable_accuracy(clips: int, *, alpha: float = 0.05) -> float:
    """Returns the smallest accuracy detected with power .8 at one-sided `alpha`.

    By the exact binomial test.

    Raises:
        ValueError: too few clips: all of them right is not significant.
    """
    critical = int(stats.binom.isf(alpha, clips, 0.5)) + 1  # the fewest right answers that are significant
    if critical > clips:
        raise ValueError(f"expected more clips: {clips} right answers of {clips} are not significant at {alpha:.2g}")
    return float(optimize.brentq(lambda accuracy: stats.binom.sf(critical - 1, clips, accuracy) - _POWER, 0.5, 1))


def _split_tracks(clips: EmbeddedSet, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Training rows and test rows of `count` tracks."""
    tracks = np.random.default_rng(seed).permutation(np.unique(clips.tracks))[:count]
    tested = choose_one_a_track(clips, seed=seed)
    return (
        clips.values[np.isin(clips.tracks, tracks[count // 2 :])],
        tested.values[np.isin(tested.tracks, tracks[: count // 2])],
    )


def _result(classifier: str, correct: int, clips: int, auc: float, compared: int = 1) -> TwoSample:
    low, high = clopper_pearson(correct, clips, level=1 - 0.05 / compared)
    return TwoSample(
        classifier=classifier,
        correct=correct,
        clips=clips,
        accuracy=correct / clips,
        p=min(1.0, compared * float(stats.binomtest(correct, clips, alternative="greater").pvalue)),
        low=low,
        high=high,
        # Not corrected: the claim that all accuracies are low needs a low bound of each one.
        upper=upper_bound(correct, clips),
        auc=auc,
        detectable=detectable_accuracy(clips, alpha=0.05 / compared),
        compared=compared,
    )
