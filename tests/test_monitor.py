import contextlib
import json

import jax
import numpy as np
import pytest
import soundfile
from conftest import RATE_HZ
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from technogen_jax import audio, embeddings, generate, metrics, models, monitor

STEP_5, STEP_10 = '{"step": 5, "d/adversarial": 0.5}\n', '{"step": 10, "d/adversarial": 0.25}\n'


def steps_of(events, name):
    return [event.step for event in events.Scalars(name)]


def test_tensorboard_reads_scalars_sound_and_pictures(trained_workdir):
    events = EventAccumulator(str(trained_workdir / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("d/adversarial")] == [1, 2, 4, 6]
    assert [event.step for event in events.Audio("preview/1")] == [4, 6]
    assert events.Audio("preview/1")[0].sample_rate == RATE_HZ
    assert [event.step for event in events.Images("preview/0")] == [4, 6]


@pytest.mark.parametrize(
    "start, kept", [(0, ""), (5, STEP_5), (7, STEP_5), (10, STEP_5 + STEP_10), (99, STEP_5 + STEP_10)]
)
def test_a_logbook_drops_what_a_killed_run_wrote_beyond_its_checkpoint(tmp_path, start, kept):
    (tmp_path / monitor.METRICS_FILE).write_text(STEP_5 + STEP_10 + '{"step": 15, "d/adv')
    with contextlib.closing(monitor.Logbook(tmp_path, start)) as logbook:
        logbook.write(100, {"d/adversarial": 1.0})
    assert (tmp_path / monitor.METRICS_FILE).read_text() == kept + '{"step": 100, "d/adversarial": 1.0}\n'


def test_tensorboard_shows_one_curve_after_a_resume(tmp_path):
    for start, steps in ((0, (1, 2, 3)), (2, (3, 4))):
        with contextlib.closing(monitor.Logbook(tmp_path, start)) as logbook:
            for step in steps:
                logbook.write(step, {"loss": float(step)})
    events = EventAccumulator(str(tmp_path / monitor.TENSORBOARD_FOLDER))
    events.Reload()
    assert steps_of(events, "loss") == [1, 2, 3, 4]


@pytest.fixture
def observed(tiny_config, tmp_path):
    """A monitor with 12 reference clips, its model, and generator parameters."""
    gan = models.build(tiny_config)
    reference = np.random.default_rng(0).integers(-3000, 3000, (12, 1024, 1), np.int16)
    with contextlib.closing(monitor.Logbook(tmp_path, 0)) as logbook:
        yield monitor.Monitor(tiny_config, gan, reference, tmp_path, logbook), gan, gan.init_g(jax.random.key(0))


def test_an_evaluation_is_the_distance_of_generated_from_real_clips(observed, tiny_config, tmp_path):
    observer, gan, params = observed
    score = observer.evaluate(3, params)
    assert score == observer.evaluate(4, params), "the latents are fixed"
    real = audio.from_int16(np.random.default_rng(0).integers(-3000, 3000, (12, 1024, 1), np.int16))
    key = jax.random.fold_in(jax.random.key(tiny_config.seed), 3)
    latents = np.asarray(gan.sample_latents(key, tiny_config.train.eval_clips))
    fake = generate.render_batches(gan, params, latents, 8)
    expected = metrics.rbf_mmd(embeddings.timbre(real, RATE_HZ), embeddings.timbre(fake, RATE_HZ))
    assert score == pytest.approx(expected, abs=1e-6)
    first = json.loads((tmp_path / monitor.METRICS_FILE).read_text().splitlines()[0])
    assert first == {"step": 3, monitor.BEST_METRIC: score}


def test_a_preview_is_the_same_latents_each_time(observed, tmp_path):
    observer, _, params = observed
    observer.preview(1, params)
    observer.preview(2, params)
    first, second = (tmp_path / monitor.SAMPLES_FOLDER / f"step0000000{step}.wav" for step in (1, 2))
    assert first.read_bytes() == second.read_bytes()
    assert len(soundfile.read(first)[0]) == 2 * (1024 + round(0.2 * RATE_HZ))


def test_without_reference_clips_there_is_no_evaluation(tiny_config, tmp_path):
    with contextlib.closing(monitor.Logbook(tmp_path, 0)) as logbook:
        observer = monitor.Monitor(tiny_config, models.build(tiny_config), None, tmp_path, logbook)
        assert observer.evaluate(1, None) is None
