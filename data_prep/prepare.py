"""Turns a folder of tracks into clips of 16-bit audio in TFRecord shards, split by track.

    python -m data_prep.prepare --input TRACKS --output data/techno

There are two phases. First each track is decoded, normalised and written as raw 16-bit PCM to
OUTPUT.incomplete/parts, one job a track. Then the clips of all tracks are assigned to the splits,
shuffled and written to shards, one job a shard. The manifest is written last, and the folder gets its
name when it is complete. A run that was stopped is resumed from the decoded tracks. The same tracks and
options give the same shards, byte for byte, for any number of workers. Several machines can share the
first phase, each with --task; the same command without it then runs the second.

With --grid bars there is a phase before these: each track is decoded to find its beats. The dataset's
tempo is known only then, so the tracks are decoded a second time, at that tempo.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import hashlib
import json
import math
import os
import pathlib
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from typing import Any

from data_prep import clips, phases, shards, workers
from data_prep.options import DESCRIPTION, EXAMPLES, Options
from data_prep.tracks.find import TrackFile, find_tracks
from technogen_jax.audio import audio_folders
from technogen_jax.common import atomic_files, command_line
from technogen_jax.common.command_line import CommandError, OptionError, cpu_count, option_text
from technogen_jax.data import tfrecords
from technogen_jax.data.manifest import CLIPS_FILE, MANIFEST_FILE, Manifest, read_manifest

_PARTS = "parts"
_BEATS = "beats"
_LONGEST_WAVEGAN = 16  # log2 of 65,536 samples, the longest clip of the paper's WaveGAN
_LEAST_SHAPER_HZ = 32000  # below, TechnoGAN cannot use its shipped shaper; a test compares it with the model's
_TREBLE_HZ = 15_000  # what lossy files of 128 kbit/s and more contain; tracks with less are named


def prepare(options: Options, say: Callable[[str], None] = print) -> Manifest | None:
    """Prepares the dataset and returns its manifest; None for one task of an array, which only decodes.

    Args:
        options: checked by their class.
        say: takes the lines of the report.

    Raises:
        OptionError: an input or output that cannot be used.
        CommandError: no usable clip, another set in the output, or it could not be written.
    """
    root, output = pathlib.Path(options.input), pathlib.Path(os.path.realpath(options.output))
    incomplete = output.with_name(f"{output.name}.incomplete")
    old = _existing_set(root, output, options)
    sources, rejected = find_tracks(root, (output, incomplete), options.labels)
    sources = _limited(sources, options)
    if not sources and not rejected:
        others = len(audio_folders.AUDIO_EXTENSIONS) - 5
        raise CommandError(
            f"{options.input}: no audio files in it or below (looked for .wav .flac .mp3 .ogg .m4a and {others} others)"
        )
    if old is not None:
        changed = _changed_files(old, options, sources)
        if not changed:
            say(f"{options.output}: already done with these options and tracks; nothing to do")
            return old
        say(f"{options.output}: {changed} files have another time or size; decoding the tracks to compare")
    try:
        (incomplete / _PARTS).mkdir(parents=True, exist_ok=True)
        with _lock(incomplete, options.output, shared=options.task is not None):
            manifest = _build(options, sources, rejected, old, incomplete, say)
            if manifest is None:
                return None
            if old is not None:
                shutil.rmtree(incomplete)
                say(f"{options.output}: already done; the audio is the same; nothing to do")
                return old
            for name in (_PARTS, _BEATS):
                shutil.rmtree(incomplete / name, ignore_errors=True)
            if output.exists():  # and is empty
                output.rmdir()
            os.rename(incomplete, output)
    except OSError as error:
        raise CommandError(f"{error.filename or options.output}: {error.strerror or error}") from error
    _report(manifest, options, say)
    return manifest


def _build(
    options: Options,
    sources: list[TrackFile],
    rejected: list[dict],
    old: Manifest | None,
    folder: pathlib.Path,
    say: Callable[[str], None],
) -> Manifest | None:
    """Runs all phases in the folder and returns the manifest; None for one task of an array.

    If the output has a dataset, `old`, its manifest is returned if these tracks give the same one.
    """
    if not options.task:
        for name in os.listdir(folder):  # files of a second phase that was stopped
            if name not in (_PARTS, _BEATS):
                os.unlink(folder / name)
    with workers.Workers(options.workers or cpu_count()) as pool:
        settings, rejected = options.clip_settings, list(rejected)
        work = [(source, settings) for source in sources]
        if options.grid == "bars":
            found = phases.find_all_beats(options, sources, folder / _BEATS, pool, say)
            if None in found:
                say("this task has searched its share for beats; when all tasks have ended, run them again to decode")
                return None
            settings, work, without_bars = phases.choose_sections(options, sources, found)
            rejected += without_bars
        stems, results = phases.decode_all(options, work, folder / _PARTS, pool, say)
        if options.task:
            say(
                "this task has decoded its share; when all tasks have ended, the same command without --task writes the dataset"
            )
            return None
        usable = []
        for (source, its_settings), stem, result in zip(work, stems, results, strict=True):
            if "hash" in result:
                usable.append(shards.Track(source, stem, its_settings, result))
            else:
                rejected.append(source.rejected(result))
        rejected.sort(key=lambda entry: entry["path"])
        fingerprint = _fingerprint(options, usable)
        if old is not None:
            if old.fingerprint == fingerprint:
                return old
            shutil.rmtree(folder)
            raise _other_set(old, options)
        if not usable:
            shutil.rmtree(folder)
            shown = "".join(f"\n  {_line(entry)}" for entry in rejected[:10])
            raise CommandError(
                f"{options.input}: no usable clip in {len(rejected)} files: {_by_reason(rejected)}{shown}"
            )
        usable = phases.find_versions(options, usable)
        return shards.write_dataset(folder, options, settings, usable, rejected, fingerprint, pool)


# ------------------------------------------------------------------------------------------------ folders and old sets


def _existing_set(root: pathlib.Path, output: pathlib.Path, options: Options) -> Manifest | None:
    """The manifest in the output folder, None where there is no folder or an empty one.

    Raises:
        OptionError: there is no input, or the output is something that would have to be deleted.
    """
    if not root.is_dir():
        raise OptionError(f"--input {options.input}: {'not a folder' if root.exists() else 'no such folder'}")
    real = pathlib.Path(os.path.realpath(root))
    if output in (real, *real.parents):
        raise OptionError(f"--output {options.output}: holds the input folder {options.input}; name another folder")
    if output.exists() and not output.is_dir():
        raise OptionError(f"--output {options.output}: is a file; name a folder that does not exist yet")
    if not output.exists() or not any(output.iterdir()):
        return None
    try:
        return read_manifest(output)
    except tfrecords.RecordError as error:
        raise OptionError(
            f"--output {options.output}: contains files but no dataset from this command; name a folder that does not exist "
            f"yet ({error})"
        ) from None


@contextlib.contextmanager
def _lock(folder: pathlib.Path, name: str, shared: bool = False) -> Iterator[None]:
    """Keeps a second run out of the folder, but not one task another; the lock is released when the process ends."""
    if os.name == "nt":  # cannot open folders
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        if not atomic_files.lock(handle, shared=shared):
            raise CommandError(f"{name}: another run is preparing it; wait, or name another --output")
        yield
    finally:
        os.close(handle)


def _limited(sources: list[TrackFile], options: Options) -> list[TrackFile]:
    """The first `limit` sources, in a seeded order or by path; sorted by path again."""
    if options.limit is None:
        return sources
    order = sources
    if options.shuffle:
        order = sorted(sources, key=lambda source: hashlib.blake2b(f"{options.seed} {source.id}".encode()).digest())
    chosen = set(order[: options.limit])
    return [source for source in sources if source in chosen]


def _fingerprint(options: Options, tracks: list[shards.Track]) -> str:
    """Returns the identity of a dataset: of its options, and of the name, label and audio of each track."""
    entries = [[track.source.id, track.source.label, track.result["hash"]] for track in tracks]
    content = json.dumps([options.shaping, entries], sort_keys=True)
    return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()


def _changed_files(old: Manifest, options: Options, sources: list[TrackFile]) -> int:
    """Returns how many files have another size or time than when the dataset was made; their audio may be the same.

    Raises:
        CommandError: the dataset was made with other options, or there are other files.
    """
    now = {source.id: (source.size_bytes, source.modified_ns) for source in sources}
    tracks = {entry["id"]: (entry.get("size_bytes"), entry.get("modified_ns")) for entry in old.tracks}
    rejected = {entry["path"]: (entry.get("size_bytes"), entry.get("modified_ns")) for entry in old.rejected}
    if _changed_options(old, options) or tracks.keys() - now.keys() or now.keys() - (tracks | rejected).keys():
        raise _other_set(old, options)
    # Datasets of earlier versions do not have the sizes of rejected files.
    return sum(stamp != now.get(name, stamp) and stamp[0] is not None for name, stamp in (tracks | rejected).items())


def _changed_options(old: Manifest, options: Options) -> list[str]:
    """Returns the options of a dataset that differ from those asked for, in words."""
    # An option that did not exist when the dataset was made had its default.
    before = {field.name: field.default for field in dataclasses.fields(options)} | old.options
    return [
        f"--{name} was {option_text(before[name])}, is {option_text(value)}"
        for name, value in options.shaping.items()
        if before[name] != value
    ]


def _other_set(old: Manifest, options: Options) -> CommandError:
    """Returns the error that the output has another dataset, and how it differs."""
    how = "; ".join(_changed_options(old, options)) or "files in the input are new, gone or changed"
    return CommandError(f"{options.output}: already holds another set: {how}. Delete it, or name another --output")


# ----------------------------------------------------------------------------------------------------- what the user sees


def _report(manifest: Manifest, options: Options, say: Callable[[str], None]) -> None:
    seconds = manifest.clip_samples / manifest.sample_rate_hz
    say(f"{shards.heading(options, manifest.options.get('reference_bpm'))}, {len(manifest.tracks)} tracks")
    for split, entry in manifest.splits.items():
        hours = entry["clips"] * seconds / 3600
        say(
            f"  {split:5}  {entry['clips']:7} clips  {hours:8.2f} h  {entry['tracks']:5} tracks  {len(entry['shards']):4} shards"
        )
    shares = zip(tfrecords.SPLITS, options.split, strict=True)
    empty = [split for split, share in shares if share and not manifest.splits[split]["clips"]]
    if len(manifest.tracks) < clips.FEW_TRACKS:
        _warn_of_few_tracks(manifest, options, empty, say)
    elif empty:
        say(f"  warning: no clips in {' and '.join(empty)}")
    if options.grid == "bars":
        speeds = [100 * (section["speed"] - 1) for entry in manifest.tracks for section in entry["sections"]]
        say(f"  tempos changed by {min(speeds):+.1f} to {max(speeds):+.1f} %")
    copies = len(manifest.tracks) - len({entry["hash"] for entry in manifest.tracks})
    if copies:
        say(f"  {copies} tracks have the same audio as another; they are in the same split")
    for text in _notes(manifest):
        say(f"  {text}")
    silent = sum(entry["silent_clips"] for entry in manifest.tracks)
    if silent:
        say(f"  {silent} silent clips left out (below {options.silence_db:g} dB)")
    limited = sum(entry["gain_limited"] for entry in manifest.tracks)
    if limited:
        say(
            f"  {limited} tracks stay below {options.clip_settings.target_lufs:g} LUFS: their peaks reach full scale before"
        )
    if manifest.rejected:
        say(f"  {len(manifest.rejected)} files left out: {_by_reason(manifest.rejected)}")
        for entry in manifest.rejected[:10]:
            say(f"    {_line(entry)}")
        if len(manifest.rejected) > 10:
            say(f'    ... and {len(manifest.rejected) - 10} more: see "rejected" in {MANIFEST_FILE}')
    files = f"{MANIFEST_FILE}, {CLIPS_FILE} (every clip), {shards.CONTACT_SHEET_FILE} (look at it)"
    say(f"in {options.output}: {files}")
    say(f"next: {_suggest_training(manifest, options)}")


def _warn_of_few_tracks(manifest: Manifest, options: Options, empty: list[str], say: Callable[[str], None]) -> None:
    """Says what few tracks mean, and what gives more."""
    count = len(manifest.tracks)
    say(
        f"  warning: {count} track{'s' * (count > 1)} {'are' if count > 1 else 'is'} few; nearly all are used for training. "
        "A model soon copies them, and with fewer than ten"
    )
    missing = f" ({' and '.join(empty)}: none)" if empty else ""
    say(
        f"  held-out tracks{missing} nothing can measure how near its clips are to other music. Thirty tracks are a start"
    )
    others = [entry for entry in manifest.rejected if entry["kind"] == "other tempo"]
    if others:
        say(
            f"  {len(others)} of the files have another tempo: --max_speed {min(max(2 * options.max_speed, 12), 50):g} changes tempos further, "
            "--bpm N chooses the tempo that most of them have"
        )


def _suggest_training(manifest: Manifest, options: Options) -> str:
    """The command that trains on the dataset; it works when it is pasted."""
    config, fields = "configs/technogan.py:xs", {}
    if options.grid == "none":
        length = 2 ** min(math.floor(math.log2(manifest.clip_samples)), _LONGEST_WAVEGAN)
        config = "configs/wavegan.py"
        fields = {"sample_rate_hz": manifest.sample_rate_hz, "channels": manifest.channels, "clip_samples": length}
        fields = {f"audio.{name}": value for name, value in fields.items()}
    elif manifest.sample_rate_hz < _LEAST_SHAPER_HZ:
        fields = {"model.shaper": "none"}
    fields = {"data.dir": shlex.quote(options.output)} | fields
    words = " ".join(f"--config.{name}={value}" for name, value in fields.items())
    return f"python -m technogen_jax.train --config {config} --workdir runs/x {words}"


def _notes(manifest: Manifest) -> Iterator[str]:
    """Yields what was found about single tracks, at most ten of each kind."""
    hashes = {entry["id"]: entry["hash"] for entry in manifest.tracks}
    versions = [
        (entry["id"], f"the same recording as {entry['version_of']}")
        for entry in manifest.tracks
        if "version_of" in entry and entry["hash"] != hashes[entry["version_of"]]
    ]
    least_hz = min(0.75 * manifest.sample_rate_hz / 2, _TREBLE_HZ)
    dull = [
        (entry["id"], f"up to {entry['bandwidth_hz'] / 1000:.1f} kHz")
        for entry in manifest.tracks
        if entry["bandwidth_hz"] < least_hz
    ]
    levels = [(entry["id"], note) for entry in manifest.tracks for note in entry["notes"]]
    for heading, entries in (
        ("tracks are versions of another; they are in the same split", versions),
        (f"tracks have no sound above {least_hz / 1000:g} kHz; --min_bandwidth leaves them out", dull),
        ("notes on the level of tracks", levels),
    ):
        if entries:
            yield f"{len(entries)} {heading}"
            yield from (f"  {_line({'path': name, 'reason': text})}" for name, text in entries[:10])
            if len(entries) > 10:
                yield f'  ... and {len(entries) - 10} more: see "tracks" in {MANIFEST_FILE}'


def _by_reason(rejected: list[dict]) -> str:
    counts = collections.Counter(entry["kind"] for entry in rejected)
    return ", ".join(f"{count} {kind}" for kind, count in counts.most_common())


def _line(entry: dict[str, str]) -> str:
    text = f"{entry['path']}: {entry['reason']}"
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def _prepare(options: Options, say: Callable[[str], None]) -> dict[str, Any]:
    """Prepares a dataset; returns what `--json` prints."""
    manifest = prepare(options, say)
    if manifest is None:
        return {"output": options.output, "task": options.task}
    return {
        "output": options.output,
        "fingerprint": manifest.fingerprint,
        "tracks": len(manifest.tracks),
        "rejected": len(manifest.rejected),
        "clips": {split: entry["clips"] for split, entry in manifest.splits.items()},
    }


COMMAND = command_line.Command(
    "data_prep.prepare", Options, _prepare, DESCRIPTION, EXAMPLES, resumes=True, less_memory=workers.fewer
)
parse_options, main = COMMAND.parse, COMMAND.main

if __name__ == "__main__":
    sys.exit(main())
