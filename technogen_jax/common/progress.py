"""Progress bars with an estimate of the time that is left."""

from __future__ import annotations

import sys

from tqdm import tqdm


def bar(what: str, total: int, unit: str, initial: int = 0, shown: bool = True) -> tqdm:
    """Returns a bar on stderr, a context manager: `update(n)` counts; `write(line)` prints a line above it.

    Args:
        what: one word or two.
        total: number of units.
        unit: what is counted.
        initial: units done before.
        shown: False for a bar that is not printed.
    """
    interval = 0.1 if sys.stderr.isatty() else 10.0  # in a log file each update is a line
    return tqdm(
        total=total,
        desc=what,
        unit=unit,
        initial=initial,
        unit_scale=True,
        mininterval=interval,
        dynamic_ncols=True,
        disable=not shown,
    )
