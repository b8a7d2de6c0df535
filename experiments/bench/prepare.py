"""Speed of `data_prep.prepare`: times real time, and relative to plain decoding and resampling.

Measured for each kind of file and each rate of the dataset. `plain` reads the files with soundfile, in
blocks of a favourable size, and resamples their mono mix with soxr. It takes turns with the two phases
of `prepare` (track to part, part to shard) as jobs in the same worker process. `ratio` compares medians
of processor time, `ratio_wall` of wall time, which other programs and the disk disturb. `linear` is the
gain of all cores over one, divided by their number. What a run needs in addition to its jobs (starting
Python, the contact sheet) does not grow with the corpus: `command_s` is the whole command, once.
"""

from __future__ import annotations

import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import soundfile
import soxr

from data_prep import shards, workers
from data_prep.tracks.clip_settings import ClipSettings
from data_prep.tracks.decode import decode_track, read_decoded
from experiments.bench import timing
from technogen_jax.audio import audio_files, channels

TRACK_S = 180
# Size of a block. soundfile seeks after each block, so an mp3 takes longer in smaller blocks.
READ_SAMPLES = 1 << 17
KINDS = {"mp3": 44100, "flac": 48000, "wav": 44100, "ogg": 44100}
ROOT = pathlib.Path(__file__).parents[2]


def add_options(add):
    """Adds options: size of the corpora, how many rounds."""
    add(
        "--minutes",
        type=float,
        default=6,
        help="minutes of audio of each kind, at least one track per core (default: %(default)s)",
    )
    add("--rounds", type=int, default=5, help="(default: %(default)s)")
    add("--kinds", default="mp3,flac,wav", help="(default: %(default)s)")
    add("--rates", default="44100,16000", help="sample rates of the datasets, Hz (default: %(default)s)")


def run(options) -> dict:
    """Makes the corpora and measures the times."""
    cores = timing.cores()
    count, cases = max(cores, round(options.minutes * 60 / TRACK_S)), []
    with tempfile.TemporaryDirectory() as temporary, workers.Workers(1) as one, workers.Workers(cores) as every:
        folder = pathlib.Path(temporary)
        for kind in options.kinds.split(","):
            make_corpus(folder / kind, kind, count)
            for rate in map(int, options.rates.split(",")):
                cases.append(case(folder, kind, rate, one, every, options.rounds))
    return timing.about("numpy", "soundfile", "soxr") | {"cases": cases}


def case(folder: pathlib.Path, kind: str, rate: int, one: workers.Workers, every: workers.Workers, rounds: int) -> dict:
    """Measures one kind of file and one rate."""
    files = sorted((folder / kind).iterdir())
    clip = 8 * rate if rate > 16000 else 16384
    settings = ClipSettings(rate, 1, clip, clip, "peak", None, -60.0)
    parts = [str(folder / file.name) for file in files]
    plain = [(decode_plainly, (str(file), rate)) for file in files]
    decode = [(decode_track, (str(file), part, settings)) for file, part in zip(files, parts, strict=True)]
    write = [(write_shards, (part, settings)) for part in parts]
    taken = {"plain": [], "prepare": [], "every_core": []}
    phases = {"plain": (one, plain), "prepare": (one, decode, write), "every_core": (every, decode, write)}
    for warm in (True, *[False] * rounds):
        for name, phase in phases.items():
            seconds = timed(*phase)
            taken[name] += [] if warm else [seconds]
            for part in parts:  # replacing a file is slower than writing a new one
                for suffix in (".pcm", ".tfrecord"):
                    pathlib.Path(part + suffix).unlink(missing_ok=True)
    wall, spent = ({name: [pair[i] for pair in pairs] for name, pairs in taken.items()} for i in (0, 1))
    median = {name: np.median(pairs, axis=0) for name, pairs in taken.items()}
    words = f"--sample_rate {rate} --hop_size {clip / rate} --workers 1"
    command = [sys.executable, "-m", "data_prep.prepare", "--input", folder / kind, *words.split()]
    start = time.perf_counter()
    output = tempfile.mkdtemp(dir=folder)
    subprocess.run([*command, "--output", output], cwd=ROOT, check=True, capture_output=True)
    audio_s = len(files) * TRACK_S
    return {
        "kind": f"{kind} {KINDS[kind]} Hz stereo",
        "set": f"{rate} Hz mono, {clip} samples a clip",
        "audio_s": audio_s,
        "rounds": rounds,
        "processor_s": {name: timing.spread(spent[name]) for name in ("plain", "prepare")},
        "wall_s": {name: timing.spread(values) for name, values in wall.items()},
        "x_realtime": {name: round(audio_s / median[name][1]) for name in ("plain", "prepare")},
        "ratio": round(median["plain"][1] / median["prepare"][1], 3),
        "ratio_wall": round(median["plain"][0] / median["prepare"][0], 3),
        "linear": round(median["prepare"][0] / median["every_core"][0] / timing.cores(), 2),
        "command_s": round(time.perf_counter() - start, 1),
    }


def make_corpus(folder: pathlib.Path, kind: str, count: int) -> None:
    """Writes stereo tracks of tones and decaying noise, as hard to encode as a dense mix."""
    folder.mkdir(parents=True)
    rate = KINDS[kind]
    for index in range(count):
        rng = np.random.default_rng(index)
        t = np.arange(TRACK_S * rate) / rate
        tones = sum(0.05 * np.sin(2 * np.pi * hz * t) for hz in rng.uniform(50, 3000, 6))
        noise = rng.standard_normal((len(t), 2)) * (0.15 * np.exp(-((t * 2.2) % 1) * 8))[:, None]
        samples = (tones[:, None] + noise).astype(np.float32)
        if kind == "mp3":
            soundfile.write(folder / f"{index}.mp3", samples, rate, bitrate_mode="CONSTANT", compression_level=0.2)
        else:
            audio_files.write(folder / f"{index}.{kind}", samples, rate)


def decode_plainly(job: tuple[str, int]) -> None:
    """Decodes and resamples a file without using the result; the job is (path, rate)."""
    path, rate = job
    with soundfile.SoundFile(path) as file:
        resampler = None
        if file.samplerate != rate:
            resampler = soxr.ResampleStream(file.samplerate, rate, 1, dtype="float32", quality="HQ")
        while len(block := file.read(READ_SAMPLES, dtype="float32", always_2d=True)):
            if resampler:
                resampler.resample_chunk(channels.remix(block, 1))
        if resampler:
            resampler.resample_chunk(np.zeros((0, 1), np.float32), last=True)


def write_shards(job: tuple[str, ClipSettings]) -> None:
    """Runs the second phase of `prepare` for one track."""
    part, settings = job
    positions = settings.find_clips(read_decoded(part, settings)["samples"])
    chosen = [(part, position, 0, "track") for position in positions]
    shards.write_shard(shards.ShardJob(f"{part}.tfrecord", chosen, settings))


def processor_time(job: tuple[Callable, Any]) -> float:
    """Runs (function, argument) in a worker and returns its processor time."""
    start = time.process_time()
    job[0](job[1])
    return time.process_time() - start


def timed(pool: workers.Workers, *phases: list[tuple[Callable, Any]]) -> np.ndarray:
    """Returns [wall time, processor time] of phases of jobs."""
    start = time.perf_counter()
    spent = sum(s for jobs in phases for _, s in pool.run([(processor_time, job) for job in jobs]))
    return np.array([time.perf_counter() - start, spent])
