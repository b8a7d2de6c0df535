"""Between steps: metrics, values that are not finite, the time limit, what is due."""

from __future__ import annotations

import dataclasses
import math
import time

import jax
from ml_collections import ConfigDict

from technogen_jax.common import progress
from technogen_jax.runs.checkpoints import Checkpoints
from technogen_jax.training.errors import TrainError
from technogen_jax.training.state import TrainState
from technogen_jax.training.step import all_finite

_MOST_SKIPPED = 100  # chosen: after this many skipped steps in a row, training gives up

Row = dict[str, float]


class MetricsWindow:
    """Collects the metrics of steps, which stay on the devices until `read`.

    Args:
        ahead: dispatches that may be under way before `add` waits for the oldest.
    """

    def __init__(self, ahead: int):
        self._ahead = ahead
        self._dispatches: list[dict[str, jax.Array]] = []
        self._started_s: float | None = None  # None: the window contains the compilation, and its speed means nothing

    def add(self, metrics: dict[str, jax.Array]) -> None:
        """Adds the metrics `[steps]` of one dispatch."""
        self._dispatches.append(metrics)
        if len(self._dispatches) > self._ahead:
            jax.block_until_ready(self._dispatches[-1 - self._ahead])

    def read(self) -> tuple[list[Row], float | None]:
        """Empties the window, waiting for the devices.

        Returns the metrics of each step, and the steps per second.
        """
        rows = [
            dict(zip(metrics, map(float, values), strict=True))
            for metrics in jax.device_get(self._dispatches)
            for values in zip(*metrics.values(), strict=True)
        ]
        speed = None if self._started_s is None else len(rows) / (time.monotonic() - self._started_s)
        self._dispatches.clear()
        self.restart_clock()
        return rows, speed

    def restart_clock(self) -> None:
        """Measures the speed from now on: for after a checkpoint or a preview."""
        self._started_s = time.monotonic()


class NonFiniteGuard:
    """Ends a run at NaN or Inf.

    With train.skip_not_finite only where too many steps in a row were skipped.

    Args:
        skip: train.skip_not_finite.
        checkpoints: the checkpoints of the run; the error names the newest one.
    """

    def __init__(self, skip: bool, checkpoints: Checkpoints):
        self._skip, self._checkpoints = skip, checkpoints
        self._skipped_in_a_row = 0
        self._is_finite = jax.jit(all_finite)

    def select_finite(self, last_step: int, rows: list[Row]) -> list[Row]:
        """Returns the metrics of the steps that were not skipped.

        `last_step` is the step of the last row.

        Raises:
            TrainError: a metric is NaN or Inf.
        """
        finite = []
        for step, row in enumerate(rows, last_step - len(rows) + 1):
            bad = next((name for name, value in row.items() if not math.isfinite(value)), None)
            self._skipped_in_a_row = self._skipped_in_a_row + 1 if bad else 0
            if bad and (not self._skip or self._skipped_in_a_row == _MOST_SKIPPED):
                raise self._error(step, bad, row[bad])
            if not bad:
                finite.append(row)
        return finite

    def check_state(self, step: int, state: TrainState) -> None:
        """Raises a TrainError if the state is not finite: a finite loss can give an overflow."""
        if not self._is_finite(state):
            raise self._error(step, "a parameter or a moment of the optimizer", math.nan)

    def _error(self, step: int, name: str, value: float) -> TrainError:
        self._checkpoints.wait()
        good = self._checkpoints.steps()
        where = "there is no checkpoint yet"
        if good:
            where = f"the last good checkpoint is {self._checkpoints.folder / str(good[-1])}"
        return TrainError(
            f"step {step}: {name} is {value}; {where}. A lower config.optimizer.learning_rate_g and _d may help; "
            "config.train.skip_not_finite skips a few such steps"
        )


class TimeLimit:
    """The limit train.minutes of one start of a run.

    Args:
        minutes: the limit; None for none.
    """

    def __init__(self, minutes: float | None):
        self._minutes = minutes
        self._started_s = time.monotonic()

    def is_over(self) -> bool:
        """Whether the time is over."""
        return self._minutes is not None and time.monotonic() - self._started_s > 60 * self._minutes

    def elapsed_s(self) -> float:
        """Returns the seconds since the run started, at most those of the limit."""
        elapsed_s = time.monotonic() - self._started_s
        return elapsed_s if self._minutes is None else min(60 * self._minutes, elapsed_s)


class TrainingBar:
    """The progress bar of the steps; a context manager.

    With a time limit it shows the share of the time, for how many steps that will be is unknown.

    Args:
        config: the config of the run.
        start: the step that the run begins with.
        shown: False for a bar that is not printed.
    """

    def __init__(self, config: ConfigDict, start: int, shown: bool):
        minutes, steps = config.train.minutes, config.train.steps
        self._timed = minutes is not None
        if self._timed:
            self._bar = progress.clock("training", 60 * minutes, shown)
        else:
            self._bar = progress.bar("training", steps, " steps", start, shown)

    def __enter__(self) -> TrainingBar:
        return self

    def __exit__(self, *_) -> None:
        self._bar.close()

    def show(self, step: int, elapsed_s: float) -> None:
        """Shows that a step is done, so many seconds after the start."""
        self._step = step
        self._bar.update(int(elapsed_s if self._timed else step) - self._bar.n)

    def show_metrics(self, means: dict[str, float]) -> None:
        """Shows the losses, from the next time on that the bar is drawn."""
        words = [f"step {self._step}"] * self._timed
        words += [f"{name} {value:.3g}" for name, value in means.items() if name.endswith("adversarial")]
        self._bar.set_postfix_str(" ".join(words), refresh=False)


@dataclasses.dataclass(frozen=True)
class DueActions:
    """What is due after a step."""

    log: bool
    evaluate: bool
    save: bool
    preview: bool

    @classmethod
    def after(cls, step: int, config: ConfigDict, last: bool) -> DueActions:
        """Finds what is due after a step; `last`: the run ends with it."""

        def divides(every: int) -> bool:
            return bool(every) and step % every == 0

        evaluate = divides(config.eval.every)
        save = last or divides(config.train.save_every)
        preview = last or divides(config.train.sample_every)
        first = step == config.train.steps_per_dispatch
        log = first or divides(config.train.log_every) or evaluate or save or preview
        return cls(log, evaluate, save, preview)

    @property
    def needs_state(self) -> bool:
        """Whether anything besides a line of metrics is due."""
        return self.evaluate or self.save or self.preview
