"""The bytes of a prepared set: TFRecord shards, TensorFlow Datasets' metadata, and the manifest.

A set is one folder:

    techno-train.tfrecord-00000-of-00004 ...   tf.train.Example records, one a clip
    dataset_info.json  features.json           what `tfds.builder_from_directory` reads
    manifest.json                              rate, geometry, labels, tracks, rejected files
    clips.jsonl                                one line a clip: split, shard, track, offset, label, level; rejected ones too;
                                               of a set cut at bars also section, bar and speed

Each record holds `audio` int16 `[clip_samples, channels]`, `label` int64, `track` (the track's id) and `offset`, the
clip's first sample within its track, at the set's rate. TensorFlow is needed for none of it.

*Source*: the record framing and its masked CRC-32C are TensorFlow's (`tensorflow/core/lib/io/record_writer.h`).
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import google_crc32c
import numpy as np

from technogen_jax.common import atomic_files

DATASET_NAME = "techno"
DATASET_VERSION = "1.0.0"
MANIFEST_VERSION = 1
MANIFEST_FILE = "manifest.json"
CLIPS_FILE = "clips.jsonl"
SPLITS = ("train", "valid", "test")

_HEADER_BYTES = 12  # length, and the CRC of the length
_FOOTER_BYTES = 4  # the CRC of the data
# Up to a clip's samples, in protobuf's encoding: the name, then the lengths of a feature, of its list, of the list's bytes.
_AUDIO = re.compile(rb"\x05audio\x12[\x80-\xff]*[\x00-\x7f]\n[\x80-\xff]*[\x00-\x7f]\n([\x80-\xff]*[\x00-\x7f])")
_BEFORE_AUDIO_BYTES = 64  # more than all of it, with lengths below 2^64


class RecordError(ValueError):
    """A shard, record or manifest that is missing, truncated or damaged; names the file and, where known, the offset."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a prepared set is: enough to check a config against it and to trace each clip to its track.

    Attributes:
        sample_rate_hz: rate of every clip.
        channels: 1 or 2.
        clip_samples: length of every clip, in samples.
        stride_samples: from one clip's start to the next one's within a track.
        labels: class names; a record's label is an index into them.
        splits: split -> {"clips", "tracks", "shards": file names in order}.
        tracks: one dict a usable track: id, path, label, split, seconds, hash (of its decoded audio), peak_dbfs and
            loudness_lufs (before gain_db was applied; null for -inf), gain_limited (the target loudness would have
            clipped), clips, silent_clips (left out), tail_s (too short for a clip), size_bytes, modified_ns; of a set cut at
            bars also sections: start_s, bars, bpm, confidence, downbeat_confidence and speed of each stretch of one tempo.
        rejected: one dict a file that was left out: path, reason, kind (reasons of one sort have one kind).
        options: the options that made the set, and of a set cut at bars its tempo, reference_bpm.
        fingerprint: hash of the options and of the input files' names, sizes and times.
    """

    sample_rate_hz: int
    channels: int
    clip_samples: int
    stride_samples: int
    labels: list[str]
    splits: dict[str, dict[str, Any]]
    tracks: list[dict[str, Any]]
    rejected: list[dict[str, str]]
    options: dict[str, Any]
    fingerprint: str
    version: int = MANIFEST_VERSION


def read_manifest(directory: str | os.PathLike) -> Manifest:
    """The manifest of a finished set.

    Raises:
        RecordError: no manifest (not a set, or one that was not finished), or one this version does not understand.
    """
    path = pathlib.Path(directory) / MANIFEST_FILE
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecordError(
            f"{path}: not found. Expected a folder made by `python -m data_prep.prepare --input TRACKS --output {directory}`; "
            "an interrupted run leaves none: run it again"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise RecordError(f"{path}: unreadable ({error}); prepare the set again") from error
    names = {field.name for field in dataclasses.fields(Manifest)}
    if not isinstance(fields, dict) or fields.get("version") != MANIFEST_VERSION or set(fields) != names:
        found = fields.get("version") if isinstance(fields, dict) else type(fields).__name__
        raise RecordError(
            f"{path}: expected a manifest of version {MANIFEST_VERSION}, got {found!r}; prepare the set again"
        )
    if name := _damaged_field(fields):
        raise RecordError(f"{path}: damaged: {name} is {fields[name]!r:.80}; prepare the set again")
    return Manifest(**fields)


def _damaged_field(fields: dict[str, Any]) -> str | None:
    """A field of a manifest that is not as `write_manifest` leaves it."""

    def whole(value, least):
        return type(value) is int and value >= least

    def texts(value):
        return isinstance(value, list) and all(isinstance(text, str) for text in value)

    def split(name, entry):
        return (
            isinstance(entry, dict)
            and whole(entry.get("clips"), 0)
            and whole(entry.get("tracks"), 0)
            and texts(entry.get("shards"))
            # No other file: a name may say "../".
            and entry["shards"] == shard_names(name, len(entry["shards"]))
        )

    def entries(value, *names):
        return isinstance(value, list) and all(
            isinstance(entry, dict) and all(isinstance(entry.get(name), str) for name in names) for entry in value
        )

    splits, labels = fields["splits"], fields["labels"]
    holds = {
        "sample_rate_hz": whole(fields["sample_rate_hz"], 1),
        "channels": whole(fields["channels"], 1) and fields["channels"] <= 2,
        "clip_samples": whole(fields["clip_samples"], 1),
        "stride_samples": whole(fields["stride_samples"], 1),
        "labels": texts(labels) and 0 < len(labels) == len(set(labels)),
        "splits": isinstance(splits, dict)
        and sorted(splits) == sorted(SPLITS)
        and all(split(*item) for item in splits.items()),
        "tracks": entries(fields["tracks"], "id", "label", "split"),
        "rejected": entries(fields["rejected"], "path", "reason", "kind"),
        "options": isinstance(fields["options"], dict),
        "fingerprint": isinstance(fields["fingerprint"], str),
    }
    return next((name for name, ok in holds.items() if not ok), None)


def write_manifest(directory: str | os.PathLike, manifest: Manifest) -> None:
    """Writes manifest.json, whole or not at all."""
    write_text_atomically(
        pathlib.Path(directory) / MANIFEST_FILE, json.dumps(dataclasses.asdict(manifest), indent=1) + "\n"
    )


def write_text_atomically(path: str | os.PathLike, text: str | Iterable[str]) -> None:
    """Writes a text file, given whole or in parts, whole or not at all."""
    with atomic_files.replacing(path) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as file:
        file.writelines([text] if isinstance(text, str) else text)


def read_clip_table(directory: str | os.PathLike, split: str) -> list[dict[str, Any]]:
    """The lines of clips.jsonl on a split's records, in the order of `ClipSource`: track, offset, label, level.

    Raises:
        RecordError: the file is missing or does not fit the manifest.
    """
    path = pathlib.Path(directory) / CLIPS_FILE
    entry = read_manifest(directory).splits[split]
    lines = list(_clip_lines(path, split))
    lines.sort(key=lambda line: (line["shard"], line["index"]))
    if len(lines) != entry["clips"]:
        raise RecordError(f"{path}: expected {entry['clips']} {split} clips, found {len(lines)}; prepare the set again")
    return lines


def _clip_lines(path: pathlib.Path, split: str, having: str = "") -> Iterator[dict[str, Any]]:
    """The lines of clips.jsonl on a split's records, of those that hold a text, as they come."""
    kinds = {"shard": int, "index": int, "track": str, "offset": int, "label": str}
    try:
        with open(path, encoding="utf-8") as file:
            for number, text in enumerate(file, 1):
                line = json.loads(text) if having in text else {}
                if line.get("split") != split or "shard" not in line:
                    continue
                if any(type(line.get(name)) is not kind for name, kind in kinds.items()):
                    raise ValueError(f"line {number}: {text:.80}")
                yield line
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise RecordError(f"{path}: unreadable ({error}); prepare the set again") from error


def make_features(clip_samples: int, channels: int, labels: Sequence[str]):
    """TensorFlow Datasets' description of a record: a `tfds.features.FeaturesDict`."""
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
    """The record of a clip: what `make_features(...).serialize_example` gives, with the fields in one order.

    TensorFlow Datasets leaves the order to protobuf's hash seed, which differs from process to process: the same clip
    would give other bytes in another run.
    """
    from tensorflow_datasets.proto import tf_example_pb2

    proto = tf_example_pb2.Example()
    feature = proto.features.feature
    feature["audio"].bytes_list.value.append(audio.astype("<i2", copy=False).tobytes())
    feature["label"].int64_list.value.append(label)
    feature["track"].bytes_list.value.append(track.encode())
    feature["offset"].int64_list.value.append(offset)
    return proto.SerializeToString(deterministic=True)


def shard_names(split: str, shards: int) -> list[str]:
    """TensorFlow Datasets' names for the shards of a split, in order."""
    return [f"{DATASET_NAME}-{split}.tfrecord-{index:05d}-of-{shards:05d}" for index in range(shards)]


def write_shard(path: str | os.PathLike, records: Iterable[bytes]) -> int:
    """Writes one TFRecord file, whole or not at all; the number of data bytes."""
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
        description: one sentence on the set.
        metadata: what else `builder.info.metadata` is to say.
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
    """TensorFlow's masked CRC-32C of bytes, or of a uint8 array."""
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


class TFRecordSource(Sequence[bytes]):
    """Random access to the raw records of several TFRecord files; picklable.

    The length fields and their CRCs are checked when it is made, a record's own CRC each time it is read.

    Raises:
        RecordError: a shard is missing, truncated or damaged; names it and the byte offset.
    """

    def __init__(self, paths: Iterable[str | os.PathLike]):
        """Reads the offsets of all records: twelve bytes each."""
        self.paths = [str(path) for path in paths]
        shards, offsets, lengths = [], [], []
        for shard, path in enumerate(self.paths):
            for offset, length in _index(path):
                shards.append(shard)
                offsets.append(offset)
                lengths.append(length)
        self.shards = np.asarray(shards, np.int32)  # of each record
        self._offsets = np.asarray(offsets, np.int64)
        self._lengths = np.asarray(lengths, np.int64)

    def __len__(self) -> int:
        """Number of records in all shards."""
        return len(self._offsets)

    def __getitem__(self, index: int) -> bytes:
        """The bytes of one record, its CRC checked."""
        index = range(len(self))[index]  # negative indices, and IndexError past the end
        length = int(self._lengths[index])
        # Opened each time: a memory map costs as much and ends the process where a file has become shorter. Python's own files ask
        # for a status and a place besides, a sixth of the time of a record of 32 kB.
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
                f"{self.place(index)} is damaged (CRC mismatch); prepare the set again or copy the shard anew"
            )
        return record

    def __repr__(self) -> str:
        """A stable name: Grain puts it into its checkpoints."""
        return f"TFRecordSource({len(self.paths)} shards, {len(self)} records)"

    def place(self, index: int) -> str:
        """Where a record is, for an error."""
        return f"{self.paths[self.shards[index]]}: the record at byte {self._offsets[index]}"


class ClipSource(Sequence[dict[str, Any]]):
    """Random access to one split's clips: {"audio": int16 [clip_samples, channels], "label", "track", "offset"}.

    Raises:
        RecordError: no such split; a shard missing, damaged or in another's place; another number of clips than the
            manifest says; a record that is no clip of the set.
    """

    def __init__(self, directory: str | os.PathLike, split: str):
        """Opens `split` ("train", "valid" or "test") of the set in `directory`."""
        self.manifest = read_manifest(directory)
        self.split = split
        if split not in self.manifest.splits:
            raise RecordError(f"{directory}: no split {split!r}; it has {', '.join(self.manifest.splits)}")
        entry = self.manifest.splits[split]
        self._records = TFRecordSource(pathlib.Path(directory) / name for name in entry["shards"])
        if len(self._records) != entry["clips"]:
            raise RecordError(
                f"{directory}: the manifest promises {entry['clips']} {split} clips, its shards hold {len(self._records)}"
            )
        self._check_order(pathlib.Path(directory) / CLIPS_FILE)

    def __len__(self) -> int:
        """Number of clips in the split."""
        return len(self._records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One clip, decoded; its audio is read-only."""
        from tensorflow_datasets.proto import tf_example_pb2

        record, m = self._records[index], self.manifest
        try:
            # TensorFlow Datasets' own decoder, for features of any kind, takes three times as long for a second of 16 kHz.
            feature = tf_example_pb2.Example.FromString(record).features.feature
            pcm, track = (feature[name].bytes_list.value[0] for name in ("audio", "track"))
            label, offset = (feature[name].int64_list.value[0] for name in ("label", "offset"))
            audio = np.frombuffer(pcm, "<i2").reshape(m.clip_samples, m.channels)
            clip = {"audio": audio, "label": label, "track": track.decode(), "offset": offset}
            if not 0 <= label < len(m.labels):
                raise ValueError(f"label {label} of {len(m.labels)}")
        except Exception as error:  # protobuf raises all sorts
            text = " ".join(str(error).split())[:200]
            raise RecordError(
                f"{self._records.place(index)} is no clip of this set ({text}); copy the shard anew or prepare the set again"
            ) from error
        return clip

    def audio(self, index: int) -> np.ndarray:
        """A clip's audio alone, read-only; from a record as `serialize_example` writes it without a copy."""
        record, m = self._records[index], self.manifest
        count = m.clip_samples * m.channels
        found = _AUDIO.search(record, 0, _BEFORE_AUDIO_BYTES)
        length = sum((byte & 127) << 7 * place for place, byte in enumerate(found[1])) if found else 0
        if length != 2 * count or len(record) < found.end() + length:
            return self[index]["audio"]
        return np.frombuffer(record, "<i2", count, found.end()).reshape(m.clip_samples, m.channels)

    def __repr__(self) -> str:
        """A stable name: Grain puts it into its checkpoints."""
        return f"ClipSource({self.split}, {len(self)} clips)"

    def _check_order(self, path: pathlib.Path) -> None:
        """Holds the first record of each shard against clips.jsonl: a shard's CRCs do not say which shard it is."""
        wanted = {line["shard"]: line for line in _clip_lines(path, self.split, '"index": 0,')}
        for shard, first in zip(*np.unique(self._records.shards, return_index=True), strict=True):
            found, line = self[int(first)], wanted.get(int(shard), {})
            names = ("track", "offset")
            if any(found[name] != line.get(name) for name in names):
                raise RecordError(
                    f"{self._records.paths[shard]}: holds other clips than {path.name} says (first {found['track']} at "
                    f"{found['offset']}, expected {line.get('track')} at {line.get('offset')}): another shard, or of "
                    "another set; copy all files of the set anew or prepare it again"
                )


def _index(path: str):
    """Yields (data offset, length) of each record of a file, checking the length fields and the file's end."""
    try:
        size = os.path.getsize(path)
        file = open(path, "rb")
    except OSError as error:
        raise RecordError(f"{path}: cannot be read ({error.strerror}); is the set complete?") from error
    with file:
        offset = 0
        while offset < size:
            file.seek(offset)
            header = file.read(_HEADER_BYTES)
            if len(header) < _HEADER_BYTES:
                raise RecordError(
                    f"{path}: truncated at byte {offset} of {size}; copy the shard anew or prepare the set again"
                )
            length, crc = struct.unpack("<QI", header)
            if crc != masked_crc(header[:8]):
                raise RecordError(
                    f"{path}: damaged at byte {offset} (CRC of the length); copy the shard anew or prepare the set again"
                )
            start = offset + _HEADER_BYTES
            offset = start + length + _FOOTER_BYTES
            if offset > size:
                raise RecordError(
                    f"{path}: truncated: the record at byte {start} needs {length} bytes, the file ends at {size}; "
                    "copy the shard anew or prepare the set again"
                )
            yield start, length
