"""The bytes of a set, against TensorBoard's reader, TensorFlow Datasets' metadata and known checksums."""

import json
import os
import pickle

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorboard.compat.tensorflow_stub import pywrap_tensorflow

from technogen_jax import records

CLIP = 50


def make_set(folder, clips=(7, 0, 2), shards=(3, 0, 1), channels=2, labels=("acid", "industrial")):
    """A set of random clips; the examples by split."""
    rng = np.random.default_rng(0)
    features = records.make_features(CLIP, channels, labels)
    examples, splits, info = {}, {}, {}
    for split, count, shard_count in zip(records.SPLITS, clips, shards, strict=True):
        examples[split] = [
            {
                "audio": rng.integers(-32768, 32768, (CLIP, channels), np.int16),
                "label": int(rng.integers(len(labels))),
                "track": f"acid/träck {index}.wav",
                "offset": index * 2**33,
            }
            for index in range(count)
        ]
        names = records.shard_names(split, shard_count)
        parts = [examples[split][index::shard_count] for index in range(shard_count)]
        total = 0
        for name, part in zip(names, parts, strict=True):
            total += records.write_shard(folder / name, (records.serialize_example(**e) for e in part))
        examples[split] = [example for part in parts for example in part]
        splits[split] = {"clips": count, "tracks": 1, "shards": names}
        if count:
            info[split] = ([len(part) for part in parts], total)
    records.write_dataset_info(folder, features, info, "A test.", {"sample_rate_hz": 16000})
    manifest = records.Manifest(
        sample_rate_hz=16000,
        channels=channels,
        clip_samples=CLIP,
        stride_samples=CLIP,
        labels=list(labels),
        splits=splits,
        tracks=[],
        rejected=[],
        options={},
        fingerprint="x",
    )
    records.write_manifest(folder, manifest)
    return examples


def assert_same_example(got, want):
    np.testing.assert_array_equal(got["audio"], want["audio"])
    assert {name: got[name] for name in ("label", "track", "offset")} == {
        name: want[name] for name in ("label", "track", "offset")
    }


def test_masked_crc_is_tensorflows():
    # CRC-32C of "123456789" is E3069283 (RFC 3720, B.4 has others); masked as TensorFlow's crc32c.h does.
    crc = 0xE3069283
    assert records.masked_crc(b"123456789") == (((crc >> 15) | (crc << 17)) + 0xA282EAD8) % 2**32
    crc = 0x8A9136AA  # RFC 3720, B.4: 32 bytes of zeros
    assert records.masked_crc(bytes(32)) == (((crc >> 15) | (crc << 17)) + 0xA282EAD8) % 2**32


def test_tensorboard_reads_the_shards(tmp_path):
    rng = np.random.default_rng(0)
    written = [rng.bytes(int(size)) for size in [0, 1, 7, *rng.integers(0, 5000, 20)]]
    assert records.write_shard(tmp_path / "a", written) == sum(map(len, written))
    reader, read = pywrap_tensorflow.PyRecordReader_New(str(tmp_path / "a").encode()), []
    for _ in written:
        reader.GetNext()
        read.append(reader.record())
    assert read == written
    assert list(records.TFRecordSource([tmp_path / "a"])) == written
    assert os.listdir(tmp_path) == ["a"]


def test_clips_come_back(tmp_path):
    examples = make_set(tmp_path)
    for split, want in examples.items():
        source = records.ClipSource(tmp_path, split)
        assert len(source) == len(want)
        for index, example in enumerate(want):
            assert_same_example(source[index], example)
    source = records.ClipSource(tmp_path, "train")
    copy = pickle.loads(pickle.dumps(source))
    assert repr(copy) == repr(source)
    assert_same_example(copy[-1], examples["train"][-1])
    with pytest.raises(IndexError):
        source[7]
    with pytest.raises(records.RecordError, match="no split 'dev'; it has train, valid, test"):
        records.ClipSource(tmp_path, "dev")


def test_the_record_is_what_tensorflow_datasets_makes(tmp_path):
    examples = make_set(tmp_path)
    builder = tfds.builder_from_directory(tmp_path)
    want = examples["train"][0]
    data = records.TFRecordSource([tmp_path / records.shard_names("train", 3)[0]])[0]
    assert_same_example(builder.info.features.deserialize_example_np(data) | {"track": want["track"]}, want)
    assert sorted(builder.info.features.serialize_example(want)) == sorted(data)  # its order of fields varies


def test_tensorflow_datasets_knows_the_set(tmp_path):
    make_set(tmp_path)
    info = tfds.builder_from_directory(tmp_path).info
    assert {split: entry.num_examples for split, entry in info.splits.items()} == {"train": 7, "test": 2}
    assert info.splits["train"].shard_lengths == [3, 2, 2]
    assert [os.path.basename(path) for path in info.splits["train"].filepaths] == records.shard_names("train", 3)
    assert info.features["label"].names == ["acid", "industrial"]
    assert info.metadata["sample_rate_hz"] == 16000


@pytest.mark.parametrize("seed", range(5))
def test_damage_is_found_and_placed(tmp_path, seed):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 100, 5)
    starts = np.concatenate([[0], np.cumsum(sizes + 16)])
    records.write_shard(tmp_path / "a", [rng.bytes(int(size)) for size in sizes])
    whole = (tmp_path / "a").read_bytes()
    for end in range(1, len(whole)):
        (tmp_path / "b").write_bytes(whole[:end])
        if end in starts:  # whole records: the manifest's count finds this
            assert len(records.TFRecordSource([tmp_path / "b"])) == list(starts).index(end)
        else:
            with pytest.raises(records.RecordError, match=r"b: truncated.* byte \d+"):
                records.TFRecordSource([tmp_path / "b"])
    for position in rng.integers(0, len(whole), 40):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << rng.integers(8)
        (tmp_path / "b").write_bytes(damaged)
        record = int(np.searchsorted(starts, position, side="right")) - 1
        in_header = position - starts[record] < 12
        with pytest.raises(records.RecordError, match=f"byte {starts[record] + (0 if in_header else 12)}"):
            list(records.TFRecordSource([tmp_path / "b"]))


def test_missing_and_changed_files_are_named(tmp_path):
    with pytest.raises(records.RecordError, match=r"manifest\.json: not found.*data_prep\.prepare"):
        records.read_manifest(tmp_path)
    make_set(tmp_path)
    shard = tmp_path / records.shard_names("test", 1)[0]
    records.write_shard(shard, [records.TFRecordSource([shard])[0]])
    with pytest.raises(records.RecordError, match="promises 2 test clips, its shards hold 1"):
        records.ClipSource(tmp_path, "test")
    shard.unlink()
    with pytest.raises(records.RecordError, match=shard.name):
        records.ClipSource(tmp_path, "test")
    for text in ("", "[]", "{}", json.dumps({"version": 99})):
        (tmp_path / records.MANIFEST_FILE).write_text(text)
        with pytest.raises(records.RecordError, match="prepare the set again"):
            records.read_manifest(tmp_path)


def test_a_failure_while_writing_leaves_the_old_file(tmp_path):
    def failing():
        yield b"new"
        raise OSError("disk full")

    records.write_shard(tmp_path / "a", [b"old"])
    with pytest.raises(OSError, match="disk full"):
        records.write_shard(tmp_path / "a", failing())
    assert list(records.TFRecordSource([tmp_path / "a"])) == [b"old"]
