"""Folders in which programs and libraries keep compiled code between runs."""

from __future__ import annotations

import atexit
import os
import pathlib
import shutil
import tempfile

_VARIABLES = {"NUMBA_CACHE_DIR": "numba", "MPLCONFIGDIR": "matplotlib"}  # folders that libraries cannot do without


def user_cache_folder() -> pathlib.Path | None:
    """Returns the folder `technogen` in the user's cache folder, created; None if nothing can be written there.

    The user's cache folder is $XDG_CACHE_HOME, or ~/.cache. In a container there may be no home, or
    one that cannot be written.
    """
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if not os.path.isabs(base):  # a user without a home: ~ stays as it is and would become a folder of that name
        return None
    folder = pathlib.Path(base) / "technogen"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        return None


def use_temporary_folders() -> None:
    """Gives numba and matplotlib a temporary folder where the user's cache folder cannot be written.

    Without a folder numba fails when it is imported by librosa. Call it before they are imported.
    Processes that are started later use the same folder; it is deleted at the end of this one.
    """
    missing = {variable: name for variable, name in _VARIABLES.items() if not os.environ.get(variable)}
    if not missing or user_cache_folder() is not None:
        return
    folder = pathlib.Path(tempfile.mkdtemp(prefix="technogen-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for variable, name in missing.items():
        (folder / name).mkdir()
        os.environ[variable] = str(folder / name)
