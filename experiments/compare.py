"""Compares runs: all are evaluated on the same real clips with the same draws, in one table and one picture.

    python -m experiments.compare --data data/bars --output compared small=runs/technogan-s wave=runs/wavegan other/clips

A run is a workdir, a file of technogen_jax.export, or a folder of generated audio; NAME= in front of it
gives its name. Writes OUTPUT/NAME/result.json, which `technogen_jax.evaluate --compare` also reads;
OUTPUT/table.md, one row for each run below one of real clips; and OUTPUT/clips.png, eight clips in each
row. All runs must have the sample rate and the channels of the dataset. If a run's clips are shorter
than the dataset's, the real clips are cropped to their length.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
import time
from typing import Any

import numpy as np

from technogen_jax import models
from technogen_jax.audio import audio_files, spectrogram_images
from technogen_jax.common import atomic_files
from technogen_jax.evaluation import clip_sets, feature_extraction, results, scoring
from technogen_jax.evaluation.features.tmr import TMR_V1
from technogen_jax.runs import bundle
from technogen_jax.runs.metrics_log import METRICS_FILE
from technogen_jax.sampling import generator

COLUMNS = 8  # clips in a row of the picture
SAME_TEMPO = 0.005  # share of the tempo
HEAD = (
    "| run | generator, M | minutes | fd / floor | mmd p | classified correctly | coverage / floor | recall | copies (held out) | "
    "kick_similarity | tempo | x real time |"
)
_EMBEDDING = "tmr-v1"
_TIMED = 8  # clips in the batch whose speed is measured


def open_run(path: str, count: int, seed: int, whole: clip_sets.ClipSet) -> tuple[clip_sets.ClipSet, dict[str, Any]]:
    """Returns the clips of a workdir, a file or a folder, and the size, training minutes and speed where they exist."""
    if not pathlib.Path(path, "config.json").exists() and pathlib.Path(path).suffix != bundle.SUFFIX:
        geometry = dict(sample_rate_hz=whole.sample_rate_hz, channels=whole.channels, clip_samples=whole.clip_samples)
        return clip_sets.from_folder(clip_sets.find_files(path), "generated", **geometry), {}
    trained = generator.load(path)
    return clip_sets.from_generator(trained, count, seed), {
        "parameters": models.count_parameters(trained.params),
        "minutes": trained_minutes(pathlib.Path(path, METRICS_FILE), trained.step),
        "speed": speed(trained),
    }


def trained_minutes(path: pathlib.Path, step: int) -> float | None:
    """Returns the minutes that the steps up to this one took, without evaluations and previews; None if they are not recorded."""
    if not path.exists():
        return None
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    rates = {line["step"]: line["time/steps_per_s"] for line in lines if "time/steps_per_s" in line}
    ends = sorted(end for end in rates if end <= step)
    if not ends:
        return None
    taken_s = sum((end - begin) / rates[end] for begin, end in zip([0, *ends], ends, strict=False))
    return taken_s * step / ends[-1] / 60


def speed(trained: generator.Trained) -> float:
    """Returns how many times faster than real time `sample` renders on this machine, once compiled: the median of three."""
    latents = generator.draw_latents(trained.gan, 0, range(_TIMED))
    took_s = []
    for _ in range(4):
        begin = time.perf_counter()
        list(generator.render(trained, latents))
        took_s.append(time.perf_counter() - begin)
    return _TIMED * trained.config.audio.clip_samples / trained.config.audio.sample_rate_hz / np.median(took_s[1:])


def row(
    name: str, result: dict[str, Any], clip_features: feature_extraction.ClipFeatures, known: dict[str, Any]
) -> str:
    """Returns the table row of a run."""
    found, copied = result["distances"][_EMBEDDING]["all"], result["memorisation"]
    test, features = result["two_sample"]["test"], result["features"]
    cells = [
        name,
        _cell(known.get("parameters"), "{:.2f}", 1e-6),
        _cell(known.get("minutes"), "{:.0f}"),
        _cell(found["frechet"]["ratio"], "{:.2f}"),
        _cell(found["mmd"]["p"], "{:.3f}"),
        f"{_cell(test['accuracy'], '{:.0%}')} of {test['clips']}",
        _cell(found["coverage"]["ratio"], "{:.2f}"),
        _cell(found["recall"]["value"], "{:.2f}"),
        f"{copied['flagged_share']:.1%} ({copied['held_out_flagged_share']:.1%})",
        _cell(features["kick_similarity"]["generated"]["median"], "{:.3f}"),
        on_tempo(clip_features, features),
        _cell(known.get("speed"), "{:.0f}"),
    ]
    return f"| {' | '.join(cells)} |"


def real_row(result: dict[str, Any], clip_features: feature_extraction.ClipFeatures) -> str:
    """Returns the table row of real clips: what a run would have if its clips were like other real ones."""
    found, features = result["distances"][_EMBEDDING]["all"], result["features"]
    recall = _cell(found["recall"]["floor"], "{:.2f}")
    kick = _cell(features["kick_similarity"]["reference"]["median"], "{:.3f}")
    return f"| real | – | – | 1 | – | 50% | 1 | {recall} | – | {kick} | {on_tempo(clip_features, features)} | – |"


def on_tempo(clip_features: feature_extraction.ClipFeatures, features: dict[str, Any]) -> str:
    """Returns the share of clips with the tempo of the real ones."""
    tempo_bpm = features["tempo_bpm"]["reference"]["median"]
    if tempo_bpm is None:
        return "–"
    return f"{np.mean(np.abs(clip_features.features['tempo_bpm'] / tempo_bpm - 1) <= SAME_TEMPO):.0%}"  # NaN: no tempo


def compare(options: argparse.Namespace) -> str:
    """Does everything except printing; returns the table."""
    chosen = {_EMBEDDING: TMR_V1}
    folder = pathlib.Path(options.output)
    folder.mkdir(parents=True, exist_ok=True)
    lines, drawn, titles = [], [], []

    def draw(name: str, clips: clip_sets.ClipSet, indices: np.ndarray) -> None:
        spread = indices[np.linspace(0, len(indices) - 1, COLUMNS).astype(int)]
        drawn.extend(audio_files.from_int16(clip) for clip in clips.read(spread))
        titles.extend(f"{name} {number}" for number in range(COLUMNS))

    for name, path in options.runs.items():
        print(f"{name}: {path}", file=sys.stderr)
        clips, known = open_run(path, options.n, options.seed, clip_sets.from_records(options.data, ["test"]))
        real, train = (clip_sets.from_records(options.data, [split], clips.clip_samples) for split in ("test", "train"))
        bars = real.origin["bars"]  # None where a run's clips are shorter than the set's
        how = feature_extraction.Options(
            seed=options.seed,
            per_track=options.per_track,
            train_clips=options.train_clips,
            loop=bars is not None,
            beats=None if bars is None else 4 * bars,
        )
        sides = feature_extraction.extract_comparison(real, clips, train, None, chosen, how)
        result = scoring.score(sides, chosen, how)
        (folder / name).mkdir(exist_ok=True)
        results.write(folder / name, result)
        if not lines:
            lines.append(real_row(result, sides.reference))
            draw("real", real, sides.reference.indices)
        lines.append(row(name, result, sides.generated, known))
        draw(name, clips, sides.generated.indices)
        # After each run, so that a stopped comparison has the runs before.
        table = "\n".join([HEAD, "| --- " * HEAD.count(" | ") + "| --- |", *lines]) + "\n"
        atomic_files.write_text(folder / "table.md", table)
        spectrogram_images.write_contact_sheet(
            folder / "clips.png", drawn, real.sample_rate_hz, titles, columns=COLUMNS
        )
    return table


def _cell(value: float | None, form: str, scale: float = 1) -> str:
    return "–" if value is None else form.format(value * scale)


def parse_options(argv: list[str] | None = None) -> argparse.Namespace:
    """Returns the options of a command line; exits with 2 and one line if they are wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("paths", nargs="+", metavar="[NAME=]PATH", help="a workdir, a .npz, or a folder of generated audio")
    add(
        "--data",
        required=True,
        metavar="DIR",
        help="a prepared dataset: its test tracks are the reference, its train tracks are searched for copies",
    )
    add("--output", required=True, metavar="DIR", help="where the table, the picture and the results go")
    add("--n", type=int, default=500, metavar="N", help="clips to generate for each run (500)")
    add("--per_track", type=int, default=8, metavar="N", help="at most N real clips of a track (8)")
    add(
        "--train_clips", type=int, default=2000, metavar="N", help="at most N training clips searched for copies (2000)"
    )
    add("--seed", type=int, default=0, metavar="N", help="seed of latents, draws and classifiers (0)")
    options = parser.parse_args(argv)
    named = [path.partition("=") if "=" in path else (pathlib.Path(path).stem, "=", path) for path in options.paths]
    options.runs = {name: path for name, _, path in named}
    if len(options.runs) < len(named):
        parser.error(f"expected different names, got {', '.join(name for name, _, _ in named)}: use NAME=PATH")
    return options


def main(argv: list[str] | None = None) -> int:
    """Runs the command. Returns its exit status: 0 done, 1 failed, 2 a wrong option."""
    options = parse_options(argv)
    try:
        print(compare(options), end="")
    except (ValueError, OSError) as error:
        print(f"compare: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
