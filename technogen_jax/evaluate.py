"""Judges generated clips against real ones: the command; the work is done by `evaluation.run`.

python -m technogen_jax.evaluate --workdir runs/wavegan --data data/16k
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from technogen_jax.common import compilation_cache
from technogen_jax.evaluation import feature_extraction, results, run


def parse_options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of a command line; exits with 2 and one line where they cannot work."""
    parser = argparse.ArgumentParser(
        prog="python -m technogen_jax.evaluate",
        description="Judges generated clips against real ones: distances beside what real clips have among themselves, a "
        "classifier's\ntwo-sample test, copies of the training tracks, and what a musician can act on. Prints one line of JSON "
        "and writes\nreport.html (look at it, listen to it) and result.json.",
        epilog="""examples:
  a run, against the test tracks of the set that it was trained on:
    python -m technogen_jax.evaluate --workdir runs/wavegan --data data/16k
  the checkpoint that was best while training, and whether the first one is told apart from it:
    python -m technogen_jax.evaluate --workdir runs/wavegan --step best --earlier 1000
  two folders of audio from anywhere; files 01-a.wav, 01-b.wav ... are of one track:
    python -m technogen_jax.evaluate --real loops/real --generated loops/made --output eval --track_pattern '^([^-]+)-'
  a second opinion: a small net that is trained on faults added to the real clips, and kept in a file:
    python -m technogen_jax.evaluate --workdir runs/wavegan --embeddings tmr-v1,artefact=net.npz
  two results side by side, if they may be compared:
    python -m technogen_jax.evaluate --compare runs/a/eval/step1000-seed0 runs/b/eval/step1000-seed0""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--workdir", metavar="DIR", help="a run: the folder that was given to technogen_jax.train")
    add("--data", metavar="DIR", help="its prepared set (the one it was trained on)")
    add("--step", default="latest", metavar="STEP", help="latest, best, or a step that has a checkpoint (latest)")
    add("--n", type=int, default=1000, metavar="N", help="clips to generate (1000)")
    add("--split", default="test", metavar="NAMES", help="real tracks to judge by: test, or valid,test ... (test)")
    add("--earlier", metavar="STEP", help="an earlier checkpoint, as a control that must be told apart")
    add("--real", metavar="DIR", help="instead of a run: a folder of real audio")
    add("--generated", metavar="DIR", help="and one of generated audio")
    add("--train", metavar="DIR", help="and, to look for copies, one of what was trained on")
    add(
        "--track_pattern",
        metavar="REGEX",
        help="its first group, found in a file's path, is the track (each file is one)",
    )
    add("--seconds", type=float, metavar="S", help="length of the clips that files are cut into (the shortest file)")
    add("--sample_rate", type=int, metavar="HZ", help="what files are brought to (theirs, which must be one)")
    add(
        "--loop",
        action="store_true",
        help="the clips are loops: their end goes on at their start (of a set cut at bars they are)",
    )
    add("--beats", type=int, metavar="N", help="beats in a clip that is cut to a grid (the set's; else from its tempo)")
    add("--embeddings", default="tmr-v1", metavar="NAMES", help="tmr-v1, artefact=FILE (tmr-v1)")
    add("--labels", action="store_true", help="inception score, by a classifier trained on the set's own labels")
    add("--per_track", type=int, default=8, metavar="N", help="real clips of a track at most (8)")
    add(
        "--train_clips",
        type=int,
        default=20_000,
        metavar="N",
        help="training clips searched for copies at most (20000)",
    )
    add("--draws", type=int, default=20, metavar="N", help="draws of one clip a track (20)")
    add("--permutations", type=int, default=999, metavar="N", help="of tracks, for p-values (999)")
    add("--seed", type=int, default=0, metavar="N", help="of latents, draws, permutations and classifiers (0)")
    add("--output", metavar="DIR", help="where the report goes (WORKDIR/eval/stepSTEP-seedSEED)")
    add("--save_embeddings", action="store_true", help="write the embeddings, with tracks and draws, to embeddings.npz")
    add(
        "--compare",
        nargs="+",
        metavar="RESULT",
        help="print results side by side; refuses where they are not comparable",
    )
    add("--allow_mismatch", action="store_true", help="compare all the same, with a warning")
    options = parser.parse_args(argv)
    if options.compare:
        if len(options.compare) < 2:
            parser.error("--compare: expected two results or more")
        return options
    folders = options.real or options.generated
    if bool(options.workdir) == bool(folders):
        parser.error("expected --workdir DIR, or --real DIR and --generated DIR")
    if folders and not (options.real and options.generated and options.output):
        parser.error("with folders, --real, --generated and --output are all needed")
    for name, least in (
        ("n", feature_extraction.MIN_TRACKS),
        ("per_track", 1),
        ("draws", 1),
        ("permutations", 99),
        ("train_clips", 1),
    ):
        if getattr(options, name) < least:
            parser.error(f"--{name}: expected at least {least}, got {getattr(options, name)}")
    for name in ("seconds", "sample_rate", "beats"):
        if getattr(options, name) is not None and getattr(options, name) <= 0:
            parser.error(f"--{name}: expected more than 0, got {getattr(options, name)}")
    if not 0 <= options.seed < 2**32:
        parser.error(f"--seed: expected 0 to 4294967295, got {options.seed}")
    options.split = options.split.split(",")
    if unknown := set(options.split) - {"train", "valid", "test"}:
        parser.error(f"--split: expected train, valid or test, got {', '.join(sorted(unknown))}")
    for name in ("step", "earlier"):
        value = getattr(options, name)
        if value is not None and not value.isdigit() and value not in ("latest", "best"):
            parser.error(f"--{name}: expected latest, best or a number, got {value}")
        if value is not None and value.isdigit():
            setattr(options, name, int(value))
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status: 0 done, 1 failed, 2 an option that cannot work."""
    options = parse_options(argv)
    compilation_cache.use_cache()
    try:
        if options.compare:
            print(results.compare(options.compare, options.allow_mismatch))
            return 0
        result, folder = run.evaluate(options, lambda text: print(text, file=sys.stderr))
    except (ValueError, OSError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 1
    print(results.line(result))
    print(f"the report: {folder / run.REPORT_FILE}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
