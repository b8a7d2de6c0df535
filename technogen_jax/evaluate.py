"""Compares generated with real clips: the command.

python -m technogen_jax.evaluate --workdir runs/wavegan --data data/16k
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import sys
from collections.abc import Callable
from typing import Any

from technogen_jax.common import command_line
from technogen_jax.common.command_line import SEEDS, expand_path, option, parse_step, parse_words

_DESCRIPTION = """\
Compares generated with real clips: distances, beside those among real clips; whether a classifier can distinguish
them; copies of training tracks; musical features. Prints a summary and writes report.html, with sound and pictures,
and result.json, with all figures."""

_EXAMPLES = """\
examples:
  a run, compared with the test tracks of the dataset that it was trained on:
    python -m technogen_jax.evaluate --workdir runs/wavegan --data data/16k
  the checkpoint with the best evaluation in training; as a control, an early one, which must be distinguished:
    python -m technogen_jax.evaluate --workdir runs/wavegan --step best --earlier 1000
  two folders of audio from anywhere; files 01-a.wav, 01-b.wav ... are of one track:
    python -m technogen_jax.evaluate --real loops/real --generated loops/generated --output eval --track_pattern '^([^-]+)-'
  another embedding: a small network that is trained on artefacts added to the training clips, kept in a file:
    python -m technogen_jax.evaluate --workdir runs/wavegan --embeddings tmr-v1,artefact=net.npz
  the ear of people who tagged music, in the wheel that "pip download --no-deps musicnn" leaves:
    python -m technogen_jax.evaluate --workdir runs/wavegan --embeddings tmr-v1,musicnn=musicnn-0.1.0-py3-none-any.whl
  results side by side, if they can be compared:
    python -m technogen_jax.evaluate --compare runs/a/eval/step1000-seed0 runs/b/eval/step1000-seed0"""

_LEAST_CLIPS = 10  # feature_extraction.MIN_TRACKS


def _embedding_names(text: str) -> str:
    """Returns the names with the user's home folder for ~ in file names."""
    pairs = [name.partition("=") for name in text.split(",")]
    return ",".join(kind + equals + expand_path(file) for kind, equals, file in pairs)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(command_line.Options):
    """The options of the command."""

    workdir: str | None = option(
        None, "run: the folder given to technogen_jax.train", metavar="DIR", convert=expand_path
    )
    data: str | None = option(
        None,
        "the prepared dataset that it was trained on (default: where the run says)",
        metavar="DIR",
        convert=expand_path,
    )
    step: int | str = option("latest", "checkpoint: latest, best or a step", metavar="STEP", convert=parse_step)
    n: int = option(1000, "number of clips to generate", metavar="N", least=_LEAST_CLIPS, most=100_000)
    split: tuple[str, ...] = option(
        ("test",), "real tracks to compare with: test, or valid,test ...", metavar="NAMES", convert=parse_words
    )
    earlier: int | str | None = option(
        None, "an earlier checkpoint, a control that must be distinguished", metavar="STEP", convert=parse_step
    )
    real: str | None = option(None, "instead of a run: a folder of real audio", metavar="DIR", convert=expand_path)
    generated: str | None = option(None, "with --real: a folder of generated audio", metavar="DIR", convert=expand_path)
    train: str | None = option(
        None, "with --real: a folder of the training tracks, to search for copies", metavar="DIR", convert=expand_path
    )
    track_pattern: str | None = option(
        None,
        "regular expression; its first group, found in a file's path, is the track (default: each file is one)",
        metavar="REGEX",
        convert=str,
    )
    seconds: float | None = option(
        None,
        "length of the clips that files are cut into (default: the shortest file)",
        metavar="S",
        convert=float,
        least=0.25,
        most=600,
    )
    sample_rate: int | None = option(
        None,
        "rate that files are resampled to (default: theirs, if it is one)",
        metavar="HZ",
        convert=int,
        least=5000,
        most=192_000,
    )
    loop: bool = option(False, "the clips are loops, without silence at the end (default: if the dataset has bars)")
    beats: int | None = option(
        None,
        "beats in a clip of whole bars (default: the dataset's, or from the tempo)",
        metavar="N",
        convert=int,
        least=1,
        most=1000,
    )
    embeddings: str = option(
        "tmr-v1", "tmr-v1, musicnn=WHEEL, musicnn-vgg=WHEEL, artefact=FILE", metavar="NAMES", convert=_embedding_names
    )
    labels: bool = option(False, "also the inception score, by a classifier trained on the dataset's labels")
    per_track: int = option(8, "real clips of a track at most", metavar="N", least=1, most=10_000)
    train_clips: int = option(
        20_000, "training clips searched for copies at most", metavar="N", least=1, most=10_000_000
    )
    draws: int = option(
        20, "draws of one clip a track, over which distances are averaged", metavar="N", least=1, most=10_000
    )
    permutations: int = option(999, "permutations of tracks, for p-values", metavar="N", least=99, most=1_000_000)
    seed: int = option(0, "seed of latents, draws, permutations and classifiers", metavar="N", least=0, most=SEEDS)
    output: str | None = option(
        None, "folder for the report (default: WORKDIR/eval/stepSTEP-seedSEED)", metavar="DIR", convert=expand_path
    )
    save_embeddings: bool = option(False, "also write embeddings, tracks and draws to embeddings.npz")
    compare: list[str] | None = option(
        None,
        "print results side by side; fails if they cannot be compared",
        metavar="RESULT",
        convert=expand_path,
        nargs="+",
    )
    allow_mismatch: bool = option(False, "with --compare: print them all the same, with a warning")

    def __post_init__(self):
        super().__post_init__()
        if self.compare:
            self.check("compare", len(self.compare) >= 2, "two results or more")
            return
        folders = self.real or self.generated
        if bool(self.workdir) == bool(folders):
            raise command_line.OptionError("expected --workdir DIR, or --real DIR and --generated DIR")
        if folders and not (self.real and self.generated and self.output):
            raise command_line.OptionError("with folders, --real, --generated and --output are all needed")
        if unknown := sorted(set(self.split) - {"train", "valid", "test"}):
            raise command_line.OptionError(f"--split: expected train, valid or test, got {', '.join(unknown)}")


def evaluate(options: Options, say: Callable[[str], None]) -> dict[str, Any]:
    """Compares clips, or results; returns the figures."""
    from technogen_jax.common import compilation_cache
    from technogen_jax.evaluation import feature_extraction, results, run, summary

    compilation_cache.use_cache()
    if options.compare:
        say(results.compare(options.compare, options.allow_mismatch))
        return {path: json.loads(results.line(results.read(path))) for path in options.compare}
    if options.workdir:
        given = dict(data=options.data, splits=options.split, earlier=options.earlier)
        sets, folder = run.open_run(options.workdir, options.step, options.n, options.seed, **given)
    else:
        given = dict(seconds=options.seconds, sample_rate_hz=options.sample_rate, track_pattern=options.track_pattern)
        sets, folder = run.open_folders(options.real, options.generated, options.train, **given), None
    folder = pathlib.Path(options.output or folder)
    names = feature_extraction.Options._fields
    result = run.evaluate(
        sets,
        folder,
        feature_extraction.Options(**{name: getattr(options, name) for name in names}),
        lambda text: print(text, file=sys.stderr),
        embedding_names=options.embeddings,
        labels=options.labels,
        save_embeddings=options.save_embeddings,
    )
    for line in summary.summarize(result):
        say(line)
    say(f"the report: {folder / run.REPORT_FILE}")
    return json.loads(results.line(result)) | {"report": str(folder / run.REPORT_FILE)}


COMMAND = command_line.Command(
    "technogen_jax.evaluate",
    Options,
    evaluate,
    _DESCRIPTION,
    _EXAMPLES,
    less_memory=lambda options: (
        f"Fewer clips need less; try --n {max(_LEAST_CLIPS, options.n // 2)} --per_track {max(1, options.per_track // 2)} "
        f"--train_clips {max(1, options.train_clips // 2)}"
    ),
)
parse_options, main = COMMAND.parse, COMMAND.main

if __name__ == "__main__":
    sys.exit(main())
