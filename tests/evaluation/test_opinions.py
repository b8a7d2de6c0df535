"""Several embeddings side by side, and what a tagger says."""

import types

import numpy as np
import pytest

from technogen_jax.evaluation import opinions, summary
from technogen_jax.evaluation.features.embedding import Embedding, Tagger


def make_result(ratios, ps):
    """A result with these Fréchet ratios and p-values of the classifier, by embedding."""
    tests = {
        name: {"test": {"p": p, "accuracy": 0.5 + name.count("b") / 4, "verdict": f"v {name}"}}
        for name, p in ps.items()
    }
    first, *others = ratios
    return {
        "distances": {name: {"all": {"frechet": {"ratio": ratio}}} for name, ratio in ratios.items()},
        "two_sample": {"test": tests[first]["test"], "others": {name: tests[name] for name in others}},
    }


@pytest.mark.parametrize(
    ("ratios", "ps", "found"),
    [
        ({"a": 1.05}, {"a": 0.001}, []),
        ({"a": 1.05, "b": 1.2}, {"a": 0.3, "b": 0.02}, []),
        ({"a": 0.4, "b": 0.7}, {"a": 0.3, "b": 0.02}, []),  # both closer than other real clips
        ({"a": 1.05, "b": 1.45}, {"a": 0.3, "b": 0.02}, ["a says 1.05 times that of other real clips, b 1.45"]),
        ({"a": 2.0, "b": 1.1}, {"a": 0.3, "b": 0.02}, ["b says 1.10 times that of other real clips, a 2.00"]),
        ({"a": 1.0, "b": 1.0, "c": 1.1}, {"a": 0.3, "b": 0.001, "c": 0.2}, ["by b, and not by a and c"]),
        ({"a": None, "b": 1.5}, {"a": 0.001, "b": 0.001}, []),  # a floor of 0 has no ratio
        ({"a": 1.0, "b": 1.5}, {"a": 0.2, "b": 0.001}, ["b 1.50", "by b, and not by a"]),
    ],
)
def test_embeddings_disagree_on_a_distance_or_on_the_classifier(ratios, ps, found):
    sentences = opinions.find_disagreements(make_result(ratios, ps))
    assert len(sentences) == len(found)
    for sentence, part in zip(sentences, found, strict=True):
        assert part in sentence


def test_tags_are_means_over_the_clips_of_each_set():
    tagger = Tagger(("techno", "harp"), lambda values: values[:, :2] / 10)
    embeddings = {
        "tags-v1": Embedding("tags-v1", None, None, None, tagger=tagger),
        "plain": Embedding("plain", None, None, None),
    }
    sides = {
        side: {"tags-v1": np.arange(6.0).reshape(2, 3) + shift}
        for shift, side in enumerate(("reference", "other", "generated"))
    }
    comparison = types.SimpleNamespace(**{side: types.SimpleNamespace(values=values) for side, values in sides.items()})
    found = opinions.score_tags(comparison, embeddings)
    assert found == {
        "tags-v1": {
            "techno": pytest.approx({"reference": 0.15, "other": 0.25, "generated": 0.35}),
            "harp": pytest.approx({"reference": 0.25, "other": 0.35, "generated": 0.45}),
        }
    }


def test_the_summary_has_every_embedding_in_ten_lines():
    result = make_result({"a": 1.04, "b": 1.5, "bb": None}, {"a": 0.3, "b": 0.01, "bb": 0.2})
    side = {"name": "x", "clips": 3, "tracks": 2}
    median = {"generated": {"median": 1.0}, "reference": {"median": 2.0}, "unit": "dB", "floor": 0.0}
    result |= {
        "sets": {"generated": side, "reference": side},
        "memorisation": {"flagged_share": 0.0, "held_out_flagged_share": 0.0},
        "features": {f"f{number}": median | {"wasserstein": 3.0 - number} for number in range(3)},
        "warnings": [{"about": "clips", "flatters": False, "text": "w"}],
        "disagreements": ["a says 1, b 1.5", "more"],
    }
    lines = summary.summarize(result)
    assert len(lines) < 10, "the command adds where the report is"
    assert lines[1].startswith("distance (a, b): 1, 1.5 times that of other real clips")
    assert "a says 1, b 1.5" in lines
    assert lines[2].startswith("classifier by a: right in 50%") and lines[4].startswith(
        "classifier by bb: right in 100%"
    )
    assert sum("differs most" in line for line in lines) == 1
