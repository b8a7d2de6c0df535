"""Sets of clips to compare: splits of a dataset, a folder of audio files, or a trained generator.

All have one sample rate, one number of channels, one length and 16 bit, so that only the sound can
distinguish them. Each clip has its track, the unit of every statistic: clips of one track are not
independent of each other.
"""

from __future__ import annotations

import itertools
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from technogen_jax.audio import audio_files, audio_folders
from technogen_jax.data.clip_source import ClipSource
from technogen_jax.data.manifest import read_clip_table
from technogen_jax.sampling import generator

_RENDER_BATCH = 16
_MOST_EXAMPLES = 1000
_LEAST_SHARE = 0.5  # of the median length: a shorter file does not decide the length of all clips (chosen)


class ClipSetError(ValueError):
    """A set that cannot be compared; the message says what to do."""


class ClipSet(NamedTuple):
    """Clips with their tracks; the audio is read or generated on demand.

    Attributes:
        name: a name for messages and the report.
        sample_rate_hz: the sample rate of every clip.
        channels: 1 or 2.
        clip_samples: length of every clip.
        tracks: `[n]`, the track of each clip, a string.
        ids: n names of clips.
        labels: `[n]`, index of each clip's label, or None.
        origin: where the clips come from, for the result.
        read: sorted indices -> iterator of int16 `[T, C]`.
        rejected: files that could not be used, {"path", "reason"}.
    """

    name: str
    sample_rate_hz: int
    channels: int
    clip_samples: int
    tracks: np.ndarray
    ids: Sequence[str]
    labels: np.ndarray | None
    origin: dict[str, Any]
    read: Callable[[Sequence[int]], Iterator[np.ndarray]]
    rejected: Sequence[dict[str, str]] = ()


def from_records(directory: str | os.PathLike, splits: Sequence[str], clip_samples: int | None = None) -> ClipSet:
    """Returns the clips of splits of a prepared dataset.

    Tracks with the same audio under two names count as one.

    Args:
        directory: written by `data_prep.prepare`.
        splits: one or more of "train", "valid", "test".
        clip_samples: samples of each record that are used, from its start; None: all.

    Raises:
        RecordError: the dataset cannot be read.
        ClipSetError: records shorter than `clip_samples`, or no clips.
    """
    sources = [ClipSource(directory, split) for split in splits]
    manifest = sources[0].manifest
    clip_samples = clip_samples or manifest.clip_samples
    if manifest.clip_samples < clip_samples:
        raise ClipSetError(
            f"{directory}: expected clips of at least {clip_samples} samples, it has {manifest.clip_samples}; "
            f"prepare the dataset again with --hop_size {clip_samples / manifest.sample_rate_hz:g} or more"
        )
    by_hash: dict[str, str] = {}
    same_as = {track["id"]: by_hash.setdefault(track["hash"], track["id"]) for track in manifest.tracks}
    table = [line for split in splits for line in read_clip_table(directory, split)]
    name = f"{os.path.basename(os.path.abspath(directory))}:{'+'.join(splits)}"
    if not table:
        raise ClipSetError(f"{name}: no clips; prepare with a --split that gives it some")
    starts = np.cumsum([0, *map(len, sources)])

    def read(indices):
        for index in indices:
            part = int(np.searchsorted(starts, index, "right")) - 1
            yield sources[part][int(index - starts[part])]["audio"][:clip_samples]

    return ClipSet(
        name=name,
        sample_rate_hz=manifest.sample_rate_hz,
        channels=manifest.channels,
        clip_samples=clip_samples,
        tracks=np.array([same_as[line["track"]] for line in table]),
        ids=[f"{line['track']} @ {line['offset'] / manifest.sample_rate_hz:.2f} s" for line in table],
        labels=np.array([manifest.labels.index(line["label"]) for line in table]),
        origin={
            "kind": "records",
            "splits": list(splits),
            "fingerprint": manifest.fingerprint,
            "labels": manifest.labels,
            # A part of a record is not a whole number of bars.
            "bars": manifest.options.get("bars") if clip_samples == manifest.clip_samples else None,
        },
        read=read,
    )


def from_generator(trained: generator.Trained, count: int, seed: int) -> ClipSet:
    """Returns the clips of the latents 0 to `count` - 1 of a seed, each a track of its own."""
    config = trained.config

    def read(indices):
        for i in range(0, len(indices), _RENDER_BATCH):
            latents = generator.draw_latents(trained.gan, seed, indices[i : i + _RENDER_BATCH])
            for clip in generator.render_batches(trained.gan, trained.params, latents, _RENDER_BATCH):
                if not np.isfinite(clip).all():
                    raise ClipSetError(f"the generator of {trained.workdir} makes NaN or Inf; use another --step")
                yield audio_files.to_int16(clip)

    return ClipSet(
        name=f"{os.path.basename(trained.workdir)}, step {trained.step}",
        sample_rate_hz=config.audio.sample_rate_hz,
        channels=config.audio.channels,
        clip_samples=config.audio.clip_samples,
        tracks=np.array([f"latent {index}" for index in range(count)]),
        ids=[f"latent {index} of seed {seed}" for index in range(count)],
        labels=None,
        origin={"kind": "generator", "weights": trained.weights, "step": trained.step, "seed": seed},
        read=read,
    )


class Folder(NamedTuple):
    """The audio files of a folder, with their properties.

    Attributes:
        path: the folder.
        files: paths below it, in order.
        rates_hz: the sample rate of each file.
        seconds: the length of each file.
        channels: the number of channels of each file.
        rejected: files that cannot be read, {"path", "reason"}.
    """

    path: pathlib.Path
    files: list[str]
    rates_hz: list[int]
    seconds: list[float]
    channels: list[int]
    rejected: list[dict[str, str]]


def find_files(path: str | os.PathLike) -> Folder:
    """Returns the audio files in a folder and below it.

    Raises:
        ClipSetError: no folder, or no audio in it.
    """
    folder = pathlib.Path(path)
    if not folder.is_dir():
        raise ClipSetError(f"{path}: expected a folder of audio files")
    found = []
    listed = audio_folders.find_audio_files(folder)
    rejected = [{"path": name, "reason": reason} for name, reason in (*listed.unreadable, *listed.passed_over)]
    for name in listed.files:
        try:
            with audio_files.open_stream(folder / name) as stream:
                samples = sum(map(len, stream.blocks))
            found.append((name, stream.sample_rate_hz, samples / stream.sample_rate_hz, stream.channels))
        except audio_files.AudioError as error:
            rejected.append({"path": name, "reason": str(error)})
    if not found:
        why = f"; the first of {len(rejected)}: {rejected[0]['path']}: {rejected[0]['reason']}" if rejected else ""
        raise ClipSetError(f"{path}: no audio file that can be read{why}")
    return Folder(folder, *map(list, zip(*found, strict=True)), rejected)


def shortest_seconds(folders: Sequence[Folder]) -> float:
    """Returns the length of the shortest file.

    Raises:
        ClipSetError: it is much shorter than most: all clips would be cut to it; names the file.
    """
    files = [
        (seconds, folder.path / name)
        for folder in folders
        for name, seconds in zip(folder.files, folder.seconds, strict=True)
    ]
    shortest, path = min(files)
    middle = float(np.median([seconds for seconds, _ in files]))
    if shortest < _LEAST_SHARE * middle:
        raise ClipSetError(
            f"{path}: has {shortest:.3g} s, most files have {middle:.3g} s: all clips would be cut to its length; move it away, "
            "or name the length of the clips with --seconds"
        )
    return shortest


def from_folder(
    folder: Folder,
    side: str,
    *,
    sample_rate_hz: int,
    channels: int,
    clip_samples: int,
    track_pattern: str | None = None,
) -> ClipSet:
    """Returns the files of a folder, each cut into whole clips.

    Args:
        folder: from `find_files`.
        side: "real", "generated", ...: part of the tracks' names, since files of one name in two
            folders are different tracks.
        sample_rate_hz: all files are resampled to it.
        channels: all files are converted to it.
        clip_samples: length of a clip.
        track_pattern: a regular expression that is searched in a file's path below the folder; its
            first group is the track. None: each file is a track.

    Raises:
        ClipSetError: no file is long enough, or the pattern does not match a file.
    """
    rejected, entries = list(folder.rejected), []  # entries: (file, clip within it, track)
    for file, seconds in zip(folder.files, folder.seconds, strict=True):
        clips = int(seconds * sample_rate_hz + 0.5) // clip_samples
        if not clips:
            need = clip_samples / sample_rate_hz
            rejected.append({"path": file, "reason": f"{seconds:.3g} s, shorter than a clip of {need:.3g} s"})
        entries += [(file, clip, f"{side}: {_find_track(file, track_pattern)}") for clip in range(clips)]
    if not entries:
        raise ClipSetError(
            f"{folder.path}: no file is as long as a clip of {clip_samples / sample_rate_hz:g} s; name shorter --seconds"
        )

    def read(indices):
        for file, group in itertools.groupby(indices, key=lambda index: entries[index][0]):
            wanted = [entries[index][1] for index in group]
            yield from _cut(folder.path / file, wanted, sample_rate_hz, channels, clip_samples)

    return ClipSet(
        name=folder.path.name or str(folder.path),
        sample_rate_hz=sample_rate_hz,
        channels=channels,
        clip_samples=clip_samples,
        tracks=np.array([track for _, _, track in entries]),
        ids=[f"{file} @ {clip * clip_samples / sample_rate_hz:.2f} s" for file, clip, _ in entries],
        labels=None,
        origin={"kind": "folder", "files": len({file for file, _, _ in entries}), "track_pattern": track_pattern},
        read=read,
        rejected=rejected,
    )


def choose(clips: ClipSet, *, per_track: int, tracks: int | None = None, seed: int = 0) -> np.ndarray:
    """Returns sorted indices of clips: at most `per_track` of each of at most `tracks` tracks.

    The clips are spread evenly over a track. The tracks are drawn by the seed, but of a generator
    they are the first ones, so that a larger number includes a smaller one.
    """
    names, which = np.unique(clips.tracks, return_inverse=True)
    first = np.sort(np.unique(which, return_index=True)[1])
    kept = which[first]  # in order of appearance
    if tracks is not None and len(names) > tracks:
        if clips.origin["kind"] != "generator":
            kept = np.random.default_rng(seed).permutation(np.sort(kept))
        kept = kept[:tracks]
    members = np.argsort(which, kind="stable")
    bounds = np.searchsorted(which[members], np.arange(len(names) + 1))
    chosen = []
    for track in kept:
        own = members[bounds[track] : bounds[track + 1]]
        middles = (np.arange(min(per_track, len(own))) + 0.5) * len(own) / min(per_track, len(own))
        chosen.append(own[middles.astype(int)])
    return np.sort(np.concatenate(chosen))


def _cut(
    path: pathlib.Path, wanted: Sequence[int], sample_rate_hz: int, channels: int, clip_samples: int
) -> Iterator[np.ndarray]:
    """Yields the wanted clips of a file, int16 `[clip_samples, C]`, with about one in memory."""
    with audio_files.open_stream(path) as stream:
        kept, start = [], 0  # blocks in memory, and the position of the first one in the file
        blocks = audio_files.resample_blocks(stream, sample_rate_hz, channels)
        for clip in wanted:
            first, last = clip * clip_samples, (clip + 1) * clip_samples
            while kept and start + len(kept[0]) <= first:
                start += len(kept.pop(0))
            while start + sum(map(len, kept)) < last and (block := next(blocks, None)) is not None:
                kept.append(block)
                if start + len(kept[0]) <= first:
                    start += len(kept.pop(0))
            # The resampler may return fewer samples than the file has.
            piece = np.concatenate([*kept, np.zeros((clip_samples, channels), np.float32)])
            yield audio_files.to_int16(piece[first - start :][:clip_samples])


def read_examples(clips: ClipSet, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns clips of all tracks to train a small network on, of at most half a gigabyte.

    Returns:
        (indices `[n]`, audio `[n, T, C]` in [-1, 1]).
    """
    most = max(1, min(_MOST_EXAMPLES, (1 << 27) // (clips.clip_samples * clips.channels)))
    count = len(np.unique(clips.tracks))
    indices = choose(clips, per_track=max(1, most // count), tracks=most, seed=seed)
    return indices, np.stack([audio_files.from_int16(pcm) for pcm in clips.read(indices)])


def _find_track(file: str, pattern: str | None) -> str:
    if pattern is None:
        return file
    try:
        match = re.search(pattern, file)
        return match.group(1)
    except (re.error, IndexError, AttributeError):
        raise ClipSetError(
            f"--track_pattern {pattern}: expected a regular expression whose first group is found in {file}"
        ) from None
