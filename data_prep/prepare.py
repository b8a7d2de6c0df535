"""Any folder of tracks -> fixed-length 16-bit clips in TFRecord shards, split by track.

    python -m data_prep.prepare --input TRACKS --output data/techno

Two phases. First every track is decoded, normalised and left as raw 16-bit PCM in OUTPUT.incomplete/parts, one job a
track. Then the clips of all tracks are assigned to the splits, shuffled, and written into shards, one job a shard. The
manifest comes last and the folder gets its name when all of it is there. A run that was stopped goes on from its parts;
the same tracks and options give the same shards, byte for byte, whatever the number of workers. Several machines can share
the first phase, each with --task; the same command without it then does the second.

With --grid bars there is a phase before these: every track is decoded to find its beat. Only then is the set's tempo
known, at which the tracks are decoded again; so levels are of what is heard, and no hour of audio is held in memory.
"""

from __future__ import annotations

import collections
import contextlib
import hashlib
import json
import os
import pathlib
import shlex
import shutil
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from data_prep import shards, workers
from data_prep.options import DESCRIPTION, EXAMPLES, Options
from data_prep.tracks import decode, tempo
from technogen_jax.audio import audio_files
from technogen_jax.common import atomic_files, command_line, progress
from technogen_jax.common.command_line import CommandError, OptionError, cpu_count, option_text
from technogen_jax.data import tfrecords
from technogen_jax.data.manifest import CLIPS_FILE, MANIFEST_FILE, Manifest, read_manifest

_PARTS = "parts"
_BEATS = "beats"
_PART_VERSION = 3  # to be raised when the same file and options give another part


def prepare(options: Options, say: Callable[[str], None] = print) -> Manifest | None:
    """Makes the set, or finds that it is there already; None: it was one task of an array, which leave parts.

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
    sources, rejected = decode.find_tracks(root, (output, incomplete), options.labels)
    sources = _limited(sources, options)
    if not sources and not rejected:
        extensions = " ".join(sorted(audio_files.AUDIO_EXTENSIONS))
        raise CommandError(f"{options.input}: no audio files in it or below (looked for {extensions})")
    fingerprint = _fingerprint(options, sources, rejected)
    if old is not None:
        if old.fingerprint != fingerprint:
            raise CommandError(
                f"{options.output}: already holds another set: {_differences(old, options)}. "
                "Delete it, or name another --output"
            )
        say(f"{options.output}: already done with these options and tracks; nothing to do")
        return old
    try:
        (incomplete / _PARTS).mkdir(parents=True, exist_ok=True)
        with _lock(incomplete, options.output, shared=options.task is not None):
            manifest = _build(options, sources, rejected, fingerprint, incomplete, say)
            if manifest is None:
                return None
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
    sources: list[decode.Source],
    rejected: list[dict],
    fingerprint: str,
    folder: pathlib.Path,
    say: Callable[[str], None],
) -> Manifest | None:
    """Both phases; everything but the final renaming. Of a task its share of the first, and None."""
    if not options.task:
        for name in os.listdir(folder):  # an interrupted second phase is done again
            if name not in (_PARTS, _BEATS):
                os.unlink(folder / name)
    with workers.Workers(options.workers or cpu_count()) as pool:
        cut, work, rejected = options.cut, [(source, options.cut) for source in sources], list(rejected)
        if options.grid == "bars":
            found = _beats(options, sources, folder / _BEATS, pool, say)
            if None in found:
                say("this task's share is searched for beats; when all have ended, run them again for the rest")
                return None
            cut, work, without = _with_bars(options, sources, found)
            rejected += without
        keys = [[source.id, source.size_bytes, source.modified_ns, cut] for source, cut in work]
        parts = _part_paths(folder / _PARTS, keys, alone=not options.task)
        results = [decode.read_part(part, cut) for part, (_, cut) in zip(parts, work, strict=True)]
        jobs = [(source.path, part, cut) for part, (source, cut) in zip(parts, work, strict=True)]
        decoded = [source for source, _ in work]
        _answer(decode.decode_track, "decoding", "decoded", decoded, jobs, results, options.share, pool, say)
        if options.task:
            say("this task's share is decoded; when all have ended, the same command without --task writes the set")
            return None
        usable = []
        for (source, its_cut), part, result in zip(work, parts, results, strict=True):
            if "hash" in result:
                usable.append(shards.Track(source, part, its_cut, result))
            else:
                rejected.append({"path": source.id} | result)
        rejected.sort(key=lambda entry: entry["path"])
        if not usable:
            shutil.rmtree(folder)
            shown = "".join(f"\n  {_line(entry)}" for entry in rejected[:10])
            raise CommandError(
                f"{options.input}: no usable clip in {len(rejected)} files: {_by_reason(rejected)}{shown}"
            )
        return shards.write_set(folder, options, cut, usable, rejected, fingerprint, pool)


def _beats(
    options: Options,
    sources: list[decode.Source],
    folder: pathlib.Path,
    pool: workers.Workers,
    say: Callable[[str], None],
) -> list[Any]:
    """What `find_beats` says of each track; None for those of other tasks that have not been searched."""
    keys = [[source.id, source.size_bytes, source.modified_ns, options.bpm_range] for source in sources]
    parts = _part_paths(folder, keys, alone=not options.task)
    found: list[Any] = [decode.read_answer(part) for part in parts]
    jobs = [(source.path, part, options.bpm_range) for source, part in zip(sources, parts, strict=True)]
    _answer(decode.find_beats, "finding beats", "searched for beats", sources, jobs, found, options.share, pool, say)
    return found


def _with_bars(
    options: Options, sources: list[decode.Source], found: list[Any]
) -> tuple[decode.Cut, list[tuple[decode.Source, decode.Cut]], list[dict[str, str]]]:
    """How all tracks are cut, each one that has bars with its own cut, and the others with the reason."""
    sections = [[tempo.Section(*section) for section in answer.get("sections", ())] for answer in found]
    longest = [max(each, key=lambda section: section.bars) if each else None for each in sections]
    tempos = [section.bpm for section in longest if section]
    if not tempos:
        return options.cut, [], [{"path": source.id} | answer for source, answer in zip(sources, found, strict=True)]
    # At the median the sum of all changes of tempo, as logarithms, is smallest.
    bpm = options.bpm or round(statistics.median(tempos), 2)
    work, without, cut = [], [], options.bar_cut(bpm)
    for source, answer, its_sections, main in zip(sources, found, sections, longest, strict=True):
        near = [section for section in its_sections if abs(cut.speed(section) - 1) <= options.max_speed / 100]
        whole = [section for section in near if section.bars >= options.bars]
        if whole:
            work.append((source, cut._replace(sections=tuple(whole), seconds=answer["seconds"])))
            continue
        if near:
            most = max(section.bars for section in near)
            answer = decode.rejection(
                "too short", f"{most} bars with a steady beat, fewer than a clip of {options.bars}"
            )
        elif main:
            change = f"{100 * (bpm / main.bpm - 1):+.1f} %"
            answer = decode.rejection(
                "other tempo",
                f"{main.bpm:.2f} BPM: to {bpm:g} is {change}, more than --max_speed {options.max_speed:g}",
            )
        without.append({"path": source.id} | answer)
    return cut, work, without


def _part_paths(folder: pathlib.Path, keys: Sequence[Any], alone: bool) -> list[str]:
    """A file for each key, which is all that the file depends on, so that a file of that name is the file; alone, no others."""
    folder.mkdir(exist_ok=True)
    names = [hashlib.blake2b(json.dumps([_PART_VERSION, *key]).encode(), digest_size=16).hexdigest() for key in keys]
    for name in os.listdir(folder) if alone else ():
        stem, _, extension = name.partition(".")
        if stem not in names or extension not in ("pcm", "json"):
            os.unlink(folder / name)
    return [str(folder / name) for name in names]


def _answer(
    function: Callable[[Any], dict[str, Any]],
    doing: str,
    done: str,
    sources: Sequence[decode.Source],
    jobs: Sequence[Any],
    answers: list[Any],
    share: tuple[int, int],
    pool: workers.Workers,
    say: Callable[[str], None],
) -> None:
    """Puts what a function says of each source of a share where there is no answer of an earlier run."""
    # The largest first, so that no worker is left with a long track while the others have none.
    order = sorted(range(len(sources)), key=lambda index: (-sources[index].size_bytes, index))
    todo = [index for index in order[share[0] - 1 :: share[1]] if answers[index] is None]
    if old := len(answers) - answers.count(None):
        say(f"going on; {old} of {len(answers)} tracks are {done} already")
    with progress.bar(doing, sum(sources[index].size_bytes for index in todo), "B") as bar:
        for place, answer in pool.run([(function, jobs[index]) for index in todo]):
            answers[todo[place]] = answer
            bar.update(sources[todo[place]].size_bytes)
    for index, answer in enumerate(answers):
        if isinstance(answer, workers.Crash):  # again and alone: memory that the others took may have been the cause
            [(_, answer)] = pool.run([(function, jobs[index])])
            if isinstance(answer, workers.Crash):
                answer = decode.rejection("crashed the decoder", f"the decoder crashed on it ({answer})")
                if share != (1, 1):  # the other tasks wait for it
                    with decode.replacing(f"{jobs[index][1]}.json") as temporary:
                        temporary.write_text(json.dumps(answer), encoding="utf-8")
            answers[index] = answer


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
            f"--output {options.output}: holds files but no set made by this command; name a folder that does not exist "
            f"yet ({error})"
        ) from None


@contextlib.contextmanager
def _lock(folder: pathlib.Path, name: str, shared: bool = False) -> Iterator[None]:
    """Keeps a second run out of the folder, but not one task another; the lock goes with the process, however it ends."""
    if os.name == "nt":  # opens no folders
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        if not atomic_files.lock(handle, shared=shared):
            raise CommandError(f"{name}: another run is preparing it; wait, or name another --output")
        yield
    finally:
        os.close(handle)


def _limited(sources: list[decode.Source], options: Options) -> list[decode.Source]:
    """The first `limit` sources, in a seeded order or by path; sorted by path again."""
    if options.limit is None:
        return sources
    order = sources
    if options.shuffle:
        order = sorted(sources, key=lambda source: hashlib.blake2b(f"{options.seed} {source.id}".encode()).digest())
    chosen = set(order[: options.limit])
    return [source for source in sources if source in chosen]


def _fingerprint(options: Options, sources: list[decode.Source], rejected: list[dict]) -> str:
    files = [[source.id, source.size_bytes, source.modified_ns] for source in sources]
    content = json.dumps([options.shaping, files, sorted(entry["path"] for entry in rejected)], sort_keys=True)
    return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()


def _differences(old: Manifest, options: Options) -> str:
    """In words: how the set that is there differs from the one asked for."""
    before, now = old.options, options.shaping
    changed = [
        f"--{name} was {option_text(before.get(name))}, is {option_text(now[name])}"
        for name in now
        if before.get(name) != now[name]
    ]
    return "; ".join(changed) or "files in the input are new, gone or changed"


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
    if empty:
        say(f"  warning: {len(manifest.tracks)} tracks are too few: no clips in {' and '.join(empty)}")
    if options.grid == "bars":
        speeds = [100 * (section["speed"] - 1) for entry in manifest.tracks for section in entry["sections"]]
        say(f"  tempos changed by {min(speeds):+.1f} to {max(speeds):+.1f} %")
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
            say(f'    ... and {len(manifest.rejected) - 10} more: see "rejected" in {MANIFEST_FILE}')
    files = f"{MANIFEST_FILE}, {CLIPS_FILE} (every clip), {shards.CONTACT_SHEET_FILE} (look at it)"
    say(f"in {options.output}: {files}")
    config = "wavegan.py" if options.grid == "none" else "technogan.py:xs"
    train = f"python -m technogen_jax.train --config configs/{config} --workdir runs/x"
    say(f"next: {train} --config.data.dir={shlex.quote(options.output)}")


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


COMMAND = command_line.Command("data_prep.prepare", Options, _prepare, DESCRIPTION, EXAMPLES, resumes=True)
parse_options, main = COMMAND.parse, COMMAND.main

if __name__ == "__main__":
    sys.exit(main())
