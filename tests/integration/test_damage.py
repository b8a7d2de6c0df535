"""Damaged shards and checkpoints: they are named, and training goes on from the newest checkpoint that is good."""

import shutil

import jax
import numpy as np
import pytest

from technogen_jax.data import tfrecords
from technogen_jax.runs.checkpoints import CHECKPOINTS_FOLDER, Checkpoints, DamagedError
from technogen_jax.sampling import generator
from technogen_jax.training import loop

SHARD = tfrecords.shard_names("train", 1)[0]


def flip(shard):
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)


def flip_a_length(shard):
    content = bytearray(shard.read_bytes())
    content[0] ^= 1
    shard.write_bytes(content)


def cut(shard):
    shard.write_bytes(shard.read_bytes()[:-1])


def reverse(shard):
    """As another shard's content would be: whole, and not where it belongs."""
    tfrecords.write_shard(shard, list(tfrecords.TFRecordSource([shard]))[::-1])


@pytest.mark.parametrize(
    "damage, message",
    [
        (flip, "the record at byte .* is damaged"),  # found while training: a record is checked when it is read
        (flip_a_length, "damaged at byte 0"),
        (cut, "truncated"),
        (lambda shard: shard.unlink(), "cannot be read"),
        (reverse, "holds other clips"),
    ],
    ids=["flip", "flip_a_length", "cut", "missing", "other"],
)
def test_training_stops_and_names_the_shard(prepared_set, tiny_config, tmp_path, damage, message):
    shutil.copytree(prepared_set, tmp_path / "set")
    damage(tmp_path / "set" / SHARD)
    tiny_config.data.dir = str(tmp_path / "set")
    tiny_config.train.update(steps=100, save_every=100, sample_every=0)
    tiny_config.eval.every = 0
    with pytest.raises(tfrecords.RecordError, match=f"{SHARD}: {message}"):
        loop.train(tiny_config, tmp_path / "run", say=lambda line: None)


def test_training_goes_on_from_the_newest_good_checkpoint_and_ends_in_the_same_bits(
    tiny_config, trained_workdir, tmp_path
):
    shutil.copytree(trained_workdir, tmp_path / "run")
    for path in (tmp_path / "run" / CHECKPOINTS_FOLDER / "6").rglob("d/*"):
        flip(path)
    with pytest.raises(DamagedError, match=r"checkpoints/6: damaged .* newest whole .* step 4$"):
        generator.load(tmp_path / "run")
    printed = []
    state = loop.train(tiny_config, tmp_path / "run", say=printed.append)
    assert any("checkpoints/6: damaged" in line and "an earlier one is used" in line for line in printed)
    assert any(line.startswith("resumed from step 4") for line in printed)
    with Checkpoints(trained_workdir, read_only=True) as good:
        jax.tree.map(np.testing.assert_array_equal, state, good.restore(6, state))
    with Checkpoints(tmp_path / "run", read_only=True) as again:
        jax.tree.map(np.testing.assert_array_equal, state, again.restore(6, state))
