"""What one listener hears, in which order: drawn from the test's seed and the listener's number alone."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from technogen_jax.listen.stimuli import Stimuli

REPEATS = 2  # pairs that come again, sides changed: does a listener agree with themselves?


class Trial(NamedTuple):
    """One question.

    Attributes:
        kind: "pair" or "single", the targets; "anchor", "good", "bad", "repeat".
        item: number of the pair that it is of, among those of its kind; a repeat has that of the pair it repeats.
        clips: indices of sounds: left and right, or one.
        truth: "left" or "right", the real one of two; "real" or "generated"; None where both are real.
    """

    kind: str
    item: int
    clips: tuple[int, ...]
    truth: str | None


def draw(stimuli: Stimuli, seed: int, listener: int, pairs: int, singles: int) -> list[Trial]:
    """The trials of a listener, in order.

    Listeners go around one circle of all pairs, so that each pair is asked equally often; nobody hears a clip of a target
    twice, except in repeats. The real clip is left as often as right.

    Args:
        stimuli: what there is; at least `pairs + singles` pairs.
        seed: of the test.
        listener: number, from 0.
        pairs: targets of two clips.
        singles: targets of one.
    """
    circle = np.random.default_rng(seed).permutation(len(stimuli.pairs))
    mine = [int(circle[(listener * pairs + k) % len(circle)]) for k in range(pairs + singles)]
    random = np.random.default_rng([seed, listener])

    def of_two(kind: str, items: list[int], found: list[tuple[int, int]]) -> list[Trial]:
        left = random.permutation(np.arange(len(items)) % 2 == random.integers(2))
        return [
            Trial(kind, item, found[item] if first else found[item][::-1], "left" if first else "right")
            for item, first in zip(items, left, strict=True)
        ]

    targets = of_two("pair", mine[:pairs], stimuli.pairs)
    sides = random.permutation(np.arange(singles) % 2)
    targets += [
        Trial("single", item, (stimuli.pairs[item][side],), ("real", "generated")[side])
        for item, side in zip(mine[pairs:], sides, strict=True)
    ]
    catches = of_two("anchor", list(range(len(stimuli.anchors))), stimuli.anchors)
    catches += of_two("bad", list(range(len(stimuli.bad))), stimuli.bad)
    catches += [trial._replace(truth=None) for trial in of_two("good", list(range(len(stimuli.good))), stimuli.good)]
    order = [*targets, *catches]
    order = [order[index] for index in random.permutation(len(order))]
    early = [trial for trial in order if trial.kind == "pair"]
    for trial in early[:REPEATS]:
        again = Trial("repeat", trial.item, trial.clips[::-1], {"left": "right", "right": "left"}[trial.truth])
        late = max(3 * len(order) // 4, order.index(trial) + 1)
        order.insert(int(random.integers(late, len(order) + 1)), again)
    return order
