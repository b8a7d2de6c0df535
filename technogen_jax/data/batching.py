"""Endless batches of clips: shuffled over the whole split, independent of the process count, resumable.

The batch of step i depends on the seed and i alone. The rows of all steps, critic updates and processes
are numbered; row r is clip r of an endless sequence of epochs, each in another order. Each process reads
the rows of its own devices.
"""

from __future__ import annotations

import collections
import dataclasses
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import grain
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from technogen_jax.audio import audio_files
from technogen_jax.data.clip_source import ClipSource

CROPS = ("random", "start")
_IN_ORDER_BATCH = 16  # clips: with their spectra 0.7 GB, for eight seconds of stereo at 44.1 kHz
_DEVICE_BATCHES = 2  # batches that are copied to the device while it computes


class ProcessRows(NamedTuple):
    """The rows of the global batch that one process reads.

    Attributes:
        batch_size: rows of one critic update, over all processes.
        first: this process's first row.
        count: this process's number of rows.
    """

    batch_size: int
    first: int
    count: int


@dataclasses.dataclass(frozen=True)
class Window:
    """The part of a clip that a row of a batch contains.

    Attributes:
        length: the model's window; longer clips are cropped to it. None: the whole clip.
        crop: "random", drawn anew for each use of a clip, or "start".
        rotate: clips are loops, and each use rotates them by a random multiple of this many samples
            (or rows of a code); 0: not at all.
    """

    length: int | None = None
    crop: str = "start"
    rotate: int = 0


def iterate_in_order(source: Sequence[dict[str, Any]], on_progress: Callable[[int], object]) -> Iterator[np.ndarray]:
    """Yields all clips of a source in order, in batches.

    Args:
        source: clips, as `ClipSource` has them.
        on_progress: called with the number of clips after each batch.

    Yields:
        float32 `[B, T, C]`.
    """
    for start in range(0, len(source), _IN_ORDER_BATCH):
        clips = [source[index]["audio"] for index in range(start, min(start + _IN_ORDER_BATCH, len(source)))]
        yield audio_files.from_int16(np.stack(clips))
        on_progress(len(clips))


def iterate_batches(
    clips: Sequence[np.ndarray],
    *,
    rows: ProcessRows,
    n_critic: int,
    steps: int = 1,
    window: Window,
    seed: int,
    first_step: int = 0,
    read_threads: int = 2,
    read: bool = True,
) -> Iterator[np.ndarray]:
    """Yields batches without end; threads read ahead.

    Args:
        clips: arrays of one shape `[T, ...]` with random access: `ClipAudio`, or an array of codes.
        rows: this process's share of a batch.
        n_critic: critic updates a step.
        steps: training steps in one batch.
        window: the part of each clip that is used.
        seed: the seed of the order, the crops and the rotations.
        first_step: the step to begin with, a multiple of `steps`.
        read_threads: threads that read and decode.
        read: with False the picks alone, from which `gather` makes the same batches.

    Yields:
        `[steps, n_critic, rows.count, length, ...]`; picks are int32 `[steps, n_critic, rows.count, 3]`.

    Raises:
        ValueError: an unknown crop, `window.rotate` does not divide the length, or there are no clips.
    """
    check_crop(window.crop)
    if not len(clips):
        raise ValueError("no clips to train on")
    whole_clips = window.length is None
    clip_length = len(clips[0]) if window.crop == "random" or whole_clips else window.length
    length, rotate = window.length or clip_length, window.rotate
    if rotate and length % rotate:
        raise ValueError(f"config.data.rotate: expected a divisor of a clip's {length} rows, got {rotate}")
    starts = clip_length - length + 1 if window.crop == "random" else 1
    rolls = length // rotate if rotate else 1
    picks = _Picks(len(clips), rows, steps, n_critic, seed, starts, rotate, rolls, cropped=not whole_clips)
    dataset = grain.MapDataset.source(_Batches(clips, picks, length) if read else picks)
    options = grain.ReadOptions(num_threads=read_threads, prefetch_buffer_size=2 * max(1, read_threads))
    iterator = iter(dataset[first_step // steps :].to_iter_dataset(options))
    try:
        yield from iterator
    finally:
        iterator.close()


def gather(clips: jax.Array, picks: jax.Array, length: int, rotate: bool = True) -> jax.Array:
    """Returns the picked clips of a dataset that is in the devices' memory.

    Args:
        clips: `[clips, T, ...]`.
        picks: `[..., 3]` from `iterate_batches`.
        length: the model's window.
        rotate: whether picks may rotate clips.

    Returns:
        `[..., length, ...]`.
    """

    def take(pick):
        clip, start, roll = pick
        shape = (1, length, *clips.shape[2:])
        row = jax.lax.dynamic_slice(clips, (clip, start, *[0] * (clips.ndim - 2)), shape)[0]
        if not rotate:
            return row
        return jax.lax.dynamic_slice_in_dim(jnp.concatenate([row, row]), length - roll, length)

    # One slice for each clip: with an index for each sample a batch of WaveGAN needs 5 million.
    rows = jax.vmap(take)(picks.reshape(-1, 3)).reshape(*picks.shape[:-1], length, *clips.shape[2:])
    # Without the barrier XLA fuses this into the step, which is then rounded differently than with
    # batches from the host.
    return jax.lax.optimization_barrier(rows)


def stack_clips(clips: Sequence[np.ndarray]) -> np.ndarray:
    """Returns all clips as one array `[clips, T, ...]`; an array is returned as it is."""
    return clips if isinstance(clips, np.ndarray) else np.stack(list(clips))


def to_device(local: Iterator[np.ndarray], sharding: NamedSharding, rows: ProcessRows) -> Iterator[jax.Array]:
    """Yields global arrays, made of each process's batches; copies to the device run ahead of it."""
    waiting: collections.deque[jax.Array] = collections.deque()
    for batch in local:
        shape = (*batch.shape[:2], rows.batch_size, *batch.shape[3:])
        waiting.append(jax.make_array_from_process_local_data(sharding, batch, shape))
        if len(waiting) > _DEVICE_BATCHES:
            yield waiting.popleft()


def assign_rows(batch_size: int) -> ProcessRows:
    """Returns this process's rows of a batch that is spread evenly over all devices.

    Raises:
        ValueError: the batch size is not a multiple of the number of devices.
    """
    devices, processes = jax.device_count(), jax.process_count()
    if batch_size < 1 or batch_size % devices:
        raise ValueError(f"config.train.batch_size: expected a multiple of the {devices} devices, got {batch_size}")
    count = batch_size // processes
    return ProcessRows(batch_size, jax.process_index() * count, count)


def check_crop(crop: str) -> None:
    """Raises ValueError unless `crop` is one of `CROPS`."""
    if crop not in CROPS:
        raise ValueError(f"config.data.crop: expected one of {', '.join(CROPS)}, got {crop!r}")


class ClipAudio(Sequence):
    """The audio of each clip, without its label and track."""

    def __init__(self, source: ClipSource):
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> np.ndarray:
        return self._source[index]["audio"]

    def __repr__(self) -> str:
        return repr(self._source)


class _Picks(Sequence):
    """The clips in the rows of `steps` steps of one process: int32 `[steps, n_critic, rows.count, 3]`.

    The three numbers of a row are the clip, its first sample (or row of a code), and by how many of
    these it is then rotated. All come from Grain's random generators. They are called directly, since a
    Grain pipeline of a shuffle, a repeat and two random maps gives the same numbers in three times the
    time.
    """

    def __init__(self, clips, rows, steps, n_critic, seed, starts, rotate, rolls, cropped):
        self._clips, self._rows, self._shape = clips, rows, (steps, n_critic, rows.count)
        self._starts, self._rotate, self._rolls = starts, rotate, rolls
        # Grain seeds each stage of a pipeline by its position in it; these are the positions of that pipeline.
        positions = dict(shuffle=1, crop=3, rotate=4 if cropped else 3)
        seeds = {
            part: int(np.random.SeedSequence([seed, position]).generate_state(1)[0])
            for part, position in positions.items()
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
        epoch, position = divmod(row, self._clips)
        return grain.experimental.index_shuffle(position, self._clips - 1, (self._shuffle + epoch) % 2**32, 4)

    def __repr__(self) -> str:
        return f"{self._clips} {self._rows}{self._shape}"


def _draw(pool: grain.experimental.RngPool, row: int, below: int) -> int:
    """Returns row `row`'s random integer from 0 to `below - 1`."""
    rng = pool.acquire_rng(row)
    number = rng.integers(below)
    pool.release_rng(rng)
    return number


class _Batches(Sequence):
    """The batches of clips that `_Picks` names."""

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
