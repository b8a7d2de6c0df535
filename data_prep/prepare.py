"""Any folder of tracks -> fixed-length 16-bit clips in TFRecord shards, split by track.

    python -m data_prep.prepare --input TRACKS --output data/techno

Two phases. First every track is decoded once, normalised and left as raw 16-bit PCM in OUTPUT.incomplete/parts, one job
a track. Then the clips of all tracks are assigned to the splits, shuffled, and written into shards, one job a shard. The
manifest comes last and the folder gets its name when all of it is there. A run that was stopped goes on from its parts;
the same tracks and options give the same shards, byte for byte, whatever the number of workers.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import hashlib
import json
import os
import pathlib
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from data_prep import command, shards, tracks, workers
from data_prep.command import CommandError, OptionError, cpu_count, option_text
from data_prep.options import Options, parse_options
from technogen_jax import audio, progress, records

_PARTS = "parts"
_PART_VERSION = 1  # to be raised when the same file and options give another part


def prepare(options: Options, say: Callable[[str], None] = print) -> records.Manifest:
    """Makes the set, or finds that it is there already.

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
    sources, rejected = tracks.find_tracks(root, (output, incomplete), options.labels)
    sources = _limited(sources, options)
    if not sources and not rejected:
        extensions = " ".join(sorted(audio.AUDIO_EXTENSIONS))
        raise CommandError(f"{options.input}: no audio files in it or below (looked for {extensions})")
    fingerprint = _fingerprint(options, sources, rejected)
    if old is not None:
        if old.get("fingerprint") != fingerprint:
            raise CommandError(
                f"{options.output}: already holds another set: {_differences(old, options)}. "
                "Delete it, or name another --output"
            )
        say(f"{options.output}: already done with these options and tracks; nothing to do")
        return records.read_manifest(output)
    try:
        (incomplete / _PARTS).mkdir(parents=True, exist_ok=True)
        with _lock(incomplete, options.output):
            manifest = _build(options, sources, rejected, fingerprint, incomplete, say)
            shutil.rmtree(incomplete / _PARTS)
            if output.exists():  # and is empty
                output.rmdir()
            os.rename(incomplete, output)
    except OSError as error:
        raise CommandError(f"{error.filename or options.output}: {error.strerror or error}") from error
    _report(manifest, options, say)
    return manifest


def _build(
    options: Options,
    sources: list[tracks.Source],
    rejected: list[dict],
    fingerprint: str,
    folder: pathlib.Path,
    say: Callable[[str], None],
) -> records.Manifest:
    """Both phases; everything but the final renaming."""
    for name in os.listdir(folder):  # an interrupted second phase is done again
        if name != _PARTS:
            os.unlink(folder / name)
    with workers.Workers(options.workers or cpu_count()) as pool:
        parts = _part_paths(options, sources, folder / _PARTS)
        results = _decode_all(options, sources, parts, pool, say)
        usable, rejected = [], list(rejected)
        for source, part, result in zip(sources, parts, results, strict=True):
            if "hash" in result:
                usable.append(shards.Track(source, part, result))
            else:
                rejected.append({"path": source.id} | result)
        rejected.sort(key=lambda entry: entry["path"])
        if not usable:
            shutil.rmtree(folder)
            shown = "".join(f"\n  {_line(entry)}" for entry in rejected[:10])
            raise CommandError(
                f"{options.input}: no usable clip in {len(rejected)} files: {_by_reason(rejected)}{shown}"
            )
        return shards.write_set(folder, options, usable, rejected, fingerprint, pool)


def _part_paths(options: Options, sources: list[tracks.Source], folder: pathlib.Path) -> list[str]:
    """Each source's part. Its name holds all that the part depends on, so that a part of that name is the part."""
    keys = [
        json.dumps([_PART_VERSION, source.id, source.size_bytes, source.modified_ns, options.cut]) for source in sources
    ]
    names = [hashlib.blake2b(key.encode(), digest_size=16).hexdigest() for key in keys]
    for name in os.listdir(folder):
        stem, _, extension = name.partition(".")
        if stem not in names or extension not in ("pcm", "json"):
            os.unlink(folder / name)
    return [str(folder / name) for name in names]


def _decode_all(
    options: Options, sources: list[tracks.Source], parts: list[str], pool: workers.Workers, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Phase 1: what `decode_track` says of each source, now or in an earlier run."""
    results: list[Any] = [tracks.read_part(part, options.cut) for part in parts]
    # The largest first, so that no worker is left with a long track while the others have none.
    todo = [index for index, result in enumerate(results) if result is None]
    todo.sort(key=lambda index: (-sources[index].size_bytes, index))
    if len(todo) < len(sources):
        say(f"{options.output}: going on; {len(sources) - len(todo)} of {len(sources)} tracks are decoded already")

    def jobs(chosen: list[int]):
        return [(tracks.decode_track, (sources[index].path, parts[index], options.cut)) for index in chosen]

    with progress.bar("decoding", sum(sources[index].size_bytes for index in todo), "B") as bar:
        for done, result in pool.run(jobs(todo)):
            results[todo[done]] = result
            bar.update(sources[todo[done]].size_bytes)
    for index, result in enumerate(results):
        if isinstance(result, workers.Crash):  # again and alone: memory that the others took may have been the cause
            [(_, result)] = pool.run(jobs([index]))
            if isinstance(result, workers.Crash):
                result = tracks.rejection("crashed the decoder", f"the decoder crashed on it ({result})")
            results[index] = result
    return results


# ------------------------------------------------------------------------------------------------ folders and old sets


def _existing_set(root: pathlib.Path, output: pathlib.Path, options: Options) -> dict[str, Any] | None:
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
        return json.loads((output / records.MANIFEST_FILE).read_text(encoding="utf-8")) | {}
    except (OSError, ValueError, TypeError):
        raise OptionError(
            f"--output {options.output}: holds files but no set made by this command; name a folder that does not exist yet"
        ) from None


@contextlib.contextmanager
def _lock(folder: pathlib.Path, name: str) -> Iterator[None]:
    """Keeps a second run out of the folder; the lock goes with the process, however it ends."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            os.close(handle)
            raise CommandError(f"{name}: another run is preparing it; wait, or name another --output") from None
        # A file system without locks: go on.
    try:
        yield
    finally:
        os.close(handle)


def _limited(sources: list[tracks.Source], options: Options) -> list[tracks.Source]:
    """The first `limit` sources, in a seeded order or by path; sorted by path again."""
    if options.limit is None:
        return sources
    order = sources
    if options.shuffle:
        order = sorted(sources, key=lambda source: hashlib.blake2b(f"{options.seed} {source.id}".encode()).digest())
    chosen = set(order[: options.limit])
    return [source for source in sources if source in chosen]


def _fingerprint(options: Options, sources: list[tracks.Source], rejected: list[dict]) -> str:
    files = [[source.id, source.size_bytes, source.modified_ns] for source in sources]
    content = json.dumps([options.shaping, files, sorted(entry["path"] for entry in rejected)], sort_keys=True)
    return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()


def _differences(old: dict[str, Any], options: Options) -> str:
    """In words: how the set that is there differs from the one asked for."""
    before, now = old.get("options", {}), options.shaping
    changed = [
        f"--{name} was {option_text(before.get(name))}, is {option_text(now[name])}"
        for name in now
        if before.get(name) != now[name]
    ]
    return "; ".join(changed) or "files in the input are new, gone or changed"


# ----------------------------------------------------------------------------------------------------- what the user sees


def _report(manifest: records.Manifest, options: Options, say: Callable[[str], None]) -> None:
    seconds = manifest.clip_samples / manifest.sample_rate_hz
    word = shards.channel_word(manifest.channels)
    say(f"{manifest.sample_rate_hz} Hz, {word}, clips of {seconds:g} s, {len(manifest.tracks)} tracks")
    for split, entry in manifest.splits.items():
        hours = entry["clips"] * seconds / 3600
        say(
            f"  {split:5}  {entry['clips']:7} clips  {hours:8.2f} h  {entry['tracks']:5} tracks  {len(entry['shards']):4} shards"
        )
    shares = zip(records.SPLITS, options.split, strict=True)
    empty = [split for split, share in shares if share and not manifest.splits[split]["clips"]]
    if empty:
        say(f"  warning: {len(manifest.tracks)} tracks are too few: no clips in {' and '.join(empty)}")
    copies = len(manifest.tracks) - len({entry["hash"] for entry in manifest.tracks})
    if copies:
        say(f"  {copies} tracks have the same audio as another; they are in the same split")
    silent = sum(entry["silent_clips"] for entry in manifest.tracks)
    if silent:
        say(f"  {silent} silent clips left out (below {options.silence_db:g} dB)")
    limited = sum(entry["gain_limited"] for entry in manifest.tracks)
    if limited:
        say(f"  {limited} tracks stay below {options.cut.target_lufs:g} LUFS: their peaks reach full scale before")
    if manifest.rejected:
        say(f"  {len(manifest.rejected)} files left out: {_by_reason(manifest.rejected)}")
        for entry in manifest.rejected[:10]:
            say(f"    {_line(entry)}")
        if len(manifest.rejected) > 10:
            say(f'    ... and {len(manifest.rejected) - 10} more: see "rejected" in {records.MANIFEST_FILE}')
    files = f"{records.MANIFEST_FILE}, {records.CLIPS_FILE} (every clip), {shards.CONTACT_SHEET_FILE} (look at it)"
    say(f"in {options.output}: {files}")
    train = "python -m technogen_jax.train --config configs/wavegan.py --workdir runs/x"
    say(f"next: {train} --config.data.dir={shlex.quote(options.output)}")


def _by_reason(rejected: list[dict]) -> str:
    counts = collections.Counter(entry["kind"] for entry in rejected)
    return ", ".join(f"{count} {kind}" for kind, count in counts.most_common())


def _line(entry: dict[str, str]) -> str:
    text = f"{entry['path']}: {entry['reason']}"
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status: 0 done, 1 failed, 2 an option that cannot work, 130 stopped."""
    return command.run("prepare", prepare, parse_options(argv))


if __name__ == "__main__":
    sys.exit(main())
