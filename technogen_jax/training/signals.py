"""Signals that stop a run: Ctrl-C, SIGTERM and SIGHUP let it save first."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent import futures

from technogen_jax.common import distributed, progress
from technogen_jax.training.errors import StoppedError

_LOOK_S = 1.0  # between two looks for a signal, while another thread works


class StopEvent(threading.Event):
    """An event that a signal sets; `number` is the signal's."""

    number: int | None = None


@contextlib.contextmanager
def catch_stop_signals() -> Iterator[StopEvent]:
    """Yields an event that Ctrl-C, SIGTERM and SIGHUP set; a second Ctrl-C raises KeyboardInterrupt."""
    stop = StopEvent()
    if threading.current_thread() is not threading.main_thread():  # only the main thread can handle signals
        yield stop
        return

    def handle(number, _):
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.number = number
        stop.set()

    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    handled = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]  # nohup ignores SIGHUP
    previous = {number: signal.signal(number, handle) for number in handled}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def stoppable_progress(what: str, total: int, unit: str, stop: threading.Event) -> Iterator[Callable[[int], None]]:
    """Shows a progress bar.

    Yields the function that advances it, which raises `StoppedError` after a signal.
    """
    with progress.bar(what, total, f" {unit}") as bar:

        def advance(units: int) -> None:
            bar.update(units)
            if stop.is_set():
                raise StoppedError

        yield advance


def wait(future: futures.Future, what: str, stop: threading.Event, shown: bool) -> None:
    """Waits for work in another thread; a line shows what it is and how long it takes, if `shown`.

    Raises:
        StoppedError: a signal came; the work goes on until it is done.
    """
    with progress.activity(what) if shown and not future.done() else contextlib.nullcontext() as line:
        while not future.done():
            futures.wait([future], timeout=_LOOK_S)
            if line is not None:
                line.update(0)
            if stop.is_set():
                raise StoppedError
    future.result()


def run_in_first_process(work: Callable[[], None]) -> None:
    """Runs work in the first process while the others wait.

    After a signal to it, raises `StoppedError` in every process.
    """

    def was_stopped() -> bool:
        try:
            work()
        except StoppedError:
            return True
        return False

    if distributed.call_in_first_process(was_stopped):
        raise StoppedError
