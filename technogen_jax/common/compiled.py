"""Compiles loops for which numpy has no operation, with numba, at their first call.

The first call takes seconds. Later processes need a third of a second, to import numba and to read
the machine code that the first one stored.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable

from technogen_jax.common import cache_folders


def compiled(function: Callable) -> Callable:
    """Returns a function of arrays and numbers that compiles `function` at its first call.

    The machine code is stored on disk for the next process, if a folder for it can be written.
    """
    made, lock = [], threading.Lock()

    @functools.wraps(function)
    def call(*args):
        with lock:
            if not made:
                made.append(_compile(function, args))
        return made[0](*args)

    return call


def _compile(function, args):
    cache_folders.use_temporary_folders()
    import numba

    # If these options change, the stored machine code stays valid: delete __pycache__.
    options = {"nogil": True, "error_model": "numpy"}
    types = tuple(map(numba.typeof, args))
    try:
        code = numba.njit(cache=True, **options)(function)
        code.compile(types)
    except (RuntimeError, OSError):  # no folder that can be written, or the disk is full
        code = numba.njit(**options)(function)
    return code
