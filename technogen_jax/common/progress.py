"""Progress bars with an estimate of the time that is left."""

from __future__ import annotations

import sys

from tqdm import tqdm


def activity(what: str) -> tqdm:
    """Returns a line on stderr for work whose end is unknown, a context manager: `update(0)` shows the time again."""
    return tqdm(desc=what, bar_format="{desc} [{elapsed}]", mininterval=_interval_s(), miniters=0, dynamic_ncols=True)


def clock(what: str, total_s: float, shown: bool = True) -> tqdm:
    """Returns a bar for work that ends after a time, a context manager: `update(seconds)` advances it."""
    form = "{desc}: {percentage:3.0f}%|{bar}| {elapsed} of " + tqdm.format_interval(total_s) + "{postfix}"
    return bar(what, round(total_s), "s", shown=shown, form=form)


def bar(what: str, total: int, unit: str, initial: int = 0, shown: bool = True, form: str | None = None) -> tqdm:
    """Returns a bar on stderr, a context manager: `update(n)` counts; `write(line)` prints a line above it.

    Args:
        what: one word or two.
        total: number of units.
        unit: what is counted.
        initial: units done before.
        shown: False for a bar that is not printed.
        form: tqdm's `bar_format`; None: count, time left and speed.
    """
    return tqdm(
        total=total,
        desc=what,
        unit=unit,
        initial=initial,
        unit_scale=True,
        mininterval=_interval_s(),
        dynamic_ncols=True,
        disable=not shown,
        bar_format=form,
    )


def _interval_s() -> float:
    """Returns the least time between two updates: in a log file each is a line."""
    return 0.1 if sys.stderr.isatty() else 10.0
