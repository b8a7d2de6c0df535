"""Stages: a model's work on the training dataset, done once before the first step of a run.

Each stage takes the statistics that the stages before it returned, and returns statistics with its
own results. The trainer runs the stages of a model in order, in one process, with a progress line
for each; what the last one returns is written to statistics.npz in the workdir and passed to the
model's `build`. `Model.measure` is always the first stage; `Model.stages` in the registry lists the
others.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from technogen_jax.common.config_fields import Section
from technogen_jax.common.run_config import AudioConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageInput:
    """What a stage is given.

    Attributes:
        config: the model's fields.
        audio: rate, channels and length of the clips.
        seed: the seed of the run.
        clips: the records of the training split; each has its int16 audio `[T, C]` under "audio".
        statistics: what the stages before returned.
        state_path: a file in which the stage may keep its state, to resume from it after it was
            interrupted. It is deleted when all stages are done.
        on_progress: takes the number of units of work done since the last call; it raises where a
            signal stops the run.
    """

    config: Section
    audio: AudioConfig
    seed: int
    clips: Sequence[dict[str, Any]]
    statistics: dict[str, np.ndarray]
    state_path: pathlib.Path
    on_progress: Callable[[int], object]


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        name: what it does, for the progress line: "training the shaper of the codec".
        unit: what its progress counts: "steps".
        count_units: (config, audio, number of clips) -> units of work; 0 skips the stage.
        run: does the work and returns the statistics with its results.
        state_file: name of `StageInput.state_path` in the workdir; "" for a stage that keeps no
            state.
    """

    name: str
    unit: str
    count_units: Callable[[Section, AudioConfig, int], int]
    run: Callable[[StageInput], dict[str, np.ndarray]]
    state_file: str = ""


def spread_over(clips: int, audio: AudioConfig, seconds: float | None) -> list[int]:
    """Returns indices of clips from all over a dataset, so many that they last that long; all of them for None."""
    count = clips if seconds is None else math.ceil(seconds * audio.sample_rate_hz / audio.clip_samples)
    return np.linspace(0, clips - 1, min(clips, count)).astype(int).tolist()
