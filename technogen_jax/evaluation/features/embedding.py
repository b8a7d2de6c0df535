"""The type of an embedding: a function from clips to vectors, with what identifies it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Embedding(NamedTuple):
    """A function that turns clips into vectors.

    Attributes:
        name: its name and version, part of the name of every figure that is computed with it.
        blocks: number of channels -> {block: columns of the vector}. Each block is reported alone.
        embed: (audio `[B, T, C]`, sample rate in Hz, *, loop) -> float64 `[B, D]`.
        describe: sample rate in Hz -> settings and hashes that decide the values, for the result.
    """

    name: str
    blocks: Callable[[int], dict[str, slice]]
    embed: Callable[..., np.ndarray]
    describe: Callable[[int], dict[str, Any]]
