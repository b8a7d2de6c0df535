import contextlib

import pytest
from conftest import RATE_HZ
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from technogen_jax.runs.metrics_log import METRICS_FILE, TENSORBOARD_FOLDER, MetricsLog

STEP_5, STEP_10 = '{"step": 5, "d/adversarial": 0.5}\n', '{"step": 10, "d/adversarial": 0.25}\n'


def steps_of(events, name):
    return [event.step for event in events.Scalars(name)]


def test_tensorboard_reads_scalars_audio_and_images(trained_workdir):
    events = EventAccumulator(str(trained_workdir / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("d/adversarial")] == [1, 2, 4, 6]
    assert [event.step for event in events.Audio("preview/latent_01")] == [4, 6]
    assert events.Audio("preview/latent_01")[0].sample_rate == RATE_HZ
    assert [event.step for event in events.Images("preview/latent_00")] == [4, 6]


@pytest.mark.parametrize(
    "start, kept", [(0, ""), (5, STEP_5), (7, STEP_5), (10, STEP_5 + STEP_10), (99, STEP_5 + STEP_10)]
)
def test_metrics_log_drops_lines_after_the_resumed_step(tmp_path, start, kept):
    (tmp_path / METRICS_FILE).write_text(STEP_5 + STEP_10 + '{"step": 15, "d/adv')
    with contextlib.closing(MetricsLog(tmp_path, start)) as log:
        log.write(100, {"d/adversarial": 1.0})
    assert (tmp_path / METRICS_FILE).read_text() == kept + '{"step": 100, "d/adversarial": 1.0}\n'


def test_tensorboard_shows_one_curve_of_a_resumed_run(tmp_path):
    for start, steps in ((0, (1, 2, 3)), (2, (3, 4))):
        with contextlib.closing(MetricsLog(tmp_path, start)) as log:
            for step in steps:
                log.write(step, {"loss": float(step)})
    events = EventAccumulator(str(tmp_path / TENSORBOARD_FOLDER))
    events.Reload()
    assert steps_of(events, "loss") == [1, 2, 3, 4]
