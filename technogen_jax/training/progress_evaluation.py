"""What a run shows while it trains: metrics as JSON lines and for TensorBoard, previews, evaluations."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
from typing import Any, NamedTuple

import numpy as np
import tensorboardX
from ml_collections import ConfigDict

from technogen_jax import models
from technogen_jax.audio import audio_files, spectrogram_images
from technogen_jax.common import distributed
from technogen_jax.data import tfrecords
from technogen_jax.evaluation import clip_sets, scoring
from technogen_jax.evaluation.features import embeddings, musical
from technogen_jax.evaluation.metrics import distances
from technogen_jax.sampling import generator

METRICS_FILE = "metrics.jsonl"
SAMPLES_FOLDER = "samples"
TENSORBOARD_FOLDER = "tensorboard"
BEST_METRIC = "eval/mmd_tmr-v1"
_GAP_S = 0.2  # of silence between the clips of a preview
_RENDER_BATCH = 16
_MEASURED = 64  # clips whose beat is looked at in an evaluation


def clear(workdir: pathlib.Path) -> None:
    """Deletes previews that a killed run had begun to write: each process has its own name for them."""
    for path in (workdir / SAMPLES_FOLDER).glob(".step*.tmp"):
        path.unlink(missing_ok=True)


class Logbook:
    """metrics.jsonl and TensorBoard's events, from a step on: what a killed run wrote beyond it is dropped.

    Args:
        workdir: the run's folder.
        start: the step that the run goes on from.
    """

    def __init__(self, workdir: pathlib.Path, start: int):
        self._file = None
        if not distributed.is_first():
            return
        path = workdir / METRICS_FILE
        with contextlib.suppress(FileNotFoundError):
            tfrecords.write_text_atomically(path, _lines_up_to(path, start))
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
            with contextlib.suppress(OSError):  # a full disk: what could not be written is told elsewhere
                self.tensorboard.close()


class Monitor:
    """Previews and evaluations of the averaged generator.

    Args:
        config: of the run.
        gan: the model.
        ruler: what generated clips are measured by; None for no evaluation.
        workdir: the run's folder.
        logbook: takes the results.
    """

    def __init__(
        self, config: ConfigDict, gan: models.GAN, ruler: Ruler | None, workdir: pathlib.Path, logbook: Logbook
    ):
        self.logbook = logbook
        self._config, self._gan, self._rate = config, gan, config.audio.sample_rate_hz
        self._folder = workdir / SAMPLES_FOLDER
        self._ruler = ruler

    def preview(self, step: int, ema: Any) -> None:
        """Writes clips of fixed latents: one WAV and one picture, and the same for TensorBoard."""
        clips = self._clips(ema, "preview", self._config.train.sample_clips)
        self._folder.mkdir(exist_ok=True)
        gap = np.zeros((round(_GAP_S * self._rate), clips.shape[2]), np.float32)
        audio_files.write(
            self._folder / f"step{step:08d}.wav",
            np.concatenate([piece for clip in clips for piece in (clip, gap)]),
            self._rate,
        )
        titles = [f"latent {index}" for index in range(len(clips))]
        picture = self._folder / f"step{step:08d}.png"
        spectrogram_images.write_contact_sheet(picture, clips, self._rate, titles, heading=f"step {step}")
        for index, clip in enumerate(clips):
            self.logbook.tensorboard.add_audio(f"preview/{index}", clip, step, self._rate)
            image = spectrogram_images.mel_image(clip, self._rate)
            self.logbook.tensorboard.add_image(f"preview/{index}", image, step, dataformats="HWC")

    def evaluate(self, step: int, ema: Any) -> float | None:
        """Measures generated clips: the metric that decides the best checkpoint; None where nothing is evaluated."""
        if self._ruler is None:
            return None
        clips = self._clips(ema, "evaluate", self._config.eval.clips)
        found = {f"eval/{name}": value for name, value in measure_by(self._ruler, clips).items()}
        self.logbook.write(step, found)
        return found[BEST_METRIC]

    def _clips(self, ema: Any, purpose: str, count: int) -> np.ndarray:
        latents = np.asarray(self._gan.sample_latents(generator.run_key(self._config.seed, purpose), count))
        batch = min(_RENDER_BATCH, count)
        clips = generator.render_batches(self._gan, generator.calibrated(self._gan, ema), latents, batch)
        return np.clip(clips, -1, 1)


def _lines_up_to(path: pathlib.Path, step: int) -> list[str]:
    """The whole lines of a metrics file whose step is not beyond `step`."""
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError):  # the last line of a killed run may be a half one
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
    return kept


class Ruler(NamedTuple):
    """What the clips of a model in training are measured by, in a second or so.

    Attributes:
        sample_rate_hz: of the clips.
        projection: of tmr-v1, fitted to the training tracks.
        reference: `[n, D]` embeddings of real clips that are not trained on.
        tracks: `[n]` their tracks.
        floor: `mmd_tmr-v1` of as many training clips.
    """

    sample_rate_hz: int
    projection: embeddings.Projection
    reference: np.ndarray
    tracks: np.ndarray
    floor: float


def make_ruler(valid: clip_sets.ClipSet, train: clip_sets.ClipSet, most_clips: int) -> Ruler:
    """The ruler for a training run.

    Args:
        valid: real clips that are not trained on, of two tracks at least.
        train: those that are, of ten tracks at least.
        most_clips: of either that are listened to.

    Raises:
        ValueError: too few tracks, or clips too short for the embedding; says what to do.
    """
    tmr = embeddings.EMBEDDINGS["tmr-v1"]
    rate = valid.sample_rate_hz
    values, tracks = [], []
    for clips, least in ((valid, 2), (train, embeddings.LEAST_TRACKS)):
        count = len(np.unique(clips.tracks))
        if count < least:
            raise clip_sets.ClipSetError(
                f"{clips.name}: expected at least {least} tracks, got {count}; prepare the set from more"
            )
        indices = clip_sets.choose(clips, per_track=max(1, most_clips // count), tracks=most_clips)
        stacked = np.stack([audio_files.from_int16(pcm) for pcm in clips.read(indices)])
        values.append(tmr.embed(stacked, rate, loop=False))
        tracks.append(clips.tracks[indices])
    # More dimensions than a Fréchet distance could use with so few tracks: the kernel distance estimates no covariance.
    dimensions = embeddings.MOST_DIMENSIONS
    projection = embeddings.fit_projection(values[1], tracks[1], tmr.blocks(valid.channels), dimensions)
    sides = [
        distances.embedded(projection.apply(value)["all"], track, clips.name)
        for value, track, clips in zip(values, tracks, (valid, train), strict=True)
    ]
    return Ruler(rate, projection, values[0], tracks[0], distances.rbf_mmd(*sides))


def measure_by(ruler: Ruler, clips: np.ndarray) -> dict[str, float]:
    """Metrics of generated clips against the ruler's real ones: distances, coverage, and how much of a beat they have.

    Args:
        ruler: from `make_ruler`.
        clips: `[B, T, C]` in [-1, 1], B at least 2; each counts as a track.

    Returns:
        "mmd_tmr-v1", of all, and of each block, "mmd_tmr-v1_T" ...; "coverage", 0 where no more than 5 clips are different;
        medians of "clipped_share", "beat_regularity_low" and "kick_similarity", where they are defined.
    """
    values = embeddings.EMBEDDINGS["tmr-v1"].embed(clips, ruler.sample_rate_hz, loop=False)
    found, tracks = {}, np.arange(len(clips))
    ours, theirs = ruler.projection.apply(values), ruler.projection.apply(ruler.reference)
    for block in ours:
        name = "mmd_tmr-v1" if block == "all" else f"mmd_tmr-v1_{block}"
        real = distances.embedded(theirs[block], ruler.tracks, "valid")
        fake = distances.embedded(ours[block], tracks, "generated", may_be_alike=True)
        found[name] = distances.rbf_mmd(real, fake)
    size = min(len(values), len(ruler.reference))
    if min(size, len(np.unique(ours["all"], axis=0))) > scoring.NEIGHBOURS:
        pair = (distances.Embedded(side["all"][:size], tracks[:size]) for side in (theirs, ours))
        found["coverage"] = distances.prdc(*pair, k=scoring.NEIGHBOURS).coverage
    else:
        found["coverage"] = 0.0
    measured = [musical.measure(clip, ruler.sample_rate_hz) for clip in clips[:_MEASURED]]
    for name in ("clipped_share", "beat_regularity_low", "kick_similarity"):
        known = [row[name] for row in measured if row[name] is not None]
        if known:
            found[name] = float(np.median(known))
    return found
