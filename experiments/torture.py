"""Long trials of what the test suite tries once: kills, full disks, broken files, long runs, random inputs.

    python -m experiments.torture [--only kills|disk|drift|zoo|bars|fuzz] [--kills 50] [--seeds 5] [--inputs 20000]

kills   trains a tiny WaveGAN and a tiny TechnoGAN, prepares datasets and evaluates a run. Each is
        killed by SIGKILL at random moments, or while a checkpoint or a preview is written, until
        `--kills` is reached. The results must equal those of undisturbed runs, bit for bit, with no
        temporary file left. Then SIGTERM in each phase.
disk    fills a small disk (as root, on Linux), makes a workdir read-only, and removes the dataset.
drift   trains 20,000 tiny steps and compares memory, file handles and threads at the beginning and the end.
zoo     prepares a folder of broken and odd files and five good ones, for each seed, as
        `tests/integration/test_zoo.py` does.
bars    the same with --grid bars.
fuzz    runs the property tests of records and config fields, with `--inputs` inputs for each.

Prints a JSON line for each trial, and its progress on stderr. The exit status is 1 if one failed.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import itertools
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

ROOT = pathlib.Path(__file__).parent.parent
FUZZED = ("data/test_tfrecords.py", "data/test_manifest.py", "data/test_clip_source.py", "common/test_run_config.py")
RATE_HZ = 8000
TINY = {  # flags of the smallest models that use every feature
    "wavegan": "--config configs/wavegan.py:relativistic --config.audio.clip_samples=8192 --config.model.channels=2 "
    "--config.model.latent_size=8 --config.train.batch_size=4",
    "technogan": "--config configs/technogan.py:xs --config.model.shaper=none "
    "--config.model.channels=8 --config.model.blocks=1 --config.model.critic_channels=8 --config.model.critic_blocks=1 "
    "--config.model.n_mels=24 --config.model.frames_per_step=4 "
    "--config.model.mid_components=12 --config.train.steps_per_dispatch=2 --config.train.batch_size=8",
}
CUTS = {"wavegan": "--hop_size 1.024", "technogan": "--grid bars --bars 1 --bpm 133.92857 --max_speed 12"}
SAVING = "--config.train.log_every=4 --config.train.save_every=8 --config.train.sample_every=16 --config.eval.every=16 --config.eval.clips=16"
DRIFTING = (
    "--config.audio.clip_samples=2048 --config.train.steps_per_dispatch=20 --config.train.log_every=100 "
    "--config.train.save_every=1000 --config.train.sample_every=2000 --config.eval.every=2000 --config.eval.clips=16"
)
KILLS_A_RUN = 5
SIGHTS = ("checkpoints/*tmp*", "samples/.*")  # files that a training is writing
VOLATILE = ("time/",)  # fields of metrics.jsonl that differ between runs


# ------------------------------------------------------------------------------------------------------------- the runs


def make_sets(folder: pathlib.Path) -> None:
    """Makes tracks of the built-in corpus, and datasets of clips and of bars from them."""
    call("data_prep.synthesize", f"--output {folder}/tracks --tracks 24 --minutes 0.3,0.5 --sample_rate {RATE_HZ}")
    for model in CUTS:
        call("data_prep.prepare", preparing(folder, model, folder / model))


def preparing(folder: pathlib.Path, model: str, output: pathlib.Path) -> str:
    """Returns the arguments of `prepare` for the dataset of a model."""
    rest = f"--sample_rate {RATE_HZ} --split 0.5,0.1,0.4 --workers 1"
    return f"--input {folder}/tracks --output {output} {CUTS[model]} {rest}"


def training(folder: pathlib.Path, model: str, workdir: pathlib.Path, steps: int = 32, more: str = SAVING) -> list[str]:
    """Returns the argv of a training."""
    flags = f"{TINY[model]} --config.audio.sample_rate_hz={RATE_HZ} --config.data.dir={folder}/{model} {more}"
    return command("technogen_jax.train", f"{flags} --config.train.steps={steps} --workdir {workdir}")


def command(module: str, arguments: str) -> list[str]:
    """Returns the argv of a command."""
    return [sys.executable, "-m", module, *arguments.split()]


def call(module: str, arguments: str) -> None:
    """Runs a command to its end."""
    done = subprocess.run(command(module, arguments), cwd=ROOT, capture_output=True, text=True)
    assert not done.returncode, f"{module} {arguments}: {done.stderr[-2000:]}"


def start(argv: list[str], more: dict[str, str] | None = None) -> subprocess.Popen:
    """Starts a process whose output can be read; `more` is added to its environment."""
    environment = os.environ | (more or {})
    return subprocess.Popen(
        argv, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def tell(line: str) -> None:
    """Prints progress."""
    print(line, file=sys.stderr, flush=True)


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    """Returns the files of a finished dataset or evaluation."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def state_of(workdir: pathlib.Path) -> tuple[str, list[dict]]:
    """Returns the hash of a run's last state, and its metrics without times."""
    import jax

    from technogen_jax.runs.checkpoints import Checkpoints
    from technogen_jax.runs.workdir import STATISTICS_FILE, read_config, read_statistics
    from technogen_jax.sampling import generator
    from technogen_jax.training import loop

    config = read_config(workdir)
    measured = (workdir / STATISTICS_FILE).exists()
    _, _, new_state = loop.build_training(config, statistics=read_statistics(workdir) if measured else None)
    with Checkpoints(workdir, read_only=True) as checkpoints:
        assert checkpoints.steps()[-1] == config.train.steps, f"{workdir}: at step {checkpoints.steps()[-1]}"
        state = checkpoints.restore(config.train.steps, jax.jit(new_state)(jax.random.key(0)))
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    metrics = [{name: value for name, value in line.items() if not name.startswith(VOLATILE)} for line in lines]
    return generator.fingerprint(state), metrics


# ---------------------------------------------------------------------------------------------------------------- kills


def phase_of(output: pathlib.Path, started: float = 0) -> str:
    """Returns what a run that was started at a time was doing when it was killed, judged by its files."""
    if not output.exists():
        return "preparing" if incomplete(output) else "before its first file"
    if list(output.glob("checkpoints/*tmp*")):
        return "writing a checkpoint"
    if list(output.glob("samples/.*")):
        return "writing a preview"
    if list(output.rglob(".*tmp*")):
        return "writing a file"
    if not (output / "config.json").exists():
        return "writing its output"
    if not list(output.glob("checkpoints/*[0-9]")):
        return "before its first checkpoint"
    return "training" if (output / "metrics.jsonl").stat().st_mtime >= started else "starting again"


def incomplete(output: pathlib.Path) -> list[pathlib.Path]:
    """Returns what lies beside an output that does not exist yet."""
    return [path for path in output.parent.iterdir() if output.name in path.name and path != output]


def wait_until(
    process: subprocess.Popen, output: pathlib.Path, cpu_s: float, sight: str | None = None, after_s: float = 0
) -> None:
    """Returns after the process has used `cpu_s`, when it ends, or shortly after a new file matches `sight`."""
    old = set(output.glob(sight)) if sight else set()
    while process.poll() is None and cpu_of(process.pid) < cpu_s:
        if sight:
            there = set(output.glob(sight))
            if there - old:
                time.sleep(after_s)
                return
            old &= there
        time.sleep(0.002)


def cpu_of(pid: int | str) -> float:
    """Returns the CPU seconds of a process and its children: a measure of progress that other programs do not disturb."""
    try:
        numbers = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        children = [
            one for path in pathlib.Path(f"/proc/{pid}/task").glob("*/children") for one in path.read_text().split()
        ]
    except OSError:  # the process has ended
        return 0
    return sum(map(int, numbers[11:15])) / os.sysconf("SC_CLK_TCK") + sum(map(cpu_of, children))


def cpu_of_ended() -> float:
    """Returns the CPU seconds of all processes that were waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def kill_until_done(
    argv: list[str], output: pathlib.Path, draw: random.Random, takes_s: float, sights: tuple[str, ...], cache: dict
) -> Iterator[str]:
    """Runs a command repeatedly, killed at random moments, then lets it end; yields the phase of each kill.

    The first start compiles everything; the others use a compilation cache that is itself written under kills.
    """
    for number in range(KILLS_A_RUN):
        started, process = time.time(), start(argv, cache if number else None)
        if sights and number % 2:
            wait_until(process, output, takes_s, draw.choice(sights), draw.uniform(0, 0.02))
        else:
            wait_until(process, output, draw.uniform(0.05, 0.7 if number else 1) * takes_s)  # the cache saves a third
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            yield phase_of(output, started)
            continue
        output, _ = process.communicate()
        assert not process.returncode, f"after {number} kills: {output[-2000:]}"
        return
    done = subprocess.run(argv, cwd=ROOT, env=os.environ | cache, capture_output=True, text=True)
    assert not done.returncode, f"after {KILLS_A_RUN} kills: {done.stderr[-2000:]}"


def kills(options: argparse.Namespace) -> dict[str, Any]:
    """SIGKILL at random moments, and SIGTERM in each phase."""
    draw, met, rounds = random.Random(options.seeds), collections.Counter(), collections.Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        make_sets(folder)
        cache = {"JAX_COMPILATION_CACHE_DIR": f"{folder}/cache", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
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
            output, begun_s = folder / f"whole-{name}", cpu_of_ended()
            done = subprocess.run(job(output), cwd=ROOT, capture_output=True, text=True)
            assert not done.returncode, f"{name}: {done.stderr[-2000:]}"
            takes_s[name], whole[name] = cpu_of_ended() - begun_s, results[name](output)
            tell(f"{name}: undisturbed, {takes_s[name]:.1f} s of CPU")
        for name in itertools.cycle(jobs):
            if sum(met.values()) >= options.kills:
                break
            output = folder / f"killed-{name}"
            argv, sights = jobs[name](output), SIGHTS if name in TINY else ()
            for phase in kill_until_done(argv, output, draw, takes_s[name], sights, cache):
                met[f"{name}: {phase}"] += 1
                tell(f"kill {sum(met.values())}: {name}, {phase}")
            assert results[name](output) == whole[name], f"{name}: differs from the undisturbed run"
            left = [*output.rglob("*tmp*"), *incomplete(output)]
            assert not left, f"{name}: left {left}"
            shutil.rmtree(output)
            rounds[name] += 1
            tell(f"{name}: equal to the undisturbed run")
        stops = {model: stop_times(folder, model, takes_s[model], draw, cache) for model in TINY}
    return {"kills": sum(met.values()), "met": dict(met), "equal": dict(rounds), "seconds_to_stop": stops}


def result_of(output: pathlib.Path) -> dict[str, Any]:
    """Returns an evaluation's figures; its report contains times."""
    return json.loads((next(output.rglob("result.json"))).read_text())


def stop_times(
    folder: pathlib.Path, model: str, takes_s: float, draw: random.Random, cache: dict, count: int = 6
) -> list[tuple[float, float]]:
    """Returns how long a training continues after SIGTERM, in seconds and in CPU seconds; it must save and end with 0.

    One of three starts compiles everything.
    """
    times_s = []
    for number in range(count):
        output, before_s = folder / f"stopped-{model}-{number}", cpu_of_ended()
        process = start(training(folder, model, output, steps=10_000), cache if number % 3 else None)
        wait_for(output, process, 3600)
        wait_until(process, output, cpu_of(process.pid) + draw.uniform(0, takes_s / 2))
        begun, had_s = time.monotonic(), cpu_of(process.pid)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=600)
        times_s.append((round(time.monotonic() - begun, 1), round(cpu_of_ended() - before_s - had_s, 1)))
        ended = f"{model}: SIGTERM ended it with {process.returncode}: {output[-2000:]}"
        assert not process.returncode and "the same command resumes it" in output, ended
        tell(f"SIGTERM {number + 1}: {model}, ended after {times_s[-1][0]} s, {times_s[-1][1]} of CPU")
        shutil.rmtree(output)
    return sorted(times_s)


def wait_for(path: pathlib.Path, process: subprocess.Popen, seconds: float = 120) -> None:
    """Returns when a file exists; raises if the process ends before."""
    end = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None and time.monotonic() < end, f"{path} does not appear"
        time.sleep(0.05)


# ------------------------------------------------------------------------------------------------------- disk and drift


def disk(_: argparse.Namespace) -> dict[str, Any]:
    """A disk that fills up, a workdir that cannot be written, a dataset that disappears."""
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
        output, _ = process.communicate(timeout=120)
        # An open file can still be read after its name is deleted.
        found["dataset removed"] = output.splitlines()[-1] if process.returncode else "read to the end"
    return found


def last_lines(done: subprocess.CompletedProcess) -> str:
    """Returns the last lines of a training that failed; raises if it printed a traceback."""
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr[-3000:]
    return done.stderr[done.stderr.rindex("train: ") :].strip()


def drift(_: argparse.Namespace) -> dict[str, Any]:
    """Compares memory, file handles and threads early and late in 20,000 steps (the maximum of a tenth of the time)."""
    with tempfile.TemporaryDirectory() as name:
        folder, seen = pathlib.Path(name), []
        make_sets(folder)
        process = start(training(folder, "wavegan", folder / "run", 20_000, DRIFTING))
        wait_for(folder / "run" / "checkpoints" / "2000", process, 3600)
        while process.poll() is None:
            with contextlib.suppress(OSError, KeyError):  # the process can end here
                seen.append(load_of(process.pid))
            time.sleep(0.2)
        output, _ = process.communicate()
    assert not process.returncode, output[-2000:]
    tenth = len(seen) // 10 + 1
    early, late = (
        {name: max(load[name] for load in some) for name in some[0]} for some in (seen[:tenth], seen[-tenth:])
    )
    grown = {name: late[name] - early[name] for name in early}
    assert grown["memory_mb"] < 50 and grown["handles"] <= 2 and grown["threads"] <= 2, (early, late)
    return {"after_2000": early, "after_20000": late, "looks": len(seen)}


def load_of(pid: int) -> dict[str, int]:
    """Returns memory, threads and file handles of a process."""
    status = dict(line.split(":", 1) for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines())
    return {
        "memory_mb": int(status["VmRSS"].split()[0]) // 1024,
        "threads": int(status["Threads"]),
        "handles": len(os.listdir(f"/proc/{pid}/fd")),
    }


# ------------------------------------------------------------------------------------------------------- zoo and inputs


def zoo(options: argparse.Namespace, how: str = "HALF_SECONDS") -> dict[str, Any]:
    """Prepares broken and odd files for all seeds; returns how many were left out."""
    import test_zoo

    found = {"seeds": options.seeds, "kinds": len(test_zoo.zoo.KINDS), "left_out": 0, "tracks": 0}
    for seed in range(1, options.seeds + 1):  # the test suite uses 0
        with tempfile.TemporaryDirectory() as folder:
            left_out, tracks = test_zoo.check_zoo(pathlib.Path(folder), seed, getattr(test_zoo, how))
        found["left_out"] += left_out
        found["tracks"] += tracks
    return found


def bars(options: argparse.Namespace) -> dict[str, Any]:
    """The same as `zoo`, cut at bars."""
    return zoo(options, "BARS")


def fuzz(options: argparse.Namespace) -> dict[str, Any]:
    """Runs the property tests; a failure is shown by pytest on stderr."""
    argv = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-k",
        "or_named or goes_or or or_raises",
        *(f"tests/{name}" for name in FUZZED),
    ]
    environment = os.environ | {"FUZZ_INPUTS": str(options.inputs)}
    done = subprocess.run(argv, cwd=ROOT, env=environment, stdout=sys.stderr)
    if done.returncode:
        raise AssertionError(f"pytest ended with {done.returncode}; see above")
    return {"inputs_each": options.inputs}


def main() -> int:
    """Runs the command."""
    trials = {function.__name__: function for function in (kills, disk, drift, zoo, bars, fuzz)}
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="python -m experiments.torture"
    )
    parser.add_argument("--only", choices=trials, help="one of the trials (all)")
    parser.add_argument("--kills", type=int, default=50, help="at least N SIGKILLs (50)")
    parser.add_argument("--seeds", type=int, default=5, help="number of zoos, and the seed of the kills (5)")
    parser.add_argument("--inputs", type=int, default=20_000, help="inputs for each property test (20000)")
    options = parser.parse_args()
    sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "integration")]
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
