"""How long a training takes from the command to the end of its first dispatch, new and resumed.

`new` starts with an empty folder of compiled programs and an empty workdir: the dataset is measured and
encoded, everything is compiled. `again` starts in another workdir with the programs of the first.
`resumed` goes on from a checkpoint. Each is one process, as a user starts it; its clock starts with the
command and stops when metrics.jsonl has a row that was not there before. `processor_s` is the processor
time of the whole process, also of what follows: a checkpoint and the end of the run.
"""

from __future__ import annotations

import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

from experiments.bench import timing

ROOT = pathlib.Path(__file__).parents[2]
_LOOK_S = 0.05  # between two looks at metrics.jsonl


def add_options(add):
    """Adds options: the config and the dataset."""
    add("--config", default="configs/technogan.py:xs", help="(default: %(default)s)")
    add("--data", help="a dataset of data_prep.prepare (default: two-bar clips of the built-in corpus)")
    add("--tracks", type=int, default=24, help="of the built-in corpus (default: %(default)s)")


def run(options) -> dict:
    """Measures the three starts."""
    cases = {}
    with tempfile.TemporaryDirectory() as folder:
        data = options.data or make_dataset(pathlib.Path(folder), options.tracks)
        programs, first, second = (pathlib.Path(folder) / name for name in ("programs", "first", "second"))
        for name, workdir, steps in (("new", first, 10), ("again", second, 10), ("resumed", first, 20)):
            cases[name] = start(options.config, data, workdir, programs, steps)
    return timing.about("jax") | {"config": options.config, "runs": 1, "cases": cases}


def make_dataset(folder: pathlib.Path, tracks: int) -> str:
    """Prepares clips of two bars of the built-in corpus; returns their folder."""
    corpus, data = str(folder / "tracks"), str(folder / "bars")
    for command in (
        ["synthesize", "--output", corpus, "--tracks", str(tracks)],
        ["prepare", "--input", corpus, "--output", data, "--channels", "2", "--grid", "bars", "--bars", "2"],
    ):
        command = [sys.executable, "-m", f"data_prep.{command[0]}", *command[1:]]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return data


def start(config: str, data: str, workdir: pathlib.Path, programs: pathlib.Path, steps: int) -> dict:
    """Trains up to a step; returns the seconds until the first row of metrics, and the processor's."""
    metrics = workdir / "metrics.jsonl"
    before = metrics.stat().st_size if metrics.exists() else 0
    command = [sys.executable, "-m", "technogen_jax.train", "--config", config, "--workdir", str(workdir)]
    command += [f"--config.data.dir={data}", f"--config.train.steps={steps}"]
    command += ["--config.train.log_every=5", "--config.train.sample_clips=1"]
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(programs)}
    spent = _children_s()
    began = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    while not (metrics.exists() and metrics.stat().st_size > before):
        if process.poll() is not None:
            raise SystemExit(f"bench: {' '.join(command)} ended with {process.returncode} before its first step")
        time.sleep(_LOOK_S)
    first_step_s = time.perf_counter() - began
    process.wait()
    return {"first_step_s": round(first_step_s, 1), "processor_s": round(_children_s() - spent, 1)}


def _children_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
