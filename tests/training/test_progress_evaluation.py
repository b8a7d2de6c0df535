import contextlib
import json

import jax
import numpy as np
import pytest
import soundfile
from conftest import RATE_HZ
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from technogen_jax import models
from technogen_jax.audio import audio_files
from technogen_jax.data import tfrecords
from technogen_jax.evaluation import clip_sets
from technogen_jax.evaluation.features import embeddings
from technogen_jax.evaluation.metrics import distances
from technogen_jax.sampling import generator
from technogen_jax.training import monitor

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
def observed(tiny_config, prepared_set, tmp_path):
    """A monitor with a ruler of the prepared set, its model, and generator parameters."""
    gan = models.build(tiny_config)
    valid, train = (clip_sets.from_records(prepared_set, [split], 2048) for split in ("valid", "train"))
    ruler = monitor.make_ruler(valid, train, 40)
    with contextlib.closing(monitor.Logbook(tmp_path, 0)) as logbook:
        yield monitor.Monitor(tiny_config, gan, ruler, tmp_path, logbook), gan, gan.init_g(jax.random.key(0))


def test_an_evaluation_is_the_distance_of_generated_from_real_clips(observed, prepared_set, tiny_config, tmp_path):
    observer, gan, params = observed
    score = observer.evaluate(3, params)
    assert score == observer.evaluate(4, params), "the latents are fixed"
    tmr = embeddings.EMBEDDINGS["tmr-v1"]
    values, tracks = {}, {}
    for split in ("train", "valid"):
        source = tfrecords.ClipSource(prepared_set, split)
        clips = np.stack([audio_files.from_int16(clip["audio"][:2048]) for clip in source])
        if split == "train":  # 40 clips of 12 tracks are asked for: three a track, spread over it
            tracks["all"] = np.array([clip["track"] for clip in source])
            kept = np.sort(np.concatenate([np.flatnonzero(tracks["all"] == t)[[0, 2, 3]] for t in set(tracks["all"])]))
            clips, tracks[split] = clips[kept], tracks["all"][kept]
        else:
            tracks[split] = np.array([clip["track"] for clip in source])
        values[split] = tmr.embed(clips, RATE_HZ, loop=False)
    latents = gan.sample_latents(jax.random.fold_in(jax.random.key(tiny_config.seed), 3), tiny_config.eval.clips)
    fake = tmr.embed(generator.render_batches(gan, params, np.asarray(latents), 10), RATE_HZ, loop=False)
    project = embeddings.fit_projection(values["train"], tracks["train"], tmr.blocks(1), 32).apply
    expected = distances.rbf_mmd(
        distances.embedded(project(values["valid"])["all"], tracks["valid"], "valid"),
        distances.embedded(project(fake)["all"], np.arange(len(fake)), "fake"),
    )
    assert score == pytest.approx(expected, abs=1e-6)
    first = json.loads((tmp_path / monitor.METRICS_FILE).read_text().splitlines()[0])
    assert first["step"] == 3 and first[monitor.BEST_METRIC] == score
    assert {"eval/mmd_tmr-v1_T", "eval/mmd_tmr-v1_M", "eval/mmd_tmr-v1_R", "eval/coverage"} <= first.keys()


def test_real_clips_measure_better_than_noise_and_one_clip_again_and_again_worse(prepared_set):
    valid, train, test = (clip_sets.from_records(prepared_set, [split], 2048) for split in ("valid", "train", "test"))
    ruler = monitor.make_ruler(valid, train, 100)
    real = np.stack([audio_files.from_int16(pcm) for pcm in test.read(range(40))])
    noise = 0.1 * np.random.default_rng(0).standard_normal((40, 2048, 1)).astype(np.float32)
    of_real, of_noise = monitor.measure_by(ruler, real), monitor.measure_by(ruler, noise)
    assert of_noise["mmd_tmr-v1"] > 3 * max(of_real["mmd_tmr-v1"], 0.01)
    assert of_real["coverage"] > 0.5
    collapsed = monitor.measure_by(ruler, np.repeat(real[:1], 40, axis=0))
    assert collapsed["mmd_tmr-v1"] > 2 * of_real["mmd_tmr-v1"] and collapsed["coverage"] == 0


def test_a_ruler_needs_tracks(prepared_set):
    valid, train = (clip_sets.from_records(prepared_set, [split], 2048) for split in ("valid", "train"))
    with pytest.raises(ValueError, match="expected at least 10 tracks, got 2; prepare the set from more"):
        monitor.make_ruler(train, valid, 100)


def test_a_preview_is_the_same_latents_each_time(observed, tmp_path):
    observer, _, params = observed
    observer.preview(1, params)
    observer.preview(2, params)
    first, second = (tmp_path / monitor.SAMPLES_FOLDER / f"step0000000{step}.wav" for step in (1, 2))
    assert first.read_bytes() == second.read_bytes()
    assert len(soundfile.read(first)[0]) == 2 * (2048 + round(0.2 * RATE_HZ))


def test_without_reference_clips_there_is_no_evaluation(tiny_config, tmp_path):
    with contextlib.closing(monitor.Logbook(tmp_path, 0)) as logbook:
        observer = monitor.Monitor(tiny_config, models.build(tiny_config), None, tmp_path, logbook)
        assert observer.evaluate(1, None) is None


def test_previews_that_were_begun_are_cleared_and_others_stay(tmp_path):
    monitor.clear(tmp_path)  # of a new run there is no folder yet
    (tmp_path / monitor.SAMPLES_FOLDER).mkdir()
    for name in (".step00000002.wav.77.tmp", ".step00000002.png.tmp", "step00000001.wav", ".mine.tmp"):
        (tmp_path / monitor.SAMPLES_FOLDER / name).touch()
    monitor.clear(tmp_path)
    assert {path.name for path in (tmp_path / monitor.SAMPLES_FOLDER).iterdir()} == {"step00000001.wav", ".mine.tmp"}
