"""Work on the dataset before the first step: the model's stages, and encoding the dataset.

The first process does it when a run first starts; the results stay in the workdir, from which all
processes read them.
"""

from __future__ import annotations

import pathlib
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from technogen_jax import models
from technogen_jax.data import batching
from technogen_jax.data.clip_source import ClipSource
from technogen_jax.models import registry
from technogen_jax.models.stages import Stage, StageInput, spread_over
from technogen_jax.runs import encoded_dataset
from technogen_jax.runs.workdir import STATISTICS_FILE, read_statistics, write_statistics
from technogen_jax.training import signals

_ENCODING = "encoding the dataset, once for the whole run"


class Numbering:
    """Numbers the work that a run does before its first step, as in "2 of 4: encoding the dataset".

    Args:
        total: how much there is to do.
    """

    def __init__(self, total: int):
        self._total, self._number = total, 0

    def next(self, what: str) -> str:
        """Returns the text for what is done next."""
        self._number += 1
        return what if self._total == 1 else f"{self._number} of {self._total}: {what}"


def count_stages(config: ConfigDict, workdir: pathlib.Path, clips: ClipSource, encode_once: bool) -> int:
    """Returns how many stages are left to run, encoding the dataset included."""
    model = models.find(config)
    if model.measure is None or (workdir / STATISTICS_FILE).exists():
        statistics = read_statistics(workdir) if model.measure else None
        path = encoded_dataset.find_path(workdir, config, clips.manifest, statistics)
        return int(encode_once and not path.exists())
    fields, audio = registry.read_config(config)
    stages = [stage for stage in _list_stages(config) if stage.count_units(fields, audio, len(clips))]
    return len(stages) + encode_once


def run_stages(
    config: ConfigDict,
    workdir: pathlib.Path,
    clips: ClipSource,
    stop: threading.Event,
    numbering: Numbering | None = None,
) -> models.Statistics | None:
    """Runs the stages of the model in order, unless the workdir has their result already.

    Args:
        config: the config of the run.
        workdir: the run's folder.
        clips: the clips of the training split.
        stop: is set by a signal.
        numbering: numbers the stages in the progress lines; None: they are not numbered.

    Returns:
        The statistics that the last stage returned; None for a model without stages.

    Raises:
        StoppedError: a signal came. Results of finished stages are lost; a stage that keeps its
            state resumes.
    """
    model = models.find(config)
    if model.measure is None:
        return None
    numbering = numbering or Numbering(1)
    stages = _list_stages(config)

    def run_all() -> None:
        if (workdir / STATISTICS_FILE).exists():
            return
        fields, audio = registry.read_config(config)
        statistics = {}
        for stage in stages:
            total = stage.count_units(fields, audio, len(clips))
            if not total:
                continue
            with signals.stoppable_progress(numbering.next(stage.name), total, stage.unit, stop) as advance:
                given = StageInput(
                    config=fields,
                    audio=audio,
                    seed=config.seed,
                    clips=clips,
                    statistics=statistics,
                    state_path=workdir / stage.state_file,
                    on_progress=advance,
                )
                statistics = stage.run(given)
        write_statistics(workdir, statistics)
        for stage in stages:
            if stage.state_file:
                (workdir / stage.state_file).unlink(missing_ok=True)

    signals.run_in_first_process(run_all)
    return read_statistics(workdir)


def _list_stages(config: ConfigDict) -> list[Stage]:
    model = models.find(config)

    def measure(given: StageInput) -> models.Statistics:
        chosen = _Chosen(given.clips, spread_over(len(given.clips), given.audio, model.measured_s))
        return models.measure(config, batching.iterate_in_order(chosen, given.on_progress))

    def count(fields: Any, audio: Any, clips: int) -> int:
        return len(spread_over(clips, audio, model.measured_s))

    what = "measuring the dataset" if model.measured_s is None else "measuring part of the dataset, for the codec"
    return [Stage(what, "clips", count, measure), *model.stages]


class _Chosen(Sequence):
    """Some clips of a source, each read when it is used."""

    def __init__(self, clips: Sequence[dict[str, Any]], indices: list[int]):
        self._clips, self._indices = clips, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._clips[self._indices[index]]


def encode_dataset(
    config: ConfigDict,
    workdir: pathlib.Path,
    gan: models.GAN,
    clips: ClipSource,
    statistics: models.Statistics | None,
    stop: threading.Event,
    numbering: Numbering | None = None,
) -> np.ndarray:
    """Encodes the dataset, unless the workdir has the file already; for models with `encode_once`.

    Args:
        config: the config of the run.
        workdir: the run's folder.
        gan: the model.
        clips: the clips of the training split.
        statistics: from `run_stages`.
        stop: is set by a signal.
        numbering: as for `run_stages`.

    Returns:
        `[clips, ...]`, mapped from the file.

    Raises:
        StoppedError: a signal came.
    """
    path = encoded_dataset.find_path(workdir, config, clips.manifest, statistics)
    numbering = numbering or Numbering(1)

    def encode() -> None:
        if not path.exists():
            with signals.stoppable_progress(numbering.next(_ENCODING), len(clips), "clips", stop) as advance:
                encoded_dataset.write(path, gan, clips, config.audio.clip_samples, advance)

    signals.run_in_first_process(encode)
    return encoded_dataset.read(path)
