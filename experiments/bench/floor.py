"""WaveGAN's discriminator step against the speed of one large matrix product.

The step of `wavegan-step` takes turns with that product. `fraction` is the rate of the step over the
rate of the product. It counts the operations of plain sums (wavegan_step.needed_flops), not those of
the program. On a CPU the program does fewer, so the fraction can be above 1.
"""

from __future__ import annotations

import statistics

import jax
import jax.numpy as jnp

from experiments.bench import timing, wavegan_step

SIZE = {"cpu": 2048, "gpu": 8192, "tpu": 8192}  # size of the product: large enough for its full rate


def add_options(add):
    """Adds options: which steps, how many rounds."""
    wavegan_step.add_options(add)


def run(options) -> dict:
    """Measures each case in each precision."""
    backend = jax.default_backend()
    dtypes = ["float32"] if backend == "cpu" else ["float32", "bfloat16"]
    cases = [
        case(*size, dtype, SIZE[backend], options.rounds)
        for size in wavegan_step.sizes(options.cases)
        for dtype in dtypes
    ]
    return timing.about() | {"clip_samples": wavegan_step.CLIP_SAMPLES, "cases": cases}


def case(channels: int, batch: int, dtype: str, size: int, rounds: int) -> dict:
    """Measures one step in one precision."""
    side = wavegan_step.Ours(channels, wavegan_step.clips(batch), dtype)
    a = jax.random.normal(jax.random.key(0), (size, size), dtype)
    product = jax.jit(jnp.matmul)
    sides = {"step": side.step, "product": lambda: product(a, a).block_until_ready()}
    wall, processor = timing.wall_and_processor(sides, rounds)
    flops = {"step": wavegan_step.needed_flops(channels, batch), "product": 2.0 * size**3}
    rate, spent = (
        {name: flops[name] / statistics.median(values) for name, values in seconds.items()}
        for seconds in (wall, processor)
    )
    return {
        "channels": channels,
        "batch": batch,
        "dtype": dtype,
        "rounds": rounds,
        "product": [size, size, size],
        "gflop": timing.digits(flops["step"] / 1e9),
        "ms": {name: timing.spread(values, 1e3) for name, values in wall.items()},
        "gflop_per_s": {name: timing.digits(value / 1e9) for name, value in rate.items()},
        "fraction": round(rate["step"] / rate["product"], 3),
        "fraction_processor": round(spent["step"] / spent["product"], 3),  # on a CPU, where other programs run
    }
