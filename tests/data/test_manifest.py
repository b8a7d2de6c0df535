"""Reading the manifest and the list of clips, also from damaged files."""

import dataclasses
import json
import os

import pytest
from helpers.datasets import edited, edits, read_or_record_error, write_dataset
from helpers.fuzzing import fuzzed
from hypothesis import given
from hypothesis import strategies as st

from technogen_jax.data import tfrecords
from technogen_jax.data.clip_source import ClipSource
from technogen_jax.data.manifest import CLIPS_FILE, MANIFEST_FILE, Manifest, read_clip_table, read_manifest

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)
FIELDS = [field.name for field in dataclasses.fields(Manifest)]


def test_missing_and_changed_files_are_named_in_the_error(tmp_path):
    with pytest.raises(tfrecords.RecordError, match=r"manifest\.json: not found.*data_prep\.prepare"):
        read_manifest(tmp_path)
    write_dataset(tmp_path)
    shard = tmp_path / tfrecords.shard_names("test", 1)[0]
    tfrecords.write_shard(shard, [tfrecords.TFRecordSource([shard])[0]])
    with pytest.raises(tfrecords.RecordError, match="promises 2 test clips, its shards hold 1"):
        ClipSource(tmp_path, "test")
    shard.unlink()
    with pytest.raises(tfrecords.RecordError, match=shard.name):
        ClipSource(tmp_path, "test")
    for text in ("", "[]", "{}", json.dumps({"version": 99})):
        (tmp_path / MANIFEST_FILE).write_text(text)
        with pytest.raises(tfrecords.RecordError, match="prepare the dataset again"):
            read_manifest(tmp_path)


@pytest.fixture(scope="module")
def one_clip(tmp_path_factory):
    """(folder of a dataset of one clip, that clip's record)."""
    folder = tmp_path_factory.mktemp("one")
    write_dataset(folder, clips=(1, 0, 0), shards=(1, 0, 0))
    return folder, tfrecords.TFRecordSource([folder / tfrecords.shard_names("train", 1)[0]])[0]


@fuzzed
@given(st.sampled_from(FIELDS), st.sampled_from([None, *tfrecords.SPLITS]), anything, edits)
def test_read_manifest_reads_edited_files_or_raises_a_record_error(one_clip, tmp_path, field, split, value, edits):
    fields = json.loads((one_clip[0] / MANIFEST_FILE).read_text())
    if field == "splits" and split:
        value = fields["splits"] | {split: value}
    changed = json.dumps(fields | {field: value})
    for content in (changed.encode(), edited(json.dumps(fields).encode(), edits)):
        (tmp_path / MANIFEST_FILE).write_bytes(content)
        manifest = read_or_record_error(lambda: read_manifest(tmp_path))
        if manifest is not None:
            assert manifest.channels in (1, 2) and min(manifest.clip_samples, manifest.sample_rate_hz) >= 1
            names = [name for entry in manifest.splits.values() for name in entry["shards"]]
            assert all(os.path.basename(name) == name for name in names)
            read_or_record_error(lambda: ClipSource(tmp_path, "train"))


@fuzzed
@given(st.sampled_from(["split", "shard", "index", "track", "offset", "label"]), anything, edits)
def test_read_clip_table_reads_edited_files_or_raises_a_record_error(one_clip, tmp_path, field, value, edits):
    folder = one_clip[0]
    (tmp_path / MANIFEST_FILE).write_bytes((folder / MANIFEST_FILE).read_bytes())
    line = (folder / CLIPS_FILE).read_bytes()
    for content in (json.dumps(json.loads(line) | {field: value}).encode(), edited(line, edits)):
        (tmp_path / CLIPS_FILE).write_bytes(content)
        table = read_or_record_error(lambda: read_clip_table(tmp_path, "train"))
        assert table is None or len(table) == 1 and isinstance(table[0]["track"], str)


@pytest.mark.parametrize("content", ["[" * 100_000, '{"version": ' + "9" * 5000 + "}", '{"a": 1, ', "\x00", "\ud800"])
def test_json_that_python_cannot_parse_raises_a_record_error(one_clip, tmp_path, content):
    (tmp_path / MANIFEST_FILE).write_bytes(content.encode("utf-8", "surrogatepass"))
    assert read_or_record_error(lambda: read_manifest(tmp_path)) is None
    (tmp_path / MANIFEST_FILE).write_bytes((one_clip[0] / MANIFEST_FILE).read_bytes())
    (tmp_path / CLIPS_FILE).write_bytes(content.encode("utf-8", "surrogatepass"))
    assert read_or_record_error(lambda: read_clip_table(tmp_path, "train")) is None
