"""Config files: which file a name means, and the config that it returns."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import pathlib
import re
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ml_collections import ConfigDict

_FOLDER = "configs"  # beside the package in a checkout; installed, it is a package of its own


def load_config(name: str) -> ConfigDict:
    """Returns the config of a file.

    Args:
        name: path of a Python file with `get_config`, and after a colon its argument:
            "configs/technogan.py:xs". A file that is not found is looked for among those that come
            with TechnoGen; "technogan:xs" is enough for them. The file is run as a program.

    Raises:
        ValueError: there is no such file, or it fails, or it does not know the argument.
    """
    path, argument = split_name(name)
    file = _find(path)
    if str(file.parent.parent) not in sys.path:
        sys.path.append(str(file.parent.parent))  # a config imports others: from configs import wavegan
    loader = importlib.machinery.SourceFileLoader(f"technogen_config_{file.stem}", str(file))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    try:
        loader.exec_module(module)
        return module.get_config() if argument is None else module.get_config(argument)
    except ValueError:
        raise
    except Exception as error:  # whatever a user's program raises
        raise ValueError(f"{file}: {type(error).__name__}: {error}") from error


def split_name(name: str) -> tuple[str, str | None]:
    """Returns the path and the argument of a config's name; a colon after a drive letter is the path's."""
    match = re.fullmatch(r"((?:[A-Za-z]:(?=[\\/]))?[^:]*)(?::(.*))?", name, re.DOTALL)
    if not match:
        raise ValueError(f"--config {name}: expected FILE or FILE:ARGUMENT")
    return match[1], match[2]


def shipped_folder() -> pathlib.Path:
    """Returns the folder of the configs that come with TechnoGen."""
    checkout = pathlib.Path(__file__).parents[2] / _FOLDER
    if checkout.is_dir():
        return checkout
    return pathlib.Path(next(iter(importlib.util.find_spec(_FOLDER).submodule_search_locations)))


def _find(path: str) -> pathlib.Path:
    """Returns the file that a path or the name of a shipped config means, absolute."""
    given = pathlib.Path(os.path.expanduser(path))
    if given.is_file():
        return given.absolute()
    shipped = shipped_folder()
    inside = given.parent in (pathlib.Path(), pathlib.Path(_FOLDER))
    if inside and (found := shipped / f"{given.name.removesuffix('.py')}.py").is_file():
        return found
    names = ", ".join(sorted(file.stem for file in shipped.glob("*.py")))
    raise ValueError(f"--config {path}: no such file; expected a Python file, or one of {names}")
