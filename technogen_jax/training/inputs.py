"""The input of the training loop: batches on the devices."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from technogen_jax import models
from technogen_jax.common import distributed
from technogen_jax.data import batching
from technogen_jax.data.clip_source import ClipSource
from technogen_jax.runs import encoded_dataset
from technogen_jax.training import memory


class InputPlan(NamedTuple):
    """What the input of the loop is, before there is any.

    Attributes:
        item: shapes and types of one item: the clips `[steps, n_critic, B, ...]` of one dispatch,
            or (all clips, picks) where all clips are in the devices' memory.
        sharding: the sharding of such an item.
        pick_clips: (all clips, picks) -> clips; None where the items are the clips.
    """

    item: Any
    sharding: Any
    pick_clips: Callable[[jax.Array, jax.Array], jax.Array] | None


def plan(config: ConfigDict, mesh: Mesh, gan: models.GAN, source: ClipSource) -> InputPlan:
    """Plans the input of a run, before the dataset is encoded.

    Args:
        config: the config of the run.
        mesh: the mesh of all devices.
        gan: the model.
        source: the clips of the training split.
    """
    clips = _find_shape(config, gan, source)
    leading = (config.train.steps_per_dispatch, config.train.n_critic, config.train.batch_size)
    by_row = distributed.sharded(mesh, 2)  # [steps, n_critic, B, ...]: the devices share the rows B
    length = clips.shape[1] if gan.encode_once else config.audio.clip_samples
    if not memory.dataset_stays_on_device(config, clips):
        item = jax.ShapeDtypeStruct((*leading, length, *clips.shape[2:]), clips.dtype)
        return InputPlan(item, by_row, None)
    picks = jax.ShapeDtypeStruct((*leading, 3), np.int32)
    pick_clips = functools.partial(batching.gather, length=length, rotate=bool(config.data.rotate))
    return InputPlan((clips, picks), (distributed.replicated(mesh), by_row), pick_clips)


@contextlib.contextmanager
def make(
    config: ConfigDict, mesh: Mesh, source: ClipSource, gan: models.GAN, clips: Sequence[np.ndarray], start: int
) -> Iterator[Iterator[Any]]:
    """Yields the endless input from a step on; it depends on the seed and the step alone.

    Args:
        config: the config of the run.
        mesh: the mesh of all devices.
        source: the clips of the training split.
        gan: the model.
        clips: the clips to train on, or the encoded clips.
        start: the step.
    """
    rows = batching.assign_rows(config.train.batch_size)
    by_row = distributed.sharded(mesh, 2)
    on_device = plan(config, mesh, gan, source).pick_clips is not None
    local = batching.iterate_batches(
        clips,
        rows=rows,
        n_critic=config.train.n_critic,
        steps=config.train.steps_per_dispatch,
        window=batching.Window(
            length=None if gan.encode_once else config.audio.clip_samples,
            crop=config.data.crop,
            rotate=config.data.rotate,
        ),
        seed=config.seed,
        first_step=start,
        read_threads=config.data.read_threads,
        read=not on_device,
    )
    with contextlib.closing(local):
        batches = batching.to_device(local, by_row, rows)
        if not on_device:
            yield batches
            return
        stacked = batching.stack_clips(clips)
        dataset = jax.make_array_from_callback(stacked.shape, distributed.replicated(mesh), stacked.__getitem__)
        yield zip(itertools.repeat(dataset), batches)


def _find_shape(config: ConfigDict, gan: models.GAN, source: ClipSource) -> jax.ShapeDtypeStruct:
    """Returns shape and type of all clips, as audio or encoded."""
    manifest, count = source.manifest, len(source)
    if gan.encode_once:
        return encoded_dataset.find_shape(gan, manifest, count, config.audio.clip_samples)
    return jax.ShapeDtypeStruct((count, manifest.clip_samples, manifest.channels), np.int16)
