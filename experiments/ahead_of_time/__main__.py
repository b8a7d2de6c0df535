"""Compiles the programs of configs for a GPU or TPU that is not at hand, and prints what the compiler says.

    python -m experiments.ahead_of_time wavegan technogan:m --target v5e --devices 4
    python -m experiments.ahead_of_time --target h200 --parts step --set train.batch_size=256

One line of JSON for each part of each config: peak memory, FLOPs of the products, bytes, kernels,
collectives, and for a TPU the compiler's own estimate of its cycles. Nothing is run: all of these
are estimates. It needs the packages of experiments/ahead_of_time/requirements.txt. Each config is
compiled in a process of its own, since a compiler that aborts ends its process.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import pathlib
import subprocess
import sys
import time

from experiments.ahead_of_time import targets

ROOT = pathlib.Path(__file__).parents[2]
CONFIGS = (
    *("wavegan_small", "wavegan", "wavegan_44k", "specgan", "specgan_44k"),
    *("technogan:xs", "technogan:s", "technogan:m", "technogan:l"),
)
PARTS = ("step", "generate", "encode", "decode")


def main(argv: list[str] | None = None) -> int:
    """Runs the command. Returns its exit status: 0 all were compiled, 1 one failed."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.ahead_of_time",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("configs", nargs="*", default=CONFIGS, help="(default: all)")
    parser.add_argument("--target", choices=targets.TARGETS, default="v5e")
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--parts", default=",".join(PARTS), help="(default: %(default)s)")
    parser.add_argument("--set", nargs="*", default=[], metavar="FIELD=VALUE", help="as train.batch_size=64")
    parser.add_argument("--resident", type=int, default=0, metavar="CLIPS", help="a dataset in the device's memory")
    parser.add_argument("--dump", type=pathlib.Path, metavar="FOLDER", help="write the compiled programs there")
    parser.add_argument("--one", action="store_true", help="used internally: one config, in this process")
    options = parser.parse_args(argv)
    if options.one:
        return compile_config(options)
    given = sys.argv[1:] if argv is None else argv
    shared = [text for text in given if text not in options.configs]
    return max(run_apart(name, shared) for name in options.configs)


def run_apart(name: str, options: list[str]) -> int:
    """Compiles one config in a fresh process; prints a line for a compiler that aborts."""
    command = [sys.executable, "-m", "experiments.ahead_of_time", name, "--one", *options]
    done = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    if done.returncode not in (0, 1):
        error = (done.stderr.strip().splitlines() or [""])[-1]
        print(json.dumps({"config": name, "failed": f"status {done.returncode}: {error[-300:]}"}), flush=True)
    return int(done.returncode != 0)


def compile_config(options: argparse.Namespace) -> int:
    """Compiles the parts of one config; prints a line for each."""
    from experiments.ahead_of_time import programs
    from experiments.bench import steps

    targets.use_no_device()
    (name,), target = options.configs, targets.TARGETS[options.target]
    config, failed = steps.load(name), 0
    programs.change_fields(config, options.set)
    mesh = target.make_mesh(options.devices)
    head = {"config": name, "target": options.target, "devices": options.devices, "set": options.set}
    with programs.tracing_for(target.backend):
        made = programs.Programs(config, mesh, options.resident)
        for part in options.parts.split(","):
            line = head | {"part": part}
            try:
                line |= compile_part(made, part, target, options.dump and options.dump / f"{name}-{part}.hlo")
            except Exception as error:  # whatever the compiler raises is the result
                line["failed"] = f"{type(error).__name__}: {str(error)[:500]}"
                failed = 1
            print(json.dumps(line), flush=True)
    return failed


def compile_part(made, part: str, target: targets.Target, dump: pathlib.Path | None) -> dict:
    """Returns the figures of one program."""
    from experiments.ahead_of_time import programs
    from experiments.ahead_of_time.compiled_text import Program

    start, spent = time.perf_counter(), time.process_time()
    traced = made.trace(part)
    flops = programs.count_flops(traced.jaxpr.jaxpr)
    compiled = traced.lower(lowering_platforms=(target.platform,)).compile()
    text = compiled.as_text()
    if dump:
        dump.parent.mkdir(parents=True, exist_ok=True)
        dump.write_text(text)
    runs = made.runs(part)
    line = {"seconds": round(time.perf_counter() - start, 1), "processor_s": round(time.process_time() - spent, 1)}
    with contextlib.suppress(AttributeError, NotImplementedError):
        memory = compiled.memory_analysis()
        held = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
        line["peak_mb"] = round((held + memory.temp_size_in_bytes) / 1e6, 1)
    summary = Program(text).summarize()
    devices = made.devices
    line |= {
        "gflop": round(flops / devices / runs / 1e9, 2),
        "mb": round(summary["bytes"] / runs / 1e6, 1),
        "kernels": round(summary["kernels"] / runs),
        "opcodes": summary["opcodes"],
        "collectives": summary["collectives"],
        # The least time that the device's products and its memory allow.
        "products_ms": round(flops / devices / runs / target.tflops / 1e9, 3),
        "memory_ms": round(summary["bytes"] / runs / target.bandwidth_gb_s / 1e6, 3),
    }
    if target.platform == "tpu":
        line["estimated_ms"] = round(summary["cycles"] / runs / target.clock_ghz / 1e6, 3)
    return line


if __name__ == "__main__":
    sys.exit(main())
