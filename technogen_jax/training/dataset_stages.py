"""Work on the dataset before the first step: the model's stages, and encoding the dataset.

The first process does it when a run first starts; the results stay in the workdir, from which all
processes read them.
"""

from __future__ import annotations

import pathlib
import threading

import numpy as np
from ml_collections import ConfigDict

from technogen_jax import models
from technogen_jax.data import batching
from technogen_jax.data.clip_source import ClipSource
from technogen_jax.models import registry
from technogen_jax.models.stages import Stage, StageInput
from technogen_jax.runs import encoded_dataset
from technogen_jax.runs.workdir import STATISTICS_FILE, read_statistics, write_statistics
from technogen_jax.training import signals


def run_stages(
    config: ConfigDict, workdir: pathlib.Path, clips: ClipSource, stop: threading.Event
) -> models.Statistics | None:
    """Runs the stages of the model in order, unless the workdir has their result already.

    Args:
        config: the config of the run.
        workdir: the run's folder.
        clips: the clips of the training split.
        stop: is set by a signal.

    Returns:
        The statistics that the last stage returned; None for a model without stages.

    Raises:
        StoppedError: a signal came. Results of finished stages are lost; a stage that keeps its
            state resumes.
    """
    model = models.find(config)
    if model.measure is None:
        return None
    stages = [_measure_stage(config), *model.stages]

    def run_all() -> None:
        if (workdir / STATISTICS_FILE).exists():
            return
        fields, audio = registry.read_config(config)
        statistics = {}
        for stage in stages:
            total = stage.count_units(fields, audio, len(clips))
            if not total:
                continue
            with signals.stoppable_progress(stage.name, total, stage.unit, stop) as advance:
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


def _measure_stage(config: ConfigDict) -> Stage:
    def measure(given: StageInput) -> models.Statistics:
        return models.measure(config, batching.iterate_in_order(given.clips, given.on_progress))

    return Stage("measuring the dataset", "clips", lambda fields, audio, clips: clips, measure)


def encode_dataset(
    config: ConfigDict,
    workdir: pathlib.Path,
    gan: models.GAN,
    clips: ClipSource,
    statistics: models.Statistics | None,
    stop: threading.Event,
) -> np.ndarray:
    """Encodes the dataset, unless the workdir has the file already; for models with `encode_once`.

    Args:
        config: the config of the run.
        workdir: the run's folder.
        gan: the model.
        clips: the clips of the training split.
        statistics: from `run_stages`.
        stop: is set by a signal.

    Returns:
        `[clips, ...]`, mapped from the file.

    Raises:
        StoppedError: a signal came.
    """
    path = encoded_dataset.find_path(workdir, config, clips.manifest, statistics)

    def encode() -> None:
        if not path.exists():
            with signals.stoppable_progress("encoding the dataset", len(clips), "clips", stop) as advance:
                encoded_dataset.write(path, gan, clips, config.audio.clip_samples, advance)

    signals.run_in_first_process(encode)
    return encoded_dataset.read(path)
