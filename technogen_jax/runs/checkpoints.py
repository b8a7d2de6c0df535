"""A run's folder: its config, the identity of its data, what its model measured of it, and its checkpoints by Orbax.

A checkpoint is a folder `checkpoints/STEP` with the items `params` (both networks), `ema` (all that making sound needs),
`optimizer` (with the step) and, where the step was evaluated, `metrics`; and `checksums.json` of all their files. Orbax writes
under a temporary name and renames, in the background; what a killed run left half-written is cleared by the next one. What a
disk has changed since is noticed by the checksums: Orbax would restore other numbers without a word.
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

from technogen_jax.common import atomic_files, distributed
from technogen_jax.runs.workdir import WorkdirError, read_json_or_none

CHECKPOINTS_FOLDER = "checkpoints"
DAMAGED_FOLDER = "damaged"  # where checkpoints go that cannot be restored
CHECKSUMS_FILE = "checksums.json"
ITEMS = ("params", "ema", "optimizer")


class DamagedError(WorkdirError):
    """A checkpoint that is there and holds something else than was saved."""


class Checkpoints:
    """The checkpoints of a workdir; a context manager that waits for what is still being written.

    Args:
        workdir: the run's folder.
        keep_last: the newest checkpoints kept.
        keep_every: steps that are multiples of it are kept for ever; 0 for none.
        read_only: nothing is written or cleared, for those who only make sound.

    The checkpoint with the smallest metric is kept besides.
    """

    def __init__(self, workdir, *, keep_last: int = 3, keep_every: int = 0, read_only: bool = False):
        self.folder = pathlib.Path(os.path.abspath(workdir)) / CHECKPOINTS_FOLDER
        policies = [
            checkpoint_managers.LatestN(keep_last),
            # Sorted descending, its tail is the smallest.
            checkpoint_managers.BestN(get_metric_fn=_metric, reverse=True, n=1, keep_checkpoints_without_metrics=False),
        ]
        if keep_every:
            policies.append(checkpoint_managers.EveryNSteps(keep_every))
        self._unscored = [path for path in self.folder.glob("*/metrics/metrics") if not _is_whole(path)]
        if read_only and self._unscored:  # Orbax would not even begin
            raise WorkdirError(
                f"{self._unscored[0]}: damaged; delete the folder it is in, which holds nothing but a score"
            )
        if not read_only and distributed.is_first():
            for path in self._unscored:
                shutil.rmtree(path.parent)
            for leftover in self.folder.glob("*.orbax-checkpoint-tmp*"):  # Orbax' own clearing ends at some later time
                shutil.rmtree(leftover)
        self._manager = ocp.CheckpointManager(
            self.folder,
            item_handlers={name: ocp.StandardCheckpointHandler() for name in ITEMS},
            options=ocp.CheckpointManagerOptions(
                preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies),
                best_fn=_metric,  # without it Orbax would not store the metrics
                best_mode="min",
                create=not read_only,
                # Called by one process, when all have written everything, before the folder gets its name.
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
            if kind is None:  # else what went wrong first is told
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
        """Saves the state under its step, in the background; does nothing if that step is there.

        Args:
            state: of the run.
            metric: of this very state, smaller is better; None if it was not evaluated.

        Raises:
            WorkdirError: it, or the one before, could not be written.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        items = {name: ocp.args.StandardSave(tree) for name, tree in _items(state).items()}
        metrics = None if metric is None else {"metric": float(metric)}
        with self._writing():
            self._manager.save(step, args=ocp.args.Composite(**items), metrics=metrics, force=True)

    def wait(self) -> None:
        """Returns when all that was saved is on disk."""
        with self._writing():
            self._manager.wait_until_finished()

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, in order."""
        return sorted(self._manager.all_steps())

    def best_step(self) -> int | None:
        """The step with the smallest metric, None if none was evaluated."""
        metrics = {step: self._manager.metrics(step) for step in self.steps()}
        scored = {step: _metric(value) for step, value in metrics.items() if value}
        return min(scored, key=lambda step: (scored[step], -step)) if scored else None

    def newest(self, like: Any, say: Callable[[str], None]) -> Any | None:
        """The newest state that is as it was saved, placed as `like` is; None if there are no checkpoints.

        Damaged ones are moved out of the way, into the workdir's `damaged/`.

        Args:
            like: see `restore`.
            say: takes a line for people about each that is damaged.

        Raises:
            WorkdirError: all are damaged, or the newest is of another shape.
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
        """The state of a step, placed on devices as `like` is.

        Raises:
            DamagedError: it holds something else than was saved.
            WorkdirError: it is not there, or of another shape.
        """
        items = self._restore(step, _items(like))
        return items["optimizer"]._replace(params=items["params"], ema=items["ema"])

    def restore_weights(self, step: int, like: Any) -> Any:
        """`like` with the parameters and averages of a step; its own step and optimisers stay.

        Raises:
            WorkdirError: see `restore`.
        """
        return like._replace(**self._restore(step, {"params": like.params, "ema": like.ema}))

    def restore_ema(self, step: int, like: Any) -> Any:
        """The averaged generator parameters of a step; `like` may hold shapes only.

        Raises:
            WorkdirError: see `restore`.
        """
        return self._restore(step, {"ema": like})["ema"]

    def _restore(self, step: int, like: dict[str, Any]) -> dict[str, Any]:
        if step not in self._manager.all_steps():
            there = ", ".join(map(str, self.steps())) or "none"
            raise WorkdirError(f"{self.folder}: no checkpoint of step {step}; there are: {there}")
        if changed := _changed_file(self.folder / str(step)):
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
        except Exception as error:  # Orbax and TensorStore raise all sorts on damaged files
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            raise DamagedError(self._damage(step, reason)) from error
        return {name: restored[name] for name in like}

    def _write_checksums(self) -> None:
        """Of the checkpoint that is being written, within it: so it comes to be with them or not at all."""
        for folder in self.folder.glob("*.orbax-checkpoint-tmp*"):
            # All but a note of Orbax' own, which gets the time when the folder its name, and which nothing is restored by.
            files = (path.relative_to(folder).as_posix() for path in sorted(folder.glob("*/**/*")) if path.is_file())
            checksums = {name: _checksum(folder / name) for name in files}
            atomic_files.write_text(folder / CHECKSUMS_FILE, _as_text(checksums))

    def _set_aside(self, step: int) -> None:
        """Moves a checkpoint out of the way, so that its step can be saved again."""
        multihost_utils.sync_global_devices("all have looked at it")
        if distributed.is_first():
            aside = self.folder.parent / DAMAGED_FOLDER
            aside.mkdir(exist_ok=True)
            shutil.rmtree(aside / str(step), ignore_errors=True)
            os.replace(self.folder / str(step), aside / str(step))
        multihost_utils.sync_global_devices("it is set aside")
        self._manager.reload()

    def _damage(self, step: int, what: str) -> str:
        others = (other for other in reversed(self.steps()) if other != step)
        whole = next((other for other in others if not _changed_file(self.folder / str(other))), "none")
        return f"{self.folder / str(step)}: damaged ({what}); the newest whole checkpoint is that of step {whole}"


def _items(state: Any) -> dict[str, Any]:
    return {"params": state.params, "ema": state.ema, "optimizer": state._replace(params=None, ema=None)}


def _changed_file(folder: pathlib.Path, items: Iterable[str] = ITEMS) -> str | None:
    """A file of these items that is not what its checksum says; None if all are, or an older version wrote no checksums."""
    try:
        text = (folder / CHECKSUMS_FILE).read_text(encoding="ascii")
        checksums = json.loads(text)["files"]
        if _as_text(checksums) != text:
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
    """Raises if a checkpoint's arrays are not those of the model; Orbax' own message is pages long."""

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
