"""The file of answers: JSON lines. A line is on the disk before the listener sees the next trial.

So a killed server loses no answer that a listener believes to have given.
"""

from __future__ import annotations

import errno
import json
import os
import pathlib
from typing import Any

from technogen_jax.common import atomic_files, json_files

ANSWERS_FILE = "answers.jsonl"
SCHEMA = 1


class AnswersError(ValueError):
    """A file of answers cannot be read or written; the message is one line."""


class Writer:
    """The only writer of a file of answers: a second one is refused while the first is open."""

    def __init__(self, path: str | os.PathLike, header: dict[str, Any]):
        """Opens or creates the file. A half-written last line was never acknowledged and is removed.

        Raises:
            AnswersError: another process writes the file, or it belongs to another test.
        """
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600)
        if not atomic_files.lock(self._handle):
            os.close(self._handle)
            raise AnswersError(
                f"{path}: another server is writing this file; stop that server, or choose another --output"
            )
        whole = pathlib.Path(path).read_bytes()
        self._end = whole.rfind(b"\n") + 1
        os.ftruncate(self._handle, self._end)
        self.lines = read(path) if self._end else []
        if not self.lines:
            self.append({"what": "test", "schema": SCHEMA, **header})
        elif self.lines[0] != {"what": "test", "schema": SCHEMA, **json.loads(json.dumps(header))}:
            raise AnswersError(f"{path}: has the answers of another test; choose another --output")

    def append(self, line: dict[str, Any]) -> None:
        """Adds a line and returns when it is on the disk.

        Raises:
            OSError: the line could not be written; the file is unchanged.
        """
        data = json.dumps(line, allow_nan=False).encode() + b"\n"
        os.lseek(self._handle, self._end, os.SEEK_SET)
        try:
            written = os.write(self._handle, data)
            if written < len(data):
                raise OSError(errno.ENOSPC, f"{written} of {len(data)} bytes written")
            os.fsync(self._handle)
        except OSError:
            os.ftruncate(self._handle, self._end)
            raise
        self._end += len(data)
        self.lines.append(line)

    def close(self) -> None:
        """Closes the file and releases its lock."""
        os.close(self._handle)


def read(path: str | os.PathLike) -> list[dict[str, Any]]:
    """Returns the lines of a file of answers, the header first; an unfinished last line is left out.

    Raises:
        AnswersError: the file is missing, damaged or something else.
    """
    try:
        text = pathlib.Path(path).read_bytes()
    except OSError as error:
        raise AnswersError(f"{path}: expected the {ANSWERS_FILE} of a listening test ({error.strerror})") from None
    lines = []
    for number, line in enumerate(text.split(b"\n")[:-1], 1):
        try:
            lines.append(json_files.parse(line))
            if not isinstance(lines[-1], dict) or "what" not in lines[-1]:
                raise ValueError("not an object with the field what")
        except ValueError as error:
            raise AnswersError(f"{path}, line {number}: damaged ({error}); correct or delete the line") from None
    if not lines or lines[0]["what"] != "test" or lines[0].get("schema") != SCHEMA:
        raise AnswersError(f"{path}: expected a header of schema {SCHEMA} in the first line")
    return lines
