"""Runs jobs that may crash in worker processes: a decoder that crashes ends only its own job."""

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

from technogen_jax.common.command_line import CommandError, cpu_count

# Each worker uses one thread: the workers already run in parallel.
_ONE_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class JobError(CommandError):
    """An error that ends the whole run; the message is one line. Jobs may raise it."""


class Crash(NamedTuple):
    """The result of a job whose process was ended by a signal."""

    signal: int  # its number

    def __str__(self) -> str:
        if self.signal == getattr(signal, "SIGALRM", None):
            return "no progress for minutes"
        return f"signal {self.signal}"


class _Worker(NamedTuple):
    """A worker process, and the connection that sends its jobs and receives their results."""

    process: multiprocessing.process.BaseProcess
    connection: multiprocessing.connection.Connection


class Workers:
    """A context manager with up to `count` processes, each with one job at a time.

    Processes start when they are needed. They are killed when the `with` block ends.
    """

    def __init__(self, count: int):
        """Sets the largest number of processes, and starts none."""
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
        """Runs jobs, and yields the index and result of each job when it ends.

        Args:
            jobs: (function, argument) of each job.

        Yields:
            The index in `jobs`, and what the function returned or a `Crash`.

        Raises:
            JobError: a job raised it, or a process could not start.
        """
        waiting = collections.deque(enumerate(jobs))
        while waiting or self._busy:
            while waiting and len(self._busy) < self._count:
                index, job = waiting.popleft()
                worker = self._idle.pop() if self._idle else _start()
                self._busy[worker.connection] = worker, index
                with contextlib.suppress(OSError):  # the process died: `recv` below detects it
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


def fewer(options: Any) -> str:
    """Returns what to do if memory is not enough, for a command with the option `workers`."""
    return f"Try --workers {max(1, (options.workers or cpu_count()) // 2)}; each process needs memory of its own"


def set_time_limit(seconds: int | None) -> None:
    """Ends the process of the calling job after `seconds`, unless the job calls this again.

    Args:
        seconds: the new limit; None removes the limit.
    """
    if hasattr(signal, "alarm"):  # not on Windows
        signal.alarm(seconds or 0)


def _crash(exit_code: int) -> Crash | JobError:
    # Exit code 1 is an exception in Python, not a crash: the process could not import its modules.
    return JobError("a worker process could not start; see above") if exit_code == 1 else Crash(abs(exit_code))


def _start() -> _Worker:
    context = multiprocessing.get_context("spawn")  # fork would copy locks held by other threads
    connection, worker_connection = context.Pipe()
    process = context.Process(target=_serve, args=(worker_connection,), daemon=True)
    saved = {name: os.environ.get(name) for name in _ONE_THREAD}
    os.environ.update(_ONE_THREAD)  # the new process reads them when it imports numpy
    try:
        process.start()
    finally:
        for name, value in saved.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    worker_connection.close()
    return _Worker(process, connection)


def _serve(connection: multiprocessing.connection.Connection) -> None:
    """Runs jobs in a worker process until it is killed."""
    # Decoders print messages about damaged files, which would disturb the progress bar. First of all: where stderr is
    # closed, 2 would become the handle of something else.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    while True:
        function, job = connection.recv()
        try:
            result = function(job)
        except JobError as error:
            result = error
        except MemoryError as error:
            result = JobError(f"not enough memory in a worker ({error}); the same command with fewer --workers resumes")
        except Exception:
            result = JobError(f"a worker failed; this is a bug:\n{traceback.format_exc()}")
        connection.send(result)


def _exit_with_parent() -> None:
    """Ends this process when its parent ends: a killed parent cannot stop its workers itself."""
    multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)
