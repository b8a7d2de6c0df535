"""Files that are written completely or not at all, and locks between processes."""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
from collections.abc import Iterable, Iterator


@contextlib.contextmanager
def replacing(path: str | os.PathLike, *, shared: bool = False, synced: bool = True) -> Iterator[pathlib.Path]:
    """Yields a temporary path beside `path`; at the end its file replaces `path`, or is deleted after an error.

    A killed process leaves the temporary file. The next process that writes the same file overwrites it.

    Args:
        path: the file.
        shared: several processes may write the file at the same time, so each has its own temporary path.
        synced: wait until the content is on disk, so that the file is complete even after a power failure.
    """
    path = pathlib.Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp" if shared else f".{path.name}.tmp")
    try:
        yield temporary
        if synced:
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def write_text(path: str | os.PathLike, text: str | Iterable[str]) -> None:
    r"""Writes a UTF-8 text file, given whole or in parts, completely or not at all.

    What UTF-8 lacks, a byte of a file's name that is no character, is written as \udcff.
    """
    form = {"encoding": "utf-8", "errors": "backslashreplace", "newline": "\n"}
    with replacing(path) as temporary, open(temporary, "w", **form) as file:
        file.writelines([text] if isinstance(text, str) else text)


def lock(handle: int, *, shared: bool = False) -> bool:
    """Locks an open file or folder; returns False if another process has the lock.

    The lock ends with the handle, however the process ends. Processes that pass `shared` can have it at the same time. Where
    there are no locks (Windows, some network file systems), returns True.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EAGAIN, errno.EACCES)
    return True
