"""The sounds that the user of this machine has kept: a file of theirs, the same for every port and browser."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

from technogen_jax.common import atomic_files, json_files

MOST = 500  # sounds (chosen)
MOST_LETTERS = {"name": 80, "sound": 600}  # of each field (chosen)


class KeptError(ValueError):
    """A list that is not one of kept sounds; the message is one line for the client."""


def default_path() -> pathlib.Path:
    """Returns the user's file."""
    data = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return pathlib.Path(data) / "technogen" / "kept.json"


def parse(content: bytes) -> list[dict[str, str]]:
    """Returns a list of kept sounds, each {name, sound}; `sound` is the query of the page's address.

    Raises:
        KeptError: something else.
    """
    try:
        items: Any = json_files.parse(content)
    except ValueError:
        raise KeptError("expected JSON") from None
    if not isinstance(items, list) or len(items) > MOST:
        raise KeptError(f"expected a list of at most {MOST} sounds")
    for item in items:
        if not isinstance(item, dict) or set(item) != set(MOST_LETTERS):
            raise KeptError("expected the fields name and sound of each sound")
        for field, most in MOST_LETTERS.items():
            if not isinstance(item[field], str) or len(item[field]) > most:
                raise KeptError(f"{field}: expected a text of at most {most} letters")
    return items


def read(path: pathlib.Path) -> list[dict[str, str]]:
    """Returns the kept sounds of a file; none if there is no such file.

    Raises:
        KeptError: the file is something else.
        OSError: it cannot be read.
    """
    try:
        return parse(path.read_bytes())
    except FileNotFoundError:
        return []


def write(path: pathlib.Path, items: list[dict[str, str]]) -> None:
    """Replaces the kept sounds of a file.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_files.write_text(path, json.dumps(items, indent=1, ensure_ascii=False) + "\n")
