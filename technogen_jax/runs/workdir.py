"""A run's folder, the workdir: its config, and the identity and statistics of its dataset."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from technogen_jax import models
from technogen_jax.common import array_files, atomic_files, config_fields
from technogen_jax.data.manifest import Manifest

CONFIG_FILE = "config.json"
DATA_FILE = "data.json"
STATISTICS_FILE = "statistics.npz"
SAMPLES_FOLDER = "samples"  # previews: generated clips of fixed latents, by step


class WorkdirError(ValueError):
    """A workdir, checkpoint or exported generator is missing, damaged, or of another model."""


def write_config(workdir: str | os.PathLike, config: ConfigDict) -> None:
    """Writes config.json, whole or not at all."""
    text = json.dumps(config.to_dict(), indent=1) + "\n"
    atomic_files.write_text(pathlib.Path(workdir) / CONFIG_FILE, text)


def read_config(workdir: str | os.PathLike) -> ConfigDict:
    """Reads the config of a run, with every field.

    Raises:
        WorkdirError: config.json is missing or unreadable.
    """
    path = pathlib.Path(workdir) / CONFIG_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"expected an object, got {type(content).__name__}")
        return ConfigDict(config_fields.rename_old_fields(content)).lock()
    except FileNotFoundError:
        raise WorkdirError(f"{path}: not found; expected the folder given to `technogen_jax.train --workdir`") from None
    except (OSError, ValueError) as error:
        raise WorkdirError(f"{path}: unreadable ({error}); copy it anew, or train into another workdir") from error


def write_statistics(workdir: str | os.PathLike, statistics: dict[str, np.ndarray]) -> None:
    """Writes statistics.npz, what a model measured of its training dataset, whole or not at all."""
    array_files.write(pathlib.Path(workdir) / STATISTICS_FILE, statistics)


def read_statistics(workdir: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads what a model measured of its training dataset.

    Raises:
        WorkdirError: statistics.npz is missing or unreadable.
    """
    path = pathlib.Path(workdir) / STATISTICS_FILE
    try:
        return array_files.read(path)
    except FileNotFoundError:
        raise WorkdirError(
            f"{path}: not found; this model cannot decode audio without the statistics of its training dataset, which "
            "`technogen_jax.train` wrote there; copy the whole workdir"
        ) from None
    except (OSError, ValueError) as error:
        raise WorkdirError(f"{error}, by deleting it and training on") from error


def claim_workdir(workdir: pathlib.Path, config: ConfigDict, manifest: Manifest) -> None:
    """Creates the workdir of a run, or checks that an existing one belongs to the same run.

    Only one process of a run may call it.

    Args:
        workdir: the folder; created if it is missing.
        config: the config of the run.
        manifest: the manifest of its training dataset.

    Raises:
        WorkdirError: the folder belongs to a run with another config or dataset, or contains other
            files.
    """
    if (workdir / CONFIG_FILE).exists():
        _check_same_run(workdir, config, manifest)
    elif workdir.exists() and (not workdir.is_dir() or set(os.listdir(workdir)) - {f".{CONFIG_FILE}.tmp"}):
        raise WorkdirError(f"--workdir {workdir}: holds files but no {CONFIG_FILE}; name an empty or a new folder")
    workdir.mkdir(parents=True, exist_ok=True)
    # The config first: with it the folder is recognized as a run, even if the process is killed
    # right after.
    write_config(workdir, config)
    identity = {"fingerprint": manifest.fingerprint, "labels": manifest.labels}
    atomic_files.write_text(workdir / DATA_FILE, json.dumps(identity, indent=1) + "\n")


def _check_same_run(workdir: pathlib.Path, config: ConfigDict, manifest: Manifest) -> None:
    """Raises if the config or the dataset of an existing run differ in what decides the result."""
    old, new = read_config(workdir), ConfigDict(json.loads(json.dumps(config.to_dict())))
    if field := models.first_difference(old, new):
        before, now = config_fields.value(old, field), config_fields.value(new, field)
        raise WorkdirError(
            f"{workdir} was begun with config.{field} = {before!r}, now it is {now!r}; go on with the old value, "
            "or name another --workdir (--config.train.init_from starts from this one's weights)"
        )
    identity = read_json_or_none(workdir / DATA_FILE)
    if identity is not None and identity.get("fingerprint") != manifest.fingerprint:
        raise WorkdirError(
            f"{workdir} was begun on another dataset than the one in {config.data.dir} (its tracks or the options of "
            "data_prep.prepare differ); name that dataset, or another --workdir"
        )


def read_json_or_none(path: pathlib.Path) -> Any:
    """Reads a JSON file; None if it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
