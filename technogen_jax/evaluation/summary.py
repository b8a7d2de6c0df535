"""A result in at most ten lines for people: how far from real, whether a classifier can tell, copies, the worst features."""

from __future__ import annotations

from typing import Any

from technogen_jax.evaluation import opinions

_WORST = 3  # features


def summarize(result: dict[str, Any]) -> list[str]:
    """Returns lines of plain English on a result of `scoring.score`."""
    sets = result["sets"]
    generated, reference = sets["generated"], sets["reference"]
    lines = [
        f"{generated['name']}: {generated['clips']} generated clips, compared with {reference['clips']} real clips of "
        f"{reference['tracks']} tracks ({reference['name']})"
    ]
    ratios = {name: opinions.frechet(blocks)["ratio"] for name, blocks in result["distances"].items()}
    known = {name: f"{ratio:.2g}" for name, ratio in ratios.items() if ratio is not None}
    if why := flattered(result):
        lines.append(f"distance ({', '.join(ratios)}): no figure, it would flatter. {why}")
    elif known:
        lines.append(
            f"distance ({', '.join(known)}): {', '.join(known.values())} times that of other real clips; 1 is as close as "
            "real music"
        )
    tests = opinions.all_tests(result)
    for name, test in tests.items():
        by = f" by {name}" if len(tests) > 1 else ""
        lines.append(f"classifier{by}: right in {test['accuracy']:.0%} of cases, chance is 50%; {test['verdict']}")
    if result["disagreements"]:
        lines.append(result["disagreements"][0])
    if copies := result["memorisation"]:
        lines.append(
            f"copies: {copies['flagged_share']:.1%} of the generated clips look copied from the training tracks; "
            f"of real clips {copies['held_out_flagged_share']:.1%}"
        )
    else:
        lines.append("copies: not searched for, since the training tracks are not known")
    most = max(1, _WORST - len(tests) + 1)  # with the report's path at most ten lines
    for name, found in rank_features(result["features"])[:most]:
        if _excess(found) <= 0:
            continue
        generated, real = (f"{found[side]['median']:.3g}" for side in ("generated", "reference"))
        unit = f" {found['unit']}" if found["unit"] else ""
        lines.append(f"differs most: {name.replace('_', ' ')}, {generated}{unit} instead of {real}{unit} (medians)")
    if warnings := [warning["text"] for warning in result["warnings"] if not warning["flatters"]]:
        lines.append(
            f"{len(warnings)} warning{'s' if len(warnings) > 1 else ''}, in the report; the first: {warnings[0]}"
        )
    return lines


def flattered(result: dict[str, Any]) -> str:
    """Returns why the ratios of distances look better than they are; "" if they do not."""
    texts = [w["text"] for w in result["warnings"] if w["about"] == "distance" and w["flatters"]]
    return texts[0] if texts else ""


def verdict(result: dict[str, Any]) -> tuple[str, str]:
    """Returns what came out, and what it means: two sentences."""
    test = min(opinions.all_tests(result).values(), key=lambda test: test["p"])  # which decides the claim
    level = result["claim"]["level"]
    right = f"{test['correct']} of {test['clips']} clips right, {test['accuracy']:.0%}; guessing gives 50%"
    worst = next(
        (name.replace("_", " ") for name, found in rank_features(result["features"]) if _excess(found) > 0), ""
    )
    advice = f" What differs most is the {worst}." if worst else ""
    if level == "L1":
        return (
            f"A program distinguishes the generated clips from real ones ({right}).",
            f"They are not yet like the real clips: listen to both, and work on what the table shows.{advice}",
        )
    if level == "L2":
        return (
            f"A program does not distinguish the generated clips from real ones ({right}).",
            "By this measure they are like the real clips; whether people hear a difference, only a listening test shows.",
        )
    return (
        f"This evaluation does not decide whether the generated clips are like real ones ({right}).",
        "The classifier finds no difference here, and it is not known to find one that is there: evaluate with more tracks.",
    )


def rank_features(features: dict[str, dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """Returns the features that both sides have, the most wrong first.

    The order is by how much the distance exceeds that among real clips, in deviations of the real clips.
    """
    known = [
        (name, found)
        for name, found in features.items()
        if found.get("wasserstein") is not None
        and None not in (found["generated"]["median"], found["reference"]["median"])
    ]
    return sorted(known, key=lambda item: _excess(item[1]), reverse=True)


def _excess(found: dict[str, Any]) -> float:
    return found["wasserstein"] - (found["floor"] or 0)
