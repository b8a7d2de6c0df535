"""Weak scaling of WaveGAN's training step over simulated devices, and the bytes sent between them: one JSON line.

    python -m experiments.scaling

Simulated devices share the cores of one machine, so N of them with N times the rows take N times the
time at best. The result is the cost of splitting: the time of one device with all rows over that of N
devices with a share each; 1.0 is free. The bytes sent are counted in the compiled program, as the
results of its all-reduces, once for each critic update and once for the generator.
"""

import argparse
import json
import os
import re
import statistics

DEVICES = (1, 2, 4, 8)
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={max(DEVICES)}"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax  # noqa: E402  (the flags must be set before)
import numpy as np  # noqa: E402
from jax.sharding import Mesh  # noqa: E402

from configs import wavegan  # noqa: E402
from experiments.bench import timing  # noqa: E402
from technogen_jax import models  # noqa: E402
from technogen_jax.common import distributed  # noqa: E402
from technogen_jax.training import loop  # noqa: E402


def prepared(config, count, shard):
    """Returns (a function that runs one step and waits, bytes of its all-reduces) for a batch over `count` devices."""
    mesh = Mesh(np.array(jax.devices()[:count]), ("data",))
    key = jax.random.key(0)
    _, _, new_state = loop.build_training(config)
    laid = distributed.choose_shardings(jax.eval_shape(new_state, key), mesh, shard)
    _, step, _ = loop.build_training(config, distributed.sharded(mesh), None, laid if shard else None)
    replicated, by_row = distributed.replicated(mesh), distributed.sharded(mesh, 1)
    shape = config.train.n_critic, config.train.batch_size, config.audio.clip_samples, config.audio.channels
    clips = np.random.default_rng(0).integers(-20_000, 20_000, shape, np.int16)
    clips = jax.device_put(clips, by_row)
    state = jax.jit(new_state, out_shardings=laid)(key)
    jitted = jax.jit(step, in_shardings=(laid, by_row, replicated), out_shardings=(laid, replicated))
    compiled = jitted.lower(state, clips, key).compile()
    key = jax.device_put(key, replicated)
    return lambda: jax.block_until_ready(compiled(state, clips, key)), reduced_bytes(compiled.as_text())


def reduced_bytes(program):
    """Returns the bytes of all float32 results of all-reduces in the text of a program."""
    results = re.findall(r"= (\(.*?\)|\S+) all-reduce(?:-start)?\(", program)
    shapes = [shape for result in results for shape in re.findall(r"f32\[([\d,]*)\]", result)]
    return sum(4 * int(np.prod([int(n) for n in shape.split(",") if n], dtype=np.int64)) for shape in shapes)


def main():
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=4, help="rows of a batch on each device")
    parser.add_argument("--channels", type=int, default=8, help="width of the networks")
    parser.add_argument("--clip_samples", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    config = wavegan.get_config("wgan-gp").unlock()
    config.data.dir, config.train.n_critic = "none", 1  # 1, so that each all-reduce occurs once in the program
    config.model.channels, config.audio.clip_samples = given.channels, given.clip_samples
    runs, sent = {}, {}
    for count in DEVICES:
        config.train.batch_size = count * given.rows
        for name, over, shard in (("one", 1, False), ("split", count, False), ("shares", count, True)):
            runs[count, name], sent[count, name] = prepared(config, over, shard)
    medians = {run: statistics.median(taken) for run, taken in timing.taking_turns(runs, given.rounds).items()}
    gan = models.build(config)
    parameters = sum(models.count_parameters(jax.eval_shape(of, jax.random.key(0))) for of in (gan.init_g, gan.init_d))
    print(
        json.dumps(
            dict(
                bench="scaling",
                jax=jax.__version__,
                cores=timing.cores(),
                **vars(given),
                parameter_bytes=4 * parameters,
                sent_bytes={name: sent[max(DEVICES), name] for name in ("split", "shares")},
                devices=DEVICES,
                step_s=[round(medians[count, "split"], 4) for count in DEVICES],
                efficiency=[round(medians[count, "one"] / medians[count, "split"], 3) for count in DEVICES],
                efficiency_shares=[round(medians[count, "one"] / medians[count, "shares"], 3) for count in DEVICES],
            )
        )
    )


if __name__ == "__main__":
    main()
