"""Worker processes for jobs that may crash: a decoder that dies takes only its own job with it."""

from __future__ import annotations

import collections
import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from technogen_jax.common.command_line import CommandError

_ONE_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class JobError(CommandError):
    """Why the whole run must stop, in one line; jobs raise it too."""


class Crash(NamedTuple):
    """What a job gave whose process died."""

    signal: int

    def __str__(self) -> str:
        if self.signal == getattr(signal, "SIGALRM", None):
            return "no progress for minutes"
        return f"signal {self.signal}"


class _Worker(NamedTuple):
    process: multiprocessing.process.BaseProcess
    connection: multiprocessing.connection.Connection


class Workers:
    """Up to `count` processes, each with one job at a time; started when needed, killed on the way out of the `with`."""

    def __init__(self, count: int):
        """Starts nothing yet."""
        self._count = count
        self._idle: list[_Worker] = []
        self._busy: dict[multiprocessing.connection.Connection, tuple[_Worker, int]] = {}

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_) -> None:
        workers = self._idle + [worker for worker, _ in self._busy.values()]
        for worker in workers:
            worker.process.kill()
        for worker in workers:
            worker.process.join()
            worker.connection.close()

    def run(self, jobs: Sequence[tuple[Callable, Any]]) -> Iterator[tuple[int, Any]]:
        """Runs (function, argument) pairs; yields (index, what it returned, or a Crash) as they end.

        Raises:
            JobError: raised by a job, or no process could be started.
        """
        waiting = collections.deque(enumerate(jobs))
        while waiting or self._busy:
            while waiting and len(self._busy) < self._count:
                index, job = waiting.popleft()
                worker = self._idle.pop() if self._idle else _start()
                self._busy[worker.connection] = worker, index
                with contextlib.suppress(OSError):  # it died: recv will say so
                    worker.connection.send(job)
            for connection in multiprocessing.connection.wait(list(self._busy)):
                worker, index = self._busy.pop(connection)
                try:
                    result = connection.recv()
                except (EOFError, OSError):
                    worker.process.join()
                    connection.close()
                    result = _crash(worker.process.exitcode)
                else:
                    self._idle.append(worker)
                if isinstance(result, JobError):
                    raise result
                yield index, result


def progressing(seconds: int | None) -> None:
    """Called by a job: unless it calls again within so many seconds, its process dies; None ends that."""
    if hasattr(signal, "alarm"):  # not on Windows
        signal.alarm(seconds or 0)


def _crash(exit_code: int) -> Crash | JobError:
    # Python's own end, 1, is not a decoder's: the process could not import what it needs.
    return JobError("a worker process could not start; see above") if exit_code == 1 else Crash(abs(exit_code))


def _start() -> _Worker:
    context = multiprocessing.get_context("spawn")  # fork would copy locks that other threads hold
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,), daemon=True)
    saved = {name: os.environ.get(name) for name in _ONE_THREAD}
    os.environ.update(_ONE_THREAD)  # read when the new process loads numpy
    try:
        process.start()
    finally:
        for name, value in saved.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    theirs.close()
    return _Worker(process, ours)


def _serve(connection: multiprocessing.connection.Connection) -> None:
    """A worker process: answers jobs until it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent answers it
    threading.Thread(target=_die_with_parent, daemon=True).start()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # decoders print notes on damaged files, into the progress bar
    while True:
        function, job = connection.recv()
        try:
            result = function(job)
        except JobError as error:
            result = error
        except Exception:
            result = JobError(f"a worker failed; this is a bug:\n{traceback.format_exc()}")
        connection.send(result)


def _die_with_parent() -> None:
    """A parent that was killed cannot stop its workers, and the next run must not meet them."""
    multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)
