"""A run's folder, the workdir: its lock, its config, and the identity and statistics of its dataset."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import socket
from collections.abc import Iterator
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from technogen_jax import models
from technogen_jax.common import array_files, atomic_files, config_fields, json_files
from technogen_jax.data.manifest import Manifest

CONFIG_FILE = "config.json"
DATA_FILE = "data.json"
STATISTICS_FILE = "statistics.npz"
LOCK_FILE = ".lock"  # names the process that trains in the workdir
CHECKPOINTS_FOLDER = "checkpoints"  # one folder for each step
SAMPLES_FOLDER = "samples"  # previews: generated clips of fixed latents, by step


class WorkdirError(ValueError):
    """A workdir, checkpoint or exported generator is missing, damaged, or of another model."""


def write_config(workdir: str | os.PathLike, config: ConfigDict) -> None:
    """Writes config.json, whole or not at all."""
    text = json.dumps(config.to_dict(), indent=1) + "\n"
    atomic_files.write_text(pathlib.Path(workdir) / CONFIG_FILE, text)


def read_config(workdir: str | os.PathLike) -> ConfigDict:
    """Reads the config of a run, with every field.

    A field that is missing is newer than the run and has its default.

    Raises:
        WorkdirError: config.json is missing or unreadable.
    """
    path = pathlib.Path(workdir) / CONFIG_FILE
    try:
        content = json_files.read(path)
        if not isinstance(content, dict):
            raise ValueError(f"expected an object, got {type(content).__name__}")
        content = config_fields.rename_old_fields(content)
        models.add_missing_fields(content)
        config = ConfigDict(content).lock()
        models.check_values(config, complete=True)
        return config
    except FileNotFoundError:
        raise WorkdirError(f"{path}: not found; expected the folder given to `technogen_jax.train --workdir`") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
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


@contextlib.contextmanager
def claim_workdir(workdir: pathlib.Path, config: ConfigDict, manifest: Manifest) -> Iterator[None]:
    """Makes a folder the workdir of a run, and keeps other trainings out of it.

    Only one process of a run may call it. The lock ends with the process, however it ends. On a
    file system without locks, and on Windows, there is none.

    As long as the workdir has no checkpoint, a run with another config or dataset may take it: what
    an earlier attempt measured of its dataset is then deleted.

    Args:
        workdir: the folder; created if it is missing.
        config: the config of the run.
        manifest: the manifest of its training dataset.

    Raises:
        WorkdirError: another process trains in it; or it belongs to a run with another config or
            dataset, or contains other files.
    """
    _check_folder(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    with _locked(workdir):
        if (workdir / CONFIG_FILE).exists():
            _check_same_run(workdir, config, manifest)
        # The config first: with it the folder is recognized as a run, even if the process is killed
        # right after.
        write_config(workdir, config)
        identity = {"fingerprint": manifest.fingerprint, "labels": manifest.labels}
        atomic_files.write_text(workdir / DATA_FILE, json.dumps(identity, indent=1) + "\n")
        yield


def has_checkpoint(workdir: str | os.PathLike) -> bool:
    """Whether a training in this folder has saved anything, damaged or not."""
    return any(path.name.isdecimal() for path in pathlib.Path(workdir).glob(f"{CHECKPOINTS_FOLDER}/*"))


def keep_older_behaviour(workdir: pathlib.Path, config: ConfigDict) -> tuple[ConfigDict, list[str]]:
    """Returns the config with which a run goes on that began before some of its fields existed.

    Such a field gets its default, with which the program does what it did before. So a config file
    that gained a field still resumes an older run.

    Args:
        workdir: the run's folder.
        config: the config that was given.

    Returns:
        The config, and the dotted names of the fields that were changed.
    """
    content = read_json_or_none(workdir / CONFIG_FILE)
    if not isinstance(content, dict) or not has_checkpoint(workdir):
        return config, []
    content = config_fields.rename_old_fields(content)
    newer = models.add_missing_fields(content)
    changed = [name for name in models.differences(ConfigDict(content), _as_json(config)) if name in newer]
    config = config.copy_and_resolve_references()
    with config.ignore_type():
        for name in changed:
            *sections, field = name.split(".")
            section = config[sections[0]] if sections else config
            section[field] = config_fields.value(ConfigDict(content), name)
    return config, changed


def _check_folder(workdir: pathlib.Path) -> None:
    """Raises if the folder is there and is no workdir."""
    if not workdir.exists() or (workdir / CONFIG_FILE).exists():
        return
    if not workdir.is_dir() or set(os.listdir(workdir)) - {f".{CONFIG_FILE}.tmp", LOCK_FILE}:
        raise WorkdirError(f"--workdir {workdir}: contains files but no {CONFIG_FILE}; name an empty or a new folder")


@contextlib.contextmanager
def _locked(workdir: pathlib.Path) -> Iterator[None]:
    handle = os.open(workdir / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if not atomic_files.lock(handle):
            holder = os.read(handle, 200).decode("utf-8", "replace").strip() or "another process"
            raise WorkdirError(
                f"--workdir {workdir}: {holder} is training in it; wait for its end, or name another --workdir"
            )
        os.ftruncate(handle, 0)
        os.write(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield
    finally:
        os.close(handle)


def _check_same_run(workdir: pathlib.Path, config: ConfigDict, manifest: Manifest) -> None:
    """Raises if an existing run differs in what decides the result.

    If it has no checkpoint, deletes what its stages computed instead.
    """
    old, new = read_config(workdir), _as_json(config)
    identity = read_json_or_none(workdir / DATA_FILE)
    same_data = identity is None or identity.get("fingerprint") == manifest.fingerprint
    changed = models.differences(old, new)
    if not changed and same_data:
        return
    if not has_checkpoint(workdir):
        for path in workdir.glob("*.npz"):  # the results of stages; encoded clips are recognized by their hash
            path.unlink()
        return
    if changed:
        field = changed[0]
        before, now = config_fields.value(old, field), config_fields.value(new, field)
        raise WorkdirError(
            f"{workdir} was begun with config.{field} = {before!r}, now it is {now!r}; set it to the old value, "
            "or name another --workdir (--config.train.init_from starts from this one's weights)"
        )
    raise WorkdirError(
        f"{workdir} was begun on another dataset than the one in {config.data.dir} (its tracks or the options of "
        "data_prep.prepare differ); name that dataset, or another --workdir"
    )


def _as_json(config: ConfigDict) -> ConfigDict:
    """Returns the config as it would be read from config.json."""
    return ConfigDict(json.loads(json.dumps(config.to_dict())))


def check_dataset(
    name: str | os.PathLike, fingerprint: str | None, data: str | os.PathLike, manifest: Manifest
) -> None:
    """Checks that a dataset is the one that a generator was trained on.

    Args:
        name: the run or exported file, for the message.
        fingerprint: of its training dataset; None: not known, so that every dataset passes.
        data: the dataset's folder, for the message.
        manifest: of the dataset.

    Raises:
        WorkdirError: it is another one, or was prepared anew with another split.
    """
    if fingerprint is not None and fingerprint != manifest.fingerprint:
        raise WorkdirError(
            f"{data}: is not the dataset that {name} was trained on (other tracks, options or split: its test tracks may have "
            "been trained on); name that dataset, or compare folders of audio with --real and --generated"
        )


def read_json_or_none(path: pathlib.Path) -> Any:
    """Reads a JSON file; None if it is missing or damaged."""
    try:
        return json_files.read(path)
    except (OSError, ValueError):
        return None
