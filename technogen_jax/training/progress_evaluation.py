"""The evaluation of a model in training, against real clips that it is not trained on."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from technogen_jax import models
from technogen_jax.audio import audio_files
from technogen_jax.evaluation import clip_sets
from technogen_jax.evaluation.features import musical
from technogen_jax.evaluation.features.projection import LEAST_TRACKS, MOST_DIMENSIONS, Projection, fit_projection
from technogen_jax.evaluation.features.tmr import TMR_V1
from technogen_jax.evaluation.metrics import distances
from technogen_jax.evaluation.metrics.embedded_set import EmbeddedSet, make_embedded_set
from technogen_jax.runs.metrics_log import MetricsLog
from technogen_jax.training import previews

BEST_METRIC = "eval/mmd_tmr-v1"  # the checkpoint with the smallest value is the best one
_MUSICAL_METRICS = ("clipped_share", "beat_regularity_low", "kick_similarity")
_MOST_MUSICAL = 64  # clips whose musical features are measured: they take longer than the embedding


class ValidationMetric(NamedTuple):
    """Compares generated clips with the real clips of the valid split, in about a second.

    Attributes:
        sample_rate_hz: the sample rate of the clips.
        projection: the projection of the embedding tmr-v1, fitted to the training tracks.
        reference: `[n, D]` embeddings of the real clips.
        tracks: `[n]` their tracks.
        floor: `mmd_tmr-v1` of as many training clips: the value that real clips have.
    """

    sample_rate_hz: int
    projection: Projection
    reference: np.ndarray
    tracks: np.ndarray
    floor: float

    def measure(self, clips: np.ndarray) -> dict[str, float]:
        """Measures how far generated clips are from the real ones, and how regular their beat is.

        Args:
            clips: `[B, T, C]` in [-1, 1], B at least 2; each counts as a track.

        Returns:
            "eval/mmd_tmr-v1" over all blocks of the embedding and, of each block,
            "eval/mmd_tmr-v1_T" ...; "eval/coverage", 0 where no more than 5 clips differ; medians
            of "eval/clipped_share", "eval/beat_regularity_low" and "eval/kick_similarity", where
            they are defined.
        """
        values = TMR_V1.embed(clips, self.sample_rate_hz, loop=False)
        fake, real = self.projection.apply(values), self.projection.apply(self.reference)
        tracks = np.arange(len(clips))
        metrics = {}
        for block in fake:
            name = BEST_METRIC if block == "all" else f"{BEST_METRIC}_{block}"
            metrics[name] = distances.rbf_mmd(
                make_embedded_set(real[block], self.tracks, "valid"),
                make_embedded_set(fake[block], tracks, "generated", may_be_alike=True),
            )
        size = min(len(values), len(self.reference))
        metrics["eval/coverage"] = 0.0
        if min(size, len(np.unique(fake["all"], axis=0))) > distances.NEIGHBOURS:
            pair = (EmbeddedSet(side["all"][:size], tracks[:size]) for side in (real, fake))
            metrics["eval/coverage"] = distances.prdc(*pair).coverage
        measured = [musical.measure(clip, self.sample_rate_hz) for clip in clips[:_MOST_MUSICAL]]
        for name in _MUSICAL_METRICS:
            known = [row[name] for row in measured if row[name] is not None]
            if known:
                metrics[f"eval/{name}"] = float(np.median(known))
        return metrics


def make_validation_metric(valid: clip_sets.ClipSet, train: clip_sets.ClipSet, most_clips: int) -> ValidationMetric:
    """Makes the metric of a training run from its real clips.

    Args:
        valid: real clips that are not trained on, of at least two tracks.
        train: real clips that are trained on, of at least ten tracks.
        most_clips: the largest number of clips used of either.

    Raises:
        ValueError: too few tracks, or clips too short for the embedding; says what to do.
    """
    rate = valid.sample_rate_hz
    values, tracks = [], []
    for clips, least in ((valid, 2), (train, LEAST_TRACKS)):
        count = len(np.unique(clips.tracks))
        if count < least:
            raise clip_sets.ClipSetError(
                f"{clips.name}: expected at least {least} tracks, got {count}; prepare the dataset from more"
            )
        indices = clip_sets.choose(clips, per_track=max(1, most_clips // count), tracks=most_clips)
        stacked = np.stack([audio_files.from_int16(pcm) for pcm in clips.read(indices)])
        values.append(TMR_V1.embed(stacked, rate, loop=False))
        tracks.append(clips.tracks[indices])
    # With few tracks a Frechet distance could not use as many dimensions, but MMD estimates no
    # covariance.
    projection = fit_projection(values[1], tracks[1], TMR_V1.blocks(valid.channels), MOST_DIMENSIONS)
    sides = [
        make_embedded_set(projection.apply(value)["all"], track, clips.name)
        for value, track, clips in zip(values, tracks, (valid, train), strict=True)
    ]
    return ValidationMetric(rate, projection, values[0], tracks[0], distances.rbf_mmd(*sides))


def make_metric_of_run(config: ConfigDict) -> tuple[ValidationMetric | None, str]:
    """Makes the metric of a run's evaluations, and a line for the user.

    The metric is None if the config or the dataset allows none.
    """
    if not config.eval.every:
        return None, ""
    try:
        valid, train_clips = (
            clip_sets.from_records(config.data.dir, [split], config.audio.clip_samples)
            for split in ("valid", config.data.split)
        )
        metric = make_validation_metric(valid, train_clips, config.eval.clips)
    except ValueError as error:
        return None, f"no evaluation, and no best checkpoint: {error}"
    return metric, f"evaluation against {valid.name}: real clips have {BEST_METRIC} {metric.floor:.3f}"


def evaluate(
    metric: ValidationMetric | None, config: ConfigDict, gan: models.GAN, ema: Any, step: int, log: MetricsLog
) -> float | None:
    """Measures generated clips and logs the result.

    Args:
        metric: the metric of the run; None for no evaluation.
        config: the config of the run.
        gan: the model.
        ema: averaged generator parameters.
        step: the step of the run.
        log: the log of the run.

    Returns:
        The value of `BEST_METRIC`; None without a metric.
    """
    if metric is None:
        return None
    values = metric.measure(previews.render_fixed_clips(config, gan, ema, "evaluate", config.eval.clips))
    log.write(step, values)
    return values[BEST_METRIC]
