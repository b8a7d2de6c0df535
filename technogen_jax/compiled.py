"""Loops for which numpy has no operation, compiled by numba at the first call: importing it takes a quarter of a second."""

from __future__ import annotations

import functools
from collections.abc import Callable


def compiled(function: Callable) -> Callable:
    """The function, of arrays and numbers, as machine code, kept on disk for the next process where there is a place for it.

    Sums are taken in any order, so that several terms go at once.
    """

    @functools.cache
    def machine_code():
        import numba

        options = {"error_model": "numpy", "fastmath": {"reassoc"}}
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError:  # neither beside the module nor at home may anything be written
            return numba.njit(**options)(function)

    @functools.wraps(function)
    def call(*args):
        return machine_code()(*args)

    return call
