"""The memory of a training step relative to what it cannot do without.

The minimum is parameters, optimizer states, averages and the batch (`arguments_mb`). `program_mb` is
what XLA reports that the compiled step needs in addition. `ratio` is both together over the arguments
alone. With `remat` the networks treat a quarter of the batch at a time (config.model.remat). On a GPU a
step is also executed: `peak_mb` is the largest memory in use, measured in a fresh process.
"""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp

from experiments.bench import steps, timing

ROOT = pathlib.Path(__file__).parents[2]
CONFIGS = ("wavegan_small", "wavegan", "wavegan_44k", "specgan_44k", "technogan:s")


def add_options(add):
    """Adds options: which configs, and changes to their sizes."""
    add("--configs", default=",".join(CONFIGS), help="(default: %(default)s)")
    add("--batch_size", type=int, help="batch size for all of them (their own)")
    add(
        "--child",
        nargs=2,
        metavar=("CONFIG", "MODEL"),
        help="used internally, for the fresh processes: a config, fields of its model",
    )


def run(options) -> dict:
    """Measures each config, and again with each option that saves memory."""
    if options.child:
        return child(options.child[0], json.loads(options.child[1]), options.batch_size)
    cases = []
    for name in options.configs.split(","):
        config = steps.load(name)
        quarter = {"remat": max(1, (options.batch_size or config.train.batch_size) // 4)}
        for model in ({}, quarter, {"dtype": "bfloat16"}, quarter | {"dtype": "bfloat16"}):
            if model.keys() <= set(config.model):
                cases.append({"config": name, **model} | in_fresh_process(name, model, options.batch_size))
    return timing.about() | {"cases": cases}


def in_fresh_process(name: str, model: dict, batch_size: int | None) -> dict:
    """Returns the result of `child`."""
    command = [sys.executable, "-m", "experiments.bench", "memory", "--child", name, json.dumps(model)]
    command += ["--batch_size", str(batch_size)] if batch_size else []
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return {key: value for key, value in json.loads(done.stdout.splitlines()[-1]).items() if key != "bench"}


def child(name: str, model: dict, batch_size: int | None) -> dict:
    """Returns the megabytes of one config's step."""
    config = steps.load(name, **model)
    config.train.batch_size = batch_size or config.train.batch_size
    step = steps.build(config)
    compiled = step.lower().compile()
    needs = compiled.memory_analysis()
    arguments, program = needs.argument_size_in_bytes, needs.temp_size_in_bytes
    result = {
        "batch_size": config.train.batch_size,
        "n_critic": config.train.n_critic,
        "arguments_mb": round(arguments / 1e6, 1),
        "program_mb": round(program / 1e6, 1),
        "ratio": round((arguments + program) / arguments, 2),
    }
    if jax.default_backend() == "gpu":
        state = jax.jit(step.new_state)(jax.random.key(0))
        jax.block_until_ready(compiled(state, jnp.zeros(step.clips.shape, step.clips.dtype), jax.random.key(0)))
        result["peak_mb"] = round(jax.local_devices()[0].memory_stats()["peak_bytes_in_use"] / 1e6, 1)
    return result
