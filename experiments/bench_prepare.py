"""How fast `data_prep.prepare` is: times real time, and against plain decoding and resampling of the same files.

    python -m experiments.bench_prepare [--minutes 20] [--rounds 5] [--kinds mp3,flac,wav] [--rates 44100,16000]

Prints one JSON line for each kind of file and rate of the set. `plain` reads the files with soundfile, as many samples at
once as `prepare` does, resamples their mono mix with soxr, and does nothing with it. It and `prepare`'s two phases, track
to part and part to shard, take turns as jobs in the same worker process. `ratio` compares medians of processor time,
`ratio_wall` of wall time, which other programs and the disk disturb; `scaling` is what a second worker gains. What a run
needs beside its jobs (starting Python, the contact sheet) does not grow with the corpus: `command_s` is the whole command.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import soundfile
import soxr

from data_prep import shards, tracks, workers
from technogen_jax import audio

TRACK_S = 180
READ_SAMPLES = 1 << 17  # as `technogen_jax.audio` reads
KINDS = {"mp3": 44100, "flac": 48000, "wav": 44100, "ogg": 44100}
ROOT = pathlib.Path(__file__).parent.parent


def make_corpus(folder: pathlib.Path, kind: str, count: int) -> None:
    """Stereo tracks of tones and decaying noise, as hard to code as a dense mix."""
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
            audio.write(folder / f"{index}.{kind}", samples, rate)


def decode_plainly(job: tuple[str, int]) -> None:
    """What `prepare` is measured against: (path, rate)."""
    path, rate = job
    with soundfile.SoundFile(path) as file:
        resampler = None
        if file.samplerate != rate:
            resampler = soxr.ResampleStream(file.samplerate, rate, 1, dtype="float32", quality="HQ")
        while len(block := file.read(READ_SAMPLES, dtype="float32", always_2d=True)):
            if resampler:
                resampler.resample_chunk(audio.remix(block, 1))
        if resampler:
            resampler.resample_chunk(np.zeros((0, 1), np.float32), last=True)


def write_shards(job: tuple[str, tracks.Cut]) -> None:
    """`prepare`'s second phase for one track."""
    part, cut = job
    places = cut.places(tracks.read_part(part, cut)["samples"])
    chosen = [(part, place, 0, "track") for place in places]
    shards.write_shard(shards.ShardJob(f"{part}.tfrecord", chosen, cut))


def processor_time(job: tuple[Callable, Any]) -> float:
    """Runs (function, argument), in a worker."""
    start = time.process_time()
    job[0](job[1])
    return time.process_time() - start


def timed(pool: workers.Workers, *phases: list[tuple[Callable, Any]]) -> np.ndarray:
    """[wall time, processor time] of phases of jobs."""
    start = time.perf_counter()
    spent = sum(s for jobs in phases for _, s in pool.run([(processor_time, job) for job in jobs]))
    return np.array([time.perf_counter() - start, spent])


def processor() -> str:
    """Its name, as far as the system tells."""
    if os.path.exists("/proc/cpuinfo"):
        for line in open("/proc/cpuinfo"):
            if line.startswith("model name"):
                return line.split(":")[1].strip()
    return platform.processor()


def main() -> None:
    """Makes the corpora, takes the times, prints the lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20, help="of audio of each kind")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kinds", default="mp3,flac,wav")
    parser.add_argument("--rates", default="44100,16000")
    arguments = parser.parse_args()
    count = max(2, round(arguments.minutes * 60 / TRACK_S))
    with tempfile.TemporaryDirectory() as temporary, workers.Workers(1) as one, workers.Workers(2) as two:
        folder = pathlib.Path(temporary)
        for kind in arguments.kinds.split(","):
            make_corpus(folder / kind, kind, count)
            files = sorted((folder / kind).iterdir())
            for rate in map(int, arguments.rates.split(",")):
                clip = 8 * rate if rate > 16000 else 16384
                cut = tracks.Cut(rate, 1, clip, clip, "peak", None, -60.0)
                parts = [str(folder / file.name) for file in files]
                plain = [(decode_plainly, (str(file), rate)) for file in files]
                decode = [
                    (tracks.decode_track, (str(file), part, cut)) for file, part in zip(files, parts, strict=True)
                ]
                write = [(write_shards, (part, cut)) for part in parts]
                runs = {"plain": (one, plain), "prepare": (one, decode, write), "two": (two, decode, write)}
                taken = {name: [] for name in runs}
                for _ in range(1 + arguments.rounds):
                    for name, run in runs.items():
                        taken[name].append(timed(*run))
                        for part in parts:  # to replace a file is slower than to write one
                            for suffix in (".pcm", ".tfrecord"):
                                pathlib.Path(part + suffix).unlink(missing_ok=True)
                median = {
                    name: np.median(values[1:], axis=0) for name, values in taken.items()
                }  # the first one warms up
                words = f"--sample_rate {rate} --hop_size {clip / rate} --workers 1"
                command = [sys.executable, "-m", "data_prep.prepare", "--input", folder / kind, *words.split()]
                start = time.perf_counter()
                output = tempfile.mkdtemp(dir=folder)
                subprocess.run([*command, "--output", output], cwd=ROOT, check=True, capture_output=True)
                line = {
                    "bench": "prepare",
                    "kind": f"{kind} {KINDS[kind]} Hz stereo",
                    "set": f"{rate} Hz mono, {clip} samples a clip",
                    "audio_s": count * TRACK_S,
                    "x_realtime": round(count * TRACK_S / median["prepare"][1]),
                    "plain_x_realtime": round(count * TRACK_S / median["plain"][1]),
                    "ratio": round(median["plain"][1] / median["prepare"][1], 3),
                    "ratio_wall": round(median["plain"][0] / median["prepare"][0], 3),
                    "scaling": round(median["prepare"][0] / median["two"][0], 2),
                    "command_s": round(time.perf_counter() - start, 1),
                    "rounds": arguments.rounds,
                    "processor": processor(),
                    "cpus": os.cpu_count(),
                    "versions": {module.__name__: module.__version__ for module in (np, soundfile, soxr)},
                }
                print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
