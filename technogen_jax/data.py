"""Records to endless batches: shuffled over the whole split, the same for every number of processes, resumable.

The batch of step i depends on the seed and i alone. Row r of the run (counted over all steps, critic updates and
processes) is clip r of an endless sequence of reshuffled epochs; each process reads the rows of its own devices.
"""

from __future__ import annotations

import collections
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import grain
import jax
import numpy as np
from jax.sharding import NamedSharding

from technogen_jax import records

CROPS = ("random", "start")
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


def check(
    manifest: records.Manifest, split: str, crop: str, *, sample_rate_hz: int, channels: int, clip_samples: int
) -> None:
    """Holds a config against a prepared set, before anything compiles.

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


def batches(
    source: Sequence[dict[str, Any]],
    *,
    rows: Rows,
    n_critic: int,
    clip_samples: int,
    crop: str,
    seed: int,
    first_step: int = 0,
    read_threads: int = 2,
) -> Iterator[np.ndarray]:
    """Endless int16 `[n_critic, rows.count, clip_samples, C]`, one a step, read ahead by threads.

    Args:
        source: clips with random access, a `records.ClipSource`.
        rows: this process's share.
        n_critic: critic updates a step.
        clip_samples: the model's window; longer clips are cropped to it.
        crop: "random", anew each time a clip comes up, or "start".
        seed: of the shuffling and the crops.
        first_step: the step to begin with.
        read_threads: threads that read and decode.

    Raises:
        ValueError: an unknown crop, or a source without clips.
    """
    _check_crop(crop)
    if not len(source):
        raise ValueError("no clips to train on")
    clips = grain.MapDataset.source(_Audio(source)).seed(seed).shuffle().repeat()
    clips = clips.random_map(_Crop(clip_samples, crop))
    dataset = grain.MapDataset.source(_Share(clips, rows)).batch(n_critic * rows.count)
    dataset = dataset.map(lambda batch: batch.reshape(n_critic, rows.count, *batch.shape[1:]))
    options = grain.ReadOptions(num_threads=read_threads, prefetch_buffer_size=2 * max(1, read_threads))
    iterator = iter(dataset[first_step:].to_iter_dataset(options))
    try:
        yield from iterator
    finally:
        iterator.close()


def to_device(local: Iterator[np.ndarray], sharding: NamedSharding, rows: Rows) -> Iterator[jax.Array]:
    """Each process's share becomes part of one global array; copies run ahead of the device."""
    waiting: collections.deque[jax.Array] = collections.deque()
    for batch in local:
        shape = (batch.shape[0], rows.batch_size, *batch.shape[2:])
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


class _Audio(Sequence):
    """The audio of each clip alone."""

    def __init__(self, source: Sequence[dict[str, Any]]):
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> np.ndarray:
        return self._source[index]["audio"]

    def __repr__(self) -> str:
        return repr(self._source)


class _Crop(grain.transforms.RandomMap):
    """A window out of a clip."""

    def __init__(self, clip_samples: int, crop: str):
        self._clip_samples, self._crop = clip_samples, crop

    def random_map(self, element: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        room = len(element) - self._clip_samples
        start = rng.integers(room + 1) if self._crop == "random" and room else 0
        return element[start : start + self._clip_samples]


class _Share(Sequence):
    """One process's rows of an endless sequence, in order."""

    def __init__(self, clips: grain.MapDataset, rows: Rows):
        self._clips, self._rows = clips, rows

    def __len__(self) -> int:
        return len(self._clips) // self._rows.batch_size * self._rows.count

    def __getitem__(self, index: int) -> np.ndarray:
        batch, row = divmod(int(index), self._rows.count)
        return self._clips[batch * self._rows.batch_size + self._rows.first + row]

    def __repr__(self) -> str:
        return f"{self._clips!r}{self._rows}"
