"""A result in at most ten lines for people: how far from real, whether a classifier can tell, copies, the worst features."""

from __future__ import annotations

from typing import Any

_WORST = 3  # features


def summarize(result: dict[str, Any]) -> list[str]:
    """Returns lines of plain English on a result of `scoring.score`."""
    sets = result["sets"]
    generated, reference = sets["generated"], sets["reference"]
    lines = [
        f"{generated['name']}: {generated['clips']} generated clips, compared with {reference['clips']} real clips of "
        f"{reference['tracks']} tracks ({reference['name']})"
    ]
    embedding, blocks = next(iter(result["distances"].items()))
    frechet = (blocks.get("all") or next(iter(blocks.values())))["frechet"]
    if frechet["ratio"] is not None:
        lines.append(
            f"distance ({embedding}): {frechet['ratio']:.2g} times that of other real clips; 1 is as close as real music"
        )
    test = result["two_sample"]["test"]
    lines.append(f"classifier: right in {test['accuracy']:.0%} of cases, chance is 50%; {test['verdict']}")
    if copies := result["memorisation"]:
        lines.append(
            f"copies: {copies['flagged_share']:.1%} of the generated clips look copied from the training tracks; "
            f"of real clips {copies['held_out_flagged_share']:.1%}"
        )
    else:
        lines.append("copies: not searched for, since the training tracks are not known")
    for name, found in _worst_features(result["features"]):
        generated, real = (f"{found[side]['median']:.3g}" for side in ("generated", "reference"))
        unit = f" {found['unit']}" if found["unit"] else ""
        lines.append(f"differs most: {name.replace('_', ' ')}, {generated}{unit} instead of {real}{unit} (medians)")
    if warnings := result["warnings"]:
        lines.append(
            f"{len(warnings)} warning{'s' if len(warnings) > 1 else ''}, in the report; the first: {warnings[0]}"
        )
    return lines


def _worst_features(features: dict[str, dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """Returns the features whose distance exceeds that among real clips the most, in deviations of the real clips."""

    def excess(item):
        found = item[1]
        return found["wasserstein"] - (found["floor"] or 0)

    known = [
        (name, found)
        for name, found in features.items()
        if found.get("wasserstein") is not None
        and None not in (found["generated"]["median"], found["reference"]["median"])
    ]
    worst = sorted(known, key=excess, reverse=True)[:_WORST]
    return [item for item in worst if excess(item) > 0]
