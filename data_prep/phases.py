"""The phases of preparing before the shards: finding the beats of all tracks, and decoding them.

Each track is one job; its result is a file whose name is a hash of everything that it depends on. A run
that was stopped, or another task of an array, finds these files and runs only what is missing.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from data_prep import shards, workers
from data_prep.options import Options
from data_prep.tracks import decode, tempo, versions
from data_prep.tracks.clip_settings import ClipSettings
from data_prep.tracks.find import TrackFile, make_rejection
from technogen_jax.common import progress

_VERSION = 4  # increase it when the same file and options give another result


class Phase(NamedTuple):
    """How a phase is named in the progress."""

    doing: str
    done: str


def decode_all(
    options: Options,
    work: Sequence[tuple[TrackFile, ClipSettings]],
    folder: pathlib.Path,
    pool: workers.Workers,
    say: Callable[[str], None],
) -> tuple[list[str], list[Any]]:
    """Decodes all tracks, or this task's share of them.

    Args:
        options: the options of the command.
        work: the tracks, each with its settings.
        folder: where the decoded tracks go.
        pool: runs the jobs.
        say: takes the lines of the report.

    Returns:
        Paths of the decoded tracks without extension, and the results of `decode.decode_track`.
    """
    keys = [[source.id, source.size_bytes, source.modified_ns, settings] for source, settings in work]
    stems = make_stems(folder, keys, alone=not options.task)
    results = [decode.read_decoded(stem, settings) for stem, (_, settings) in zip(stems, work, strict=True)]
    jobs = [(source.path, stem, settings) for stem, (source, settings) in zip(stems, work, strict=True)]
    sources = [source for source, _ in work]
    run_missing(decode.decode_track, Phase("decoding", "decoded"), sources, jobs, results, options.share, pool, say)
    return stems, results


def find_all_beats(
    options: Options,
    sources: list[TrackFile],
    folder: pathlib.Path,
    pool: workers.Workers,
    say: Callable[[str], None],
) -> list[Any]:
    """Returns the result of `decode.find_beats` for each track.

    Tracks that belong to another task of the array and have no result yet have None.
    """
    keys = [[source.id, source.size_bytes, source.modified_ns, options.bpm_range] for source in sources]
    stems = make_stems(folder, keys, alone=not options.task)
    found: list[Any] = [decode.read_result(stem) for stem in stems]
    jobs = [(source.path, stem, options.bpm_range) for source, stem in zip(sources, stems, strict=True)]
    run_missing(
        decode.find_beats, Phase("finding beats", "searched for beats"), sources, jobs, found, options.share, pool, say
    )
    return found


def choose_sections(
    options: Options, sources: list[TrackFile], found: list[Any]
) -> tuple[ClipSettings, list[tuple[TrackFile, ClipSettings]], list[dict[str, str]]]:
    """Chooses the dataset's tempo, and the sections of each track that can be played at it.

    Returns:
        The settings of all tracks; the usable tracks, each with its own settings; the rejected ones.
    """
    sections = [[tempo.Section(*section) for section in result.get("sections", ())] for result in found]
    longest = [max(each, key=lambda section: section.bars) if each else None for each in sections]
    tempos = [section.bpm for section in longest if section]
    if not tempos:
        return (
            options.clip_settings,
            [],
            [source.rejected(result) for source, result in zip(sources, found, strict=True)],
        )
    # The median has the smallest sum of tempo changes, as logarithms.
    bpm = options.bpm or round(statistics.median(tempos), 2)
    usable, rejected, settings = [], [], options.bar_settings(bpm)
    for source, result, its_sections, main in zip(sources, found, sections, longest, strict=True):
        near = [section for section in its_sections if abs(settings.speed(section) - 1) <= options.max_speed / 100]
        whole = [section for section in near if section.bars >= options.bars]
        if whole:
            usable.append((source, settings._replace(sections=tuple(whole), seconds=result["seconds"])))
            continue
        if near:
            most = max(section.bars for section in near)
            result = make_rejection("too short", f"{most} bars with a steady beat, fewer than a clip of {options.bars}")
        elif main:
            change = f"{100 * (bpm / main.bpm - 1):+.1f} %"
            result = make_rejection(
                "other tempo",
                f"{main.bpm:.2f} BPM: to {bpm:g} is {change}, more than --max_speed {options.max_speed:g}",
            )
        rejected.append(source.rejected(result))
    return settings, usable, rejected


def find_versions(options: Options, tracks: list[shards.Track]) -> list[shards.Track]:
    """Returns the tracks; those that are the same recording as an earlier one name it."""
    recordings = [
        versions.Recording(
            f"{track.stem}.pcm", track.result["contour"], track.result["hash"], options.sample_rate, options.channels
        )
        for track in tracks
    ]
    groups = versions.find_versions(recordings)
    return [
        track._replace(version_of=tracks[group] if group != index else None)
        for index, (track, group) in enumerate(zip(tracks, groups, strict=True))
    ]


def make_stems(folder: pathlib.Path, keys: Sequence[Any], alone: bool) -> list[str]:
    """Returns a path without extension for each key, and creates the folder.

    Args:
        folder: where the files are.
        keys: everything that the content of a file depends on. The name is its hash, so that a file with
            that name has that content.
        alone: no other task uses the folder: files of other names are deleted.
    """
    folder.mkdir(exist_ok=True)
    names = [hashlib.blake2b(json.dumps([_VERSION, *key]).encode(), digest_size=16).hexdigest() for key in keys]
    for name in os.listdir(folder) if alone else ():
        stem, _, extension = name.partition(".")
        if stem not in names or extension not in ("pcm", "json"):
            os.unlink(folder / name)
    return [str(folder / name) for name in names]


def run_missing(
    function: Callable[[Any], dict[str, Any]],
    phase: Phase,
    sources: Sequence[TrackFile],
    jobs: Sequence[Any],
    results: list[Any],
    share: tuple[int, int],
    pool: workers.Workers,
    say: Callable[[str], None],
) -> None:
    """Runs a job for each track that has no result yet, and puts the result into `results`.

    Args:
        function: what a worker runs.
        phase: its name in the progress.
        sources: the tracks.
        jobs: the function's argument for each track.
        results: the results of an earlier run, None where there is none; changed in place.
        share: (task, tasks): this process runs only its share.
        pool: runs the jobs.
        say: takes the lines of the report.
    """
    # The largest first, so that no worker is left with a long track at the end.
    order = sorted(range(len(sources)), key=lambda index: (-sources[index].size_bytes, index))
    missing = [index for index in order[share[0] - 1 :: share[1]] if results[index] is None]
    if old := len(results) - results.count(None):
        say(f"resumed: {old} of {len(results)} tracks are already {phase.done}")
    with progress.bar(phase.doing, sum(sources[index].size_bytes for index in missing), "B") as bar:
        for number, result in pool.run([(function, jobs[index]) for index in missing]):
            results[missing[number]] = result
            bar.update(sources[missing[number]].size_bytes)
    for index, result in enumerate(results):
        if isinstance(result, workers.Crash):  # once more and alone: other jobs may have taken the memory
            [(_, result)] = pool.run([(function, jobs[index])])
            if isinstance(result, workers.Crash):
                result = make_rejection("crashed the decoder", f"the decoder crashed on it ({result})")
                if share != (1, 1):  # the other tasks wait for it
                    decode.save_result(jobs[index][1], result)
            results[index] = result
