"""What the command line of `data_prep.prepare` says: each option with its default, its help and what it may be."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

from data_prep.tracks import decode, tempo
from technogen_jax.common import command_line
from technogen_jax.common.command_line import cpu_count, numbers, option
from technogen_jax.data import tfrecords

_DESCRIPTION = """\
Turns any folder of tracks (wav flac mp3 ogg opus aiff m4a ...; all folders below it) into clips of one length as
TFRecord shards, split by track into train, valid and test."""

_EPILOG = """\
examples:
  eight-second clips at 44.1 kHz, mono:
    python -m data_prep.prepare --input ~/Music/techno --output data/techno
  what configs/wavegan.py trains on, one second (16384 samples) at 16 kHz:
    python -m data_prep.prepare --input ~/Music/techno --output data/16k --sample_rate 16000 --hop_size 1.024
  overlapping windows, a new one every second, in stereo, all tracks equally loud:
    python -m data_prep.prepare --input ~/Music/techno --output data/dense --stride 1 --channels 2 --normalise loudness
  loops of two bars, a new one every bar, all at one tempo, which is the median of the tracks':
    python -m data_prep.prepare --input ~/Music/techno --output data/bars --grid bars --bars 2 --stride_bars 1
  the same at 132 BPM, from tracks between 125 and 139 (5 % slower and faster):
    python -m data_prep.prepare --input ~/Music/techno --output data/132 --grid bars --bars 2 --bpm 132 --max_speed 5

With --grid bars each track's beat is found first. Its clips begin on a bar and are played faster or slower, as by a
DJ's pitch fader, so that a bar has the same number of samples in every clip; the set's manifest and clips.jsonl say which
bar and how fast. A mix, or a track that jumps, is taken apart into sections with a tempo each.

A file that cannot be used is left out and named with its reason. If the run is stopped, the same command goes on where it
was; if the set is there already, it says so. While it works it needs about twice the set's size on disk, next to OUTPUT.

Thousands of hours: several machines that share the storage, each with --task and its number; then the same command without
it, which finds the tracks decoded and writes the same set, byte for byte, as it would have alone. With SLURM:
  sbatch --array=1-8 --wrap 'python -m data_prep.prepare --input T --output S --task $SLURM_ARRAY_TASK_ID/8'
  python -m data_prep.prepare --input T --output S
With --grid bars run the array twice: the set's tempo is known when all tracks have been searched for beats."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """The options of a run, under the names they have on the command line.

    Raises:
        OptionError: on construction, for a value that cannot work.
    """

    input: str = option(dataclasses.MISSING, "DIR", "folder with tracks; hidden files and folders are skipped", str)
    output: str = option(dataclasses.MISSING, "DIR", "folder of the set; must not exist, or be empty", str)
    sample_rate: int = option(44100, "HZ", "rate of the clips (44100)")
    hop_size: float = option(8.0, "S", "seconds a clip (8); a clip has round(hop_size * sample_rate) samples")
    stride: float | None = option(
        None, "S", "seconds from clip to clip within a track (hop_size); smaller: clips overlap", float
    )
    grid: str = option("none", "HOW", "none: clips begin anywhere; bars: they begin on a bar, at one tempo (none)")
    bars: int = option(4, "N", "with --grid bars: bars a clip, instead of --hop_size (4)")
    stride_bars: int | None = option(None, "N", "with --grid bars: from clip to clip within a track (--bars)", int)
    bpm: float | None = option(None, "BPM", "with --grid bars: the set's tempo (the tracks' median)", float)
    max_speed: float = option(
        6.0,
        "PERCENT",
        "with --grid bars: leave out what would be played more than so much faster or slower (6: a semitone)",
    )
    bpm_range: tuple[float, ...] = option(
        (100.0, 180.0),
        "MIN,MAX",
        "with --grid bars: where tempos are looked for; less than an octave (100,180)",
        numbers,
    )
    channels: int = option(1, "N", "1: the mean of all, or 2 (1)")
    split: tuple[float, ...] = option(
        (0.8, 0.1, 0.1), "A,B,C", "shares of train,valid,test in tracks (0.8,0.1,0.1)", numbers
    )
    limit: int | None = option(
        None, "N", "only N files: a random choice, with --no-shuffle the first by path (all)", int
    )
    shuffle: bool = option(True, "", "shuffle the clips of a split over all its shards (yes)")
    seed: int = option(0, "N", "of the split and the shuffling (0)")
    silence_db: float = option(-60.0, "DB", "leave out clips whose RMS, normalised, is below (-60)")
    normalise: str = option(
        "peak",
        "HOW",
        "each track, before cutting: peak to full scale, loudness to --target_lufs as far as the peak allows, or none (peak)",
    )
    target_lufs: float | None = option(None, "LUFS", "for --normalise loudness (-14)", float)
    labels: str = option(
        "folder", "HOW", "folder: a track's class is the first folder below DIR; none: one class (folder)"
    )
    workers: int | None = option(None, "N", f"processes (the CPUs: {cpu_count()}); each may hold 0.5 GB", int)
    task: str | None = option(
        None, "I/N", "job I of an array of N: decode this share of the tracks and write no set yet; see below", str
    )
    shard_mb: float = option(128.0, "MB", "size of a shard, about (128)")

    def __post_init__(self):
        check = functools.partial(command_line.check, self)
        check("sample_rate", 4000 <= self.sample_rate <= 192_000, "4000 to 192000 (Hz)")
        check("hop_size", 0 < self.hop_size <= 600, "more than 0 and at most 600 seconds")
        check("hop_size", self.clip_samples >= 16, f"at least 16 samples at {self.sample_rate} Hz")
        check("stride", self.stride is None or 0 < self.stride <= 86_400, "more than 0 and at most 86400 seconds")
        check("stride", self.stride_samples >= 1, f"at least one sample at {self.sample_rate} Hz")
        check("grid", self.grid in ("none", "bars"), "none or bars")
        for name in _OF_GRID[1:] if self.grid == "none" else _OF_TIME:
            default = {field.name: field.default for field in dataclasses.fields(self)}[name]
            where = (
                "with --grid bars only"
                if self.grid == "none"
                else "with --grid bars --bars and --stride_bars in its place"
            )
            if getattr(self, name) != default:
                raise command_line.OptionError(f"--{name}: {where}")
        check("bars", 1 <= self.bars <= 64, "1 to 64")
        check("stride_bars", self.stride_bars is None or 1 <= self.stride_bars <= 10_000, "1 to 10000")
        check("max_speed", 0 <= self.max_speed <= 50, "0 to 50 (percent)")
        low, high = self.bpm_range if len(self.bpm_range) == 2 else (0, 0)
        check(
            "bpm_range",
            40 <= low < high <= 300 and high < 2 * low,
            "two tempos from 40 to 300, less than an octave apart",
        )
        check("bpm", self.bpm is None or 20 <= self.bpm <= 600, "20 to 600")
        check("channels", self.channels in (1, 2), "1 or 2")
        shares = len(self.split) == len(tfrecords.SPLITS) and all(0 <= share <= 1 for share in self.split)
        check("split", shares and abs(sum(self.split) - 1) < 1e-6, "three shares (train,valid,test) that sum to 1")
        check("limit", self.limit is None or self.limit >= 1, "at least 1")
        check("seed", self.seed >= 0, "at least 0")
        check("silence_db", -200 <= self.silence_db <= 0, "-200 to 0")
        check("normalise", self.normalise in ("peak", "loudness", "none"), "peak, loudness or none")
        check("target_lufs", self.target_lufs is None or self.normalise == "loudness", "--normalise loudness with it")
        check("target_lufs", self.target_lufs is None or -60 <= self.target_lufs <= 0, "-60 to 0")
        check("labels", self.labels in ("folder", "none"), "folder or none")
        check("workers", self.workers is None or self.workers >= 1, "at least 1")
        check("task", self.task is None or self.share[0] > 0, "I/N, such as 1/8 to 8/8")
        check("shard_mb", 0 < self.shard_mb < math.inf, "more than 0")

    @property
    def share(self) -> tuple[int, int]:
        """Of `task`: (I, N), and (0, 0) for what is none; without it (1, 1), all tracks."""
        job, _, jobs = (self.task or "1/1").partition("/")
        share = (int(job), int(jobs)) if job.isdecimal() and jobs.isdecimal() else (0, 0)
        return share if 1 <= share[0] <= share[1] else (0, 0)

    @property
    def clip_samples(self) -> int:
        """Length of a clip, without a grid."""
        return round(self.hop_size * self.sample_rate)

    @property
    def stride_samples(self) -> int:
        """From one clip's start to the next one's, without a grid."""
        return round((self.hop_size if self.stride is None else self.stride) * self.sample_rate)

    @property
    def cut(self) -> decode.Cut:
        """How tracks become clips, defaults resolved; without a grid."""
        lufs = None
        if self.normalise == "loudness":
            lufs = -14.0 if self.target_lufs is None else self.target_lufs
        return decode.Cut(
            sample_rate_hz=self.sample_rate,
            channels=self.channels,
            clip_samples=self.clip_samples,
            stride_samples=self.stride_samples,
            normalise=self.normalise,
            target_lufs=lufs,
            silence_db=self.silence_db,
        )

    def bar_cut(self, bpm: float) -> decode.Cut:
        """How tracks become clips of whole bars at so many beats per minute, a bar being whole samples; the sections are still to come."""
        bar_samples = round(tempo.BEATS * 60 / bpm * self.sample_rate)
        stride_bars = self.stride_bars or self.bars
        return self.cut._replace(
            clip_samples=self.bars * bar_samples,
            stride_samples=stride_bars * bar_samples,
            bars=self.bars,
            stride_bars=stride_bars,
            bpm=bpm,
        )

    @property
    def shaping(self) -> dict[str, Any]:
        """What decides the content of the set, defaults resolved: all but where it goes and how fast."""
        fields = dataclasses.asdict(self)
        for name in ("input", "output", "workers", "task", *(_OF_GRID if self.grid == "none" else _OF_TIME)):
            del fields[name]
        if self.grid == "none":
            fields["stride"] = self.hop_size if self.stride is None else self.stride
        else:
            fields |= {"stride_bars": self.stride_bars or self.bars, "bpm_range": list(self.bpm_range)}
        return fields | {"split": list(self.split), "target_lufs": self.cut.target_lufs}


# What says nothing without a grid, and with one.
_OF_GRID = ("grid", "bars", "stride_bars", "bpm", "max_speed", "bpm_range")
_OF_TIME = ("hop_size", "stride")


def parse_options(argv: Sequence[str] | None = None) -> Options:
    """The options of a command line; exits with 2 and one line where they cannot work."""
    return command_line.parse(Options, "data_prep.prepare", _DESCRIPTION, _EPILOG, argv)
