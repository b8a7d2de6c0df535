"""The models and runs that the page shows: opened in the background, one after the other."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import threading
from collections.abc import Callable, Sequence
from typing import Any

from technogen_jax.app import effects, sounds
from technogen_jax.common import command_line
from technogen_jax.runs.checkpoints import CHECKPOINTS_FOLDER
from technogen_jax.runs.workdir import CONFIG_FILE
from technogen_jax.sampling import generator

SHIPPED = effects.PRETRAINED / "technogan.npz"
LOOK_AGAIN_S = 10.0  # for a run that does not exist or has no checkpoint yet (chosen)
# What is being done with a model, in order; then it is "ready".
READING, COMPILING, READY, FAILED = "reading", "compiling", "ready", "failed"


@dataclasses.dataclass
class Entry:
    """A model or run, and how far it is.

    Attributes:
        name: name that clients use.
        path: workdir or exported file.
        state: `READING`, `COMPILING`, `READY` or `FAILED`.
        why: why it failed, in one line.
        model: the model, if it is ready.
        measured: whether the effects of its directions are known.
    """

    name: str
    path: pathlib.Path
    state: str = READING
    why: str = ""
    model: sounds.PlayableModel | None = None
    measured: bool = False


class Library:
    """The models and runs of one server.

    Args:
        workdirs: workdirs of runs, or exported files; none: the model that comes with TechnoGen.
        step: "latest", "best" or the step of a checkpoint.
        say: takes warnings, a line each.
    """

    def __init__(
        self,
        workdirs: Sequence[str | os.PathLike] = (),
        step: int | str = "latest",
        say: Callable[[str], None] = print,
    ) -> None:
        workdirs = workdirs or [SHIPPED]
        paths = [pathlib.Path(os.path.abspath(path)) for path in workdirs]
        self.entries = [Entry(name, path) for name, path in zip(names_of(workdirs), paths, strict=True)]
        self._step, self._say, self._closed = step, say, threading.Event()

    def start(self) -> None:
        """Opens the models in a thread."""
        threading.Thread(target=self._open_all, name="library", daemon=True).start()

    def close(self) -> None:
        """Opens nothing more."""
        self._closed.set()

    def models(self) -> dict[str, sounds.PlayableModel]:
        """Returns the models that can be played, by name."""
        return {entry.name: entry.model for entry in self.entries if entry.model}

    def runs(self) -> dict[str, pathlib.Path]:
        """Returns the workdirs whose training can be shown, by name."""
        return {entry.name: entry.path for entry in self.entries if (entry.path / CONFIG_FILE).is_file()}

    def describe(self) -> list[dict[str, Any]]:
        """Returns what the page needs to know about each model and run."""
        return [_describe(entry) for entry in self.entries]

    def open(self, entry: Entry) -> None:
        """Opens a model: reads it, compiles its programs, and says so in its state."""
        entry.state = READING
        try:
            trained = generator.load(entry.path, self._step)
            entry.state = COMPILING
            model = sounds.without_directions(entry.name, trained)
            sounds.loop_of(sounds.Sound(model, sounds.Recipe(0)))
        except Exception as error:
            why = command_line.explain(error)
            if why is None and not isinstance(error, RuntimeError):
                raise
            entry.state, entry.why = FAILED, " ".join((why or str(error)).split())[:300]
            return
        entry.model, entry.state, entry.why = model, READY, ""

    def _open_all(self) -> None:
        for entry in self.entries:
            self.open(entry)
            if entry.state == FAILED:
                self._say(f"warning: {entry.why}")
        if not self.models() and not self.runs():
            self._say("warning: none of these can be played; this is the model that comes with TechnoGen")
            self.entries.append(Entry("technogan (comes with TechnoGen)", SHIPPED))
            self.open(self.entries[-1])
        while not self._closed.is_set():
            for entry in self.entries:
                if entry.model and not entry.measured and not self._closed.is_set():
                    controls = effects.find(entry.model.trained)
                    entry.model = entry.model._replace(directions=controls.directions, effects=controls.effects)
                    entry.measured = True
            waiting = [entry for entry in self.entries if entry.state == FAILED]
            if not waiting or self._closed.wait(LOOK_AGAIN_S):
                return
            for entry in waiting:
                if entry.path.is_file() or (entry.path / CHECKPOINTS_FOLDER).is_dir():
                    self.open(entry)


def names_of(workdirs: Sequence[str | os.PathLike]) -> list[str]:
    """Returns a unique name for each path: its last part, with a number if that name is taken."""
    names = []
    for workdir in workdirs:
        stem = pathlib.Path(os.path.abspath(workdir)).stem
        taken = sum(name == stem or name.startswith(f"{stem} (") for name in names)
        names.append(f"{stem} ({taken + 1})" if taken else stem)
    return names


def _describe(entry: Entry) -> dict[str, Any]:
    about = {"name": entry.name, "state": entry.state, "why": entry.why}
    if not entry.model:
        return about
    gan, bpm = entry.model.trained.gan, entry.model.bpm
    return about | {
        "step": entry.model.trained.step,
        "classes": list(gan.classes),
        "effects": [list(ends) for ends in entry.model.effects],
        "measured": entry.measured,
        "bpm": bpm,
        "tempo": [share * bpm for share in sounds.TEMPO_SHARES] if bpm else None,
        "bars": gan.endless.bars if gan.endless else None,
    }
