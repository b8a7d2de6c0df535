"""Files that come to be whole or not at all, and that one process has at a time."""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
from collections.abc import Iterable, Iterator


@contextlib.contextmanager
def replacing(path: str | os.PathLike, *, shared: bool = False, synced: bool = True) -> Iterator[pathlib.Path]:
    """A temporary name beside `path`: what is written there becomes `path` if all goes well, and else is deleted.

    A killed process leaves it behind. The next one that writes the file takes the same name, so that nothing stays.

    Args:
        path: of the file.
        shared: several processes may write the file at one time: each has a name of its own.
        synced: wait until the contents are on disk, so that the file is whole after a power cut too.
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
    """Writes a UTF-8 text file, given whole or in parts, completely or not at all."""
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as file:
        file.writelines([text] if isinstance(text, str) else text)


def lock(handle: int, *, shared: bool = False) -> bool:
    """Whether this process now has the open file, or folder, alone; the lock goes with the handle, however the process ends.

    With `shared` others that say the same may have it too.

    Where there are no locks (Windows, some network file systems) it is True.
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
