"""Files that wait to be fetched, each under a name that nobody can guess."""

from __future__ import annotations

import pathlib
import secrets
import tempfile
import threading
from collections.abc import Callable
from typing import NamedTuple

KEPT_S = 15 * 60
MOST_BYTES = 2 * 2**30  # of all files together


class FullError(OSError):
    """There is no more room."""


class Item(NamedTuple):
    """A file: where it is, and what whoever fetches it sees as its name."""

    path: pathlib.Path
    name: str


class Shelf:
    """A folder of its own, readable by this user alone, that goes with the process; its files go before.

    Args:
        kept_s: how long a file waits.
        most_bytes: of all together.
    """

    def __init__(self, kept_s: float = KEPT_S, most_bytes: int = MOST_BYTES):
        self._folder = tempfile.TemporaryDirectory(prefix="technogen-app-")
        self._kept_s, self._most_bytes = kept_s, most_bytes
        self._items: dict[str, Item] = {}

    def put(self, name: str, expected_bytes: int, write: Callable[[pathlib.Path], None]) -> str:
        """The token of a new file.

        Args:
            name: what it is called when it is fetched; its ending is the file's.
            expected_bytes: an upper bound of its size.
            write: given its path, writes it.

        Raises:
            FullError: it would be more than `most_bytes`.
        """
        if self.size_bytes() + expected_bytes > self._most_bytes:
            raise FullError(f"There is no room for another file now; try again in {self._kept_s / 60:.0f} minutes")
        token = secrets.token_urlsafe(24)
        path = pathlib.Path(self._folder.name) / f"{token}{pathlib.Path(name).suffix}"
        write(path)
        self._items[token] = Item(path, name)
        timer = threading.Timer(self._kept_s, self._remove, [token])
        timer.daemon = True
        timer.start()
        return token

    def find(self, token: str) -> Item | None:
        """The file of a token, None if there is none any more. The token is looked up and never becomes a path."""
        return self._items.get(token)

    def size_bytes(self) -> int:
        """Of all files."""
        return sum(path.stat().st_size for path in pathlib.Path(self._folder.name).iterdir())

    def close(self) -> None:
        """Deletes all."""
        self._items.clear()
        self._folder.cleanup()

    def _remove(self, token: str) -> None:
        item = self._items.pop(token, None)
        if item:
            item.path.unlink(missing_ok=True)
