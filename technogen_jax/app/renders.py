"""Files that clients ask for: rendered one at a time, bounded, and deleted when nobody needs them."""

from __future__ import annotations

import asyncio
import concurrent.futures
import dataclasses
import os
import pathlib
import secrets
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

from technogen_jax.app import queues

KEPT_S = 5 * 60.0  # a finished file, for its download (chosen)
ABANDONED_S = 30.0  # chosen: a client that does not ask for so long is gone
MOST_BYTES = 2 * 2**30  # of all files together, also of those that are still to come (chosen)
MOST, MOST_EACH = 12, 3  # unfinished renders in all and of one address (chosen)
WAITING, RENDERING, DONE, FAILED = "waiting", "rendering", "done", "failed"


class _Cancelled(Exception):
    """Ends the work on a render that nobody needs."""


@dataclasses.dataclass
class Render:
    """A file for a client.

    Attributes:
        id: unguessable; who knows it may have the file.
        name: under which the file is saved.
        address: of the client.
        bytes: upper bound of its size.
        path: of the file, which exists when it is done.
        state: `WAITING`, `RENDERING`, `DONE` or `FAILED`.
        share: of the work that is done.
        why: why it failed, in one line.
        asked_s: when the client last asked for it, on the monotonic clock.
        cancelled: set to end the work.
        task: waits for its turn, then for the work.
    """

    id: str
    name: str
    address: str
    bytes: int
    path: pathlib.Path
    state: str = WAITING
    share: float = 0.0
    why: str = ""
    asked_s: float = dataclasses.field(default_factory=time.monotonic)
    cancelled: threading.Event = dataclasses.field(default_factory=threading.Event)
    task: asyncio.Task | None = None

    def describe(self) -> dict[str, Any]:
        """Returns what the client is told."""
        return {"id": self.id, "state": self.state, "share": round(self.share, 3), "name": self.name, "why": self.why}


class Renders:
    """The renders of one server. All methods but the work itself run in the server's event loop."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="technogen-app-")  # no other user can read it
        self._pool = concurrent.futures.ThreadPoolExecutor(1, "render")
        self._queue = queues.FairQueue(MOST, MOST)
        self._renders: dict[str, Render] = {}

    def add(
        self, name: str, address: str, most_bytes: int, write: Callable[[pathlib.Path, Callable[[float], None]], None]
    ) -> Render:
        """Queues a file and returns its render.

        Args:
            name: under which it is saved; its suffix decides the format.
            address: of the client.
            most_bytes: an upper bound of its size.
            write: writes the file, given its path and a function that takes the share that is done.

        Raises:
            BusyError: too many renders are waiting, or there is no room for the file.
        """
        unfinished = [render for render in self._renders.values() if render.state in (WAITING, RENDERING)]
        own = sum(render.address == address for render in unfinished)
        if own >= MOST_EACH:
            raise queues.BusyError(f"You have {own} files on the way; wait for one of them, or cancel it.")
        if len(unfinished) >= MOST:
            raise queues.BusyError("Too many files are on the way; try again in a few minutes.")
        if sum(render.bytes for render in self._renders.values()) + most_bytes > MOST_BYTES:
            raise queues.BusyError(f"There is no room for another file; try again in {KEPT_S / 60:.0f} minutes.")
        token = secrets.token_urlsafe(24)
        path = pathlib.Path(self._folder.name) / f"{token}{pathlib.Path(name).suffix}"
        render = self._renders[token] = Render(token, name, address, most_bytes, path)
        render.task = asyncio.create_task(self._work(render, write))
        return render

    def find(self, token: str) -> Render | None:
        """Returns a render, None if there is none; remembers that its client is there."""
        render = self._renders.get(token)
        if render:
            render.asked_s = time.monotonic()
        return render

    def remove(self, render: Render) -> None:
        """Ends the work on a render and deletes its file."""
        render.cancelled.set()
        if render.state == WAITING:
            render.task.cancel()
        self._renders.pop(render.id, None)
        render.path.unlink(missing_ok=True)

    def remove_old(self) -> None:
        """Removes renders whose client is gone, and files that have been kept for long enough."""
        for render in list(self._renders.values()):
            unfinished = render.state in (WAITING, RENDERING)
            if time.monotonic() - render.asked_s > (ABANDONED_S if unfinished else KEPT_S):
                self.remove(render)

    def close(self) -> None:
        """Ends all work and deletes all files."""
        for render in list(self._renders.values()):
            self.remove(render)
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._folder.cleanup()

    async def _work(self, render: Render, write: Callable) -> None:
        async with self._queue.turn(render.address):
            if render.cancelled.is_set():
                return
            render.state = RENDERING
            try:
                await asyncio.get_running_loop().run_in_executor(self._pool, self._write, render, write)
                render.bytes = render.path.stat().st_size
                render.state, render.share, render.asked_s = DONE, 1.0, time.monotonic()
            except _Cancelled:
                pass
            except Exception as error:  # also a bug must not leave the client waiting
                render.state, render.why = FAILED, " ".join(str(error).split())[:300] or type(error).__name__
            if render.cancelled.is_set() or render.state == FAILED:
                render.path.unlink(missing_ok=True)

    def _write(self, render: Render, write: Callable) -> None:
        def report(share: float) -> None:
            if render.cancelled.is_set():
                raise _Cancelled
            render.share = share

        report(0.0)
        write(render.path, report)

    def size_bytes(self) -> int:
        """Returns the size of all files."""
        return sum(os.path.getsize(path) for path in pathlib.Path(self._folder.name).iterdir())
