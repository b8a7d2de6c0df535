"""The trials of one listener, in order: drawn from the test's seed and the listener's number alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from technogen_jax.listen.stimuli import Stimuli

_ANSWER_S = 5.0  # to decide, answer and go on (chosen)
REPEATS = 2  # pairs that are asked again with sides swapped: does a listener agree with themselves?


class Trial(NamedTuple):
    """One question.

    Attributes:
        kind: "pair" or "single" (the trials that count); "anchor", "good", "bad", "repeat" (controls).
        item: number of the pair among those of its kind; a repeat has the number of the pair it repeats.
        clips: indices of sounds: left and right, or one.
        truth: of a pair the real one, "left" or "right"; of a single "real" or "generated"; None where
            both clips are real.
    """

    kind: str
    item: int
    clips: tuple[int, ...]
    truth: str | None


def estimate_minutes(trials: Sequence[Trial], clip_s: float) -> int:
    """Returns how long a session takes, in minutes: each clip is played twice, and each answer takes `_ANSWER_S`."""
    seconds = sum(2 * clip_s * len(trial.clips) + _ANSWER_S for trial in trials)
    return max(1, round(seconds / 60))


def draw(stimuli: Stimuli, seed: int, listener: int, pairs: int, singles: int) -> list[Trial]:
    """Returns the trials of a listener, in order.

    All pairs lie on one circle, and each listener takes the next part of it, so that each pair is
    asked equally often. Nobody meets a clip twice, except in repeats. The real clip is on the left
    as often as on the right.

    Args:
        stimuli: the sounds; at least `pairs + singles` pairs.
        seed: the seed of the test.
        listener: number, from 0.
        pairs: trials with two clips.
        singles: trials with one clip.
    """
    circle = np.random.default_rng(seed).permutation(len(stimuli.pairs))
    chosen = [int(circle[(listener * pairs + k) % len(circle)]) for k in range(pairs + singles)]
    random = np.random.default_rng([seed, listener])

    def make_pairs(kind: str, items: list[int], pairs_of_kind: list[tuple[int, int]]) -> list[Trial]:
        left = random.permutation(np.arange(len(items)) % 2 == random.integers(2))
        return [
            Trial(kind, item, pairs_of_kind[item] if first else pairs_of_kind[item][::-1], "left" if first else "right")
            for item, first in zip(items, left, strict=True)
        ]

    targets = make_pairs("pair", chosen[:pairs], stimuli.pairs)
    sides = random.permutation(np.arange(singles) % 2)
    targets += [
        Trial("single", item, (stimuli.pairs[item][side],), ("real", "generated")[side])
        for item, side in zip(chosen[pairs:], sides, strict=True)
    ]
    controls = make_pairs("anchor", list(range(len(stimuli.anchors))), stimuli.anchors)
    controls += make_pairs("bad", list(range(len(stimuli.bad))), stimuli.bad)
    controls += [
        trial._replace(truth=None) for trial in make_pairs("good", list(range(len(stimuli.good))), stimuli.good)
    ]
    order = [*targets, *controls]
    order = [order[index] for index in random.permutation(len(order))]
    early = [trial for trial in order if trial.kind == "pair"]
    for trial in early[:REPEATS]:
        again = Trial("repeat", trial.item, trial.clips[::-1], {"left": "right", "right": "left"}[trial.truth])
        late = max(3 * len(order) // 4, order.index(trial) + 1)
        order.insert(int(random.integers(late, len(order) + 1)), again)
    return order
