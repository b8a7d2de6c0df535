"""Reading clips, also from files that are damaged, exchanged or gone."""

import dataclasses
import os
import pickle

import numpy as np
import pytest
from helpers.datasets import CLIP_SAMPLES, edited, edits, read_or_record_error, write_dataset
from helpers.fuzzing import fuzzed
from hypothesis import given

from technogen_jax.data import clip_source, tfrecords
from technogen_jax.data.clip_source import ClipSource
from technogen_jax.data.manifest import CLIPS_FILE


def assert_same_example(got, want):
    np.testing.assert_array_equal(got["audio"], want["audio"])
    assert {name: got[name] for name in ("label", "track", "offset")} == {
        name: want[name] for name in ("label", "track", "offset")
    }


def test_clip_source_returns_the_clips_that_were_written(tmp_path):
    examples = write_dataset(tmp_path)
    for split, want in examples.items():
        source = ClipSource(tmp_path, split)
        assert len(source) == len(want)
        for index, example in enumerate(want):
            assert_same_example(source[index], example)
    source = ClipSource(tmp_path, "train")
    copy = pickle.loads(pickle.dumps(source))
    assert repr(copy) == repr(source)
    assert_same_example(copy[-1], examples["train"][-1])
    with pytest.raises(IndexError):
        source[7]
    with pytest.raises(tfrecords.RecordError, match="no split 'dev'; it has train, valid, test"):
        ClipSource(tmp_path, "dev")


def test_clip_source_accepts_any_order_of_fields_and_checks_the_length(tmp_path):
    want = write_dataset(tmp_path)["train"][0]["audio"]
    source = ClipSource(tmp_path, "train")
    record = source._records[0]
    start, end = record.index(b"\x05audio") - 4, record.index(b"\x05label") - 3
    tfrecords.write_shard(tmp_path / "a", [record[:start] + record[end:] + record[start:end]])
    source._records = tfrecords.TFRecordSource([tmp_path / "a"])
    np.testing.assert_array_equal(source[0]["audio"], want)
    source.manifest = dataclasses.replace(source.manifest, clip_samples=CLIP_SAMPLES + 1)
    with pytest.raises(tfrecords.RecordError, match="is no clip of this dataset"):
        source[0]


def swap(first, second):
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)


def test_clip_source_detects_exchanged_shards(tmp_path):
    def make(name):
        write_dataset(tmp_path / name, clips=(6, 2, 2), shards=(3, 1, 1))
        return [tmp_path / name / shard for shard in tfrecords.shard_names("train", 3)]

    for name in "abc":
        (tmp_path / name).mkdir()
    shards = make("a")  # two clips each
    assert len(ClipSource(tmp_path / "a", "train")) == 6
    swap(shards[1], shards[2])
    with pytest.raises(
        tfrecords.RecordError,
        match=rf"{shards[1].name}: holds other clips .* expected acid/train träck 1",
    ):
        ClipSource(tmp_path / "a", "train")
    shards = make("b")
    swap(shards[0], tmp_path / "b" / tfrecords.shard_names("test", 1)[0])
    for split, shard in (("train", shards[0].name), ("test", "test")):
        with pytest.raises(tfrecords.RecordError, match=f"{shard}.*: holds other clips"):
            ClipSource(tmp_path / "b", split)
    make("c")
    (tmp_path / "c" / CLIPS_FILE).unlink()
    with pytest.raises(tfrecords.RecordError, match=r"clips\.jsonl: unreadable"):
        ClipSource(tmp_path / "c", "train")


def test_clip_source_names_a_shard_that_disappears_while_it_is_open(tmp_path):
    write_dataset(tmp_path)
    source = ClipSource(tmp_path, "train")
    shard = tmp_path / tfrecords.shard_names("train", 3)[2]
    os.truncate(shard, 100)
    with pytest.raises(tfrecords.RecordError, match=f"{shard.name}: the record at byte .* damaged"):
        source[6]
    shard.unlink()
    with pytest.raises(tfrecords.RecordError, match=f"{shard.name}: the record at byte .* cannot be read"):
        source[6]


@pytest.fixture(scope="module")
def one_clip(tmp_path_factory):
    """(folder of a dataset of one clip, that clip's record)."""
    folder = tmp_path_factory.mktemp("one")
    write_dataset(folder, clips=(1, 0, 0), shards=(1, 0, 0))
    return folder, tfrecords.TFRecordSource([folder / tfrecords.shard_names("train", 1)[0]])[0]


@fuzzed
@given(edits)
def test_clip_source_reads_edited_records_or_raises_a_record_error(one_clip, tmp_path, edits):
    folder, record = one_clip
    source = ClipSource(folder, "train")
    tfrecords.write_shard(tmp_path / "a", [edited(record, edits)])
    source._records = tfrecords.TFRecordSource([tmp_path / "a"])
    clip = read_or_record_error(lambda: source[0])
    if clip is not None:
        assert clip["audio"].shape == (CLIP_SAMPLES, 2) and clip["audio"].dtype == np.int16
        assert clip["label"] in (0, 1) and isinstance(clip["track"], str) and isinstance(clip["offset"], int)


def test_clips_for_a_picture_are_spread_over_tracks():
    tracks = [f"track {number:02d}" for number in range(30) for _ in range(20)]
    chosen = [tracks[index] for index in clip_source.choose_spread(tracks, 12)]
    assert len(set(chosen)) == 12 and {"track 00", "track 29"} <= set(chosen)
    few = [["a", "b", "b", "b", "c"][index] for index in clip_source.choose_spread(["a", "b", "b", "b", "c"], 4)]
    assert few == ["a", "b", "b", "c"]
    assert sorted(clip_source.choose_spread(["a", "b"], 12)) == [0, 1] and clip_source.choose_spread([], 3) == []
