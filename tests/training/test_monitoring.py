import math
import pathlib
import re
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from technogen_jax.training import monitoring
from technogen_jax.training.errors import TrainError
from technogen_jax.training.monitoring import DueActions, MetricsWindow, NonFiniteGuard, TimeLimit, TrainingBar


class FakeCheckpoints:
    """Checkpoints of the steps 2 and 4."""

    folder = pathlib.Path("checkpoints")

    def wait(self):
        pass

    def steps(self):
        return [2, 4]


def test_metrics_window_returns_a_row_for_each_step_and_the_speed(monkeypatch):
    clock = iter((10.0, 12.0, 12.5))
    monkeypatch.setattr(monitoring, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    window = MetricsWindow(ahead=1)
    window.add({"a": jnp.array([1.0, 2.0]), "b": jnp.array([3.0, 4.0])})
    window.add({"a": jnp.array([5.0, 6.0]), "b": jnp.array([7.0, 8.0])})
    rows, speed = window.read()
    assert rows == [{"a": 1, "b": 3}, {"a": 2, "b": 4}, {"a": 5, "b": 7}, {"a": 6, "b": 8}]
    assert speed is None  # it would count the compilation
    window.add({"a": jnp.array([9.0])})
    assert window.read() == ([{"a": 9}], 1 / 2.0)


def test_guard_names_the_first_step_that_is_not_finite():
    guard = NonFiniteGuard(skip=False, checkpoints=FakeCheckpoints())
    with pytest.raises(TrainError, match=r"^step 6: loss is inf; the last good checkpoint is .*4"):
        guard.select_finite(7, [{"loss": 1.0}, {"loss": math.inf}, {"loss": 1.0}])


def test_guard_that_skips_drops_rows_and_ends_after_too_many_in_a_row():
    guard = NonFiniteGuard(skip=True, checkpoints=FakeCheckpoints())
    bad, good = {"loss": math.nan}, {"loss": 1.0}
    assert guard.select_finite(3, [bad, good, bad]) == [good]
    assert guard.select_finite(101, [bad] * 98) == []
    with pytest.raises(TrainError, match="^step 102: loss is nan"):  # the hundredth after the good one
        guard.select_finite(102, [bad])


def test_guard_checks_the_state():
    guard = NonFiniteGuard(skip=True, checkpoints=FakeCheckpoints())
    guard.check_state(5, {"w": jnp.ones(3)})
    with pytest.raises(TrainError, match="^step 5: a parameter or a moment of the optimizer is nan"):
        guard.check_state(5, {"w": jnp.array([1.0, np.inf])})


def test_time_limit_is_over_after_its_minutes(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(monitoring, "time", SimpleNamespace(monotonic=lambda: now[0]))
    limit, none = TimeLimit(2.0), TimeLimit(None)
    now[0] = 30.0
    assert limit.elapsed_s() == none.elapsed_s() == 30.0
    assert not limit.is_over()
    now[0] = 120.5
    assert limit.is_over() and not none.is_over()
    assert (limit.elapsed_s(), none.elapsed_s()) == (120.0, 120.5)


@pytest.mark.parametrize(
    "minutes, shown",
    [(None, r"30%.* 6\.00/20\.0 .*, d/adversarial 0\.5"), (2.0, "25%.*00:00 of 02:00, step 3 d/adversarial 0.5")],
)
def test_training_bar_shows_steps_or_the_share_of_the_time(minutes, shown, capsys):
    """The total of the bar never changes: with a time limit, the number of steps is unknown."""
    config = ConfigDict({"train": {"minutes": minutes, "steps": 20}})
    with TrainingBar(config, 0, shown=True) as bar:
        total = bar._bar.total
        bar.show(3, 15.0)
        bar.show_metrics({"d/adversarial": 0.5, "g/gradient_norm": 1.0})
        bar.show(6, 30.0)
        bar._bar.refresh()
        assert bar._bar.total == total == (120 if minutes else 20)
    lines = capsys.readouterr().err.strip().split("\r")
    assert re.search(shown, lines[-1])
    assert not minutes or "?" not in lines[0], "no speed or time left before the first step"


def test_due_actions_follow_the_config():
    config = ConfigDict(
        dict(train=dict(log_every=4, save_every=6, sample_every=0, steps_per_dispatch=2), eval=dict(every=12))
    )
    due = {step: DueActions.after(step, config, last=step == 14) for step in range(2, 16, 2)}
    assert [step for step, actions in due.items() if actions.log] == [2, 4, 6, 8, 12, 14]
    assert [step for step, actions in due.items() if actions.save] == [6, 12, 14]
    assert [step for step, actions in due.items() if actions.preview] == [14]
    assert [step for step, actions in due.items() if actions.evaluate] == [12]
    assert [step for step, actions in due.items() if actions.needs_state] == [6, 12, 14]
