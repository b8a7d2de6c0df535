"""Golden outputs: hashes and figures of what TechnoGen computes, to compare the code before and after a change.

    python -m experiments.golden --output before.json
    ... change the code ...
    python -m experiments.golden --output after.json --compare before.json

The commands run as users run them, at small sizes, in a temporary folder: the built-in corpus, two prepared datasets, a few
training steps and two sounds of every config, the shipped model's sound, a track, an exported file, an evaluation. Files with
sound, records, codes and statistics are hashed; losses and the evaluation's figures are kept as numbers. The hashes depend on
the processor and on the versions of JAX and numpy, so both runs must be on one machine. Takes about eight minutes on two cores.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable

import numpy as np

ROOT = pathlib.Path(__file__).parent.parent
SHIPPED = ROOT / "technogen_jax" / "pretrained" / "technogan.npz"
# Each config with what makes its training small; every config has steps=2.
SMALL = "config.model.channels=4 config.train.batch_size=4".split()
CONFIGS = {
    "demo": ("wavegan_small.py", "mono", SMALL),
    "wavegan": ("wavegan.py", "mono", SMALL),
    **{
        f"wavegan-{loss}": (f"wavegan.py:{loss}", "mono", SMALL) for loss in ("dcgan", "lsgan", "hinge", "relativistic")
    },
    "specgan": ("specgan.py", "mono", SMALL),
    "wavegan_44k": ("wavegan_44k.py:stereo", "bars", [*SMALL, "config.audio.clip_samples=65536"]),
    "specgan_44k": ("specgan_44k.py:stereo", "bars", [*SMALL, "config.audio.clip_samples=65536"]),
    "technogan-xs": ("technogan.py:xs", "bars", ["config.train.steps_per_dispatch=1", "config.train.batch_size=8"]),
    "technogan-labels": (
        "technogan.py:s",
        "bars",
        [
            "config.train.steps_per_dispatch=1",
            "config.train.batch_size=8",
            "config.model.classes=('acid','industrial')",
        ],
    ),
    "technogan-plain": (
        "technogan.py:xs",
        "bars",
        ["config.train.steps_per_dispatch=1", "config.train.batch_size=8", "config.model.shaper=none"],
    ),
}


def run(*command: object) -> str:
    """The standard output of a command of this project; its errors are shown."""
    print("+", *command, file=sys.stderr, flush=True)
    done = subprocess.run(
        [sys.executable, "-m", *map(str, command)], cwd=ROOT, stdout=subprocess.PIPE, text=True, env=os.environ
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}: status {done.returncode}\n{done.stdout}")
    return done.stdout


def hash_file(path: pathlib.Path) -> str:
    """Sixteen hexadecimal digits of the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def hash_files(folder: pathlib.Path, *patterns: str) -> dict[str, str]:
    """Hashes of the files that match, by their names."""
    paths = [path for pattern in patterns for path in sorted(folder.glob(pattern))]
    if not paths:
        raise SystemExit(f"golden: {folder} has no {' or '.join(patterns)}")
    return {str(path.relative_to(folder)): hash_file(path) for path in paths}


def hash_arrays(path: pathlib.Path) -> dict[str, str]:
    """Hashes of the arrays of a .npz file in the order of their bytes, so that names may change."""
    with np.load(path) as arrays:
        hashes = [
            hashlib.sha256(f"{array.dtype} {array.shape}".encode() + array.tobytes()).hexdigest()[:16]
            for array in arrays.values()
            if array.dtype.kind in "fiu"
        ]
    return {f"array-{number:03d}": value for number, value in enumerate(sorted(hashes))}


def corpus_and_records(folder: pathlib.Path) -> dict:
    """Makes tracks and two datasets, `mono` and `bars`; hashes of the waves and the shards."""
    run("data_prep.synthesize", "--output", folder / "tracks", "--tracks", 12, "--minutes", "0.5,0.6", "--seed", 5)
    prepare = ("data_prep.prepare", "--input", folder / "tracks", "--split", "0.5,0.2,0.3")
    run(*prepare, "--output", folder / "mono", "--sample_rate", 16000, "--hop_size", 2.048)
    run(*prepare, "--output", folder / "bars", "--channels", 2, "--grid", "bars")
    return {
        "tracks": hash_files(folder / "tracks", "**/*.wav", "**/*.flac", "**/*.mp3"),
        "mono": hash_files(folder / "mono", "**/*.tfrecord*"),
        "bars": hash_files(folder / "bars", "**/*.tfrecord*"),
    }


def train_and_sample(folder: pathlib.Path, name: str) -> dict:
    """Two steps of a config and what follows from them."""
    config, dataset, options = CONFIGS[name]
    workdir = folder / name
    options = [*options, f"config.data.dir={folder / dataset}", "config.train.steps=2", "config.eval.every=0"]
    options += ["config.train.log_every=1", "config.train.sample_every=0", "config.train.save_every=2"]
    run(
        "technogen_jax.train", "--config", ROOT / "configs" / config, "--workdir", workdir, *(f"--{o}" for o in options)
    )
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    losses = [{key: value for key, value in line.items() if not key.startswith("time")} for line in lines]
    run("technogen_jax.sample", "--workdir", workdir, "--n", 2, "--seed", 3)
    run(
        "technogen_jax.export",
        "--workdir",
        workdir,
        "--licence",
        "none",
        "--data",
        "golden",
        "--output",
        workdir / "g.npz",
    )
    found = {
        "losses": losses,
        "sound": hash_files(workdir / "sound", "*.wav"),
        "weights": hash_arrays(workdir / "g.npz"),
    }
    if (workdir / "statistics.npz").exists():
        found["statistics"] = hash_arrays(workdir / "statistics.npz")
    if codes := sorted(workdir.glob("codes-*.npy")):
        found["codes"] = {"codes": hashlib.sha256(np.load(codes[0]).tobytes()).hexdigest()[:16]}
    return found


def shipped_sound(folder: pathlib.Path) -> dict:
    """Clips, a mixture, and a track of the model that comes with the project."""
    sample = ("technogen_jax.sample", "--workdir", SHIPPED)
    run(*sample, "--output", folder / "hear", "--n", 4, "--seed", 0)
    run(*sample, "--output", folder / "way", "--n", 3, "--interpolate", 1, 2, "--truncation", 0.8)
    run(*sample, "--output", folder / "track", "--bars", 24, "--hold", 4)
    return {name: hash_files(folder / name, "*.wav") for name in ("hear", "way", "track")}


def evaluation(folder: pathlib.Path) -> dict:
    """The figures of an evaluation of the first tracks of the corpus against others."""
    import soundfile

    for kind in ("real", "generated", "learnt"):
        (folder / kind).mkdir()
    paths = sorted(path for path in (folder / "tracks").rglob("*") if path.is_file() and path.suffix != ".json")
    for number, path in enumerate(paths):
        samples, rate_hz = soundfile.read(path, always_2d=True)
        for clip in range(4):  # each quarter of a track counts as a track, so that there are enough
            start = clip * len(samples) // 4
            kind = ("real", "generated", "learnt")[number % 3]
            soundfile.write(folder / kind / f"{number:02d}-{clip}.wav", samples[start : start + 2 * rate_hz], rate_hz)
    output = folder / "eval"
    run(
        "technogen_jax.evaluate", "--real", folder / "real", "--generated", folder / "generated", "--output", output,
        "--train", folder / "learnt", "--permutations", 99, "--draws", 4,
    )  # fmt: skip
    return json.loads((output / "result.json").read_text())


def flatten(value, name: str = "") -> dict[str, object]:
    """Nested dicts and lists as one dict of dotted names."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if items is None:
        return {name: value}
    return {key: leaf for part, inner in items for key, leaf in flatten(inner, f"{name}.{part}".strip(".")).items()}


def compare(before: dict, after: dict) -> int:
    """Prints what differs; the number of differences."""
    before, after = flatten(before), flatten(after)
    differing = [name for name in sorted(before.keys() | after.keys()) if before.get(name) != after.get(name)]
    for name in differing:
        print(f"{name}: {before.get(name)} -> {after.get(name)}")
    print(f"{len(before.keys() | after.keys()) - len(differing)} values are the same, {len(differing)} differ")
    return len(differing)


def main() -> int:
    """The command; 1 if anything differs from the file that was given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=pathlib.Path, required=True, metavar="FILE.json", help="where the outputs go")
    parser.add_argument(
        "--compare", type=pathlib.Path, metavar="FILE.json", help="outputs from before, to compare with"
    )
    parser.add_argument("--only", metavar="NAMES", help=f"of {', '.join(parts())}; comma-separated (all)")
    options = parser.parse_args()
    wanted = options.only.split(",") if options.only else list(parts())
    found = {}
    with tempfile.TemporaryDirectory(prefix="technogen-golden-") as folder:
        folder = pathlib.Path(folder)
        for name, function in parts().items():
            if name in wanted or name == "records":
                found[name] = function(folder)
                options.output.write_text(json.dumps(found, indent=1))
    if not options.compare:
        return 0
    before = json.loads(options.compare.read_text())
    return 1 if compare({name: before.get(name) for name in found}, found) else 0


def parts() -> dict[str, Callable[[pathlib.Path], dict]]:
    """What is computed, by name, in order; `records` always runs, since others need it."""
    trainings = {name: (lambda folder, name=name: train_and_sample(folder, name)) for name in CONFIGS}
    return {"records": corpus_and_records, "shipped": shipped_sound, **trainings, "evaluation": evaluation}


if __name__ == "__main__":
    sys.exit(main())
