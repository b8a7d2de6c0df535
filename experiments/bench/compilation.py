"""How long the training step of each config takes to compile, and to load at the next start.

Each config runs in a fresh process that traces and compiles its step and executes nothing: first with
an empty folder of compiled programs (`cold`), then with what the first left there (`again`), as
`technogen_jax.common.compilation_cache` keeps them. One run each: they take long and vary little.
`trace_s` is Python's part; `compile_s` is XLA's, which uses several cores; `processor_s` is the
processor time of both, which other programs do not disturb.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from experiments.bench import steps, timing

ROOT = pathlib.Path(__file__).parents[2]


def add_options(add):
    """Adds the option that chooses configs."""
    add("--configs", default=",".join(steps.NAMES), help="(default: %(default)s)")
    add("--child", metavar="CONFIG", help="used internally, for the fresh processes")


def run(options) -> dict:
    """Measures each config twice."""
    if options.child:
        return child(options.child)
    cases = []
    for name in options.configs.split(","):
        with tempfile.TemporaryDirectory() as folder:
            cold, again = (in_fresh_process(name, folder) for _ in range(2))
            size = sum(path.stat().st_size for path in pathlib.Path(folder).iterdir())
        cases.append({"config": name, "runs": 1, "cold": cold, "again": again, "program_mb": round(size / 1e6, 1)})
    return timing.about() | {"cases": cases}


def in_fresh_process(name: str, folder: str) -> dict:
    """Returns the times of `child` for a config, with programs kept in `folder`."""
    command = [sys.executable, "-m", "experiments.bench", "compile", "--child", name]
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": folder}
    done = subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    line = json.loads(done.stdout.splitlines()[-1])
    return {part: line[part] for part in ("trace_s", "compile_s", "processor_s")}


def child(name: str) -> dict:
    """Returns the seconds that one config's step takes."""
    config = steps.load(name)
    step = steps.build(config)
    start, spent = time.perf_counter(), time.process_time()
    lowered = step.lower()
    traced = time.perf_counter()
    lowered.compile()
    taken = {
        "trace_s": traced - start,
        "compile_s": time.perf_counter() - traced,
        "processor_s": time.process_time() - spent,
    }
    return {name: round(seconds, 2) for name, seconds in taken.items()}
