"""What the suite tries once, tried long: kills, full disks, broken files, long runs, inputs made up by the ten thousand.

    python -m experiments.torture [--only kills|disk|drift|zoo|bars|fuzz] [--kills 50] [--seeds 5] [--inputs 20000]

`kills` trains a tiny WaveGAN and a tiny TechnoGAN, prepares a set and evaluates a run, each SIGKILLed at random moments until that
many kills are reached: what comes out must be, bit for bit, what comes out undisturbed, with no temporary file left. It then sends
SIGTERM at moments of each phase. `disk` fills a small disk (as root, on Linux), makes a workdir read-only, and takes the set away.
`drift` trains 20,000 tiny steps and looks at memory, file handles and threads. `zoo` prepares a folder of broken and odd files
beside five good ones, as `tests/test_zoo.py` does, for each seed; `bars` the same with --grid bars. `fuzz` runs the property tests of
records and config fields, with so many inputs for each. Prints a JSON line for each; the status is 1 if one failed.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

ROOT = pathlib.Path(__file__).parent.parent
FUZZED = ("test_records.py", "test_fields.py")
RATE_HZ = 8000
TINY = {  # flags of the smallest models that do all that large ones do
    "wavegan": "--config configs/wavegan.py:relativistic --config.audio.clip_samples=8192 --config.model.channels=2 "
    "--config.model.latent_size=8 --config.train.batch_size=4",
    "technogan": "--config configs/technogan.py:xs --config.audio.channels=1 --config.audio.clip_samples=14336 --config.model.shaper=none "
    "--config.model.channels=8 --config.model.blocks=1 --config.model.n_mels=24 --config.model.frames_per_step=4 "
    "--config.model.mid_components=12 --config.train.steps_per_dispatch=2 --config.train.batch_size=8",
}
CUTS = {"wavegan": "--hop_size 1.024", "technogan": "--grid bars --bars 1 --bpm 133.92857 --max_speed 12"}
SAVING = "--config.train.log_every=4 --config.train.save_every=8 --config.train.sample_every=16 --config.eval.every=16 --config.eval.clips=16"
KILLS_A_RUN = 5
VOLATILE = ("time/",)  # of metrics.jsonl


# ------------------------------------------------------------------------------------------------------------- the runs


def make_sets(folder: pathlib.Path) -> None:
    """Tracks of the built-in corpus, and sets of their seconds and of their bars."""
    call("data_prep.synthesize", f"--output {folder}/tracks --tracks 24 --minutes 0.3,0.5 --sample_rate {RATE_HZ}")
    for model in CUTS:
        call("data_prep.prepare", preparing(folder, model, folder / model))


def preparing(folder: pathlib.Path, model: str, output: pathlib.Path) -> str:
    """Arguments of `prepare` for the set of a model."""
    rest = f"--sample_rate {RATE_HZ} --split 0.5,0.1,0.4 --workers 1"
    return f"--input {folder}/tracks --output {output} {CUTS[model]} {rest}"


def training(folder: pathlib.Path, model: str, workdir: pathlib.Path, steps: int = 32, more: str = SAVING) -> list[str]:
    """The argv of a training."""
    flags = f"{TINY[model]} --config.audio.sample_rate_hz={RATE_HZ} --config.data.dir={folder}/{model} {more}"
    return command("technogen_jax.train", f"{flags} --config.train.steps={steps} --workdir {workdir}")


def command(module: str, arguments: str) -> list[str]:
    """The argv of a command."""
    return [sys.executable, "-m", module, *arguments.split()]


def call(module: str, arguments: str) -> None:
    """Runs a command to its end."""
    done = subprocess.run(command(module, arguments), cwd=ROOT, capture_output=True, text=True)
    assert not done.returncode, f"{module} {arguments}: {done.stderr[-2000:]}"


def start(argv: list[str], more: dict[str, str] | None = None) -> subprocess.Popen:
    """A process whose words can be read; `more` goes into its environment."""
    environment = os.environ | (more or {})
    return subprocess.Popen(
        argv, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    """What a finished set, or a finished evaluation, consists of."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def state_of(workdir: pathlib.Path) -> tuple[str, list[dict]]:
    """The hash of a run's last state, and its metrics but for times."""
    import jax

    from technogen_jax import checkpoint, generate, train

    config = checkpoint.read_config(workdir)
    measured = (workdir / checkpoint.STATISTICS_FILE).exists()
    _, _, new_state = train._build(config, statistics=checkpoint.read_statistics(workdir) if measured else None)
    with checkpoint.Checkpoints(workdir, read_only=True) as checkpoints:
        assert checkpoints.steps()[-1] == config.train.steps
        state = checkpoints.restore(config.train.steps, jax.jit(new_state)(jax.random.key(0)))
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    metrics = [{name: value for name, value in line.items() if not name.startswith(VOLATILE)} for line in lines]
    return generate.fingerprint(state), metrics


# ---------------------------------------------------------------------------------------------------------------- kills


def phase_of(output: pathlib.Path) -> str:
    """What a run was doing when it was killed, as far as its files tell."""
    if any(output.parent.glob(f".{output.name}*")) or not output.exists():
        return "before its first file" if not output.exists() else "preparing"
    if list(output.glob("checkpoints/*tmp*")):
        return "writing a checkpoint"
    if list(output.rglob(".*tmp*")):
        return "writing a file"
    steps = [path.name for path in output.glob("checkpoints/*")]
    return "training" if steps else "before its first checkpoint"


def kill_until_done(
    argv: list[str], output: pathlib.Path, draw: random.Random, takes_s: float, cache: pathlib.Path
) -> Iterator[str]:
    """Runs a command again and again, killed at random moments, then lets it end; yields what each kill met.

    By turns it compiles anew and takes what it compiled from a cache, itself written under kills.
    """
    caching = {"JAX_COMPILATION_CACHE_DIR": str(cache), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    for number in range(KILLS_A_RUN + 1):
        process = start(argv, caching if number % 2 else None)
        patience_s = draw.uniform(0.05, 1.0) * takes_s if number < KILLS_A_RUN else None
        try:
            said, _ = process.communicate(timeout=patience_s)
            assert not process.returncode, f"after {number} kills: {said[-2000:]}"
            return
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            yield phase_of(output)


def kills(options: argparse.Namespace) -> dict[str, Any]:
    """SIGKILL at random moments, and SIGTERM in each phase."""
    draw, met, rounds = random.Random(options.seeds), collections.Counter(), collections.Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        make_sets(folder)
        whole, takes_s = {}, {}
        jobs = {
            "wavegan": lambda output: training(folder, "wavegan", output),
            "technogan": lambda output: training(folder, "technogan", output),
            "prepare": lambda output: command("data_prep.prepare", preparing(folder, "wavegan", output)),
            "bars": lambda output: command("data_prep.prepare", preparing(folder, "technogan", output)),
            "evaluate": lambda output: command(
                "technogen_jax.evaluate",
                f"--workdir {folder}/whole-wavegan --data {folder}/wavegan --n 40 --output {output}",
            ),
        }
        results = {name: contents for name in jobs} | {
            "wavegan": state_of,
            "technogan": state_of,
            "evaluate": result_of,
        }
        for name, job in jobs.items():
            output, begun = folder / f"whole-{name}", time.monotonic()
            done = subprocess.run(job(output), cwd=ROOT, capture_output=True, text=True)
            assert not done.returncode, f"{name}: {done.stderr[-2000:]}"
            takes_s[name], whole[name] = time.monotonic() - begun, results[name](output)
        while sum(met.values()) < options.kills:
            for name, job in jobs.items():
                output = folder / f"killed-{name}"
                for phase in kill_until_done(job(output), output, draw, takes_s[name], folder / "cache"):
                    met[f"{name}: {phase}"] += 1
                assert results[name](output) == whole[name], f"{name}: not what it is undisturbed"
                left = list(output.rglob("*tmp*"))
                assert not left, f"{name}: left {left}"
                shutil.rmtree(output)
                rounds[name] += 1
        stops = {model: stop_times(folder, model, takes_s[model], draw) for model in TINY}
    return {"kills": sum(met.values()), "met": dict(met), "equal": dict(rounds), "seconds_to_stop": stops}


def result_of(output: pathlib.Path) -> dict[str, Any]:
    """An evaluation's figures; its report holds times."""
    return json.loads((next(output.rglob("result.json"))).read_text())


def stop_times(folder: pathlib.Path, model: str, takes_s: float, draw: random.Random, count: int = 6) -> list[float]:
    """How long a training went on after SIGTERM, sorted; it saved and ended with 0."""
    times_s = []
    for number in range(count):
        output = folder / f"stopped-{model}-{number}"
        process = start(training(folder, model, output, steps=10_000))
        wait_for(output / "config.json", process)
        time.sleep(draw.uniform(0, takes_s))
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=60)
        times_s.append(round(time.monotonic() - begun, 1))
        assert not process.returncode and "the same command goes on" in said, said[-2000:]
        shutil.rmtree(output)
    return sorted(times_s)


def wait_for(path: pathlib.Path, process: subprocess.Popen, seconds: float = 120) -> None:
    """Returns when a file is there; raises if the process ends before."""
    end = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None and time.monotonic() < end, f"{path} does not come"
        time.sleep(0.05)


# ------------------------------------------------------------------------------------------------------- disk and drift


def disk(_: argparse.Namespace) -> dict[str, Any]:
    """A disk that fills up, a workdir that cannot be written, a set that goes away."""
    if not sys.platform.startswith("linux") or os.getuid():
        return {"skipped": "needs root on Linux, to mount small disks"}
    with tempfile.TemporaryDirectory() as name:
        folder, found = pathlib.Path(name), {}
        make_sets(folder)
        reference = folder / "reference"
        subprocess.run(training(folder, "wavegan", reference), cwd=ROOT, capture_output=True, check=True)
        for size_kb in (100, 250, 400, 700):
            small = folder / "small"
            small.mkdir()
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_kb}k", "tmpfs", str(small)], check=True)
            try:
                failed = subprocess.run(
                    training(folder, "wavegan", small / "run"), cwd=ROOT, capture_output=True, text=True
                )
                found[f"{size_kb} kB"] = last_lines(failed)
                subprocess.run(["mount", "-o", "remount,size=64m", str(small)], check=True)
                subprocess.run(training(folder, "wavegan", small / "run"), cwd=ROOT, capture_output=True, check=True)
                assert state_of(small / "run")[0] == state_of(reference)[0]
                subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
                failed = subprocess.run(
                    training(folder, "wavegan", small / "run", 64), cwd=ROOT, capture_output=True, text=True
                )
                found["read-only"] = last_lines(failed)
            finally:
                subprocess.run(["umount", str(small)], check=True)
                small.rmdir()
        shutil.copytree(folder / "wavegan", folder / "kept")
        process = start(training(folder, "wavegan", folder / "run", 100_000, SAVING.replace("=16 ", "=0 ")))
        wait_for(folder / "run" / "checkpoints" / "8", process)
        shutil.rmtree(folder / "wavegan")
        said, _ = process.communicate(timeout=120)
        # An open file goes on being read after its name is gone.
        found["set gone"] = said.splitlines()[-1] if process.returncode else "read on to the end"
    return found


def last_lines(done: subprocess.CompletedProcess) -> str:
    """What a training that failed says in the end; raises if it says it by a traceback."""
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr[-3000:]
    return done.stderr[done.stderr.rindex("train: ") :].strip()


def drift(_: argparse.Namespace) -> dict[str, Any]:
    """20,000 steps: memory, file handles and threads after 2,000 and at the end."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        make_sets(folder)
        more = "--config.train.log_every=100 --config.train.save_every=1000 --config.train.sample_every=4000 --config.eval.every=0"
        process, seen = start(training(folder, "wavegan", folder / "run", 20_000, more)), {}
        for step in (2_000, 20_000):
            while not (folder / "run" / "checkpoints" / str(step)).exists() and process.poll() is None:
                time.sleep(0.02)
                if process.poll() is None:
                    seen[step] = load_of(process.pid)
        process.communicate()
    early, late = seen[2_000], seen[20_000]
    grown = {name: late[name] - early[name] for name in early}
    assert grown["memory_mb"] < 50 and grown["handles"] <= 2 and grown["threads"] <= 2, (early, late)
    return {"after_2000": early, "after_20000": late}


def load_of(pid: int) -> dict[str, int]:
    """What a process holds."""
    status = dict(line.split(":", 1) for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines())
    return {
        "memory_mb": int(status["VmRSS"].split()[0]) // 1024,
        "threads": int(status["Threads"]),
        "handles": len(os.listdir(f"/proc/{pid}/fd")),
    }


# ------------------------------------------------------------------------------------------------------- zoo and inputs


def zoo(options: argparse.Namespace, how: str = "HALF_SECONDS") -> dict[str, Any]:
    """Broken and odd files of all seeds, and what became of them."""
    import test_zoo

    found = {"seeds": options.seeds, "kinds": len(test_zoo.zoo.KINDS), "left_out": 0, "tracks": 0}
    for seed in range(1, options.seeds + 1):  # the suite has 0
        with tempfile.TemporaryDirectory() as folder:
            left_out, tracks = test_zoo.check_zoo(pathlib.Path(folder), seed, getattr(test_zoo, how))
        found["left_out"] += left_out
        found["tracks"] += tracks
    return found


def bars(options: argparse.Namespace) -> dict[str, Any]:
    """The same, cut at bars."""
    return zoo(options, "BARS")


def fuzz(options: argparse.Namespace) -> dict[str, Any]:
    """The number of inputs for each property test; a failing one is in pytest's words on stderr."""
    argv = [sys.executable, "-m", "pytest", "-q", "-k", "or_named or goes_or", *(f"tests/{name}" for name in FUZZED)]
    environment = os.environ | {"FUZZ_INPUTS": str(options.inputs)}
    done = subprocess.run(argv, cwd=ROOT, env=environment, stdout=sys.stderr)
    if done.returncode:
        raise AssertionError(f"pytest ended with {done.returncode}; see above")
    return {"inputs_each": options.inputs}


def main() -> int:
    """The command."""
    trials = {function.__name__: function for function in (kills, disk, drift, zoo, bars, fuzz)}
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="python -m experiments.torture"
    )
    parser.add_argument("--only", choices=trials, help="one of the trials (all)")
    parser.add_argument("--kills", type=int, default=50, help="SIGKILLs at least (50)")
    parser.add_argument("--seeds", type=int, default=5, help="zoos, and the seed of the kills' moments (5)")
    parser.add_argument("--inputs", type=int, default=20_000, help="inputs for each property test (20000)")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT / "tests"))
    failed = False
    for name in [options.only] if options.only else trials:
        start_s = time.monotonic()
        try:
            result = trials[name](options)
        except (AssertionError, subprocess.SubprocessError) as error:
            result, failed = {"failed": str(error)}, True
        print(json.dumps({"torture": name} | result | {"seconds": round(time.monotonic() - start_s, 1)}), flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
