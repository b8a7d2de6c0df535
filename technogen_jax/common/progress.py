"""Progress bars with an estimate of the time that is left."""

from __future__ import annotations

import sys

from tqdm import tqdm


def bar(what: str, total: int, unit: str, initial: int = 0, shown: bool = True) -> tqdm:
    """A bar on stderr, a context manager: `update(n)`, and `bar.write(line)` for lines above it.

    Args:
        what: in a word.
        total: units in all.
        unit: what is counted.
        initial: units that an earlier run has done.
        shown: whether there is anything to see.
    """
    interval = 0.1 if sys.stderr.isatty() else 10.0  # a log file gets a line now and then
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
