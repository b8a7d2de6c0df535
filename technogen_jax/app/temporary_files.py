"""Files for download, kept for a quarter of an hour under names that nobody can guess."""

from __future__ import annotations

import pathlib
import secrets
import tempfile
import threading
from collections.abc import Callable
from typing import NamedTuple

KEPT_S = 15 * 60
MOST_BYTES = 2 * 2**30  # of all files together


class StorageFullError(OSError):
    """All files together would exceed the limit."""


class Download(NamedTuple):
    """A file for download: its path, and the name under which it is saved."""

    path: pathlib.Path
    name: str


class TemporaryFiles:
    """A private folder that is deleted with the process; each of its files is deleted after `kept_s`.

    Args:
        kept_s: seconds that a file is kept.
        most_bytes: limit for all files together.
    """

    def __init__(self, kept_s: float = KEPT_S, most_bytes: int = MOST_BYTES):
        self._folder = tempfile.TemporaryDirectory(prefix="technogen-app-")
        self._kept_s, self._most_bytes = kept_s, most_bytes
        self._items: dict[str, Download] = {}

    def put(self, name: str, expected_bytes: int, write: Callable[[pathlib.Path], None]) -> str:
        """Makes a file and returns its token.

        Args:
            name: name under which it is saved; its suffix decides the format.
            expected_bytes: an upper bound of its size.
            write: function that writes the file, given its path.

        Raises:
            StorageFullError: all files together would exceed `most_bytes`.
        """
        if self.size_bytes() + expected_bytes > self._most_bytes:
            raise StorageFullError(f"There is no room for another file; try again in {self._kept_s / 60:.0f} minutes")
        token = secrets.token_urlsafe(24)
        path = pathlib.Path(self._folder.name) / f"{token}{pathlib.Path(name).suffix}"
        write(path)
        self._items[token] = Download(path, name)
        timer = threading.Timer(self._kept_s, self._remove, [token])
        timer.daemon = True
        timer.start()
        return token

    def find(self, token: str) -> Download | None:
        """Returns the file of a token, None if it is gone. The token is a key and never becomes part of a path."""
        return self._items.get(token)

    def size_bytes(self) -> int:
        """Returns the size of all files together."""
        return sum(path.stat().st_size for path in pathlib.Path(self._folder.name).iterdir())

    def close(self) -> None:
        """Deletes all files."""
        self._items.clear()
        self._folder.cleanup()

    def _remove(self, token: str) -> None:
        item = self._items.pop(token, None)
        if item:
            item.path.unlink(missing_ok=True)
