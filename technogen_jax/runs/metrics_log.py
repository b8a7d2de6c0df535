"""The metrics of a run: lines of metrics.jsonl, and the same values as curves for TensorBoard."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib

import numpy as np
import tensorboardX

from technogen_jax.common import atomic_files, distributed, json_files

METRICS_FILE = "metrics.jsonl"
TENSORBOARD_FOLDER = "tensorboard"


class MetricsLog:
    """Writes the metrics of a run.

    Only the first process writes, in all others every method does nothing.

    Args:
        workdir: the run's folder.
        start: the step from which the run starts or is resumed; later lines of a killed run are
            dropped.
    """

    def __init__(self, workdir: pathlib.Path, start: int):
        self._file = None
        if not distributed.is_first_process():
            return
        path = workdir / METRICS_FILE
        with contextlib.suppress(FileNotFoundError):
            atomic_files.write_text(path, _lines_up_to(path, start))
        self._file = open(path, "a", encoding="utf-8", newline="\n")
        self._tensorboard = tensorboardX.SummaryWriter(
            str(workdir / TENSORBOARD_FOLDER),
            purge_step=start + 1,
            # Without it, two event files that begin in the same second would have the same name.
            filename_suffix=f".{os.getpid()}.{start}",
        )

    def write(self, step: int, values: dict[str, float]) -> None:
        """Appends one line, and one point to each curve."""
        if self._file is None:
            return
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._tensorboard.add_scalar(name, value, step)

    def write_preview(self, step: int, name: str, clip: np.ndarray, rate_hz: int, image: np.ndarray) -> None:
        """Adds a clip `[T, C]` and its picture `[H, W, 3]` to TensorBoard."""
        if self._file is None:
            return
        self._tensorboard.add_audio(name, clip, step, rate_hz)
        self._tensorboard.add_image(name, image, step, dataformats="HWC")

    def close(self) -> None:
        """Closes both files."""
        if self._file is None:
            return
        self._file.close()
        with contextlib.suppress(OSError):  # a full disk: the command reports it already
            self._tensorboard.close()


def _lines_up_to(path: pathlib.Path, step: int) -> list[str]:
    """Returns the complete lines of a metrics file up to a step."""
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError):  # a killed run may leave half a line
            if json_files.parse(line)["step"] <= step:
                kept.append(line + "\n")
    return kept
