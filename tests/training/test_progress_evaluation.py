import contextlib
import json

import jax
import numpy as np
import pytest
from conftest import RATE_HZ

from technogen_jax import models
from technogen_jax.audio import audio_files
from technogen_jax.data.clip_source import ClipSource
from technogen_jax.evaluation import clip_sets
from technogen_jax.evaluation.features.projection import fit_projection
from technogen_jax.evaluation.features.tmr import TMR_V1
from technogen_jax.evaluation.metrics import distances
from technogen_jax.evaluation.metrics.embedded_set import make_embedded_set
from technogen_jax.runs.metrics_log import METRICS_FILE, MetricsLog
from technogen_jax.sampling import generator
from technogen_jax.training.progress_evaluation import BEST_METRIC, evaluate, make_validation_metric


@pytest.fixture
def evaluation(tiny_config, prepared_set, tmp_path):
    """(step, parameters) -> evaluation against the prepared dataset, and the model."""
    gan = models.build(tiny_config)
    valid, train = (clip_sets.from_records(prepared_set, [split], 2048) for split in ("valid", "train"))
    metric = make_validation_metric(valid, train, 40)
    with contextlib.closing(MetricsLog(tmp_path, 0)) as log:
        yield lambda step, params: evaluate(metric, tiny_config, gan, params, step, log), gan


def test_evaluation_equals_the_distance_of_generated_from_real_clips(evaluation, prepared_set, tiny_config, tmp_path):
    run_evaluation, gan = evaluation
    params = gan.init_g(jax.random.key(0))
    score = run_evaluation(3, params)
    assert score == run_evaluation(4, params), "the latents are fixed"
    values, tracks = {}, {}
    for split in ("train", "valid"):
        source = ClipSource(prepared_set, split)
        clips = np.stack([audio_files.from_int16(clip["audio"][:2048]) for clip in source])
        if split == "train":  # 40 clips of 12 tracks are asked for: three a track, spread over it
            tracks["all"] = np.array([clip["track"] for clip in source])
            kept = np.sort(np.concatenate([np.flatnonzero(tracks["all"] == t)[[0, 2, 3]] for t in set(tracks["all"])]))
            clips, tracks[split] = clips[kept], tracks["all"][kept]
        else:
            tracks[split] = np.array([clip["track"] for clip in source])
        values[split] = TMR_V1.embed(clips, RATE_HZ, loop=False)
    latents = gan.sample_latents(jax.random.fold_in(jax.random.key(tiny_config.seed), 3), tiny_config.eval.clips)
    fake = TMR_V1.embed(generator.render_batches(gan, params, np.asarray(latents), 10), RATE_HZ, loop=False)
    project = fit_projection(values["train"], tracks["train"], TMR_V1.blocks(1), 32).apply
    expected = distances.rbf_mmd(
        make_embedded_set(project(values["valid"])["all"], tracks["valid"], "valid"),
        make_embedded_set(project(fake)["all"], np.arange(len(fake)), "fake"),
    )
    assert score == pytest.approx(expected, abs=1e-6)
    first = json.loads((tmp_path / METRICS_FILE).read_text().splitlines()[0])
    assert first["step"] == 3 and first[BEST_METRIC] == score
    assert {"eval/mmd_tmr-v1_T", "eval/mmd_tmr-v1_M", "eval/mmd_tmr-v1_R", "eval/coverage"} <= first.keys()


def test_real_clips_score_better_than_noise_and_better_than_one_repeated_clip(prepared_set):
    valid, train, test = (clip_sets.from_records(prepared_set, [split], 2048) for split in ("valid", "train", "test"))
    metric = make_validation_metric(valid, train, 100)
    real = np.stack([audio_files.from_int16(pcm) for pcm in test.read(range(40))])
    noise = 0.1 * np.random.default_rng(0).standard_normal((40, 2048, 1)).astype(np.float32)
    of_real, of_noise = metric.measure(real), metric.measure(noise)
    assert of_noise[BEST_METRIC] > 3 * max(of_real[BEST_METRIC], 0.01)
    assert of_real["eval/coverage"] > 0.5
    collapsed = metric.measure(np.repeat(real[:1], 40, axis=0))
    assert collapsed[BEST_METRIC] > 2 * of_real[BEST_METRIC] and collapsed["eval/coverage"] == 0


def test_too_few_tracks_are_an_error(prepared_set):
    valid, train = (clip_sets.from_records(prepared_set, [split], 2048) for split in ("valid", "train"))
    with pytest.raises(ValueError, match="expected at least 10 tracks, got 2; prepare the dataset from more"):
        make_validation_metric(train, valid, 100)


def test_evaluate_without_a_metric_returns_none(tiny_config, tmp_path):
    with contextlib.closing(MetricsLog(tmp_path, 0)) as log:
        assert evaluate(None, tiny_config, models.build(tiny_config), None, 1, log) is None
