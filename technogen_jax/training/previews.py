"""Previews of a run in training: clips of fixed latents, as audio files and as pictures."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from technogen_jax import models
from technogen_jax.audio import audio_files, spectrogram_images
from technogen_jax.runs.metrics_log import MetricsLog
from technogen_jax.runs.workdir import SAMPLES_FOLDER
from technogen_jax.sampling import generator

_GAP_S = 0.2  # of silence between the clips of a preview
_RENDER_BATCH = 16  # clips rendered at a time


def render_fixed_clips(config: ConfigDict, gan: models.GAN, ema: Any, purpose: str, count: int) -> np.ndarray:
    """Renders clips of latents that stay the same for the whole run.

    Args:
        config: the config of the run.
        gan: the model.
        ema: averaged generator parameters.
        purpose: "preview" or "evaluate"; each has latents of its own.
        count: number of clips.

    Returns:
        float32 `[count, T, C]` in [-1, 1].
    """
    latents = np.asarray(gan.sample_latents(generator.run_key(config.seed, purpose), count))
    params = generator.calibrated(gan, ema)
    clips = generator.render_batches(gan, params, latents, min(_RENDER_BATCH, count))
    return np.clip(clips, -1, 1)


def write_preview(
    config: ConfigDict, gan: models.GAN, ema: Any, step: int, workdir: pathlib.Path, log: MetricsLog
) -> None:
    """Renders a preview and writes it as one WAV file, one picture, and to TensorBoard.

    Args:
        config: the config of the run.
        gan: the model.
        ema: averaged generator parameters.
        step: the step of the run.
        workdir: the run's folder.
        log: the log of the run.
    """
    clips = render_fixed_clips(config, gan, ema, "preview", config.train.sample_clips)
    rate_hz = config.audio.sample_rate_hz
    folder = workdir / SAMPLES_FOLDER
    folder.mkdir(exist_ok=True)
    gap = np.zeros((round(_GAP_S * rate_hz), clips.shape[2]), np.float32)
    sequence = np.concatenate([piece for clip in clips for piece in (clip, gap)])
    audio_files.write(folder / f"step{step:08d}.wav", sequence, rate_hz)
    titles = [f"latent {index}" for index in range(len(clips))]
    picture = folder / f"step{step:08d}.png"
    bars = gan.endless and gan.endless.bars
    spectrogram_images.write_contact_sheet(picture, clips, rate_hz, titles, heading=f"step {step}", bars=bars)
    for index, clip in enumerate(clips):
        image = spectrogram_images.mel_image(clip, rate_hz)
        log.write_preview(step, f"preview/latent_{index:02d}", clip, rate_hz, image)


def delete_unfinished(workdir: pathlib.Path) -> None:
    """Deletes temporary files of previews that a killed run left.

    Their names contain its process id.
    """
    for path in (workdir / SAMPLES_FOLDER).glob(".step*.tmp"):
        path.unlink(missing_ok=True)
