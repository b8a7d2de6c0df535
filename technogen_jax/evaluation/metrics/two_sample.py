"""Can a classifier tell generated clips from real ones? The two-sample test, and the words its result allows.

Tracks are held out, and the test half has one clip of each: only so are its answers independent, and only so is the number
of right ones binomial for two sets of one distribution.

*Source*: Lopez-Paz & Oquab, "Revisiting Classifier Two-Sample Tests" (arXiv 1610.06545).
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

from technogen_jax.evaluation.metrics import distances

# Rejection level of the words; intervals and the detectable accuracy are at .05.
_ALPHA = 0.01
_POWER = 0.8
LEAST_TRACKS = 6  # half of each set is tested: six answers, all right, are the fewest that are significant at .05

CLAIMS = {
    "L0": "No claim: {reason}.",
    "L1": "A machine test tells generated clips from real ones (p = {p:.2g}, {accuracy:.1%} of {clips} right).",
    "L2": "A machine test does not tell generated clips from real ones at n = {clips} (smallest detectable accuracy {detectable:.1%}).",
    "L3": "Listeners do not tell generated from real clips above chance ({correct} of {clips} right, 95 % interval {low:.1%} to {high:.1%}).",
    "L4": "Generated {clip_kind} are indistinguishable from real ones for {population} within {delta:.0%} of chance.",
}


class TwoSample(NamedTuple):
    """The result of a test."""

    classifier: str
    correct: int
    clips: int  # tested, as many real as generated
    accuracy: float
    p: float  # one-sided: chance of as many right answers from a coin
    low: float  # of the accuracy's exact 95 % interval
    high: float
    upper: float  # one-sided 95 % bound of the accuracy
    auc: float
    detectable: float  # smallest accuracy that is found with power .8 at one-sided .05
    compared: int = 1  # classifiers that this one is the best of; p, interval and detectable are corrected for them


class Claim(NamedTuple):
    """A level of `CLAIMS` and its sentence."""

    level: str
    sentence: str


# Takes rows to train on `[n, D]`, their labels (0 real, 1 generated; as many of each), rows to test `[m, D]` and an
# integer seed; gives scores `[m]`: above .5 is generated.
Classifier = Callable[[np.ndarray, np.ndarray, np.ndarray, int], np.ndarray]


# Threads that wait for each other in many small products take far longer than one thread.
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
    real: distances.Embedded,
    generated: distances.Embedded,
    *,
    classifier: str | Classifier = "logistic",
    seed: int = 0,
) -> TwoSample:
    """How often a classifier is right about clips of tracks that it was not trained on.

    As many tracks of both sets, drawn by the seed; half of them train, with all their clips (of the set that has more, as
    many as the other has), and one clip of each of the others is tested. Choose the classifier and the seed before looking.

    Args:
        real: clips that neither the model nor the embedding was trained on.
        generated: rendered as the real ones are (rate, level, bit depth, length), or that is what the test finds.
        classifier: a name in `CLASSIFIERS`, or a function as these are.
        seed: of the tracks and the classifier.

    Raises:
        ValueError: a name that is not known; the sets do not fit (`distances.check_pair`); a track in both sets; fewer
            than 6 tracks; scores that are not finite, one a clip.
    """
    if isinstance(classifier, str) and classifier not in CLASSIFIERS:
        raise ValueError(f"expected a classifier of {sorted(CLASSIFIERS)} or a function, got {classifier!r}")
    fit_predict = CLASSIFIERS[classifier] if isinstance(classifier, str) else classifier
    distances.check_pair(real, generated, disjoint=True)
    count = min(len(np.unique(clips.tracks)) for clips in (real, generated))
    if count < LEAST_TRACKS:
        raise ValueError(f"expected at least {LEAST_TRACKS} tracks in both sets, got {count}; add tracks")

    train, test = zip(*(_halves(clips, count, seed) for clips in (real, generated)), strict=True)
    # A forest that trains on more of one class leans to it, whatever its weights.
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
    """The test with most right answers; p, interval and detectable accuracy corrected for the choice (Bonferroni).

    Raises:
        ValueError: no test, or tests of different sizes.
    """
    sizes = {test.clips for test in tests}
    if len(sizes) != 1:
        raise ValueError(f"expected tests of one pair of sets, got sizes {sorted(sizes)}")
    best = max(tests, key=lambda test: test.correct)
    return _result(best.classifier, best.correct, best.clips, best.auc, len(tests))


def verdict(test: TwoSample, *, delta: float = 0.1) -> str:
    """What the test found, in words.

    Args:
        test: of `classifier_test` or `best_of`.
        delta: accuracies below `.5 + delta` count as chance; chosen before the test.
    """
    if test.p < _ALPHA:
        return f"distinguishable (p < .01): {test.correct} of {test.clips} right"
    words = f"not distinguished by this test at n = {test.clips} (p = {test.p:.2g})"
    if test.upper < 0.5 + delta:
        return f"{words}; equivalent to chance within {delta:.0%} for this test: accuracy below {test.upper:.1%} (95 % bound)"
    return f"{words}; smallest detectable accuracy {test.detectable:.1%}"


def claim(test: TwoSample | None, control: TwoSample | None) -> Claim:
    """The highest level of the claim ladder that machine results carry: L0, L1 or L2. L3 and L4 need listeners.

    Args:
        test: of real and generated clips; None where there were too few.
        control: the same test of real clips and slightly worse real ones (noise 40 dB below them), which a test that means
            something tells apart; None where it was not made.
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
    """Exact two-sided interval of a proportion: for claims."""
    interval = stats.binomtest(correct, clips).proportion_ci(level, method="exact")
    return float(interval.low), float(interval.high)


def wilson(correct: int, clips: int, *, level: float = 0.95) -> tuple[float, float]:
    """Wilson's two-sided interval of a proportion: narrower, for display."""
    interval = stats.binomtest(correct, clips).proportion_ci(level, method="wilson")
    return float(interval.low), float(interval.high)


def upper_bound(correct: int, clips: int, *, level: float = 0.95) -> float:
    """Exact one-sided upper bound of a proportion (Clopper-Pearson)."""
    return float(stats.binomtest(correct, clips, alternative="less").proportion_ci(level, method="exact").high)


def most_correct(clips: int, *, delta: float = 0.1) -> int:
    """The most right answers of `clips` whose `upper_bound` is below `.5 + delta`.

    Raises:
        ValueError: too few clips: not even 0 right answers are enough.
    """
    most = int(stats.binom.ppf(0.05, clips, 0.5 + delta)) - 1
    if most < 0:
        raise ValueError(f"expected more clips for a bound below {0.5 + delta:.0%}, got {clips}")
    return most


def clips_for_power(accuracy: float) -> int:
    """Clips to test so that an accuracy is found with power .8 at one-sided .05, by the normal approximation."""
    deviations = stats.norm.isf(0.05) / 2 + stats.norm.ppf(_POWER) * np.sqrt(accuracy * (1 - accuracy))
    return int(np.ceil((deviations / (accuracy - 0.5)) ** 2))


def detectable_accuracy(clips: int, *, alpha: float = 0.05) -> float:
    """The smallest accuracy that is found with power .8 at one-sided `alpha`, by the exact binomial test.

    Raises:
        ValueError: too few clips: all of them right is not significant.
    """
    critical = int(stats.binom.isf(alpha, clips, 0.5)) + 1  # the fewest right answers that are significant
    if critical > clips:
        raise ValueError(f"expected more clips: {clips} right answers of {clips} are not significant at {alpha:.2g}")
    return float(optimize.brentq(lambda accuracy: stats.binom.sf(critical - 1, clips, accuracy) - _POWER, 0.5, 1))


def _halves(clips: distances.Embedded, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on and rows to test, of `count` tracks."""
    tracks = np.random.default_rng(seed).permutation(np.unique(clips.tracks))[:count]
    tested = distances.one_a_track(clips, seed=seed)
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
        # Not corrected: that all accuracies are low is claimed only where the bound of each is.
        upper=upper_bound(correct, clips),
        auc=auc,
        detectable=detectable_accuracy(clips, alpha=0.05 / compared),
        compared=compared,
    )
