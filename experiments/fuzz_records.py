"""Fuzzes the reader of records with Atheris, whose inputs follow the branches of the code.

    pip install atheris; python -m experiments.fuzz_records -max_total_time=300

Atheris is not one of our requirements. Each input is read twice: as a whole shard, and as one record
with correct checksums in place of a dataset's only clip. The result must be a clip, or a RecordError that
names the place. Other arguments are passed to libFuzzer.
"""

from __future__ import annotations

import json
import pathlib
import sys
import tempfile

import atheris
import numpy as np

with atheris.instrument_imports(
    include=["technogen_jax.data.tfrecords", "tensorflow_datasets.core.features", "google.protobuf"]
):
    from technogen_jax.common import atomic_files
    from technogen_jax.data import tfrecords
    from technogen_jax.data.clip_source import ClipSource
    from technogen_jax.data.manifest import CLIPS_FILE, Manifest, write_manifest

    tfrecords.make_features(1, 1, ["acid"])  # loads its imports here, so that they are instrumented too

CLIP_SAMPLES = 8


def make_set(folder: pathlib.Path) -> bytes:
    """Writes a dataset of one clip and returns its record."""
    record = tfrecords.serialize_example(np.zeros((CLIP_SAMPLES, 1), np.int16), 0, "a.wav", 0)
    shards = tfrecords.shard_names("train", 1)
    tfrecords.write_shard(folder / shards[0], [record])
    nothing = {"clips": 0, "tracks": 0, "shards": []}
    splits = dict.fromkeys(tfrecords.SPLITS, nothing) | {"train": {"clips": 1, "tracks": 1, "shards": shards}}
    shape = dict(sample_rate_hz=16000, channels=1, clip_samples=CLIP_SAMPLES, stride_samples=CLIP_SAMPLES)
    lists = dict(labels=["acid"], splits=splits, tracks=[], rejected=[], options={}, fingerprint="")
    line = {"split": "train", "shard": 0, "index": 0, "track": "a.wav", "offset": 0, "label": "acid"}
    atomic_files.write_text(folder / CLIPS_FILE, json.dumps(line) + "\n")
    write_manifest(folder, Manifest(**shape, **lists))
    return record


def main() -> None:
    """Runs the command; never returns."""
    folder = pathlib.Path(tempfile.mkdtemp())
    corpus = folder / "corpus"
    corpus.mkdir()
    (corpus / "record").write_bytes(make_set(folder))
    source = ClipSource(folder, "train")
    (corpus / "shard").write_bytes(pathlib.Path(source._records.paths[0]).read_bytes())

    def read(content: bytes) -> None:
        (folder / "shard").write_bytes(content)
        try:
            list(tfrecords.TFRecordSource([folder / "shard"]))
        except tfrecords.RecordError:
            pass
        source._records = _One(content)
        try:
            clip = source[0]
        except tfrecords.RecordError:
            return
        assert clip["audio"].shape == (CLIP_SAMPLES, 1) and clip["audio"].dtype == np.int16 and clip["label"] == 0

    atheris.Setup([*sys.argv, str(corpus)], read)
    atheris.Fuzz()


class _One(list):
    """A list of one record whose checksums are correct."""

    def __init__(self, content: bytes):
        super().__init__([content])

    def place(self, index: int) -> str:
        return "here"


if __name__ == "__main__":
    main()
