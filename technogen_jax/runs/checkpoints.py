"""Checkpoints of a run, written by Orbax in the background, with a checksum of every file.

A checkpoint is a folder `checkpoints/STEP` with the items

    params         of both networks
    ema            averaged parameters of the generator: all that generating sound needs
    optimizer      states of both optimizers, and the step
    metrics        the score, if the step was evaluated
    checksums.json of all files of these items

Orbax writes under a temporary name and renames the folder at the end; the next run deletes what a
killed one left half written. The checksums detect damage of the disk: Orbax alone would restore
wrong numbers without an error.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers

from technogen_jax.common import atomic_files, distributed, json_files
from technogen_jax.runs.workdir import CHECKPOINTS_FOLDER, WorkdirError, read_json_or_none

DAMAGED_FOLDER = "damaged"  # damaged checkpoints are moved there
CHECKSUMS_FILE = "checksums.json"
ITEMS = ("params", "ema", "optimizer")


class DamagedError(WorkdirError):
    """A checkpoint whose files are not what was saved."""


class DeletedError(WorkdirError):
    """A checkpoint that a training deleted while it was read."""


class Checkpoints:
    """The checkpoints of a workdir, a context manager: its end waits until all are written.

    The checkpoint with the smallest metric is always kept.

    Args:
        workdir: the run's folder.
        keep_last: the count of newest checkpoints that are kept.
        keep_every: checkpoints of steps that are multiples of it are never deleted; 0 for none.
        read_only: nothing is written or deleted; for commands that only generate sound.
    """

    def __init__(self, workdir, *, keep_last: int = 3, keep_every: int = 0, read_only: bool = False):
        self.folder = pathlib.Path(os.path.abspath(workdir)) / CHECKPOINTS_FOLDER
        policies = [
            checkpoint_managers.LatestN(keep_last),
            # Orbax keeps the end of a list that it sorts; in reverse order the smallest is there.
            checkpoint_managers.BestN(get_metric_fn=_metric, reverse=True, n=1, keep_checkpoints_without_metrics=False),
        ]
        if keep_every:
            policies.append(checkpoint_managers.EveryNSteps(keep_every))
        self._unscored = [path for path in self.folder.glob("*/metrics/metrics") if not _is_whole(path)]
        if read_only and self._unscored:  # Orbax would fail to open the folder
            raise WorkdirError(f"{self._unscored[0]}: damaged; delete the folder it is in, which contains only a score")
        if not read_only and distributed.is_first_process():
            for path in self._unscored:
                shutil.rmtree(path.parent)
            for leftover in self.folder.glob("*.orbax-checkpoint-tmp*"):  # Orbax deletes them too, at some later time
                shutil.rmtree(leftover)
        self._manager = ocp.CheckpointManager(
            self.folder,
            item_handlers={name: ocp.StandardCheckpointHandler() for name in ITEMS},
            options=ocp.CheckpointManagerOptions(
                preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies),
                best_fn=_metric,  # without it Orbax does not store the metrics
                best_mode="min",
                create=not read_only,
                # One process calls it when all have finished writing, before the folder is renamed.
                async_options=ocp.AsyncOptions(post_finalization_callback=self._write_checksums),
            ),
        )

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind, *_) -> None:
        try:
            with self._writing():
                self._manager.close()
        except WorkdirError:
            if kind is None:  # else the first error is the one to report
                raise

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # Orbax and TensorStore raise all sorts, in the background too
            steps = ", ".join(map(str, self.steps())) or "none"
            raise WorkdirError(
                f"{self.folder}: a checkpoint could not be written ({' '.join(str(error).split())[:200]}); whole ones: {steps}"
            ) from error

    def save(self, state: Any, metric: float | None = None) -> None:
        """Saves the state under its step, in the background.

        Does nothing if that step is saved already.

        Args:
            state: the state of the run.
            metric: the score of this state, smaller is better; None if it was not evaluated.

        Raises:
            WorkdirError: this checkpoint, or the one before, could not be written.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        items = {name: ocp.args.StandardSave(tree) for name, tree in _items(state).items()}
        metrics = None if metric is None else {"metric": float(metric)}
        with self._writing():
            self._manager.save(step, args=ocp.args.Composite(**items), metrics=metrics, force=True)

    def wait(self) -> None:
        """Returns when everything that was saved is on disk."""
        with self._writing():
            self._manager.wait_until_finished()

    def steps(self) -> list[int]:
        """Returns the steps that have a checkpoint, in order."""
        return sorted(self._manager.all_steps())

    def best_step(self) -> int | None:
        """Returns the step with the smallest metric; None if no step was evaluated."""
        metrics = {step: self._manager.metrics(step) for step in self.steps()}
        scored = {step: _metric(value) for step, value in metrics.items() if value}
        return min(scored, key=lambda step: (scored[step], -step)) if scored else None

    def newest(self, like: Any, say: Callable[[str], None]) -> Any | None:
        """Restores the newest undamaged state; None if there are no checkpoints.

        Damaged checkpoints are moved to the folder `damaged` of the workdir.

        Args:
            like: a state of the same shape, whose placement on devices is used.
            say: prints a line for the user about each damaged checkpoint.

        Raises:
            WorkdirError: all are damaged, or the newest has another shape.
        """
        for path in self._unscored:
            say(f"{path}: damaged, and deleted; this checkpoint counts as not evaluated")
        steps = self.steps()
        for step in reversed(steps):
            try:
                return self.restore(step, like)
            except DamagedError as error:
                say(f"{error}. It goes to {self.folder.parent / DAMAGED_FOLDER}, and an earlier one is used")
                self._set_aside(step)
        if steps:
            raise WorkdirError(
                f"{self.folder}: none of its checkpoints can be restored; bring back a copy of the workdir, or train into another"
            )
        return None

    def restore(self, step: int, like: Any) -> Any:
        """Restores the state of a step, placed on devices as `like` is.

        Raises:
            DamagedError: its files are not what was saved.
            WorkdirError: it is missing, or has another shape.
        """
        items = self._restore(step, _items(like))
        return items["optimizer"]._replace(params=items["params"], ema=items["ema"])

    def restore_weights(self, step: int, like: Any) -> Any:
        """Returns `like` with the parameters and averages of a step.

        Its own step and optimizer states stay.

        Raises:
            WorkdirError: as `restore`.
        """
        return like._replace(**self._restore(step, {"params": like.params, "ema": like.ema}))

    def restore_ema(self, step: int, like: Any) -> Any:
        """Restores the averaged generator parameters of a step; `like` may contain shapes only.

        Raises:
            WorkdirError: as `restore`.
        """
        return self._restore(step, {"ema": like})["ema"]

    def _restore(self, step: int, like: dict[str, Any]) -> dict[str, Any]:
        if step not in self._manager.all_steps():
            there = ", ".join(map(str, self.steps())) or "none"
            raise WorkdirError(f"{self.folder}: no checkpoint of step {step}; there are: {there}")
        if changed := _changed_file(self.folder / str(step)):
            self._check_exists(step)
            raise DamagedError(self._damage(step, f"{changed} is not as it was written"))
        try:
            found = self._manager.item_metadata(step)
            for name, tree in like.items():
                _check_shapes(f"{self.folder / str(step)}: {name}", found[name], tree)
            abstract = {name: jax.tree.map(ocp.utils.to_shape_dtype_struct, tree) for name, tree in like.items()}
            args = {name: ocp.args.StandardRestore(tree) for name, tree in abstract.items()}
            restored = self._manager.restore(step, args=ocp.args.Composite(**args))
        except WorkdirError:
            raise
        except Exception as error:  # Orbax and TensorStore raise many types on damaged files
            self._check_exists(step)
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            raise DamagedError(self._damage(step, reason)) from error
        return {name: restored[name] for name in like}

    def _check_exists(self, step: int) -> None:
        if not (self.folder / str(step)).exists():
            raise DeletedError(f"{self.folder}: the training deleted the checkpoint of step {step} while it was read")

    def _write_checksums(self) -> None:
        """Writes the checksums into a checkpoint before it gets its final name."""
        for folder in self.folder.glob("*.orbax-checkpoint-tmp*"):
            # Files beside the items are notes of Orbax: they still change, and nothing is restored
            # from them.
            files = (path.relative_to(folder).as_posix() for path in sorted(folder.glob("*/**/*")) if path.is_file())
            checksums = {name: _checksum(folder / name) for name in files}
            atomic_files.write_text(folder / CHECKSUMS_FILE, _as_text(checksums))

    def _set_aside(self, step: int) -> None:
        """Moves a damaged checkpoint away, so that its step can be saved again."""
        multihost_utils.sync_global_devices("all processes have read it")
        if distributed.is_first_process():
            aside = self.folder.parent / DAMAGED_FOLDER
            aside.mkdir(exist_ok=True)
            shutil.rmtree(aside / str(step), ignore_errors=True)
            os.replace(self.folder / str(step), aside / str(step))
        multihost_utils.sync_global_devices("it is moved away")
        self._manager.reload()

    def _damage(self, step: int, what: str) -> str:
        others = (other for other in reversed(self.steps()) if other != step)
        whole = next((other for other in others if not _changed_file(self.folder / str(other))), "none")
        return f"{self.folder / str(step)}: damaged ({what}); the newest whole checkpoint is that of step {whole}"


def _items(state: Any) -> dict[str, Any]:
    return {"params": state.params, "ema": state.ema, "optimizer": state._replace(params=None, ema=None)}


def _changed_file(folder: pathlib.Path, items: Iterable[str] = ITEMS) -> str | None:
    """Returns a file that differs from its checksum, of those that belong to the items, or None.

    Versions before the checksums wrote checkpoints without them.
    """
    try:
        text = (folder / CHECKSUMS_FILE).read_text(encoding="ascii")
        checksums = json_files.parse(text)["files"]
        if _as_text(checksums) != text or any(".." in name.split("/") for name in checksums):
            return CHECKSUMS_FILE
        for name, checksum in checksums.items():
            if name.split("/")[0] in items and not ((folder / name).is_file() and _checksum(folder / name) == checksum):
                return name
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return CHECKSUMS_FILE
    return None


def _checksum(path: pathlib.Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _as_text(checksums: dict[str, str]) -> str:
    own = hashlib.sha256(json.dumps(checksums).encode()).hexdigest()
    return json.dumps({"files": checksums, "sha256": own}, indent=1) + "\n"


def _metric(metrics: dict[str, float]) -> float:
    return metrics["metric"]


def _is_whole(metrics: pathlib.Path) -> bool:
    changed = (_changed_file(metrics.parents[1], [metrics.parent.name]) or "").startswith(metrics.parent.name)
    return not changed and isinstance((read_json_or_none(metrics) or {}).get("metric"), float)


def _check_shapes(where: str, found: Any, wanted: Any) -> None:
    """Raises if the arrays of a checkpoint do not have the model's shapes.

    The message of Orbax is pages long.
    """

    def shapes(tree):
        leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
        return {_name(path): tuple(np.shape(leaf) or getattr(leaf, "shape", ())) for path, leaf in leaves}

    found, wanted = shapes(getattr(found, "tree", found)), shapes(wanted)
    for name in sorted(found.keys() | wanted.keys()):
        if found.get(name) != wanted.get(name):
            raise WorkdirError(
                f"{where}: expected {name} {wanted.get(name, 'not to be there')}, found {found.get(name, 'nothing')}: "
                "the config describes another model than the one that was trained"
            )


def _name(path) -> str:
    return "/".join(str(getattr(part, "key", getattr(part, "name", getattr(part, "idx", part)))) for part in path)
