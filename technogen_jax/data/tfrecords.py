"""The bytes of a prepared dataset: TFRecord shards, and TensorFlow Datasets' description of them.

A dataset is one folder:

    techno-train.tfrecord-00000-of-00004 ...   tf.train.Example records, one a clip
    dataset_info.json  features.json           what `tfds.builder_from_directory` reads
    manifest.json  clips.jsonl                 see `technogen_jax.data.manifest`

Each record holds `audio` int16 `[clip_samples, channels]`, `label` int64, `track` (the track's id) and
`offset`: the clip's first sample in its track, at the dataset's rate. TensorFlow is not needed.

Reference: `tensorflow/core/lib/io/record_writer.h` defines the framing of records and their masked
CRC-32C.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import google_crc32c
import numpy as np

from technogen_jax.common import atomic_files

DATASET_NAME = "techno"
DATASET_VERSION = "1.0.0"
SPLITS = ("train", "valid", "test")

_HEADER_BYTES = 12  # length, and the CRC of the length
_FOOTER_BYTES = 4  # the CRC of the data


class RecordError(ValueError):
    """A shard, record or manifest that is missing, truncated or damaged.

    The message names the file and, where known, the byte offset.
    """


def make_features(clip_samples: int, channels: int, labels: Sequence[str]):
    """Returns TensorFlow Datasets' description of a record, a `tfds.features.FeaturesDict`."""
    import tensorflow_datasets as tfds

    return tfds.features.FeaturesDict(
        {
            # As bytes: 20 times faster to write than a list of varints and a third of the size.
            "audio": tfds.features.Tensor(shape=(clip_samples, channels), dtype=np.int16, encoding="bytes"),
            "label": tfds.features.ClassLabel(names=list(labels)),
            "track": tfds.features.Text(),
            "offset": tfds.features.Scalar(dtype=np.int64),
        }
    )


def serialize_example(audio: np.ndarray, label: int, track: str, offset: int) -> bytes:
    """Returns the bytes of a clip's record.

    They are those of `make_features(...).serialize_example`, but with the fields always in the same
    order. TensorFlow Datasets leaves the order to protobuf's hash seed, which differs from process to
    process, so that the same clip would have other bytes in another run.
    """
    from tensorflow_datasets.proto import tf_example_pb2

    proto = tf_example_pb2.Example()
    feature = proto.features.feature
    feature["audio"].bytes_list.value.append(audio.astype("<i2", copy=False).tobytes())
    feature["label"].int64_list.value.append(label)
    feature["track"].bytes_list.value.append(track.encode())
    feature["offset"].int64_list.value.append(offset)
    return proto.SerializeToString(deterministic=True)


def parse_example(record: bytes) -> dict[str, Any]:
    """Returns the fields of a record: `audio` as int16 `[clip_samples * channels]`, label, track, offset.

    The decoder of TensorFlow Datasets serves features of any kind; it takes three times as long for a
    second of 16 kHz.

    Raises:
        Exception: of any type, if the record has no clip.
    """
    from tensorflow_datasets.proto import tf_example_pb2

    feature = tf_example_pb2.Example.FromString(record).features.feature
    audio, track = (feature[name].bytes_list.value[0] for name in ("audio", "track"))
    label, offset = (feature[name].int64_list.value[0] for name in ("label", "offset"))
    return {"audio": np.frombuffer(audio, "<i2"), "label": label, "track": track.decode(), "offset": offset}


def shard_names(split: str, shards: int) -> list[str]:
    """Returns TensorFlow Datasets' names for the shards of a split, in order."""
    return [f"{DATASET_NAME}-{split}.tfrecord-{index:05d}-of-{shards:05d}" for index in range(shards)]


def write_shard(path: str | os.PathLike, records: Iterable[bytes]) -> int:
    """Writes one TFRecord file, completely or not at all, and returns the number of data bytes."""
    total = 0
    with atomic_files.replacing(path) as temporary, open(temporary, "wb") as file:
        for record in records:
            header = struct.pack("<Q", len(record))
            file.write(header + struct.pack("<I", masked_crc(header)))
            file.write(record)
            file.write(struct.pack("<I", masked_crc(record)))
            total += len(record)
    return total


def write_dataset_info(
    directory: str | os.PathLike,
    features,
    splits: dict[str, tuple[list[int], int]],
    description: str,
    metadata: dict[str, Any],
) -> None:
    """Writes dataset_info.json and features.json for shards that are already in the folder.

    Args:
        directory: the folder with the shards.
        features: from `make_features`.
        splits: split -> (records in each shard, total data bytes).
        description: one sentence about the dataset.
        metadata: entries for `builder.info.metadata`.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import splits as tfds_splits

    identity = tfds.core.DatasetIdentity(
        name=DATASET_NAME, version=tfds.core.Version(DATASET_VERSION), data_dir=str(directory), module_name=""
    )
    info = tfds.core.DatasetInfo(
        builder=identity, features=features, description=description, metadata=tfds.core.MetadataDict(metadata)
    )
    info.set_file_format("tfrecord")
    entries = []
    for split, (lengths, total_bytes) in splits.items():
        template = tfds.core.ShardedFileTemplate(
            data_dir=str(directory), dataset_name=DATASET_NAME, split=split, filetype_suffix="tfrecord"
        )
        names = [os.path.basename(path) for path in template.sharded_filepaths(len(lengths))]
        if names != shard_names(split, len(lengths)):
            raise RuntimeError(
                f"TensorFlow Datasets names shards {names[0]}; expected {shard_names(split, len(lengths))[0]}"
            )
        entries.append(
            tfds.core.SplitInfo(name=split, shard_lengths=lengths, num_bytes=total_bytes, filename_template=template)
        )
    info.set_splits(tfds_splits.SplitDict(entries))
    info.write_to_directory(str(directory))


def masked_crc(data: bytes | np.ndarray) -> int:
    """Returns TensorFlow's masked CRC-32C of bytes or of a uint8 array."""
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


class TFRecordSource(Sequence[bytes]):
    """Random access to the raw records of several TFRecord files; picklable.

    The constructor checks the length fields and their CRCs; each access checks the record's own CRC.

    Raises:
        RecordError: a shard is missing, truncated or damaged; the message has its name and the offset.
    """

    def __init__(self, paths: Iterable[str | os.PathLike]):
        """Reads the offsets of all records."""
        self.paths = [str(path) for path in paths]
        shards, offsets, lengths = [], [], []
        for shard, path in enumerate(self.paths):
            for offset, length in _index(path):
                shards.append(shard)
                offsets.append(offset)
                lengths.append(length)
        self.shards = np.asarray(shards, np.int32)  # index into `paths`, one a record
        self._offsets = np.asarray(offsets, np.int64)
        self._lengths = np.asarray(lengths, np.int64)

    def __len__(self) -> int:
        """Returns the number of records in all shards."""
        return len(self._offsets)

    def __getitem__(self, index: int) -> bytes:
        """Returns the bytes of one record after its CRC was checked."""
        index = range(len(self))[index]  # handles negative indices and raises IndexError past the end
        length = int(self._lengths[index])
        # The file is opened anew each time. A memory map takes as long, and kills the process if the
        # file has become shorter. Python's file objects make two more system calls, a sixth of the
        # time of a record of 32 kB.
        try:
            file = os.open(self.paths[self.shards[index]], os.O_RDONLY | getattr(os, "O_BINARY", 0))
            try:
                os.lseek(file, int(self._offsets[index]), os.SEEK_SET)
                record, footer = os.read(file, length), os.read(file, _FOOTER_BYTES)
            finally:
                os.close(file)
        except OSError as error:
            raise RecordError(f"{self.place(index)} cannot be read ({error.strerror})") from error
        if len(footer) != _FOOTER_BYTES or struct.unpack("<I", footer)[0] != masked_crc(record):
            raise RecordError(
                f"{self.place(index)} is damaged (CRC mismatch); prepare the dataset again or copy the shard anew"
            )
        return record

    def __repr__(self) -> str:
        """Returns a name that does not change between runs: Grain stores it in its checkpoints."""
        return f"TFRecordSource({len(self.paths)} shards, {len(self)} records)"

    def place(self, index: int) -> str:
        """Returns the file and offset of a record, for error messages."""
        return f"{self.paths[self.shards[index]]}: the record at byte {self._offsets[index]}"


def _index(path: str) -> Iterator[tuple[int, int]]:
    """Yields (data offset, length) of each record of a file, checking the length fields and the file's end."""
    try:
        size = os.path.getsize(path)
        file = open(path, "rb")
    except OSError as error:
        raise RecordError(f"{path}: cannot be read ({error.strerror}); is the dataset complete?") from error
    with file:
        offset = 0
        while offset < size:
            file.seek(offset)
            header = file.read(_HEADER_BYTES)
            if len(header) < _HEADER_BYTES:
                raise RecordError(
                    f"{path}: truncated at byte {offset} of {size}; copy the shard anew or prepare the dataset again"
                )
            length, crc = struct.unpack("<QI", header)
            if crc != masked_crc(header[:8]):
                raise RecordError(
                    f"{path}: damaged at byte {offset} (CRC of the length); copy the shard anew or prepare the dataset again"
                )
            start = offset + _HEADER_BYTES
            offset = start + length + _FOOTER_BYTES
            if offset > size:
                raise RecordError(
                    f"{path}: truncated: the record at byte {start} needs {length} bytes, the file ends at {size}; "
                    "copy the shard anew or prepare the dataset again"
                )
            yield start, length
