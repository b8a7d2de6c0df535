"""Clips to endless batches: shuffled over the whole split, the same for every number of processes, resumable.

The batch of step i depends on the seed and i alone. Row r of the run (counted over all steps, critic updates and
processes) is clip r of an endless sequence of reshuffled epochs; each process reads the rows of its own devices.
"""

from __future__ import annotations

import collections
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import grain
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from ml_collections import ConfigDict

from technogen_jax.audio import audio_files
from technogen_jax.data import tfrecords

CROPS = ("random", "start")
_WHOLE_BATCH = 16  # records: with the spectra of eight seconds of 44.1 kHz stereo, some 0.7 GB
_DEVICE_BATCHES = 2  # batches on the way to the device while it computes


class Rows(NamedTuple):
    """Where a process's rows lie in the global batch.

    Attributes:
        batch_size: of one critic update, over all processes.
        first: this process's first row in it.
        count: its number of rows.
    """

    batch_size: int
    first: int
    count: int


def follow(config: ConfigDict, manifest: tfrecords.Manifest) -> ConfigDict:
    """The config with what it leaves to the set, where it has None: rate, channels and length of a clip, and its bars.

    Of a set that is cut at bars fewer than a record has can be asked for, by `model.bars` or by `audio.clip_samples`.

    Args:
        config: as a config file gives it; it stays as it is. Values that no field takes are left for `fields.check`.
        manifest: of the set.

    Raises:
        ValueError: how many bars a clip has is not known, or not what its length says; names the fields and what to do.
    """
    config = config.copy_and_resolve_references().unlock()
    audio, model = config.audio, config.model
    said = dict(sample_rate_hz=manifest.sample_rate_hz, channels=manifest.channels)
    audio.update({name: value for name, value in said.items() if audio[name] is None})
    cut = manifest.options.get("bars")  # in a record; None: not cut at bars
    if "bars" in model and cut is not None and audio.sample_rate_hz == manifest.sample_rate_hz:
        _follow_bars(audio, model, manifest.clip_samples / cut, cut)
    elif audio.clip_samples is None:
        audio.clip_samples = manifest.clip_samples
    if "bars" in model and model.bars is None:
        raise ValueError(
            "config.model.bars: a clip of this model is whole bars, and the set was not cut at them; prepare it with --grid "
            "bars, or say how many bars a clip has"
        )
    return config.lock()


def _follow_bars(audio: ConfigDict, model: ConfigDict, bar_samples: float, cut: int) -> None:
    if not all(value is None or (type(value) is int and value > 0) for value in (audio.clip_samples, model.bars)):
        return
    if model.bars is None:
        model.bars = cut if audio.clip_samples is None else max(1, round(audio.clip_samples / bar_samples))
    if audio.clip_samples is None:
        audio.clip_samples = round(model.bars * bar_samples)
    if abs(audio.clip_samples - model.bars * bar_samples) > 1:
        raise ValueError(
            f"config.audio.clip_samples is {audio.clip_samples} and config.model.bars {model.bars}, but so many bars of the set "
            f"are {round(model.bars * bar_samples)} samples; leave both out, and they are the set's"
        )


def check(
    manifest: tfrecords.Manifest,
    split: str,
    crop: str,
    *,
    sample_rate_hz: int,
    channels: int,
    clip_samples: int,
    classes: Sequence[str] = (),
    encode_once: bool = False,
) -> None:
    """Holds a config and its model's `classes` and `encode_once` against a prepared set, before anything compiles.

    Raises:
        ValueError: they do not go together; names both sides and what to do.
    """

    def fail(field: str, wanted: Any, found: Any, mend: str):
        raise ValueError(f"config.{field} is {wanted}, but the set has {found}; {mend}")

    _check_crop(crop)
    again = "prepare the set again with --{}, or set config.{} to the set's"
    if manifest.sample_rate_hz != sample_rate_hz:
        mend = again.format(f"sample_rate {sample_rate_hz}", "audio.sample_rate_hz")
        fail("audio.sample_rate_hz", sample_rate_hz, manifest.sample_rate_hz, mend)
    if manifest.channels != channels:
        fail("audio.channels", channels, manifest.channels, again.format(f"channels {channels}", "audio.channels"))
    if manifest.clip_samples < clip_samples:
        mend = again.format(f"hop_size {clip_samples / sample_rate_hz:g} or more", "audio.clip_samples")
        fail("audio.clip_samples", clip_samples, f"clips of {manifest.clip_samples}", mend)
    if split not in manifest.splits:
        fail("data.split", repr(split), ", ".join(manifest.splits), "name one of these")
    if not manifest.splits[split]["clips"]:
        fail("data.split", repr(split), f"no {split} clips", "add tracks, or prepare with another --split")
    if encode_once and crop == "random" and manifest.clip_samples > clip_samples:
        found = f"clips of {manifest.clip_samples} samples for a window of {clip_samples}"
        fail("data.crop", "'random'", found, "this model encodes each clip once: set it to 'start'")
    labels = sorted(clips_of_labels(manifest, split))
    if unknown := [name for name in classes if name not in labels]:
        fail("model.classes", tuple(classes), f"no {split} clip with the label {unknown[0]!r}", f"it has {labels}")


def clips_of_labels(manifest: tfrecords.Manifest, split: str) -> dict[str, int]:
    """Clips of each label of a split, of those labels that it has."""
    counts = collections.Counter()
    for track in manifest.tracks:
        if track["split"] == split:
            counts[track["label"]] += track["clips"]
    return +counts


def whole(source: Sequence[dict[str, Any]], count: Callable[[int], object]) -> Iterator[np.ndarray]:
    """float32 `[B, T, C]` of all records in order; `count` is told of each batch."""
    for start in range(0, len(source), _WHOLE_BATCH):
        clips = [source[index]["audio"] for index in range(start, min(start + _WHOLE_BATCH, len(source)))]
        yield audio_files.from_int16(np.stack(clips))
        count(len(clips))


def batches(
    clips: Sequence[np.ndarray],
    *,
    rows: Rows,
    n_critic: int,
    steps: int = 1,
    length: int | None = None,
    crop: str = "start",
    rotate: int = 0,
    seed: int,
    first_step: int = 0,
    read_threads: int = 2,
    read: bool = True,
) -> Iterator[np.ndarray]:
    """Endless `[steps, n_critic, rows.count, length, ...]`, read ahead by threads.

    Args:
        clips: arrays of one shape, with random access: `Audio`, or codes.
        rows: this process's share.
        n_critic: critic updates a step.
        steps: training steps at a time.
        length: the model's window; longer clips are cropped to it. None: clips are as long as it.
        crop: "random", anew each time a clip comes up, or "start".
        rotate: clips are rolled around the loop by a random multiple of it, anew each time; 0: not at all.
        seed: of the shuffling, the crops and the rolls.
        first_step: the step to begin with, a multiple of `steps`.
        read_threads: threads that read and decode.
        read: False for the picks alone, `[steps, n_critic, rows.count, 3]`, of which `gather` makes the same batches.

    Raises:
        ValueError: an unknown crop, or no clips.
    """
    _check_crop(crop)
    if not len(clips):
        raise ValueError("no clips to train on")
    whole = len(clips[0]) if crop == "random" or length is None else length
    window = length or whole
    if rotate and window % rotate:
        raise ValueError(f"config.data.rotate: expected a divisor of a clip's {window} rows, got {rotate}")
    starts = whole - window + 1 if crop == "random" else 1
    picks = _Picks(
        len(clips), rows, steps, n_critic, seed, starts, rotate, window // rotate if rotate else 1, length is not None
    )
    dataset = grain.MapDataset.source(_Batches(clips, picks, window) if read else picks)
    options = grain.ReadOptions(num_threads=read_threads, prefetch_buffer_size=2 * max(1, read_threads))
    iterator = iter(dataset[first_step // steps :].to_iter_dataset(options))
    try:
        yield from iterator
    finally:
        iterator.close()


def gather(clips: jax.Array, picks: jax.Array, length: int) -> jax.Array:
    """The picked clips, of a set that is in the devices' memory: `[..., length, ...]`.

    Args:
        clips: `[clips, T, ...]`.
        picks: `[..., 3]` from `batches`.
        length: the model's window.
    """
    clip, start, roll = jnp.split(picks, 3, -1)
    rows = clips[clip, start + (jnp.arange(length) - roll) % length]
    # Else XLA would compute the step in another order, and round it in another way, than with batches that it is given.
    return jax.lax.optimization_barrier(rows)


def stacked(clips: Sequence[np.ndarray]) -> np.ndarray:
    """All clips as one array `[clips, T, ...]`; codes are that already."""
    return clips if isinstance(clips, np.ndarray) else np.stack(list(clips))


def to_device(local: Iterator[np.ndarray], sharding: NamedSharding, rows: Rows) -> Iterator[jax.Array]:
    """Each process's share becomes part of one global array; copies run ahead of the device."""
    waiting: collections.deque[jax.Array] = collections.deque()
    for batch in local:
        shape = (*batch.shape[:2], rows.batch_size, *batch.shape[3:])
        waiting.append(jax.make_array_from_process_local_data(sharding, batch, shape))
        if len(waiting) > _DEVICE_BATCHES:
            yield waiting.popleft()


def process_rows(batch_size: int) -> Rows:
    """This process's share of a batch that is spread evenly over all devices.

    Raises:
        ValueError: the batch does not divide by the number of devices.
    """
    devices, processes = jax.device_count(), jax.process_count()
    if batch_size < 1 or batch_size % devices:
        raise ValueError(f"config.train.batch_size: expected a multiple of the {devices} devices, got {batch_size}")
    count = batch_size // processes
    return Rows(batch_size, jax.process_index() * count, count)


def _check_crop(crop: str) -> None:
    if crop not in CROPS:
        raise ValueError(f"config.data.crop: expected one of {', '.join(CROPS)}, got {crop!r}")


class Audio(Sequence):
    """The audio of each clip alone."""

    def __init__(self, source: tfrecords.ClipSource):
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> np.ndarray:
        return self._source.audio(index)

    def __repr__(self) -> str:
        return repr(self._source)


class _Picks(Sequence):
    """What one process's rows of `steps` steps at a time are: int32 `[steps, n_critic, rows.count, 3]`.

    Of each row the clip, the first of its samples (or rows of its code), and by how many it is then rolled. Both come from Grain's
    numbers, drawn directly: its pipeline of a shuffle, a repeat and two random maps gives the same at three times the time.
    """

    def __init__(self, clips, rows, steps, n_critic, seed, starts, rotate, rolls, cropped):
        self._clips, self._rows, self._shape = clips, rows, (steps, n_critic, rows.count)
        self._starts, self._rotate, self._rolls = starts, rotate, rolls
        # Grain seeds each part of a pipeline with its place in it.
        places = dict(shuffle=1, crop=3, rotate=4 if cropped else 3)
        seeds = {
            part: int(np.random.SeedSequence([seed, place]).generate_state(1)[0]) for part, place in places.items()
        }
        self._shuffle = seeds["shuffle"]
        self._crops, self._rotations = (grain.experimental.RngPool(seeds[part]) for part in ("crop", "rotate"))

    def __len__(self) -> int:
        return sys.maxsize // (self._shape[0] * self._shape[1] * self._rows.batch_size)

    def __getitem__(self, index: int) -> np.ndarray:
        updates = np.arange(self._shape[0] * self._shape[1]) + int(index) * self._shape[0] * self._shape[1]
        rows = updates[:, None] * self._rows.batch_size + self._rows.first + np.arange(self._rows.count)
        picks = np.zeros((*rows.shape, 3), np.int32)
        flat = rows.ravel().tolist()
        picks[..., 0].flat = [self._clip(row) for row in flat]
        if self._starts > 1:
            picks[..., 1].flat = [_draw(self._crops, row, self._starts) for row in flat]
        if self._rotate:
            picks[..., 2].flat = [self._rotate * _draw(self._rotations, row, self._rolls) for row in flat]
        return picks.reshape(*self._shape, 3)

    def _clip(self, row: int) -> int:
        epoch, place = divmod(row, self._clips)
        return grain.experimental.index_shuffle(place, self._clips - 1, (self._shuffle + epoch) % 2**32, 4)

    def __repr__(self) -> str:
        return f"{self._clips} {self._rows}{self._shape}"


def _draw(pool: grain.experimental.RngPool, row: int, below: int) -> int:
    rng = pool.acquire_rng(row)
    number = rng.integers(below)
    pool.release_rng(rng)
    return number


class _Batches(Sequence):
    """The clips that are picked."""

    def __init__(self, clips: Sequence[np.ndarray], picks: _Picks, length: int):
        self._clips, self._picks, self._length = clips, picks, length

    def __len__(self) -> int:
        return len(self._picks)

    def __getitem__(self, index: int) -> np.ndarray:
        picks = self._picks[index]
        rows = picks.reshape(-1, 3)
        if isinstance(self._clips, np.ndarray) and not rows[:, 1:].any() and self._length == self._clips.shape[1]:
            batch = self._clips[rows[:, 0]]
        else:
            batch = np.stack([self._row(*row) for row in rows.tolist()])
        return batch.reshape(*picks.shape[:-1], *batch.shape[1:])

    def _row(self, clip: int, start: int, roll: int) -> np.ndarray:
        row = self._clips[clip][start : start + self._length]
        return np.roll(row, roll, 0) if roll else row

    def __repr__(self) -> str:
        return f"{self._clips!r}{self._picks!r}"
