"""The options of `data_prep.prepare`: each with its default, meaning and range."""

from __future__ import annotations

import dataclasses
from typing import Any

from data_prep.tracks import tempo
from data_prep.tracks.clip_settings import ClipSettings
from technogen_jax.common import command_line
from technogen_jax.common.command_line import (
    MOST_WORKERS,
    REQUIRED,
    SEEDS,
    cpu_count,
    expand_path,
    option,
    parse_numbers,
)
from technogen_jax.data import tfrecords

DESCRIPTION = """\
Cuts any folder of tracks (wav flac mp3 ogg opus aiff m4a ...; all folders below it) into clips of one length, in
TFRecord shards, split by track into train, valid and test."""

EXAMPLES = """\
examples:
  clips of eight seconds at 44.1 kHz, mono:
    python -m data_prep.prepare --input ~/Music/techno --output data/techno
  what configs/wavegan.py trains on, one second (16384 samples) at 16 kHz:
    python -m data_prep.prepare --input ~/Music/techno --output data/16k --sample_rate 16000 --hop_size 1.024
  overlapping clips, one every second, in stereo, all tracks equally loud:
    python -m data_prep.prepare --input ~/Music/techno --output data/dense --stride 1 --channels 2 --normalise loudness
  loops of two bars, one every bar, all at one tempo, which is the median of the tracks' tempos:
    python -m data_prep.prepare --input ~/Music/techno --output data/bars --grid bars --bars 2 --stride_bars 1
  the same at 132 BPM, from tracks between 125 and 139 BPM (5 % slower or faster):
    python -m data_prep.prepare --input ~/Music/techno --output data/132 --grid bars --bars 2 --bpm 132 --max_speed 5

With --grid bars the beats of each track are detected first. Its clips begin on a bar and are played faster or slower, as
with a DJ's pitch fader, so that a bar has the same number of samples in every clip. The dataset's manifest and clips.jsonl
state the bar and the speed. A mix, or a track that jumps, is divided into sections with one tempo each.

A file that cannot be used is left out and reported with its reason. If the run is stopped, the same command resumes; if the
dataset is complete, it says so. While it works it needs about twice the dataset's size on disk, next to OUTPUT.

Thousands of hours: use several machines that share the storage, each with --task and its number; then run the same command
without it. That command finds the tracks decoded and writes the same dataset, byte for byte. With SLURM:
  sbatch --array=1-8 --wrap 'python -m data_prep.prepare --input T --output S --task $SLURM_ARRAY_TASK_ID/8'
  python -m data_prep.prepare --input T --output S
With --grid bars run the array twice: the dataset's tempo is known when the beats of all tracks have been detected."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(command_line.Options):
    """The options of a run, under the names they have on the command line.

    Raises:
        OptionError: on construction, for a value that cannot work.
    """

    input: str = option(
        REQUIRED, "folder with tracks; hidden files and folders are skipped", metavar="DIR", convert=expand_path
    )
    output: str = option(
        REQUIRED, "folder of the dataset; must not exist, or be empty", metavar="DIR", convert=expand_path
    )
    sample_rate: int = option(44100, "rate of the clips", metavar="HZ", least=4000, most=192_000)
    hop_size: float = option(
        8.0, "seconds a clip; a clip has round(hop_size * sample_rate) samples", metavar="S", above=0, most=600
    )
    stride: float | None = option(
        None,
        "seconds from clip to clip within a track; clips overlap if it is smaller than --hop_size (default: --hop_size)",
        metavar="S",
        convert=float,
        above=0,
        most=86_400,
    )
    pad: bool = option(False, "a track shorter than a clip becomes one clip, with silence after it (default: no)")
    grid: str = option(
        "none",
        "none: clips begin anywhere; bars: they begin on a bar, at one tempo",
        metavar="HOW",
        choices=("none", "bars"),
    )
    bars: int = option(4, "with --grid bars: bars a clip, instead of --hop_size", metavar="N", least=1, most=64)
    stride_bars: int | None = option(
        None,
        "with --grid bars: bars from clip to clip within a track (default: --bars)",
        metavar="N",
        convert=int,
        least=1,
        most=10_000,
    )
    bpm: float | None = option(
        None,
        "with --grid bars: the dataset's tempo (default: the median of the tracks' tempos)",
        metavar="BPM",
        convert=float,
        least=20,
        most=600,
    )
    max_speed: float = option(
        6.0,
        "with --grid bars: leave out what would change its speed by more; 6 is a semitone",
        metavar="PERCENT",
        least=0,
        most=50,
    )
    bpm_range: tuple[float, ...] = option(
        (100.0, 180.0),
        "with --grid bars: the range of tempos that are detected; less than an octave",
        metavar="MIN,MAX",
        convert=parse_numbers,
    )
    channels: int = option(1, "1: the mean of all channels, or 2", metavar="N", least=1, most=2)
    split: tuple[float, ...] = option(
        (0.8, 0.1, 0.1), "shares of the tracks in train,valid,test", metavar="A,B,C", convert=parse_numbers
    )
    limit: int | None = option(
        None,
        "only N files: a random choice, with --no-shuffle the first by path (default: all)",
        metavar="N",
        convert=int,
        least=1,
        most=10_000_000,
    )
    shuffle: bool = option(True, "shuffle the clips of a split over all its shards (default: yes)")
    seed: int = option(0, "seed of the split and the shuffling", metavar="N", least=0, most=SEEDS)
    silence_db: float = option(
        -60.0, "leave out clips whose RMS, after normalisation, is below", metavar="DB", least=-200, most=0
    )
    normalise: str = option(
        "peak",
        "each track, before cutting: peak to full scale; loudness to --target_lufs, as far as the peak allows; or none",
        metavar="HOW",
        choices=("peak", "loudness", "none"),
    )
    target_lufs: float | None = option(
        None, "for --normalise loudness (default: -14)", metavar="LUFS", convert=float, least=-60, most=0
    )
    min_bandwidth: float | None = option(
        None,
        "leave out tracks without sound above this frequency, such as those from lossy files (default: only name them)",
        metavar="HZ",
        convert=float,
        above=0,
        most=96_000,
    )
    labels: str = option(
        "folder",
        "folder: a track's label is the first folder below DIR; none: one label for all",
        metavar="HOW",
        choices=("folder", "none"),
    )
    workers: int | None = option(
        None,
        f"processes (default: the CPUs, {cpu_count()}); each may take 0.5 GB",
        metavar="N",
        convert=int,
        least=1,
        most=MOST_WORKERS,
    )
    task: str | None = option(
        None,
        "job I of an array of N: decode this share of the tracks, and write no dataset yet; see below",
        metavar="I/N",
        convert=str,
    )
    shard_mb: float = option(128.0, "size of a shard, about", metavar="MB", least=0.001, most=1_000_000)

    def __post_init__(self):
        super().__post_init__()
        check = self.check
        check("hop_size", self.clip_samples >= 16, f"at least 16 samples at {self.sample_rate} Hz")
        check("stride", self.stride_samples >= 1, f"at least one sample at {self.sample_rate} Hz")
        where = "with --grid bars only"
        if self.grid == "bars":
            where = "with --grid bars use --bars and --stride_bars in its place"
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        for name in _OF_GRID[1:] if self.grid == "none" else _OF_TIME:
            if getattr(self, name) != defaults[name]:
                raise command_line.OptionError(f"--{name}: {where}")
        low, high = self.bpm_range if len(self.bpm_range) == 2 else (0, 0)
        octave = 40 <= low < high <= 300 and high < 2 * low
        check("bpm_range", octave, "two tempos from 40 to 300, less than an octave apart")
        shares = len(self.split) == len(tfrecords.SPLITS) and all(0 <= share <= 1 for share in self.split)
        check("split", shares and abs(sum(self.split) - 1) < 1e-6, "three shares (train,valid,test) that sum to 1")
        check("target_lufs", self.target_lufs is None or self.normalise == "loudness", "--normalise loudness with it")
        nyquist = self.sample_rate / 2
        check("min_bandwidth", (self.min_bandwidth or 0) < nyquist, f"less than {nyquist:g}, half of --sample_rate")
        check("task", self.task is None or self.share[0] > 0, "I/N, such as 1/8 to 8/8")

    @property
    def share(self) -> tuple[int, int]:
        """Reads `task` as (I, N); (0, 0) if it is not valid; without it (1, 1), all tracks."""
        job, _, jobs = (self.task or "1/1").partition("/")
        share = (int(job), int(jobs)) if job.isdecimal() and jobs.isdecimal() else (0, 0)
        return share if 1 <= share[0] <= share[1] else (0, 0)

    @property
    def clip_samples(self) -> int:
        """Length of a clip, without a grid."""
        return round(self.hop_size * self.sample_rate)

    @property
    def stride_samples(self) -> int:
        """Stride between the starts of two clips, without a grid."""
        return round((self.hop_size if self.stride is None else self.stride) * self.sample_rate)

    @property
    def clip_settings(self) -> ClipSettings:
        """How tracks are cut into clips without a grid, with all defaults filled in."""
        lufs = None
        if self.normalise == "loudness":
            lufs = -14.0 if self.target_lufs is None else self.target_lufs
        return ClipSettings(
            sample_rate_hz=self.sample_rate,
            channels=self.channels,
            clip_samples=self.clip_samples,
            stride_samples=self.stride_samples,
            normalise=self.normalise,
            target_lufs=lufs,
            silence_db=self.silence_db,
            pad=self.pad,
            min_bandwidth_hz=self.min_bandwidth,
        )

    def bar_settings(self, bpm: float) -> ClipSettings:
        """Returns how tracks are cut into clips of bars at a tempo; a bar has a whole number of samples."""
        bar_samples = round(tempo.BEATS_PER_BAR * 60 / bpm * self.sample_rate)
        stride_bars = self.stride_bars or self.bars
        return self.clip_settings._replace(
            clip_samples=self.bars * bar_samples,
            stride_samples=stride_bars * bar_samples,
            bars=self.bars,
            stride_bars=stride_bars,
            bpm=bpm,
        )

    @property
    def shaping(self) -> dict[str, Any]:
        """The options that decide the content of the dataset, with defaults filled in."""
        fields = dataclasses.asdict(self)
        for name in ("input", "output", "workers", "task", *(_OF_GRID if self.grid == "none" else _OF_TIME)):
            del fields[name]
        if self.grid == "none":
            fields["stride"] = self.hop_size if self.stride is None else self.stride
        else:
            fields |= {"stride_bars": self.stride_bars or self.bars, "bpm_range": list(self.bpm_range)}
        return fields | {"split": list(self.split), "target_lufs": self.clip_settings.target_lufs}


# Options that have no effect without a grid, and with one.
_OF_GRID = ("grid", "bars", "stride_bars", "bpm", "max_speed", "bpm_range")
_OF_TIME = ("hop_size", "stride", "pad")
