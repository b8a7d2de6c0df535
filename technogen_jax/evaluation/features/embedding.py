"""The type of an embedding: a function from clips to vectors, with what identifies it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Tagger(NamedTuple):
    """Tags that can be read from an embedding's vectors.

    Attributes:
        names: the K tags.
        probabilities: vectors `[B, D]` -> probability of each tag, `[B, K]`.
    """

    names: tuple[str, ...]
    probabilities: Callable[[np.ndarray], np.ndarray]


class Embedding(NamedTuple):
    """A function that turns clips into vectors.

    Attributes:
        name: its name and version, part of the name of every figure that is computed with it.
        blocks: number of channels -> {block: columns of the vector}. Each block is reported alone.
        embed: (audio `[B, T, C]`, sample rate in Hz, *, loop) -> float64 `[B, D]`.
        describe: sample rate in Hz -> settings and hashes that decide the values, for the result.
        whiten: whether distances are computed in whitened dimensions. Of a trained network they are
            not: what varies most there is what the network learned to be important.
        tagger: reads tags; None without tags.
    """

    name: str
    blocks: Callable[[int], dict[str, slice]]
    embed: Callable[..., np.ndarray]
    describe: Callable[[int], dict[str, Any]]
    whiten: bool = True
    tagger: Tagger | None = None
