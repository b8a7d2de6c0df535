"""Synthesizes a techno corpus from a seed: whole tracks in two genres, each with a JSON file that describes it.

    python -m data_prep.synthesize --output data/tracks

Track i depends on the seed, i, the sample rate, the range of lengths and the genres; not on the number of tracks or
workers. `compose` draws the musical decisions: tempo, sounds, patterns, arrangement. `render` synthesizes the sound at any
rate. The JSON beside a track is ground truth for tempo and beat detection: downbeats are exactly at
`first_downbeat_s + 240 k / bpm`; bass drums start on the nearest sample of that grid. This holds for mp3 files too: decoded
by libsndfile they have the same length, without a shift (tests/data_prep/test_synthesize.py).
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from data_prep import workers
from data_prep.corpus.compose import GENRES, SHORTEST_MINUTES, Track, compose
from data_prep.corpus.render import render
from technogen_jax.audio import audio_files
from technogen_jax.common import atomic_files, command_line, json_files, progress
from technogen_jax.common.command_line import (
    MOST_WORKERS,
    REQUIRED,
    SEEDS,
    OptionError,
    cpu_count,
    expand_path,
    option,
    parse_numbers,
    parse_words,
)

FORMATS = ("wav", "flac", "mp3")
VERSION = 1  # to be raised when the same options give other audio
_MP3_RATES_HZ = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)  # what the format has

_DESCRIPTION = """\
Synthesizes a techno corpus from a seed: whole stereo tracks, acid and industrial, each with a JSON file of its
tempo, downbeats, parts and sounds. No two tracks are alike. The same command makes the same tracks."""

_EXAMPLES = """\
examples:
  a corpus to try everything with, two dozen tracks of one to three minutes:
    python -m data_prep.synthesize --output data/tracks
  another one, larger, at the rate that it will be trained at:
    python -m data_prep.synthesize --output data/tracks16k --tracks 300 --seed 1 --sample_rate 16000
  short tracks of one genre, lossless:
    python -m data_prep.synthesize --output data/acid --genres acid --formats flac --minutes 0.5,1

Track number N is the same whatever --tracks and --workers are: a larger --tracks adds tracks. If the run is stopped, the
same command resumes. The next step: python -m data_prep.prepare --help"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(command_line.Options):
    """The options of a run, under the names they have on the command line.

    Raises:
        OptionError: on construction, for a value that cannot work.
    """

    output: str = option(
        REQUIRED, "folder of the corpus, with one folder for each genre", metavar="DIR", convert=expand_path
    )
    tracks: int = option(24, "number of tracks", metavar="N", least=1, most=10_000)
    seed: int = option(0, "another seed gives other tracks", metavar="N", least=0, most=SEEDS)
    sample_rate: int = option(44100, "sample rate", metavar="HZ", least=8000, most=192_000)
    minutes: tuple[float, ...] = option(
        (1.0, 3.0), "shortest and longest track", metavar="MIN,MAX", convert=parse_numbers
    )
    genres: tuple[str, ...] = option(
        GENRES, "some of acid,industrial; tracks alternate", metavar="A,B", convert=parse_words
    )
    formats: tuple[str, ...] = option(
        FORMATS, "some of wav,flac,mp3; tracks alternate", metavar="A,B", convert=parse_words
    )
    workers: int | None = option(
        None,
        f"processes (default: the CPUs, {cpu_count()}); each takes up to 0.6 GB",
        metavar="N",
        convert=int,
        least=1,
        most=MOST_WORKERS,
    )

    def __post_init__(self):
        super().__post_init__()
        ordered = len(self.minutes) == 2 and SHORTEST_MINUTES <= self.minutes[0] <= self.minutes[1] <= 60
        self.check("minutes", ordered, f"the shortest and the longest, from {SHORTEST_MINUTES:g} to 60, like 1,3")
        for name, known in (("genres", GENRES), ("formats", FORMATS)):
            value = getattr(self, name)
            once = value and set(value) <= set(known) and len(set(value)) == len(value)
            self.check(name, once, f"some of {','.join(known)}, once each")
        if "mp3" in self.formats and self.sample_rate not in _MP3_RATES_HZ:
            rates = ", ".join(map(str, _MP3_RATES_HZ))
            raise OptionError(f"--sample_rate: mp3 has {rates} Hz, not {self.sample_rate}; add --formats wav,flac")

    @property
    def shaping(self) -> dict[str, Any]:
        """The options that decide the content of each track's files."""
        return {
            "version": VERSION,
            "seed": self.seed,
            "sample_rate": self.sample_rate,
            "minutes": list(self.minutes),
            "genres": list(self.genres),
            "formats": list(self.formats),
        }


def describe(track: Track, rate_hz: int, samples: int) -> dict[str, Any]:
    """Returns the content of the JSON beside a track, without the file."""
    return {
        "genre": track.genre,
        "seed": track.seed,
        "index": track.index,
        "sample_rate_hz": rate_hz,
        "channels": 2,
        "samples": samples,
        "bpm": track.bpm,
        "beats_per_bar": 4,
        "swing": track.swing,
        "first_downbeat_s": track.first_downbeat_s,
        "downbeats_s": [round(float(track.time_s(bar)), 9) for bar in range(track.bars)],
        "parts": [
            {
                "name": part.name,
                "start_bar": part.start_bar,
                "bars": part.bars,
                "start_s": round(float(track.time_s(part.start_bar)), 9),
                "end_s": round(float(track.time_s(part.start_bar + part.bars)), 9),
                "instruments": [
                    layer
                    for layer, levels in track.levels.items()
                    if levels[part.start_bar : part.start_bar + part.bars].any()
                ],
            }
            for part in track.parts
        ],
        "parameters": track.parameters,
    }


class TrackJob(NamedTuple):
    """A track to make, and its path."""

    index: int
    path: str  # of the audio; the JSON has its name
    shaping: dict[str, Any]


def make_track(job: TrackJob) -> float:
    """Writes a track, then its JSON; seconds of audio.

    Raises:
        JobError: a file could not be written.
    """
    shaping, path = job.shaping, pathlib.Path(job.path)
    track = compose(shaping["seed"], job.index, shaping["minutes"], shaping["genres"])
    sound = render(track, shaping["sample_rate"])
    try:
        for left in path.parent.glob(f".{path.stem}.*.tmp"):  # by a run that was killed
            left.unlink()
        audio_files.write(path, sound, shaping["sample_rate"])
        fields = describe(track, shaping["sample_rate"], len(sound))
        fields |= {"file": path.name, "bytes": path.stat().st_size, "options": shaping}
        atomic_files.write_text(path.with_suffix(".json"), json.dumps(fields))
    except (OSError, ValueError) as error:
        raise workers.JobError(f"{path}: cannot be written: {getattr(error, 'strerror', None) or error}") from None
    return len(sound) / shaping["sample_rate"]


def synthesize(options: Options, say: Callable[[str], None] = print) -> float:
    """Makes the corpus, or the tracks of it that are missing; returns its length in seconds.

    Args:
        options: checked by their class.
        say: takes the lines of the report.

    Raises:
        OptionError: the output holds tracks made with other options.
        JobError: a file could not be written.
    """
    output, shaping = pathlib.Path(options.output), options.shaping
    if output.exists() and not output.is_dir():
        raise OptionError(f"--output {options.output}: is a file; name a folder")
    jobs = []
    for index in range(options.tracks):
        genre = options.genres[index % len(options.genres)]
        path = output / genre / f"{genre}-{index:04d}.{options.formats[index % len(options.formats)]}"
        jobs.append(TrackJob(index, str(path), shaping))
    _check_others(output, shaping)
    made = [_finished(job) for job in jobs]
    todo = [job for job, seconds in zip(jobs, made, strict=True) if not seconds]
    if len(todo) < len(jobs):
        say(f"{options.output}: {len(jobs) - len(todo)} of {len(jobs)} tracks are there already")
    try:
        for genre in options.genres:
            (output / genre).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise workers.JobError(f"{options.output}: cannot be made: {error.strerror}") from None
    with progress.bar("rendering", len(jobs), "track", initial=len(jobs) - len(todo)) as bar:
        for seconds in _run(todo, options.workers or cpu_count()):
            made.append(seconds)
            bar.update()
    say(
        f"{options.output}: {len(jobs)} tracks, {sum(made) / 60:.0f} minutes, {options.sample_rate} Hz stereo, "
        f"{'/'.join(options.genres)} as {'/'.join(options.formats)}; tempo, downbeats and parts in the JSON beside each"
    )
    say(f"next: python -m data_prep.prepare --input {shlex.quote(options.output)} --output data/techno")
    return sum(made)


def _finished(job: TrackJob) -> float:
    """Seconds of a track that an earlier run made, 0 if it did not."""
    path = pathlib.Path(job.path)
    try:
        fields = json_files.read(path.with_suffix(".json"))
        whole = fields["bytes"] == path.stat().st_size and fields["options"] == job.shaping
        return fields["samples"] / fields["sample_rate_hz"] if whole else 0.0
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0


def _check_others(output: pathlib.Path, shaping: dict[str, Any]) -> None:
    """Raises if the folder holds tracks that were made with other options: two corpora in one would be mistaken for one."""
    for path in sorted(output.glob("*/*-[0-9][0-9][0-9][0-9].json")):
        try:
            before = json_files.read(path)["options"]
            changed = [name for name in shaping if before.get(name) != shaping[name]]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
        if changed:
            shown = "; ".join(f"{name} was {before.get(name)}, is {shaping[name]}" for name in changed)
            raise OptionError(
                f"--output {output}: holds another corpus: {shown}. Name another folder, or delete that one"
            )


def _run(jobs: Sequence[TrackJob], count: int) -> Iterator[float]:
    """Seconds of each track, as they are made."""
    if count == 1 or len(jobs) < 2:
        yield from map(make_track, jobs)
        return
    with workers.Workers(count) as pool:
        for _, result in pool.run([(make_track, job) for job in jobs]):
            if isinstance(result, workers.Crash):
                raise workers.JobError(
                    f"a worker process died ({result}), perhaps for lack of memory; the same command with fewer --workers resumes"
                )
            yield result


def _synthesize(options: Options, say: Callable[[str], None]) -> dict[str, Any]:
    """Makes the corpus; returns what `--json` prints."""
    seconds = synthesize(options, say)
    return {"output": options.output, "tracks": options.tracks, "seconds": round(seconds, 3)}


COMMAND = command_line.Command(
    "data_prep.synthesize", Options, _synthesize, _DESCRIPTION, _EXAMPLES, resumes=True, less_memory=workers.fewer
)
parse_options, main = COMMAND.parse, COMMAND.main

if __name__ == "__main__":
    sys.exit(main())
