"""TechnoGAN's stages: before the GAN, the codec's shaper is trained and the codec corrected."""

from __future__ import annotations

import math

import numpy as np

from technogen_jax.common.run_config import AudioConfig
from technogen_jax.data import batching
from technogen_jax.models.stages import Stage, StageInput
from technogen_jax.models.technogan import shaper_training
from technogen_jax.models.technogan.codec import correction
from technogen_jax.models.technogan.config import TechnoGANConfig

# Seconds of the dataset that the correction is computed from: 136 bars at 136 BPM. Measured:
# experiments/log/2026-11-29-codec-correction.md.
_CORRECTION_S = 240.0


def _count_correction_clips(audio: AudioConfig, clips: int) -> int:
    return min(clips, math.ceil(_CORRECTION_S * audio.sample_rate_hz / audio.clip_samples))


def _count_correction_units(config: TechnoGANConfig, audio: AudioConfig, clips: int) -> int:
    passes = 1 if config.shaper == "none" else 2  # with a shaper the partials are corrected before the levels
    return passes * _count_correction_clips(audio, clips)


def train_shaper(stage: StageInput) -> dict[str, np.ndarray]:
    """Trains the shaper on the dataset; returns the statistics with its parameters."""
    return shaper_training.train(
        stage.config,
        stage.audio,
        stage.statistics,
        stage.clips,
        stage.state_path,
        stage.on_progress,
        seed=stage.seed,
    )


def correct(stage: StageInput) -> dict[str, np.ndarray]:
    """Compares decoded with real clips from all parts of the dataset.

    Returns the statistics with the corrections.
    """
    count = _count_correction_clips(stage.audio, len(stage.clips))
    chosen = [stage.clips[index] for index in np.linspace(0, len(stage.clips) - 1, count).astype(int)]
    return correction.correct(
        lambda: batching.iterate_in_order(chosen, stage.on_progress), stage.statistics, stage.config, stage.audio
    )


STAGES = (
    Stage("training the shaper", "steps", lambda config, *_: config.shaping_steps, train_shaper, "shaping.npz"),
    Stage("correcting the codec", "clips", _count_correction_units, correct),
)
