"""JSON that somebody else wrote: whatever is wrong with it is a ValueError."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any


def parse(text: str | bytes) -> Any:
    """Returns the value of a JSON text.

    Raises:
        ValueError: it is not JSON, not UTF-8, or nested so deeply that Python can't read it.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read(path: str | os.PathLike) -> Any:
    """Returns the value of a JSON file.

    Raises:
        OSError: the file cannot be read.
        ValueError: as `parse`.
    """
    return parse(pathlib.Path(path).read_text(encoding="utf-8"))
