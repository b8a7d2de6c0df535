"""The result of a listening test: accuracies with intervals, d', and the claim that they allow.

Intervals account for listeners and items. Everything is computed from the file of answers alone.
"""

from __future__ import annotations

import collections
import html
import json
import math
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from technogen_jax.evaluation.metrics import two_sample

ALPHA = 0.05
LEAST_LISTENERS = 20  # for the word "indistinguishable": BS.1534-3's number of assessors after screening
LEAST_BAD = 0.8  # share of known-bad clips that must be recognized; with less the test shows nothing
LEAST_ANCHORS = 0.75  # a listener who recognizes a smaller share of the faults is excluded
LEAST_MEDIAN_S = 1.5
LEAST_HEARD_S = 2.0
_POWER = 0.8
_DRAWS = 5000  # of the bootstrap


class Share(NamedTuple):
    """The accuracy of answers.

    Attributes:
        trials: number of answers.
        correct: number of right answers.
        accuracy: correct / trials.
        low: lower end of the 95 % interval.
        high: upper end of the 95 % interval.
        p_above: p-value against guessing: probability of as many right answers by chance.
        p_equivalent: p-value of the two one-sided tests of equivalence with 0.5 within `delta`.
        effect: design effect: variance divided by that of independent answers.
        d_prime: for pairs, sqrt(2) z(accuracy).
    """

    trials: int
    correct: int
    accuracy: float
    low: float
    high: float
    p_above: float
    p_equivalent: float
    effect: float
    d_prime: float


def share(right: Sequence[bool], listeners: Sequence[int], items: Sequence[int], delta: float) -> Share:
    """Returns the accuracy with two-way clustered errors, by listener and by item.

    The variance is that between listeners plus that between items minus that of single answers, each
    with its small-sample factor, and at least the largest of these and the binomial variance.
    Student's t has one degree of freedom less than the smaller number of clusters. Intervals and
    p-values are never smaller than the exact binomial ones.

    Args:
        right: `[n]`, whether each answer is right; n at least 1.
        listeners: `[n]`, who answered.
        items: `[n]`, which pair was asked.
        delta: accuracies within `delta` of 0.5 count as chance.

    Reference: Cameron, Gelbach & Miller, "Robust Inference With Multiway Clustering" (2011), eq. 2.5; Schuirmann (1987) for
    the two one-sided tests.
    """
    right = np.asarray(right, np.float64)
    n, k = len(right), int(right.sum())
    p = k / n
    rest = right - p

    def between(groups) -> tuple[float, int]:
        _, which = np.unique(groups, return_inverse=True)
        sums = np.bincount(which, rest)
        return (float(sums @ sums) / n**2 * len(sums) / (len(sums) - 1) if len(sums) > 1 else 0.0), len(sums)

    (by_listener, count_l), (by_item, count_i), (alone, _) = map(between, (listeners, items, np.arange(n)))
    binomial = p * (1 - p) / n
    variance = max(by_listener + by_item - alone, by_listener, by_item, binomial)
    freedom = max(1, min(count for count in (count_l, count_i, n) if count > 1) - 1) if n > 1 else 1
    error = math.sqrt(variance)

    def above(null: float) -> float:
        """One-sided p of the share being above."""
        clustered = float(stats.t.sf((p - null) / error, freedom)) if error else float(p <= null)
        return max(clustered, float(stats.binom.sf(k - 1, n, null)))

    def below(null: float) -> float:
        clustered = float(stats.t.cdf((p - null) / error, freedom)) if error else float(p >= null)
        return max(clustered, float(stats.binom.cdf(k, n, null)))

    low, high = two_sample.clopper_pearson(k, n)
    width = float(stats.t.isf(0.025, freedom)) * error
    return Share(
        trials=n,
        correct=k,
        accuracy=p,
        low=max(0.0, min(low, p - width)),
        high=min(1.0, max(high, p + width)),
        p_above=above(0.5),
        p_equivalent=max(below(0.5 + delta), above(0.5 - delta)),
        effect=variance / binomial if binomial else 1.0,
        d_prime=math.sqrt(2) * _z(k, n),
    )


def bootstrap(right: Sequence[bool], listeners: Sequence[int], items: Sequence[int]) -> tuple[float, float]:
    """Returns the 95 % interval of the accuracy by resampling listeners and items, both with replacement.

    It is too narrow with few clusters or with answers that are all alike; `share` accounts for that.

    Reference: Owen, "The pigeonhole bootstrap" (2007); its intervals err on the wide side.
    """
    random = np.random.default_rng(0)

    def weights(groups):
        """How often each answer's group was drawn, `[draws, n]`."""
        _, which = np.unique(groups, return_inverse=True)
        count = which.max() + 1
        return random.multinomial(count, np.full(count, 1 / count), _DRAWS)[:, which]

    drawn = weights(listeners) * weights(items)
    drawn = drawn[drawn.any(1)]  # the listeners of a draw may have met none of its items
    low, high = np.quantile(drawn @ np.asarray(right, np.float64) / drawn.sum(1), (0.025, 0.975))
    return float(low), float(high)


def detection(says_generated: Sequence[bool], generated: Sequence[bool], confidence: Sequence[int]) -> dict | None:
    """Returns d', criterion c (above 0: a bias to 'real') and area under the ROC curve; None unless both kinds occur.

    Args:
        says_generated: `[n]` the answers.
        generated: `[n]` the truth.
        confidence: `[n]` 1 (a guess) to 4 (certain).
    """
    says, truth = np.asarray(says_generated, bool), np.asarray(generated, bool)
    if truth.all() or not truth.any():
        return None
    hit, false = _z(says[truth].sum(), truth.sum()), _z(says[~truth].sum(), (~truth).sum())
    rating = np.where(says, 1, -1) * np.asarray(confidence)
    pairs = rating[truth][:, None] - rating[~truth][None, :]
    return {
        "trials": len(truth),
        "correct": int((says == truth).sum()),
        "d_prime": hit - false,
        "criterion": -(hit + false) / 2,
        "auc": float((pairs > 0).mean() + (pairs == 0).mean() / 2),
    }


def _z(count: int, of: int) -> float:
    """Returns the normal quantile of a share, with the log-linear correction (k + .5) / (n + 1)."""
    return float(stats.norm.ppf((count + 0.5) / (of + 1)))


def trials_for_equivalence(delta: float, effect: float = 1.0) -> int:
    """Returns how many answers give the equivalence test a power of 0.8 if listeners guess (normal approximation)."""
    deviations = stats.norm.isf(ALPHA) + stats.norm.isf((1 - _POWER) / 2)
    return math.ceil(effect * 0.25 * (deviations / delta) ** 2)


def report(lines: Sequence[dict[str, Any]], final: bool = False) -> dict[str, Any]:
    """Returns all figures and the claim as a dict.

    Args:
        lines: from `answers.read`.
        final: treat the test as over although not all listeners have finished.
    """
    test = lines[0]
    about = {line["listener"]: line for line in lines if line["what"] == "listener"}
    given: dict[int, dict[int, dict]] = collections.defaultdict(dict)
    for line in lines:
        if line["what"] == "answer":
            given[line["listener"]].setdefault(line["trial"], line)
    listeners = [_listener(number, list(given[number].values()), about.get(number), test) for number in sorted(given)]
    everyone = [line for number in sorted(given) for line in given[number].values()]
    kept = {listener["listener"] for listener in listeners if not listener["left_out"]}
    included = [line for line in everyone if line["listener"] in kept]
    finished = sum(listener["answers"] == test["trials"] for listener in listeners)
    found = {
        "what": "listening test",
        "test": test,
        "listeners": {"planned": test["listeners"], "began": len(about), "finished": finished, "included": len(kept)},
        "interim": finished < test["listeners"] and not final,
        "pairs": {"included": _pairs(included, test), "all": _pairs(everyone, test)},
        "singles": {"included": _singles(included), "all": _singles(everyone)},
        "groups": {
            name: _pairs([line for line in included if about.get(line["listener"], {}).get(field) == value], test)
            for name, field, value in (
                ("producers", "producer", True),
                ("others", "producer", False),
                ("headphones", "sound", "headphones"),
                ("speakers", "sound", "speakers"),
            )
        },
        "known_bad": _known_bad(everyone),
        "two_real": _left([line for line in everyone if line["kind"] == "good"]),
        "by_listener": listeners,
    }
    producers = sum(bool(about.get(number, {}).get("producer")) for number in kept)
    level, sentence, missing = _claim(found, producers)
    found["claim"] = {"level": level, "sentence": sentence, "missing_for_L4": missing}
    found["more"] = _more(found)
    return found


def _right(line: dict) -> bool:
    return line["answer"] == line["truth"]


def _pairs(lines: list[dict], test: dict) -> dict | None:
    lines = [line for line in lines if line["kind"] == "pair"]
    if not lines:
        return None
    columns = [[line[name] for line in lines] for name in ("listener", "item")]
    right = [_right(line) for line in lines]
    return share(right, *columns, test["delta"])._asdict() | {"bootstrap": bootstrap(right, *columns)}


def _singles(lines: list[dict]) -> dict | None:
    lines = [line for line in lines if line["kind"] == "single"]
    says, truth = ([line[name] == "generated" for line in lines] for name in ("answer", "truth"))
    return detection(says, truth, [line["confidence"] for line in lines]) if lines else None


def _known_bad(lines: list[dict]) -> dict | None:
    """Returns how many known-bad clips were recognized; how many faults, if no such system was given."""
    kind = "bad" if any(line["kind"] == "bad" for line in lines) else "anchor"
    right = [_right(line) for line in lines if line["kind"] == kind]
    return {"kind": kind, "trials": len(right), "correct": sum(right)} if right else None


def _left(lines: list[dict]) -> dict:
    return {"trials": len(lines), "left": sum(line["answer"] == "left" for line in lines)}


def _listener(number: int, lines: list[dict], about: dict | None, test: dict) -> dict[str, Any]:
    """Returns one listener's figures and the reasons to exclude them, all fixed before the test."""
    of = {kind: [line for line in lines if line["kind"] == kind] for kind in ("pair", "anchor", "repeat")}
    right = sum(map(_right, of["pair"]))
    anchors = sum(map(_right, of["anchor"]))
    two = [line for line in lines if len(line["clips"]) == 2]
    left = sum(line["answer"] == "left" for line in two)
    median_s = statistics.median(line["rt_ms"] for line in lines) / 1000
    first = {line["item"]: _right(line) for line in of["pair"]}
    reasons = []
    if len(lines) < test["trials"]:
        reasons.append(f"answered {len(lines)} of {test['trials']}")
    if of["anchor"] and anchors < LEAST_ANCHORS * len(of["anchor"]):
        reasons.append(f"recognized {anchors} of {len(of['anchor'])} obvious faults")
    if len(two) > 3 and left in (0, len(two)):
        reasons.append("always chose one side")
    if median_s < LEAST_MEDIAN_S:
        reasons.append(f"answered after {median_s:.1f} s (median)")
    if short := sum(min(line["heard_s"]) < LEAST_HEARD_S for line in lines):
        reasons.append(f"{short} answers before {LEAST_HEARD_S:g} s of a clip were played")
    found = {
        "listener": number,
        "answers": len(lines),
        "correct": right,
        "pairs": len(of["pair"]),
        "anchors": [anchors, len(of["anchor"])],
        "agreed": [sum(first.get(line["item"]) == _right(line) for line in of["repeat"]), len(of["repeat"])],
        "left": [left, len(two)],
        "median_s": median_s,
        "producer": about and about["producer"],
        "sound": about and about["sound"],
        "left_out": reasons,
    }
    if of["pair"]:
        low, high = two_sample.clopper_pearson(right, len(of["pair"]))
        found |= {"low": low, "high": high, "d_prime": math.sqrt(2) * _z(right, len(of["pair"]))}
    return found


def _claim(found: dict, producers: int) -> tuple[str, str, list[str]]:
    """Returns (level, sentence, what is missing for the highest level)."""
    test, counts, pairs, bad = found["test"], found["listeners"], found["pairs"]["included"], found["known_bad"]

    def none(reason: str) -> tuple[str, str, list[str]]:
        return "L0", two_sample.CLAIMS["L0"].format(reason=reason), []

    if found["interim"]:
        return none(f"the test is not over, {counts['finished']} of {counts['planned']} listeners have finished")
    if not pairs:
        return none("no listener is left who finished and passed the checks")
    if not bad or bad["correct"] < LEAST_BAD * bad["trials"]:
        got = f"{bad['correct']} of {bad['trials']}" if bad else "none"
        return none(
            f"the test is inconclusive, listeners recognized {got} clips that are known to be bad (80 % are needed)"
        )
    if pairs["p_above"] < ALPHA:
        return none(
            f"listeners distinguish generated from real clips ({pairs['correct']} of {pairs['trials']} right, 95 % interval "
            f"{pairs['low']:.1%} to {pairs['high']:.1%})"
        )
    missing = []
    if pairs["p_equivalent"] >= ALPHA:
        missing.append(
            f"an accuracy shown to be within {test['delta']:.0%} of chance (p = {pairs['p_equivalent']:.2g})"
        )
    if counts["included"] < LEAST_LISTENERS:
        missing.append(f"{LEAST_LISTENERS} listeners (there are {counts['included']})")
    if not test["matched"]:
        missing.append("pairs known to have the same tempo (give --beats)")
    if missing:
        sentence = two_sample.CLAIMS["L3"].format(clips=pairs["trials"], **pairs)
        if pairs["high"] < 0.5:
            sentence += " They take generated clips for real ones more often than real ones."
        return "L3", sentence, missing
    population = f"{counts['included']} listeners, {producers} of them producers"
    kind = f"loops of {test['seconds']:.3g} s"
    return "L4", two_sample.CLAIMS["L4"].format(clip_kind=kind, population=population, delta=test["delta"]), []


def _more(found: dict) -> dict[str, Any] | None:
    """Returns how many answers to pairs a conclusion needs in all if the accuracy stays as it is."""
    pairs, test = found["pairs"]["included"], found["test"]
    if not pairs:
        return None
    effect, each = max(1.0, pairs["effect"]), test["pairs"]
    chance = trials_for_equivalence(test["delta"], effect)
    told = None
    if pairs["accuracy"] > 0.5:
        # All right is no reason to plan for fewer answers than can be significant.
        told = max(5, math.ceil(effect * two_sample.clips_for_power(min(pairs["accuracy"], 0.99))))
    return {
        "for_equivalence": {"trials": chance, "listeners": max(LEAST_LISTENERS, math.ceil(chance / each))},
        "to_tell_apart": told and {"trials": told, "listeners": math.ceil(told / each)},
    }


# ------------------------------------------------------------------------------------------------------------- for people


def text(found: dict[str, Any]) -> str:
    """Returns the report as lines of text."""
    counts, test, more = found["listeners"], found["test"], found["more"]
    bad, real = found["known_bad"], found["two_real"]
    lines = [
        f"{found['claim']['level']}: {found['claim']['sentence']}",
        *(f"  missing for L4: {thing}" for thing in found["claim"]["missing_for_L4"]),
        "",
        f"Listeners: {counts['planned']} planned, {counts['finished']} finished, {counts['included']} included.",
        _pairs_line("Pairs, after exclusions", found["pairs"]["included"], test["delta"]),
        _pairs_line("Pairs, everyone", found["pairs"]["all"], test["delta"]),
        *(_pairs_line(f"  {name}", value, test["delta"]) for name, value in found["groups"].items() if value),
    ]
    for name, single in (("after exclusions", found["singles"]["included"]), ("everyone", found["singles"]["all"])):
        if single:
            lines.append(
                f"Single clips, {name}: {single['correct']} of {single['trials']} right, d' {single['d_prime']:.2f}, criterion "
                f"{single['criterion']:+.2f} (above 0: a bias to 'real'), area under the curve {single['auc']:.2f}."
            )
    if bad:
        what = "clips of the known-bad system" if bad["kind"] == "bad" else "obvious faults (no --bad was given)"
        lines.append(f"Known bad: {bad['correct']} of {bad['trials']} {what} recognized; 80 % are needed.")
    if real["trials"]:
        lines.append(
            f"Two real clips: the left one was chosen {real['left']} of {real['trials']} times; half is expected."
        )
    if more:
        near, difference = more["for_equivalence"], more["to_tell_apart"]
        lines.append(
            f"To show chance within {test['delta']:.0%}: about {near['trials']} answers, {near['listeners']} listeners in all, if they guess."
        )
        if difference:
            lines.append(
                f"To show a difference: about {difference['trials']} answers, {difference['listeners']} listeners in all, at this accuracy."
            )
        lines.append("Plan them as a new test: adding listeners until the result pleases makes it worthless.")
    out = [one for one in found["by_listener"] if one["left_out"]]
    lines += [f"Excluded, listener {one['listener'] + 1}: {'; '.join(one['left_out'])}." for one in out]
    return "\n".join(lines)


def _pairs_line(name: str, pairs: dict | None, delta: float) -> str:
    if not pairs:
        return f"{name}: no answers."
    interval, drawn = ("{:.1%} to {:.1%}".format(*pair) for pair in ((pairs["low"], pairs["high"]), pairs["bootstrap"]))
    return (
        f"{name}: {pairs['correct']} of {pairs['trials']} right ({pairs['accuracy']:.1%}, 95 % interval {interval}, by bootstrap {drawn}). "
        f"Better than chance: p = {pairs['p_above']:.2g}; less than {delta:.0%} from chance: p = {pairs['p_equivalent']:.2g}; d' {pairs['d_prime']:.2f}."
    )


_STYLE = """
:root { color-scheme: light dark; --ground: #fff; --text: #1c2024; --soft: #f1f3f5; --line: #d5d9de; --mark: #4d6b00; }
@media (prefers-color-scheme: dark) { :root { --ground: #0e1013; --text: #d6dae0; --soft: #14171b; --line: #454c55; --mark: #b8e04a; } }
body { background: var(--ground); color: var(--text); overflow-wrap: anywhere; font: 16px/1.5 system-ui, sans-serif; max-width: 860px;
margin: 0 auto; padding: 1.5rem 1rem; } h1 { font-size: 1.3rem; } .claim { background: var(--soft); border-left: 4px solid var(--mark);
padding: 1rem; border-radius: 8px; } .claim b { color: var(--mark); } pre { white-space: pre-wrap; font: inherit; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; } td, th { padding: .25rem .5rem;
text-align: left; border-bottom: 1px solid var(--line); } .bar { position: relative; min-width: 150px; height: 18px; background:
linear-gradient(var(--line), var(--line)) 50% / 1px 100% no-repeat, var(--soft); } .bar i { position: absolute; top: 8px; height: 2px;
background: #8a919b; } .bar u { position: absolute; top: 4px; width: 10px; height: 10px; margin-left: -5px; border-radius: 50%;
background: var(--mark); } .out { opacity: .5; } .wide { overflow-x: auto; } details { margin-top: 2rem; }
"""


_MEANINGS = {
    "L0": "Nothing can be concluded about the model beyond that: see below what would be needed.",
    "L3": "That a difference was not found does not show that there is none: see below what is missing for that.",
    "L4": "For such loops and listeners the model passes for human.",
}
_GLOSSARY = (
    "<p><small>Right: the share of pairs in which the human loop was recognized; guessing gives half. 95 % interval: where "
    "the true share lies, computed from the variance between listeners and between pairs, and by bootstrap (drawing both "
    "again). p: the probability of such a result if the opposite were true. d′ (d prime): how well both kinds are "
    "separated, in standard deviations; 0 is guessing. AUC: the probability that a generated loop is rated more artificial "
    "than a human one; one half is guessing. L4 is the highest claim: shown to be at chance.</small></p>"
)


def page(found: dict[str, Any]) -> str:
    """Returns the report as one HTML page: the text, a chart of the intervals, and all figures as JSON."""
    rows = []
    pooled = found["pairs"]["included"]
    entries = [("all included", pooled, "", False)] if pooled else []
    for one in found["by_listener"]:
        if one["pairs"]:
            numbers = one | {"accuracy": one["correct"] / one["pairs"], "trials": one["pairs"]}
            entries.append(
                (f"listener {one['listener'] + 1}", numbers, "; ".join(one["left_out"]), bool(one["left_out"]))
            )
    for name, value, why, out in entries:
        low, at, high = (100 * value[key] for key in ("low", "accuracy", "high"))
        rows.append(
            f"<tr{' class=out' if out else ''}><td>{name}<td>{value['correct']} of {value['trials']}<td><div class=bar>"
            f"<i style='left:{low:.1f}%;width:{high - low:.1f}%'></i><u style='left:{at:.1f}%'></u></div><td>{html.escape(why)}"
        )
    first, rest = text(found).split("\n", 1)
    level, sentence = first.split(": ", 1)
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>Is it human?</title><style>{_STYLE}</style><h1>Is it human?</h1><p class=claim><b>{html.escape(sentence)}</b><br>"
        f"{_MEANINGS[level]}</p><pre>{html.escape(rest.strip())}</pre><div class=wide><table><tr><th><th>right<th>0 % to 100 %, line "
        f"at chance<th>excluded because</tr>{''.join(rows)}</table></div>{_GLOSSARY}<details><summary>all figures</summary><pre>"
        f"{html.escape(json.dumps(found, indent=1))}</pre></details></html>\n"
    )
