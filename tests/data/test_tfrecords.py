"""Shards and records against TensorBoard's reader, TensorFlow Datasets and published checksums."""

import os

import numpy as np
import pytest
import tensorflow_datasets as tfds
from helpers.datasets import read_or_record_error, write_dataset
from helpers.fuzzing import fuzzed
from hypothesis import given
from hypothesis import strategies as st
from tensorboard.compat.tensorflow_stub import pywrap_tensorflow

from technogen_jax.data import tfrecords


def assert_same_example(got, want):
    np.testing.assert_array_equal(got["audio"], want["audio"])
    assert {name: got[name] for name in ("label", "track", "offset")} == {
        name: want[name] for name in ("label", "track", "offset")
    }


def test_masked_crc_matches_the_published_values():
    # CRC-32C of "123456789" is E3069283 (RFC 3720, B.4 has others); masked as TensorFlow's crc32c.h does.
    crc = 0xE3069283
    assert tfrecords.masked_crc(b"123456789") == (((crc >> 15) | (crc << 17)) + 0xA282EAD8) % 2**32
    crc = 0x8A9136AA  # RFC 3720, B.4: 32 bytes of zeros
    assert tfrecords.masked_crc(bytes(32)) == (((crc >> 15) | (crc << 17)) + 0xA282EAD8) % 2**32


def test_tensorboard_reads_the_shards(tmp_path):
    rng = np.random.default_rng(0)
    written = [rng.bytes(int(size)) for size in [0, 1, 7, *rng.integers(0, 5000, 20)]]
    assert tfrecords.write_shard(tmp_path / "a", written) == sum(map(len, written))
    reader, read = pywrap_tensorflow.PyRecordReader_New(str(tmp_path / "a").encode()), []
    for _ in written:
        reader.GetNext()
        read.append(reader.record())
    assert read == written
    assert list(tfrecords.TFRecordSource([tmp_path / "a"])) == written
    assert os.listdir(tmp_path) == ["a"]


def test_serialize_example_matches_tensorflow_datasets(tmp_path):
    examples = write_dataset(tmp_path)
    builder = tfds.builder_from_directory(tmp_path)
    want = examples["train"][0]
    data = tfrecords.TFRecordSource([tmp_path / tfrecords.shard_names("train", 3)[0]])[0]
    assert_same_example(builder.info.features.deserialize_example_np(data) | {"track": want["track"]}, want)
    assert sorted(builder.info.features.serialize_example(want)) == sorted(data)  # its order of fields varies


def test_tensorflow_datasets_opens_the_dataset(tmp_path):
    write_dataset(tmp_path)
    info = tfds.builder_from_directory(tmp_path).info
    assert {split: entry.num_examples for split, entry in info.splits.items()} == {"train": 7, "test": 2}
    assert info.splits["train"].shard_lengths == [3, 2, 2]
    assert [os.path.basename(path) for path in info.splits["train"].filepaths] == tfrecords.shard_names("train", 3)
    assert info.features["label"].names == ["acid", "industrial"]
    assert info.metadata["sample_rate_hz"] == 16000


@pytest.mark.parametrize("seed", range(5))
def test_damage_is_reported_with_its_offset(tmp_path, seed):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 100, 5)
    starts = np.concatenate([[0], np.cumsum(sizes + 16)])
    tfrecords.write_shard(tmp_path / "a", [rng.bytes(int(size)) for size in sizes])
    whole = (tmp_path / "a").read_bytes()
    for end in range(1, len(whole)):
        (tmp_path / "b").write_bytes(whole[:end])
        if end in starts:  # whole records: the manifest's count finds this
            assert len(tfrecords.TFRecordSource([tmp_path / "b"])) == list(starts).index(end)
        else:
            with pytest.raises(tfrecords.RecordError, match=r"b: truncated.* byte \d+"):
                tfrecords.TFRecordSource([tmp_path / "b"])
    for position in rng.integers(0, len(whole), 40):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << rng.integers(8)
        (tmp_path / "b").write_bytes(damaged)
        record = int(np.searchsorted(starts, position, side="right")) - 1
        in_header = position - starts[record] < 12
        with pytest.raises(tfrecords.RecordError, match=f"byte {starts[record] + (0 if in_header else 12)}"):
            list(tfrecords.TFRecordSource([tmp_path / "b"]))


def test_write_shard_keeps_the_old_file_when_it_fails(tmp_path):
    def failing():
        yield b"new"
        raise OSError("disk full")

    tfrecords.write_shard(tmp_path / "a", [b"old"])
    with pytest.raises(OSError, match="disk full"):
        tfrecords.write_shard(tmp_path / "a", failing())
    assert list(tfrecords.TFRecordSource([tmp_path / "a"])) == [b"old"]


@fuzzed
@given(st.binary(max_size=200))
def test_record_source_reads_random_bytes_or_raises_a_record_error(tmp_path, content):
    """What is read, written again, gives the same bytes."""
    (tmp_path / "a").write_bytes(content)
    found = read_or_record_error(lambda: list(tfrecords.TFRecordSource([tmp_path / "a"])))
    if found is not None:
        tfrecords.write_shard(tmp_path / "b", found)
        assert (tmp_path / "b").read_bytes() == content
