"""Folders in which programs and libraries keep compiled code between runs."""

from __future__ import annotations

import atexit
import importlib.util
import os
import pathlib
import shutil
import tempfile

_VARIABLES = {"NUMBA_CACHE_DIR": "numba", "MPLCONFIGDIR": "matplotlib"}  # folders that libraries cannot do without


def user_cache_folder() -> pathlib.Path | None:
    """Returns the folder `technogen` in the user's cache folder, None if it cannot be written; does not create it.

    The user's cache folder is $XDG_CACHE_HOME, or ~/.cache. In a container there may be no home, or
    one that cannot be written.
    """
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if not os.path.isabs(base):  # a user without a home: ~ stays as it is and would become a folder of that name
        return None
    folder = pathlib.Path(base) / "technogen"
    return folder if is_writable(folder) else None


def is_writable(folder: pathlib.Path) -> bool:
    """Returns whether files can be created in a folder, or the folder can, if it is missing."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def use_temporary_folders() -> None:
    """Gives numba and matplotlib a temporary folder where they have no other.

    Numba keeps compiled code beside the source, or in the user's cache folder. If neither can be
    written it fails while librosa is imported. Call this function before numba, librosa and
    matplotlib are imported. Processes that are started later use the same folder; it is deleted at
    the end of this one.
    """
    missing = {variable: name for variable, name in _VARIABLES.items() if not os.environ.get(variable)}
    if not missing or user_cache_folder() is not None:
        return
    if all(map(is_writable, _compiled_packages())):
        missing.pop("NUMBA_CACHE_DIR", None)  # and code that was compiled before is found
    folder = pathlib.Path(tempfile.mkdtemp(prefix="technogen-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for variable, name in missing.items():
        (folder / name).mkdir()
        os.environ[variable] = str(folder / name)


def _compiled_packages() -> list[pathlib.Path]:
    """Returns the folders of the packages that have code for numba."""
    specs = map(importlib.util.find_spec, ("librosa", "technogen_jax", "data_prep"))
    return [pathlib.Path(spec.origin).parent for spec in specs if spec is not None]
