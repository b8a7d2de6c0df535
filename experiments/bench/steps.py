"""Training steps of the configs, and datasets of noise to train on."""

from __future__ import annotations

import importlib
import json
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from technogen_jax import models
from technogen_jax.common import atomic_files
from technogen_jax.data import tfrecords
from technogen_jax.data.manifest import CLIPS_FILE, Manifest, write_manifest
from technogen_jax.training import loop
from technogen_jax.training.step import run_several

NAMES = (
    "wavegan_small",
    "wavegan",
    "wavegan_44k",
    "specgan",
    "specgan_44k",
    "technogan:xs",
    "technogan:s",
    "technogan:m",
)


class Step(NamedTuple):
    """A config's training step.

    Attributes:
        gan: the model.
        jitted: (state, clips, key) -> (state, metrics), for `config.train.steps_per_dispatch` steps. Donates `state`.
        new_state: key -> the first state.
        clips: shape and type of the training clips.
    """

    gan: models.GAN
    jitted: Any
    new_state: Any
    clips: jax.ShapeDtypeStruct

    def lower(self):
        """Returns the traced step. It is not compiled, and no arrays are made."""
        key = jax.eval_shape(lambda: jax.random.key(0))
        return self.jitted.lower(jax.eval_shape(self.new_state, key), self.clips, key)


def load(name: str, **model: Any) -> ConfigDict:
    """Returns the config of a name such as "wavegan_44k:stereo", with some fields of its model changed."""
    module, _, argument = name.partition(":")
    config = importlib.import_module(f"configs.{module}").get_config(*[argument] * bool(argument)).unlock()
    config.data.dir = "unused"
    if config.audio.clip_samples is None:  # normally from the dataset; this is a bar at 136 BPM
        config.audio.update(sample_rate_hz=44100, channels=2, clip_samples=77824)
        config.model.bars, config.model.classes = 1, ()
    config.model.update(model)
    return config


def statistics(config: ConfigDict) -> models.Statistics | None:
    """Returns what the model measures on a dataset of noise; None for a model that measures nothing."""
    if not models.find(config).measure:
        return None
    noise = np.random.default_rng(0).normal(0, 0.1, (2, config.audio.clip_samples, config.audio.channels))
    return models.measure(config, [noise.astype(np.float32)])


def build(config: ConfigDict) -> Step:
    """Builds a step as `technogen_jax.train` does."""
    gan, train_step, new_state = loop.build_training(config, None, statistics(config))
    every, audio = config.train, config.audio
    leading = (every.steps_per_dispatch, every.n_critic, every.batch_size)
    clips = jax.ShapeDtypeStruct((*leading, audio.clip_samples, audio.channels), jnp.int16)
    if gan.encode_once:
        x = jax.eval_shape(lambda key: gan.generate(gan.init_g(key), gan.sample_latents(key, 1)), jax.random.key(0))
        clips = jax.ShapeDtypeStruct((*leading, *x.shape[1:]), x.dtype)
    return Step(gan, jax.jit(run_several(train_step), donate_argnums=0), new_state, clips)


def make_set(folder: pathlib.Path, *, rate_hz: int, channels: int, clip_samples: int, clips: int) -> pathlib.Path:
    """Writes a prepared dataset of noise with four shards, all of it in the train split."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    names, lines, per_shard = tfrecords.shard_names("train", 4), [], -(-clips // 4)
    for shard, name in enumerate(names):
        numbers = range(shard * per_shard, min((shard + 1) * per_shard, clips))
        pcm = (rng.integers(-20_000, 20_000, (clip_samples, channels), dtype=np.int16) for _ in numbers)
        offsets = [number * clip_samples for number in numbers]
        written = (tfrecords.serialize_example(x, 0, "noise", at) for x, at in zip(pcm, offsets, strict=True))
        tfrecords.write_shard(folder / name, written)
        for index, offset in enumerate(offsets):
            where = {
                "split": "train",
                "shard": shard,
                "index": index,
                "track": "noise",
                "offset": offset,
                "label": "noise",
            }
            lines.append(json.dumps(where) + "\n")
    atomic_files.write_text(folder / CLIPS_FILE, lines)
    nothing = {"clips": 0, "tracks": 0, "shards": []}
    manifest = Manifest(
        sample_rate_hz=rate_hz,
        channels=channels,
        clip_samples=clip_samples,
        stride_samples=clip_samples,
        labels=["noise"],
        splits={"train": {"clips": clips, "tracks": 1, "shards": names}, "valid": nothing, "test": nothing},
        tracks=[{"id": "noise", "path": "noise", "label": "noise", "split": "train", "clips": clips, "hash": "none"}],
        rejected=[],
        options={},
        fingerprint="",
    )
    write_manifest(folder, manifest)
    return folder
