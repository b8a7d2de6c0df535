"""Loops for which numpy has no operation, compiled by numba at the first call.

That takes seconds once, later a third of a second: to import numba, and to read what was compiled.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable


def compiled(function: Callable) -> Callable:
    """The function, of arrays and numbers, as machine code, kept on disk for the next process where there is room for it."""
    made, lock = [], threading.Lock()

    @functools.wraps(function)
    def call(*args):
        with lock:
            if not made:
                made.append(_compile(function, args))
        return made[0](*args)

    return call


def _compile(function, args):
    import numba

    options = {"nogil": True, "error_model": "numpy"}  # what is kept on disk does not know of a change here
    types = tuple(map(numba.typeof, args))
    try:
        code = numba.njit(cache=True, **options)(function)
        code.compile(types)
    except (
        RuntimeError,
        OSError,
    ):  # neither beside the module nor at home may anything be written, or the disk is full
        code = numba.njit(**options)(function)
    return code
