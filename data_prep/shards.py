"""From parts to a set: which clip goes into which shard, the shards, the metadata, the contact sheet, the manifest."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from data_prep import clips, workers
from data_prep.options import Options
from data_prep.tracks.decode import Cut, Place, Source, safe
from technogen_jax.audio import audio_files
from technogen_jax.common import atomic_files, progress
from technogen_jax.data import tfrecords
from technogen_jax.data.manifest import CLIPS_FILE, Manifest, write_manifest

CONTACT_SHEET_FILE = "contact_sheet.png"
_CONTACT_SHEET_CLIPS = 12


class Track(NamedTuple):
    """A usable track: its file, its part, and what `decode_track` says of it."""

    source: Source
    part: str
    cut: Cut
    result: dict[str, Any]

    @property
    def places(self) -> list[Place]:
        """Where its clips are."""
        return self.cut.places(self.result["samples"])


class Clip(NamedTuple):
    """One record to be."""

    track: Track
    index: int  # within the track
    place: Place


class ShardJob(NamedTuple):
    """One shard to write."""

    path: str
    clips: list[tuple[str, Place, int, str]]  # part, place, label, track's id
    cut: Cut


def write_set(
    folder: pathlib.Path,
    options: Options,
    cut: Cut,
    tracks: list[Track],
    rejected: list[dict[str, str]],
    fingerprint: str,
    pool: workers.Workers,
) -> Manifest:
    """Writes all files of a set from the tracks' parts, the manifest last.

    Raises:
        JobError: a file could not be written.
    """
    labels = sorted({track.source.label for track in tracks})
    hashes = [track.result["hash"] for track in tracks]
    assigned = clips.assign_splits(hashes, [track.source.label for track in tracks], options.split, options.seed)
    shards: dict[str, list[list[Clip]]] = {}  # split -> shards -> clips
    for split, name in enumerate(tfrecords.SPLITS):
        members = [track for track, its_split in zip(tracks, assigned, strict=True) if its_split == split]
        shards[name] = _plan(members, options, cut, np.random.default_rng([options.seed, split]))

    jobs, splits, info_splits = [], {}, {}
    for split, (name, plan) in enumerate(shards.items()):
        files = tfrecords.shard_names(name, len(plan))
        for file, chosen in zip(files, plan, strict=True):
            entries = [(c.track.part, c.place, labels.index(c.track.source.label), c.track.source.id) for c in chosen]
            jobs.append((write_shard, ShardJob(str(folder / file), entries, cut)))
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

    about = heading(options, cut.bpm)
    grid = {"reference_bpm": cut.bpm} if cut.bars else {}
    manifest = Manifest(
        sample_rate_hz=options.sample_rate,
        channels=options.channels,
        clip_samples=cut.clip_samples,
        stride_samples=cut.stride_samples,
        labels=labels,
        splits=splits,
        tracks=[_entry(track, tfrecords.SPLITS[split]) for track, split in zip(tracks, assigned, strict=True)],
        rejected=rejected,
        options={"input": safe(options.input)} | options.shaping | grid,
        fingerprint=fingerprint,
    )
    metadata = {"sample_rate_hz": options.sample_rate, "stride_samples": cut.stride_samples} | grid
    try:
        _draw(folder / CONTACT_SHEET_FILE, shards, options, cut, about)
        features = tfrecords.make_features(cut.clip_samples, options.channels, labels)
        tfrecords.write_dataset_info(folder, features, info_splits, f"Techno: {about}, split by track.", metadata)
        atomic_files.write_text(folder / CLIPS_FILE, _lines(shards, manifest, tracks))
        write_manifest(folder, manifest)
    except OSError as error:
        raise workers.JobError(f"{folder}: cannot be written: {error.strerror or error}") from error
    return manifest


def write_shard(job: ShardJob) -> int:
    """Writes one shard from the parts; the bytes of its records.

    Raises:
        JobError: it could not be written.
    """

    def serialised() -> Iterator[bytes]:
        for part, place, label, track in job.clips:
            pcm = read_clip(part, place.offset, job.cut.clip_samples, job.cut.channels)
            yield tfrecords.serialize_example(pcm, label, track, place.start)

    try:
        return tfrecords.write_shard(job.path, serialised())
    except OSError as error:
        raise workers.JobError(f"{job.path}: cannot be written: {error.strerror or error}") from error


def read_clip(part: str, offset: int, clip_samples: int, channels: int) -> np.ndarray:
    """A clip's PCM, `[clip_samples, channels]`, from a part.

    Raises:
        JobError: the part is shorter than it was.
    """
    pcm = np.fromfile(f"{part}.pcm", np.int16, clip_samples * channels, offset=offset * 2 * channels)
    if len(pcm) != clip_samples * channels:
        raise workers.JobError(f"{part}.pcm: shorter than it was; delete it and run the same command again")
    return pcm.reshape(clip_samples, channels)


def heading(options: Options, bpm: float | None) -> str:
    """What the clips are, in half a line; bpm is of the set, with --grid bars."""
    length = f"{options.hop_size:g} s" if options.grid == "none" else f"{options.bars} bars at {bpm:g} BPM"
    return f"{options.sample_rate} Hz, {channel_word(options.channels)}, clips of {length}"


def channel_word(channels: int) -> str:
    """1 -> mono, 2 -> stereo."""
    return "mono" if channels == 1 else "stereo"


def _plan(tracks: Sequence[Track], options: Options, cut: Cut, rng: np.random.Generator) -> list[list[Clip]]:
    """The clips of a split in shards of about the same size."""
    plan = []
    for track in tracks:
        silent = set(track.result["silent_clips"])
        plan += [Clip(track, index, place) for index, place in enumerate(track.places) if index not in silent]
    if not plan:
        return []
    if options.shuffle:
        plan = [plan[index] for index in rng.permutation(len(plan))]
    total_bytes = len(plan) * cut.clip_samples * options.channels * 2
    shards = min(len(plan), max(1, round(total_bytes / (options.shard_mb * 1e6))))
    bounds = [len(plan) * shard // shards for shard in range(shards + 1)]
    return [plan[start:stop] for start, stop in zip(bounds[:-1], bounds[1:], strict=True)]


def _draw(path: pathlib.Path, shards: dict[str, list[list[Clip]]], options: Options, cut: Cut, heading: str) -> None:
    from technogen_jax.audio import spectrogram_images  # matplotlib: half a second

    everything = [clip for plan in shards.values() for chosen in plan for clip in chosen]
    rng = np.random.default_rng(options.seed)
    picked = rng.choice(len(everything), min(len(everything), _CONTACT_SHEET_CLIPS), replace=False)
    drawn = [everything[index] for index in picked]
    pcm = [read_clip(clip.track.part, clip.place.offset, cut.clip_samples, cut.channels) for clip in drawn]
    titles = [f"{clip.track.source.id} @ {clip.place.start / options.sample_rate:.0f} s" for clip in drawn]
    spectrogram_images.write_contact_sheet(
        path, list(map(audio_files.from_int16, pcm)), options.sample_rate, titles, heading=heading
    )


def _entry(track: Track, split: str) -> dict[str, Any]:
    source, cut, result = track.source, track.cut, track.result
    count, silent = len(result["clip_peaks_dbfs"]), len(result["silent_clips"])
    if cut.bars:
        seconds, tail_s, grid = cut.seconds, cut.seconds, {"sections": []}
        for section in cut.sections:
            last = (clips.count_clips(section.bars, cut.bars, cut.stride_bars) - 1) * cut.stride_bars + cut.bars
            tail_s -= section.time_s(last) - section.start_s
            numbers = section._asdict() | {"speed": cut.speed(section)}
            grid["sections"].append({name: round(number, 6) for name, number in numbers.items()})
    else:
        seconds, grid = result["samples"] / cut.sample_rate_hz, {}
        end = (count - 1) * cut.stride_samples + cut.clip_samples
        tail_s = (result["samples"] - end) / cut.sample_rate_hz
    return {
        "id": source.id,
        "path": safe(source.path),
        "label": source.label,
        "split": split,
        "seconds": round(seconds, 3),
        **{name: result[name] for name in ("hash", "peak_dbfs", "loudness_lufs", "gain_db", "gain_limited")},
        "clips": count - silent,
        "silent_clips": silent,
        "tail_s": round(tail_s, 3),
        "size_bytes": source.size_bytes,
        "modified_ns": source.modified_ns,
    } | grid


def _lines(shards: dict[str, list[list[Clip]]], manifest: Manifest, tracks: list[Track]) -> Iterator[str]:
    """The lines of clips.jsonl: the records in the order of the shards, then the clips that were left out."""

    def line(where: dict[str, Any], track: Track, index: int, place: Place) -> str:
        what = {
            "track": track.source.id,
            "offset": place.start,
            "label": track.source.label,
            "peak_dbfs": track.result["clip_peaks_dbfs"][index],
            "loudness_lufs": track.result["clip_loudness_lufs"][index],
        }
        return json.dumps(where | what | place.about) + "\n"

    for split, plan in shards.items():
        for shard, chosen in enumerate(plan):
            for position, clip in enumerate(chosen):
                yield line({"split": split, "shard": shard, "index": position}, *clip)
    reason = f"silent: below {manifest.options['silence_db']:g} dB"
    for track, entry in zip(tracks, manifest.tracks, strict=True):
        places = track.places
        for index in track.result["silent_clips"]:
            yield line({"split": entry["split"], "rejected": reason}, track, index, places[index])
