"""The bytes of a set, against TensorBoard's reader, TensorFlow Datasets' metadata and known checksums."""

import dataclasses
import json
import os
import pickle

import numpy as np
import pytest
import tensorflow_datasets as tfds
from helpers.fuzzing import fuzzed
from hypothesis import given
from hypothesis import strategies as st
from tensorboard.compat.tensorflow_stub import pywrap_tensorflow

from technogen_jax.data import tfrecords

CLIP = 50


def make_set(folder, clips=(7, 0, 2), shards=(3, 0, 1), channels=2, labels=("acid", "industrial")):
    """A set of random clips; the examples by split."""
    rng = np.random.default_rng(0)
    features = tfrecords.make_features(CLIP, channels, labels)
    examples, splits, info, lines = {}, {}, {}, []
    for split, count, shard_count in zip(tfrecords.SPLITS, clips, shards, strict=True):
        examples[split] = [
            {
                "audio": rng.integers(-32768, 32768, (CLIP, channels), np.int16),
                "label": int(rng.integers(len(labels))),
                "track": f"acid/{split} träck {index}.wav",
                "offset": index * 2**33,
            }
            for index in range(count)
        ]
        names = tfrecords.shard_names(split, shard_count)
        parts = [examples[split][index::shard_count] for index in range(shard_count)]
        total = 0
        for shard, (name, part) in enumerate(zip(names, parts, strict=True)):
            total += tfrecords.write_shard(folder / name, (tfrecords.serialize_example(**e) for e in part))
            for index, example in enumerate(part):
                line = {"split": split, "shard": shard, "index": index, "track": example["track"]}
                lines.append(line | {"offset": example["offset"], "label": labels[example["label"]]})
        examples[split] = [example for part in parts for example in part]
        splits[split] = {"clips": count, "tracks": 1, "shards": names}
        if count:
            info[split] = ([len(part) for part in parts], total)
    tfrecords.write_dataset_info(folder, features, info, "A test.", {"sample_rate_hz": 16000})
    manifest = tfrecords.Manifest(
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
    tfrecords.write_text_atomically(folder / tfrecords.CLIPS_FILE, (json.dumps(line) + "\n" for line in lines))
    tfrecords.write_manifest(folder, manifest)
    return examples


def assert_same_example(got, want):
    np.testing.assert_array_equal(got["audio"], want["audio"])
    assert {name: got[name] for name in ("label", "track", "offset")} == {
        name: want[name] for name in ("label", "track", "offset")
    }


def test_masked_crc_is_tensorflows():
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


def test_clips_come_back(tmp_path):
    examples = make_set(tmp_path)
    for split, want in examples.items():
        source = tfrecords.ClipSource(tmp_path, split)
        assert len(source) == len(want)
        for index, example in enumerate(want):
            assert_same_example(source[index], example)
            np.testing.assert_array_equal(source.audio(index), example["audio"])
    source = tfrecords.ClipSource(tmp_path, "train")
    copy = pickle.loads(pickle.dumps(source))
    assert repr(copy) == repr(source)
    assert_same_example(copy[-1], examples["train"][-1])
    with pytest.raises(IndexError):
        source[7]
    with pytest.raises(tfrecords.RecordError, match="no split 'dev'; it has train, valid, test"):
        tfrecords.ClipSource(tmp_path, "dev")


def test_the_record_is_what_tensorflow_datasets_makes(tmp_path):
    examples = make_set(tmp_path)
    builder = tfds.builder_from_directory(tmp_path)
    want = examples["train"][0]
    data = tfrecords.TFRecordSource([tmp_path / tfrecords.shard_names("train", 3)[0]])[0]
    assert_same_example(builder.info.features.deserialize_example_np(data) | {"track": want["track"]}, want)
    assert sorted(builder.info.features.serialize_example(want)) == sorted(data)  # its order of fields varies


def test_audio_is_found_wherever_it_is_in_a_record(tmp_path):
    want = make_set(tmp_path)["train"][0]["audio"]
    source = tfrecords.ClipSource(tmp_path, "train")
    record = source._records[0]
    start, end = record.index(b"\x05audio") - 4, record.index(b"\x05label") - 3
    tfrecords.write_shard(tmp_path / "a", [record[:start] + record[end:] + record[start:end]])
    source._records = tfrecords.TFRecordSource([tmp_path / "a"])
    np.testing.assert_array_equal(source.audio(0), want)
    source.manifest = dataclasses.replace(source.manifest, clip_samples=CLIP + 1)
    with pytest.raises(tfrecords.RecordError, match="is no clip of this set"):
        source.audio(0)


def test_tensorflow_datasets_knows_the_set(tmp_path):
    make_set(tmp_path)
    info = tfds.builder_from_directory(tmp_path).info
    assert {split: entry.num_examples for split, entry in info.splits.items()} == {"train": 7, "test": 2}
    assert info.splits["train"].shard_lengths == [3, 2, 2]
    assert [os.path.basename(path) for path in info.splits["train"].filepaths] == tfrecords.shard_names("train", 3)
    assert info.features["label"].names == ["acid", "industrial"]
    assert info.metadata["sample_rate_hz"] == 16000


@pytest.mark.parametrize("seed", range(5))
def test_damage_is_found_and_placed(tmp_path, seed):
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


def test_missing_and_changed_files_are_named(tmp_path):
    with pytest.raises(tfrecords.RecordError, match=r"manifest\.json: not found.*data_prep\.prepare"):
        tfrecords.read_manifest(tmp_path)
    make_set(tmp_path)
    shard = tmp_path / tfrecords.shard_names("test", 1)[0]
    tfrecords.write_shard(shard, [tfrecords.TFRecordSource([shard])[0]])
    with pytest.raises(tfrecords.RecordError, match="promises 2 test clips, its shards hold 1"):
        tfrecords.ClipSource(tmp_path, "test")
    shard.unlink()
    with pytest.raises(tfrecords.RecordError, match=shard.name):
        tfrecords.ClipSource(tmp_path, "test")
    for text in ("", "[]", "{}", json.dumps({"version": 99})):
        (tmp_path / tfrecords.MANIFEST_FILE).write_text(text)
        with pytest.raises(tfrecords.RecordError, match="prepare the set again"):
            tfrecords.read_manifest(tmp_path)


def test_a_failure_while_writing_leaves_the_old_file(tmp_path):
    def failing():
        yield b"new"
        raise OSError("disk full")

    tfrecords.write_shard(tmp_path / "a", [b"old"])
    with pytest.raises(OSError, match="disk full"):
        tfrecords.write_shard(tmp_path / "a", failing())
    assert list(tfrecords.TFRecordSource([tmp_path / "a"])) == [b"old"]


# ------------------------------------------------------------------------------------- files of somebody else's, damaged


def swap(first, second):
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)


def test_a_shard_in_anothers_place_is_found(tmp_path):
    def make(name):
        make_set(tmp_path / name, clips=(6, 2, 2), shards=(3, 1, 1))
        return [tmp_path / name / shard for shard in tfrecords.shard_names("train", 3)]

    for name in "abc":
        (tmp_path / name).mkdir()
    shards = make("a")  # two clips each
    assert len(tfrecords.ClipSource(tmp_path / "a", "train")) == 6
    swap(shards[1], shards[2])
    with pytest.raises(
        tfrecords.RecordError, match=rf"{shards[1].name}: holds other clips .* expected acid/train träck 1"
    ):
        tfrecords.ClipSource(tmp_path / "a", "train")
    shards = make("b")
    swap(shards[0], tmp_path / "b" / tfrecords.shard_names("test", 1)[0])
    for split, shard in (("train", shards[0].name), ("test", "test")):
        with pytest.raises(tfrecords.RecordError, match=f"{shard}.*: holds other clips"):
            tfrecords.ClipSource(tmp_path / "b", split)
    make("c")
    (tmp_path / "c" / tfrecords.CLIPS_FILE).unlink()
    with pytest.raises(tfrecords.RecordError, match=r"clips\.jsonl: unreadable"):
        tfrecords.ClipSource(tmp_path / "c", "train")


def test_a_shard_that_goes_while_it_is_read_is_named(tmp_path):
    make_set(tmp_path)
    source = tfrecords.ClipSource(tmp_path, "train")
    shard = tmp_path / tfrecords.shard_names("train", 3)[2]
    os.truncate(shard, 100)
    with pytest.raises(tfrecords.RecordError, match=f"{shard.name}: the record at byte .* damaged"):
        source[6]
    shard.unlink()
    with pytest.raises(tfrecords.RecordError, match=f"{shard.name}: the record at byte .* cannot be read"):
        source[6]


def whole_or_record_error(read):
    """What a reader gives, None where it raises a RecordError of one line; anything else that is raised fails."""
    try:
        return read()
    except tfrecords.RecordError as error:
        assert "\n" not in str(error) and len(str(error)) < 1000
        return None


@fuzzed
@given(st.binary(max_size=200))
def test_bytes_are_a_shard_or_named(tmp_path, content):
    """What is read, written again, gives the same bytes."""
    (tmp_path / "a").write_bytes(content)
    found = whole_or_record_error(lambda: list(tfrecords.TFRecordSource([tmp_path / "a"])))
    if found is not None:
        tfrecords.write_shard(tmp_path / "b", found)
        assert (tmp_path / "b").read_bytes() == content


@pytest.fixture(scope="module")
def one_clip(tmp_path_factory):
    """(folder of a set of one clip, that clip's record)."""
    folder = tmp_path_factory.mktemp("one")
    make_set(folder, clips=(1, 0, 0), shards=(1, 0, 0))
    return folder, tfrecords.TFRecordSource([folder / tfrecords.shard_names("train", 1)[0]])[0]


edits = st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 3), st.binary(max_size=4)), min_size=1, max_size=4)


def edited(content, edits):
    """Bytes with stretches left out or replaced."""
    for place, length, new in edits:
        place %= len(content) + 1
        content = content[:place] + new + content[place + length :]
    return content


@fuzzed
@given(edits)
def test_a_record_with_the_right_checksum_is_a_clip_or_named(one_clip, tmp_path, edits):
    folder, record = one_clip
    source = tfrecords.ClipSource(folder, "train")
    tfrecords.write_shard(tmp_path / "a", [edited(record, edits)])
    source._records = tfrecords.TFRecordSource([tmp_path / "a"])
    clip = whole_or_record_error(lambda: source[0])
    if clip is not None:
        assert clip["audio"].shape == (CLIP, 2) and clip["audio"].dtype == np.int16
        assert clip["label"] in (0, 1) and isinstance(clip["track"], str) and isinstance(clip["offset"], int)
        np.testing.assert_array_equal(source.audio(0), clip["audio"])


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)
FIELDS = [field.name for field in dataclasses.fields(tfrecords.Manifest)]


@fuzzed
@given(st.sampled_from(FIELDS), st.sampled_from([None, *tfrecords.SPLITS]), anything, edits)
def test_a_manifest_is_read_or_named(one_clip, tmp_path, field, split, value, edits):
    fields = json.loads((one_clip[0] / tfrecords.MANIFEST_FILE).read_text())
    if field == "splits" and split:
        value = fields["splits"] | {split: value}
    changed = json.dumps(fields | {field: value})
    for content in (changed.encode(), edited(json.dumps(fields).encode(), edits)):
        (tmp_path / tfrecords.MANIFEST_FILE).write_bytes(content)
        manifest = whole_or_record_error(lambda: tfrecords.read_manifest(tmp_path))
        if manifest is not None:
            assert manifest.channels in (1, 2) and min(manifest.clip_samples, manifest.sample_rate_hz) >= 1
            names = [name for entry in manifest.splits.values() for name in entry["shards"]]
            assert all(os.path.basename(name) == name for name in names)
            whole_or_record_error(lambda: tfrecords.ClipSource(tmp_path, "train"))


@fuzzed
@given(st.sampled_from(["split", "shard", "index", "track", "offset", "label"]), anything, edits)
def test_a_list_of_clips_is_read_or_named(one_clip, tmp_path, field, value, edits):
    folder = one_clip[0]
    (tmp_path / tfrecords.MANIFEST_FILE).write_bytes((folder / tfrecords.MANIFEST_FILE).read_bytes())
    line = (folder / tfrecords.CLIPS_FILE).read_bytes()
    for content in (json.dumps(json.loads(line) | {field: value}).encode(), edited(line, edits)):
        (tmp_path / tfrecords.CLIPS_FILE).write_bytes(content)
        table = whole_or_record_error(lambda: tfrecords.read_clip_table(tmp_path, "train"))
        assert table is None or len(table) == 1 and isinstance(table[0]["track"], str)


@pytest.mark.parametrize("content", ["[" * 100_000, '{"version": ' + "9" * 5000 + "}", '{"a": 1, ', "\x00", "\ud800"])
def test_json_that_python_stumbles_over_is_named(one_clip, tmp_path, content):
    (tmp_path / tfrecords.MANIFEST_FILE).write_bytes(content.encode("utf-8", "surrogatepass"))
    assert whole_or_record_error(lambda: tfrecords.read_manifest(tmp_path)) is None
    (tmp_path / tfrecords.MANIFEST_FILE).write_bytes((one_clip[0] / tfrecords.MANIFEST_FILE).read_bytes())
    (tmp_path / tfrecords.CLIPS_FILE).write_bytes(content.encode("utf-8", "surrogatepass"))
    assert whole_or_record_error(lambda: tfrecords.read_clip_table(tmp_path, "train")) is None
