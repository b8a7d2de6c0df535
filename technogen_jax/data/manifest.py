"""What a prepared dataset contains: manifest.json, and clips.jsonl with one line a clip.

manifest.json has the rate, the length of clips, the labels, the tracks and the rejected files.
clips.jsonl has for each clip its split, shard, track, offset, label and levels; clips that were left
out too. In a dataset that is cut at bars each line also has the section, bar and speed.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from technogen_jax.common import atomic_files, json_files
from technogen_jax.data.tfrecords import SPLITS, RecordError, shard_names

MANIFEST_VERSION = 1
MANIFEST_FILE = "manifest.json"
CLIPS_FILE = "clips.jsonl"
UNLABELLED = "unlabelled"  # the label of tracks that are in no folder of their own


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """Describes a prepared dataset: enough to check a config and to trace each clip to its track.

    Attributes:
        sample_rate_hz: rate of every clip.
        channels: 1 or 2.
        clip_samples: length of every clip, in samples.
        stride_samples: distance between the starts of neighbouring clips of a track.
        labels: class names; a record's label is an index into them.
        splits: split -> {"clips", "tracks", "shards": file names in order}.
        tracks: one dict a usable track: id, path, label, split, seconds, hash (of its decoded audio),
            peak_dbfs and loudness_lufs (before gain_db was applied; null for -inf), gain_limited (the
            target loudness would have clipped), bandwidth_hz (highest frequency with sound), notes (texts:
            what was wrong with its level and what was done), version_of (id of a track that is the same
            recording; only if there is one), clips, silent_clips (left out), tail_s (too short for
            a clip), size_bytes, modified_ns. In a dataset that is cut at bars also sections: start_s,
            bars, bpm, confidence, downbeat_confidence and speed of each stretch with one tempo.
        rejected: one dict a file that was left out: path, reason, kind (similar reasons share a kind);
            size_bytes and modified_ns if it was opened.
        options: the options of the command; in a dataset that is cut at bars also reference_bpm, the
            dataset's tempo.
        fingerprint: hash of the options and of each track's name, label and audio. Copies of the tracks
            give the same one.
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
    """Returns the manifest of a prepared dataset.

    Raises:
        RecordError: there is no manifest (the folder is no dataset, or preparing it did not finish), it
            is damaged, or it is of another version.
    """
    path = pathlib.Path(directory) / MANIFEST_FILE
    try:
        fields = json_files.read(path)
    except FileNotFoundError:
        raise RecordError(
            f"{path}: not found. Expected a folder made by `python -m data_prep.prepare --input TRACKS --output {directory}`; "
            "an interrupted run leaves none: run it again"
        ) from None
    except (OSError, ValueError) as error:
        raise RecordError(f"{path}: unreadable ({error}); prepare the dataset again") from error
    names = {field.name for field in dataclasses.fields(Manifest)}
    if not isinstance(fields, dict) or fields.get("version") != MANIFEST_VERSION or set(fields) != names:
        found = fields.get("version") if isinstance(fields, dict) else type(fields).__name__
        raise RecordError(
            f"{path}: expected a manifest of version {MANIFEST_VERSION}, got {found!r}; prepare the dataset again"
        )
    if name := _damaged_field(fields):
        raise RecordError(f"{path}: damaged: {name} is {fields[name]!r:.80}; prepare the dataset again")
    return Manifest(**fields)


def _damaged_field(fields: dict[str, Any]) -> str | None:
    """Returns the name of a field that `write_manifest` can't have written, None if all are good."""

    def is_int(value, least):
        return type(value) is int and value >= least

    def is_strings(value):
        return isinstance(value, list) and all(isinstance(text, str) for text in value)

    def is_split(name, entry):
        return (
            isinstance(entry, dict)
            and is_int(entry.get("clips"), 0)
            and is_int(entry.get("tracks"), 0)
            and is_strings(entry.get("shards"))
            # Only these names: a damaged one could contain "../".
            and entry["shards"] == shard_names(name, len(entry["shards"]))
        )

    def is_dicts(value, *names):
        return isinstance(value, list) and all(
            isinstance(entry, dict) and all(isinstance(entry.get(name), str) for name in names) for entry in value
        )

    splits, labels = fields["splits"], fields["labels"]
    valid = {
        "sample_rate_hz": is_int(fields["sample_rate_hz"], 1),
        "channels": is_int(fields["channels"], 1) and fields["channels"] <= 2,
        "clip_samples": is_int(fields["clip_samples"], 1),
        "stride_samples": is_int(fields["stride_samples"], 1),
        "labels": is_strings(labels) and 0 < len(labels) == len(set(labels)),
        "splits": isinstance(splits, dict)
        and sorted(splits) == sorted(SPLITS)
        and all(is_split(*item) for item in splits.items()),
        "tracks": is_dicts(fields["tracks"], "id", "label", "split", "hash")
        and all(is_int(entry.get("clips"), 0) for entry in fields["tracks"]),
        "rejected": is_dicts(fields["rejected"], "path", "reason", "kind"),
        "options": isinstance(fields["options"], dict)
        and (fields["options"].get("bars") is None or is_int(fields["options"]["bars"], 1)),
        "fingerprint": isinstance(fields["fingerprint"], str),
    }
    return next((name for name, ok in valid.items() if not ok), None)


def write_manifest(directory: str | os.PathLike, manifest: Manifest) -> None:
    """Writes manifest.json, completely or not at all."""
    text = json.dumps(dataclasses.asdict(manifest), indent=1) + "\n"
    atomic_files.write_text(pathlib.Path(directory) / MANIFEST_FILE, text)


def read_clip_table(directory: str | os.PathLike, split: str) -> list[dict[str, Any]]:
    """Returns the lines of clips.jsonl for the records of a split, in the order of `ClipSource`.

    Raises:
        RecordError: the file is missing or does not match the manifest.
    """
    path = pathlib.Path(directory) / CLIPS_FILE
    entry = read_manifest(directory).splits[split]
    lines = list(read_clip_lines(path, split))
    lines.sort(key=lambda line: (line["shard"], line["index"]))
    if len(lines) != entry["clips"]:
        raise RecordError(
            f"{path}: expected {entry['clips']} {split} clips, found {len(lines)}; prepare the dataset again"
        )
    return lines


def read_clip_lines(path: pathlib.Path, split: str, containing: str = "") -> Iterator[dict[str, Any]]:
    """Yields the lines of clips.jsonl for the records of a split, in the order of the file.

    Args:
        path: the file.
        split: "train", "valid" or "test".
        containing: skips lines without this text before they are parsed, which is faster.

    Raises:
        RecordError: the file is missing or damaged.
    """
    kinds = {"shard": int, "index": int, "track": str, "offset": int, "label": str}
    try:
        with open(path, encoding="utf-8") as file:
            for number, text in enumerate(file, 1):
                line = json_files.parse(text) if containing in text else {}
                if line.get("split") != split or "shard" not in line:
                    continue
                if any(type(line.get(name)) is not kind for name, kind in kinds.items()):
                    raise ValueError(f"line {number}: {text:.80}")
                yield line
    except (OSError, ValueError, AttributeError) as error:
        raise RecordError(f"{path}: unreadable ({error}); prepare the dataset again") from error
