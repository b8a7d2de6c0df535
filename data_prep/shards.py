"""Writes a dataset from decoded tracks: shards, metadata, contact sheet, list of clips, manifest."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from data_prep import clips, workers
from data_prep.options import Options
from data_prep.tracks.clip_settings import ClipPosition, ClipSettings
from data_prep.tracks.find import TrackFile, escape_name
from technogen_jax.audio import audio_files
from technogen_jax.common import atomic_files, progress
from technogen_jax.data import tfrecords
from technogen_jax.data.clip_source import choose_spread
from technogen_jax.data.manifest import CLIPS_FILE, Manifest, write_manifest

CONTACT_SHEET_FILE = "contact_sheet.png"
_CONTACT_SHEET_CLIPS = 12
_LOOK_AT_BARS = (
    "Lines: beats; with a mark: bars. Kicks (bottom) must begin at the lines. If they fall between them, the beat is wrong; "
    "if claps and changes do not follow the marks, the downbeat is."
)
_LOOK_AT_CLIPS = (
    "Look for silence, clipping (bright to the top), hum (lines at the bottom), and treble that is cut off."
)


class Track(NamedTuple):
    """A usable track: its file, its decoded audio, and the result of `decode_track`."""

    source: TrackFile
    stem: str
    settings: ClipSettings
    result: dict[str, Any]
    version_of: Track | None = None  # an earlier track that is the same recording

    @property
    def positions(self) -> list[ClipPosition]:
        """Positions of its clips."""
        return self.settings.find_clips(self.result["samples"])


class Clip(NamedTuple):
    """One clip of the dataset, not yet written."""

    track: Track
    index: int  # within the track
    position: ClipPosition


class ShardJob(NamedTuple):
    """One shard to write."""

    path: str
    clips: list[tuple[str, ClipPosition, int, str]]  # stem, position, label, track's id
    settings: ClipSettings


def write_dataset(
    folder: pathlib.Path,
    options: Options,
    settings: ClipSettings,
    tracks: list[Track],
    rejected: list[dict[str, str]],
    fingerprint: str,
    pool: workers.Workers,
) -> Manifest:
    """Writes all files of a dataset from the decoded tracks, the manifest last, and returns it.

    Raises:
        JobError: a file could not be written.
    """
    labels = sorted({track.source.label for track in tracks})
    hashes = _split_keys(tracks)
    assigned = clips.assign_splits(hashes, [track.source.label for track in tracks], options.split, options.seed)
    shards: dict[str, list[list[Clip]]] = {}  # split -> shards -> clips
    for split, name in enumerate(tfrecords.SPLITS):
        members = [track for track, its_split in zip(tracks, assigned, strict=True) if its_split == split]
        shards[name] = _plan_shards(members, options, settings, np.random.default_rng([options.seed, split]))

    jobs, splits, info_splits = [], {}, {}
    for split, (name, plan) in enumerate(shards.items()):
        files = tfrecords.shard_names(name, len(plan))
        for file, chosen in zip(files, plan, strict=True):
            entries = [
                (c.track.stem, c.position, labels.index(c.track.source.label), c.track.source.id) for c in chosen
            ]
            jobs.append((write_shard, ShardJob(str(folder / file), entries, settings)))
        splits[name] = {"clips": sum(map(len, plan)), "tracks": assigned.count(split), "shards": files}
    shard_bytes = {}
    with progress.bar("writing", sum(entry["clips"] for entry in splits.values()), " clips") as bar:
        for index, result in pool.run(jobs):
            job = jobs[index][1]
            if isinstance(result, workers.Crash):
                raise workers.JobError(f"{job.path}: the process that wrote it died ({result}); run it again")
            shard_bytes[os.path.basename(job.path)] = result
            bar.update(len(job.clips))
    for name, plan in shards.items():
        if plan:
            total = sum(shard_bytes[file] for file in splits[name]["shards"])
            info_splits[name] = ([len(chosen) for chosen in plan], total)

    about = heading(options, settings.bpm)
    grid = {"reference_bpm": settings.bpm} if settings.bars else {}
    manifest = Manifest(
        sample_rate_hz=options.sample_rate,
        channels=options.channels,
        clip_samples=settings.clip_samples,
        stride_samples=settings.stride_samples,
        labels=labels,
        splits=splits,
        tracks=[_describe_track(track, tfrecords.SPLITS[split]) for track, split in zip(tracks, assigned, strict=True)],
        rejected=rejected,
        options={"input": escape_name(options.input)} | options.shaping | grid,
        fingerprint=fingerprint,
    )
    metadata = {"sample_rate_hz": options.sample_rate, "stride_samples": settings.stride_samples} | grid
    try:
        _draw_contact_sheet(folder / CONTACT_SHEET_FILE, shards, options, settings, about)
        features = tfrecords.make_features(settings.clip_samples, options.channels, labels)
        tfrecords.write_dataset_info(folder, features, info_splits, f"Techno: {about}, split by track.", metadata)
        atomic_files.write_text(folder / CLIPS_FILE, _clip_lines(shards, manifest, tracks))
        write_manifest(folder, manifest)
    except OSError as error:
        raise workers.JobError(f"{folder}: cannot be written: {error.strerror or error}") from error
    return manifest


def _split_keys(tracks: list[Track]) -> list[str]:
    """Returns a hash for each track, the same for all versions of a recording and for any order of the tracks."""
    firsts = [(track.version_of or track).stem for track in tracks]
    smallest: dict[str, str] = {}
    for first, track in zip(firsts, tracks, strict=True):
        smallest[first] = min(track.result["hash"], smallest.get(first, track.result["hash"]))
    return [smallest[first] for first in firsts]


def write_shard(job: ShardJob) -> int:
    """Writes one shard from decoded tracks and returns the bytes of its records.

    Raises:
        JobError: it could not be written.
    """

    def serialize() -> Iterator[bytes]:
        for stem, position, label, track in job.clips:
            pcm = read_clip(stem, position.offset, job.settings.clip_samples, job.settings.channels)
            yield tfrecords.serialize_example(pcm, label, track, position.start)

    try:
        return tfrecords.write_shard(job.path, serialize())
    except OSError as error:
        raise workers.JobError(f"{job.path}: cannot be written: {error.strerror or error}") from error


def read_clip(stem: str, offset: int, clip_samples: int, channels: int) -> np.ndarray:
    """Returns a clip's PCM, `[clip_samples, channels]`, from a decoded track.

    Raises:
        JobError: the file has become shorter.
    """
    pcm = np.fromfile(f"{stem}.pcm", np.int16, clip_samples * channels, offset=offset * 2 * channels)
    if len(pcm) != clip_samples * channels:
        raise workers.JobError(f"{stem}.pcm: has become shorter; delete it and run the same command again")
    return pcm.reshape(clip_samples, channels)


def heading(options: Options, bpm: float | None) -> str:
    """Returns rate, channels and length of the clips in words; `bpm` is the dataset's, with --grid bars."""
    length = f"{options.hop_size:g} s" if options.grid == "none" else f"{options.bars} bars at {bpm:g} BPM"
    return f"{options.sample_rate} Hz, {channel_word(options.channels)}, clips of {length}"


def channel_word(channels: int) -> str:
    """Returns "mono" or "stereo"."""
    return "mono" if channels == 1 else "stereo"


def _plan_shards(
    tracks: Sequence[Track], options: Options, settings: ClipSettings, rng: np.random.Generator
) -> list[list[Clip]]:
    """Distributes the clips of a split over shards of about the same size."""
    plan = []
    for track in tracks:
        silent = set(track.result["silent_clips"])
        plan += [Clip(track, index, position) for index, position in enumerate(track.positions) if index not in silent]
    if not plan:
        return []
    if options.shuffle:
        plan = [plan[index] for index in rng.permutation(len(plan))]
    total_bytes = len(plan) * settings.clip_samples * options.channels * 2
    shards = min(len(plan), max(1, round(total_bytes / (options.shard_mb * 1e6))))
    bounds = [len(plan) * shard // shards for shard in range(shards + 1)]
    return [plan[start:stop] for start, stop in zip(bounds[:-1], bounds[1:], strict=True)]


def _draw_contact_sheet(
    path: pathlib.Path, shards: dict[str, list[list[Clip]]], options: Options, settings: ClipSettings, heading: str
) -> None:
    from technogen_jax.audio import spectrogram_images  # matplotlib: half a second

    everything = [clip for plan in shards.values() for chosen in plan for clip in chosen]
    tracks = [clip.track.source.id for clip in everything]
    drawn = [everything[index] for index in choose_spread(tracks, _CONTACT_SHEET_CLIPS, options.seed)]
    pcm = [read_clip(clip.track.stem, clip.position.offset, settings.clip_samples, settings.channels) for clip in drawn]
    titles = [f"{clip.track.source.id} @ {clip.position.start / options.sample_rate:.0f} s" for clip in drawn]
    spectrogram_images.write_contact_sheet(
        path,
        list(map(audio_files.from_int16, pcm)),
        options.sample_rate,
        titles,
        heading=heading,
        bars=settings.bars or None,
        note=_LOOK_AT_BARS if settings.bars else _LOOK_AT_CLIPS,
    )


def _describe_track(track: Track, split: str) -> dict[str, Any]:
    source, settings, result = track.source, track.settings, track.result
    count, silent = len(result["clip_peaks_dbfs"]), len(result["silent_clips"])
    if settings.bars:
        seconds, tail_s, grid = settings.seconds, settings.seconds, {"sections": []}
        for section in settings.sections:
            last = (
                clips.count_clips(section.bars, settings.bars, settings.stride_bars) - 1
            ) * settings.stride_bars + settings.bars
            tail_s -= section.time_s(last) - section.start_s
            numbers = section._asdict() | {"speed": settings.speed(section)}
            grid["sections"].append({name: round(number, 6) for name, number in numbers.items()})
    else:
        samples = result["samples"] - result["padding_samples"]
        seconds, grid = samples / settings.sample_rate_hz, {}
        end = (count - 1) * settings.stride_samples + settings.clip_samples
        tail_s = max(0, samples - end) / settings.sample_rate_hz
    return {
        "id": source.id,
        "path": escape_name(source.path),
        "label": source.label,
        "split": split,
        "seconds": round(seconds, 3),
        **{name: result[name] for name in ("hash", "peak_dbfs", "loudness_lufs", "gain_db", "gain_limited")},
        "bandwidth_hz": result["bandwidth_hz"],
        "notes": result["notes"],
        "clips": count - silent,
        "silent_clips": silent,
        "tail_s": round(tail_s, 3),
        "size_bytes": source.size_bytes,
        "modified_ns": source.modified_ns,
        **({"version_of": track.version_of.source.id} if track.version_of else {}),
    } | grid


def _clip_lines(shards: dict[str, list[list[Clip]]], manifest: Manifest, tracks: list[Track]) -> Iterator[str]:
    """Yields the lines of clips.jsonl: the records in the order of the shards, then the clips that were left out."""

    def line(where: dict[str, Any], track: Track, index: int, position: ClipPosition) -> str:
        what = {
            "track": track.source.id,
            "offset": position.start,
            "label": track.source.label,
            "peak_dbfs": track.result["clip_peaks_dbfs"][index],
            "loudness_lufs": track.result["clip_loudness_lufs"][index],
        }
        return json.dumps(where | what | position.bar_info) + "\n"

    for split, plan in shards.items():
        for shard, chosen in enumerate(plan):
            for position, clip in enumerate(chosen):
                yield line({"split": split, "shard": shard, "index": position}, *clip)
    reason = f"silent: below {manifest.options['silence_db']:g} dB"
    for track, entry in zip(tracks, manifest.tracks, strict=True):
        positions = track.positions
        for index in track.result["silent_clips"]:
            yield line({"split": entry["split"], "rejected": reason}, track, index, positions[index])
