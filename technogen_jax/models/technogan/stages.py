"""TechnoGAN's stages: before the GAN, the codec's shaper is trained and the codec corrected."""

from __future__ import annotations

import numpy as np

from technogen_jax.common.run_config import AudioConfig
from technogen_jax.data import batching
from technogen_jax.models.stages import Stage, StageInput, spread_over
from technogen_jax.models.technogan import shaper_training
from technogen_jax.models.technogan.codec import correction
from technogen_jax.models.technogan.config import TechnoGANConfig

# Seconds of the dataset that the correction is computed from: 136 bars at 136 BPM. Measured:
# experiments/log/2026-11-29-codec-correction.md.
_CORRECTION_S = 240.0
# Seconds of the dataset that the components are computed from: 16,000 sixteenths at 136 BPM. Measured:
# experiments/log/2026-12-01-first-minutes.md.
MEASURED_S = 1800.0


def _count_correction_units(config: TechnoGANConfig, audio: AudioConfig, clips: int) -> int:
    passes = 1 if config.shaper == "none" else 2  # with a shaper the partials are corrected before the levels
    return passes * len(spread_over(clips, audio, _CORRECTION_S))


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
    chosen = [stage.clips[index] for index in spread_over(len(stage.clips), stage.audio, _CORRECTION_S)]
    return correction.correct(
        lambda: batching.iterate_in_order(chosen, stage.on_progress), stage.statistics, stage.config, stage.audio
    )


STAGES = (
    Stage(
        "training the shaper of the codec",
        "steps",
        lambda config, *_: config.shaping_steps,
        train_shaper,
        "shaping.npz",
    ),
    Stage("correcting the codec, on part of the dataset", "clips", _count_correction_units, correct),
)
