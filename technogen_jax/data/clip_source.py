"""Random access to the clips of a prepared dataset."""

from __future__ import annotations

import itertools
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from technogen_jax.data import tfrecords
from technogen_jax.data.manifest import CLIPS_FILE, read_clip_lines, read_manifest
from technogen_jax.data.tfrecords import RecordError


class ClipSource(Sequence[dict[str, Any]]):
    """The clips of one split: {"audio": int16 `[clip_samples, channels]`, "label", "track", "offset"}.

    Raises:
        RecordError: there is no such split; a shard is missing, damaged or in the place of another; the
            number of clips is not the manifest's; a record is no clip of the dataset.
    """

    def __init__(self, directory: str | os.PathLike, split: str):
        """Opens `split` ("train", "valid" or "test") of the dataset in `directory`."""
        self.manifest = read_manifest(directory)
        self.split = split
        if split not in self.manifest.splits:
            raise RecordError(f"{directory}: no split {split!r}; it has {', '.join(self.manifest.splits)}")
        entry = self.manifest.splits[split]
        self._records = tfrecords.TFRecordSource(pathlib.Path(directory) / name for name in entry["shards"])
        if len(self._records) != entry["clips"]:
            raise RecordError(
                f"{directory}: the manifest promises {entry['clips']} {split} clips, its shards hold {len(self._records)}"
            )
        self._check_order(pathlib.Path(directory) / CLIPS_FILE)

    def __len__(self) -> int:
        """Returns the number of clips in the split."""
        return len(self._records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Returns one clip; its audio is read-only."""
        record, m = self._records[index], self.manifest
        try:
            clip = tfrecords.parse_example(record)
            clip["audio"] = clip["audio"].reshape(m.clip_samples, m.channels)
            if not 0 <= clip["label"] < len(m.labels):
                raise ValueError(f"label {clip['label']} of {len(m.labels)}")
        except Exception as error:  # protobuf raises many types
            text = " ".join(str(error).split())[:200]
            raise RecordError(
                f"{self._records.place(index)} is no clip of this dataset ({text}); "
                "copy the shard anew or prepare the dataset again"
            ) from error
        return clip

    def __repr__(self) -> str:
        """Returns a name that does not change between runs: Grain stores it in its checkpoints."""
        return f"ClipSource({self.split}, {len(self)} clips)"

    def _check_order(self, path: pathlib.Path) -> None:
        """Compares the first record of each shard with clips.jsonl.

        A shard's CRCs cannot show that two shards were exchanged, or that one is of another dataset.
        """
        wanted = {line["shard"]: line for line in read_clip_lines(path, self.split, '"index": 0,')}
        for shard, first in zip(*np.unique(self._records.shards, return_index=True), strict=True):
            found, line = self[int(first)], wanted.get(int(shard), {})
            if any(found[name] != line.get(name) for name in ("track", "offset")):
                raise RecordError(
                    f"{self._records.paths[shard]}: holds other clips than {path.name} lists (first {found['track']} at "
                    f"{found['offset']}, expected {line.get('track')} at {line.get('offset')}): another shard, or of "
                    "another dataset; copy all files of the dataset anew or prepare it again"
                )


def choose_spread(tracks: Sequence[str], count: int, seed: int = 0) -> list[int]:
    """Returns indices of clips for a picture: of as many tracks as possible, spread over their sorted names.

    Args:
        tracks: the track of each clip.
        count: how many clips at most.
        seed: decides which clips of a track.

    Returns:
        At most `count` indices into `tracks`, by track; several of a track only where tracks are fewer.
    """
    by_track: dict[str, list[int]] = {}
    for index in np.random.default_rng(seed).permutation(len(tracks)):
        by_track.setdefault(tracks[index], []).append(int(index))
    names = sorted(by_track)
    kept = np.linspace(0, len(names) - 1, min(len(names), count)).round().astype(int)
    rounds = itertools.zip_longest(*(by_track[names[place]] for place in kept))
    chosen = [index for one in rounds for index in one if index is not None][:count]
    return sorted(chosen, key=lambda index: (tracks[index], index))
