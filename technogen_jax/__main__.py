"""The command `technogen`, whose subcommands are the commands of TechnoGen.

technogen sample --workdir runs/technogan --n 16
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

import technogen_jax
from technogen_jax.common import command_line


class Subcommand(NamedTuple):
    """A command: its module, and what it does in a few words."""

    module: str
    help: str

    def load(self) -> command_line.Command:
        """Imports the module; the command imports what is heavy when it runs."""
        return importlib.import_module(self.module).COMMAND


SUBCOMMANDS = {
    "prepare": Subcommand("data_prep.prepare", "turn a folder of tracks into a dataset"),
    "synthesize": Subcommand("data_prep.synthesize", "make a corpus of techno to try things on"),
    "train": Subcommand("technogen_jax.train", "train a model on a dataset"),
    "sample": Subcommand("technogen_jax.sample", "generate loops, clips and tracks"),
    "app": Subcommand("technogen_jax.app.__main__", "play a model in the browser"),
    "evaluate": Subcommand("technogen_jax.evaluate", "compare generated with real clips"),
    "listen": Subcommand("technogen_jax.listen.__main__", "run a blind listening test"),
    "export": Subcommand("technogen_jax.export", "write a generator as one file"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a subcommand; returns its exit status."""
    argv = sys.argv[1:] if argv is None else list(argv)
    if argv and argv[0] in SUBCOMMANDS:
        return SUBCOMMANDS[argv[0]].load().main(argv[1:], program=f"technogen {argv[0]}")
    with command_line.robust_output():
        options = _make_parser().parse_args(argv)
        if options.completion:
            import shtab

            print(shtab.complete(_make_parser(complete=True), options.completion))
            return 0
        _make_parser().print_help()
        return 0


def _make_parser(complete: bool = False) -> argparse.ArgumentParser:
    """Returns the parser of `technogen` alone, or with all options of all subcommands."""
    parser = argparse.ArgumentParser(
        prog="technogen",
        description="Trains GANs on techno and makes new sound from it.",
        epilog="`technogen SUBCOMMAND --help` explains a subcommand. Tab completion in bash:\n"
        '  eval "$(technogen --completion bash)"',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"technogen {technogen_jax.__version__}")
    parser.add_argument("--completion", choices=("bash", "zsh", "tcsh"), help="print what makes Tab complete, and exit")
    subparsers = parser.add_subparsers(title="subcommands", metavar="SUBCOMMAND")
    for name, subcommand in SUBCOMMANDS.items():
        subparser = subparsers.add_parser(name, help=subcommand.help)
        if complete:
            subcommand.load().add_options(subparser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
