"""Several embeddings as several opinions: where they disagree, and what a tagger of music says."""

from __future__ import annotations

from typing import Any

from technogen_jax.evaluation.feature_extraction import Comparison
from technogen_jax.evaluation.features.embedding import Embedding

# Chosen: two embeddings disagree if the ratio to the floor of one is this many times the other's, or
# this large where the other's is below 1.
DISAGREEMENT = 1.2
SIGNIFICANT_P = 0.01  # as in the claims of `metrics/two_sample.py`


def score_tags(comparison: Comparison, embeddings: dict[str, Embedding]) -> dict[str, dict[str, Any]]:
    """Returns embedding -> tag -> mean probability of the clips of each set, for embeddings with a tagger."""
    result = {}
    for name, embedding in embeddings.items():
        if embedding.tagger is None:
            continue
        means = {
            side: embedding.tagger.probabilities(getattr(comparison, side).values[name]).mean(axis=0)
            for side in ("reference", "other", "generated")
        }
        result[name] = {
            tag: {side: float(values[number]) for side, values in means.items()}
            for number, tag in enumerate(embedding.tagger.names)
        }
    return result


def frechet(blocks: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Returns the Fréchet distance of a whole embedding, from the distances of its blocks."""
    return (blocks.get("all") or next(iter(blocks.values())))["frechet"]


def all_tests(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns embedding -> its classifier test of real and generated clips."""
    first, *others = result["distances"]
    return {first: result["two_sample"]["test"]} | {
        name: result["two_sample"]["others"][name]["test"] for name in others
    }


def find_disagreements(result: dict[str, Any]) -> list[str]:
    """Returns sentences on embeddings that judge the generated clips differently.

    Args:
        result: of an evaluation, with `distances` and `two_sample`.
    """
    sentences = []
    ratios = {name: frechet(blocks)["ratio"] for name, blocks in result["distances"].items()}
    ratios = {name: ratio for name, ratio in ratios.items() if ratio}
    if ratios:
        near, far = min(ratios, key=ratios.get), max(ratios, key=ratios.get)
        if ratios[far] > DISAGREEMENT * max(1, ratios[near]):
            sentences.append(
                f"The embeddings disagree on the distance: {near} says {ratios[near]:.2f} times that of other real clips, "
                f"{far} {ratios[far]:.2f} times. {far} reacts to differences that {near} does not measure"
            )
    tests = all_tests(result)
    detected = [name for name, test in tests.items() if test["p"] < SIGNIFICANT_P]
    missed = [name for name in tests if name not in detected]
    if detected and missed:
        sentences.append(
            f"The embeddings disagree on the classifier: it distinguishes generated from real clips by {_join(detected)}, "
            f"and not by {_join(missed)}"
        )
    return sentences


def _join(names: list[str]) -> str:
    return " and ".join(names)
