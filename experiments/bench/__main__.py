"""Benchmarks of TechnoGen against the usual alternatives and against the limits of the machine.

    python -m experiments.bench NAME [options]        one benchmark: one line of JSON
    python -m experiments.bench all --out FILE        all of them, a line each, added to FILE
    python -m experiments.bench all --out FILE --minutes 12   as many as that allows, on a lent device
    python -m experiments.bench NAME --help           what it measures, and how

The compared sides take turns in one run, so that other load on the machine affects all of them alike:
compare ratios, not seconds. Times are medians of `rounds`, with quartiles. A benchmark that needs
PyTorch or TensorFlow says in its line if they are not installed (experiments/bench/requirements.txt).
Nothing is downloaded; datasets and corpora are made in a temporary folder.
"""

from __future__ import annotations

import argparse
import importlib
import json
import pathlib
import subprocess
import sys
import time

BENCHES = {
    "wavegan-step": "wavegan_step",
    "floor": "floor",
    "loader": "loader",
    "wait": "wait",
    "prepare": "prepare",
    "sample": "sample",
    "compile": "compilation",
    "memory": "memory",
    "start": "start",
}
ROOT = pathlib.Path(__file__).parents[2]


def main(argv: list[str] | None = None) -> int:
    """Runs the command. Returns its exit status: 0 done, 1 a benchmark failed, 2 a wrong option."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="name", required=True, metavar="NAME")
    for name, module in BENCHES.items():
        module = importlib.import_module(f"experiments.bench.{module}")
        command = commands.add_parser(
            name,
            help=module.__doc__.splitlines()[0],
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_options(command.add_argument)
        command.set_defaults(run=module.run)
    everything = commands.add_parser("all", help="All of them, one after the other, each in a process of its own.")
    everything.add_argument("--out", type=pathlib.Path, required=True, metavar="FILE", help="a line of JSON each")
    everything.add_argument("--minutes", type=float, help="the time for all: a benchmark is stopped at its end")
    options = parser.parse_args(argv)
    if options.name == "all":
        return run_all(options.out, options.minutes)
    print(json.dumps({"bench": options.name} | options.run(options)))
    return 0


def run_all(out: pathlib.Path, minutes: float | None = None) -> int:
    """Runs each benchmark in its own process: no shared compiled programs, and a failure does not stop the rest."""
    failed, end_s = 0, minutes and time.monotonic() + 60 * minutes
    for name in BENCHES:
        command = [sys.executable, "-m", "experiments.bench", name]
        left_s = end_s and max(end_s - time.monotonic(), 0)
        try:
            done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=left_s)
            found = done.stdout.strip().splitlines()[-1:] if done.returncode == 0 else []
            reason = f"exit status {done.returncode}"
        except subprocess.TimeoutExpired:
            found, reason = [], f"the {minutes:g} minutes were over"
        line = found[0] if found else json.dumps({"bench": name, "failed": reason})
        failed += not found
        print(line, flush=True)
        with out.open("a") as file:
            file.write(line + "\n")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
