"""What a run shows while it trains: metrics as JSON lines and for TensorBoard, previews, evaluations."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
from typing import Any

import jax
import numpy as np
import tensorboardX
from ml_collections import ConfigDict

from technogen_jax import audio, embeddings, generate, metrics, models, pictures, records

METRICS_FILE = "metrics.jsonl"
SAMPLES_FOLDER = "samples"
TENSORBOARD_FOLDER = "tensorboard"
BEST_METRIC = "eval/mmd_timbre"
_GAP_S = 0.2  # of silence between the clips of a preview
_RENDER_BATCH = 16


class Logbook:
    """metrics.jsonl and TensorBoard's events, from a step on: what a killed run wrote beyond it is dropped.

    Args:
        workdir: the run's folder.
        start: the step that the run goes on from.
    """

    def __init__(self, workdir: pathlib.Path, start: int):
        self._file = None
        if jax.process_index():
            return
        path = workdir / METRICS_FILE
        with contextlib.suppress(FileNotFoundError):
            records.write_text_atomically(path, _lines_up_to(path, start))
        self._file = open(path, "a", encoding="utf-8", newline="\n")
        # Two event files of one second would have one name.
        suffix = f".{os.getpid()}.{start}"
        self.tensorboard = tensorboardX.SummaryWriter(
            str(workdir / "tensorboard"), purge_step=start + 1, filename_suffix=suffix
        )

    def write(self, step: int, values: dict[str, float]) -> None:
        """One line, and one point of each curve."""
        if self._file is None:
            return
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        for name, value in values.items():
            self.tensorboard.add_scalar(name, value, step)

    def close(self) -> None:
        """Ends both."""
        if self._file is not None:
            self._file.close()
            self.tensorboard.close()


class Monitor:
    """Previews and evaluations of the averaged generator.

    Args:
        config: of the run.
        gan: the model.
        reference: int16 `[B, T, C]`, real clips that are not trained on; None for no evaluation.
        workdir: the run's folder.
        logbook: takes the results.

    Raises:
        ValueError: the clips are too short to be evaluated.
    """

    def __init__(
        self, config: ConfigDict, gan: models.GAN, reference: np.ndarray | None, workdir: pathlib.Path, logbook: Logbook
    ):
        self.logbook = logbook
        self._config, self._gan, self._rate = config, gan, config.audio.sample_rate_hz
        self._folder = workdir / SAMPLES_FOLDER
        self._reference = None
        if reference is not None:
            self._reference = embeddings.timbre(audio.from_int16(reference), self._rate)

    def preview(self, step: int, ema: Any) -> None:
        """Writes clips of fixed latents: one WAV and one picture, and the same for TensorBoard."""
        clips = self._clips(ema, "preview", self._config.train.sample_clips)
        if jax.process_index():
            return
        self._folder.mkdir(exist_ok=True)
        gap = np.zeros((round(_GAP_S * self._rate), clips.shape[2]), np.float32)
        audio.write(
            self._folder / f"step{step:08d}.wav",
            np.concatenate([piece for clip in clips for piece in (clip, gap)]),
            self._rate,
        )
        titles = [f"latent {index}" for index in range(len(clips))]
        picture = self._folder / f"step{step:08d}.png"
        pictures.write_contact_sheet(picture, clips, self._rate, titles, heading=f"step {step}")
        for index, clip in enumerate(clips):
            self.logbook.tensorboard.add_audio(f"preview/{index}", clip, step, self._rate)
            image = pictures.mel_image(clip, self._rate)
            self.logbook.tensorboard.add_image(f"preview/{index}", image, step, dataformats="HWC")

    def evaluate(self, step: int, ema: Any) -> float | None:
        """Distance of generated clips from the valid split's; None where that has too few clips."""
        if self._reference is None:
            return None
        clips = self._clips(ema, "evaluate", self._config.train.eval_clips)
        score = metrics.rbf_mmd(self._reference, embeddings.timbre(clips, self._rate))
        self.logbook.write(step, {BEST_METRIC: score})
        return score

    def _clips(self, ema: Any, purpose: str, count: int) -> np.ndarray:
        latents = np.asarray(self._gan.sample_latents(generate.run_key(self._config.seed, purpose), count))
        batch = min(_RENDER_BATCH, count)
        clips = generate.render_batches(self._gan, generate.calibrated(self._gan, ema), latents, batch)
        return np.clip(clips, -1, 1)


def _lines_up_to(path: pathlib.Path, step: int) -> list[str]:
    """The whole lines of a metrics file whose step is not beyond `step`."""
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError):  # the last line of a killed run may be a half one
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
    return kept
