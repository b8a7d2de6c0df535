"""Makes one file of a trained generator: the command; what is in the file is in `package`.

python -m technogen_jax.export --workdir runs/technogan --licence CC0-1.0 --data "the built-in corpus"
"""

from __future__ import annotations

import argparse
import pathlib
import sys
from collections.abc import Sequence

from technogen_jax import checkpoint, generate, models, package


def export(options: argparse.Namespace) -> pathlib.Path:
    """What the command line says; see `--help`. Returns the file."""
    trained = generate.load(options.workdir, int(options.step) if options.step.isdigit() else options.step)
    statistics = checkpoint.read_statistics(options.workdir) if models.find(trained.config).measure else {}
    path = pathlib.Path(options.output or pathlib.Path(options.workdir) / f"step{trained.step}{package.SUFFIX}")
    path.parent.mkdir(parents=True, exist_ok=True)
    card = dict(licence=options.licence, data=options.data, step=trained.step, weights=trained.weights)
    package.write(path, config=trained.config, params=trained.params, statistics=statistics, card=card)
    card = package.read(path).card  # what cannot be read here cannot be read anywhere
    print(
        f"{path}: {path.stat().st_size / 1e6:.1f} MB, step {card['step']}, {card['parameters'] / 1e6:.2f} M parameters"
    )
    return path


def parse_options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of a command line; exits with 2 and one line where they cannot work."""
    parser = argparse.ArgumentParser(
        prog="python -m technogen_jax.export",
        description="Makes one file of a trained generator, to be given away: its averaged weights, its config and a card\n"
        "with the licence and the data. About 2 MB a million parameters. Whoever has the file needs no workdir.",
        epilog="""examples:
  the newest checkpoint:
    python -m technogen_jax.export --workdir runs/technogan --licence CC0-1.0 --data "the built-in corpus"
  the checkpoint that was evaluated best, under a name:
    python -m technogen_jax.export --workdir runs/technogan --step best --output techno.npz --licence MIT --data "our tracks"
  to hear it, or to evaluate it, name the file where a run's folder is asked for:
    python -m technogen_jax.sample --workdir techno.npz --output sound
  its card:
    python -c "import numpy; print(numpy.load('techno.npz')['card'])" """,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--workdir", required=True, metavar="DIR", help="the run's folder, given to technogen_jax.train")
    add("--output", metavar="FILE.npz", help="the file (WORKDIR/stepN.npz)")
    add("--step", default="latest", metavar="STEP", help="latest, best, or a step that has a checkpoint (latest)")
    add("--licence", required=True, metavar="TEXT", help="of the weights, as an SPDX name or a sentence")
    add("--data", required=True, metavar="TEXT", help="what it was trained on, and with what right")
    options = parser.parse_args(argv)
    if not options.step.isdigit() and options.step not in ("latest", "best"):
        parser.error(f"--step: expected latest, best or a number, got {options.step}")
    if options.output and pathlib.Path(options.output).suffix != package.SUFFIX:
        parser.error(f"--output: expected a name that ends in {package.SUFFIX}, got {options.output}")
    for name in ("licence", "data"):
        if not getattr(options, name).strip():
            parser.error(f"--{name}: expected some words, got none")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status: 0 done, 1 failed, 2 an option that cannot work."""
    options = parse_options(argv)
    try:
        export(options)
    except (ValueError, OSError) as error:
        print(f"export: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
