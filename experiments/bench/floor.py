"""The time that WaveGAN's discriminator step would take if it did all its multiplications as fast as one large product.

The step of `wavegan-step`, in turns with that product. `fraction` is the step's rate over the product's: the operations are
those of plain sums (wavegan_step.needed_flops), not those that the program does. On a CPU it does fewer, so that the fraction
may be above 1.
"""

from __future__ import annotations

import statistics

import jax
import jax.numpy as jnp

from experiments.bench import timing, wavegan_step

SIZE = {"cpu": 2048, "gpu": 8192, "tpu": 8192}  # of the product: large enough for its full rate


def add_options(add):
    """Which steps, and how often."""
    wavegan_step.add_options(add)


def run(options) -> dict:
    """Each case in each precision."""
    backend = jax.default_backend()
    dtypes = ["float32"] if backend == "cpu" else ["float32", "bfloat16"]
    cases = [
        case(*size, dtype, SIZE[backend], options.rounds)
        for size in wavegan_step.sizes(options.cases)
        for dtype in dtypes
    ]
    return timing.about() | {"clip_samples": wavegan_step.CLIP_SAMPLES, "cases": cases}


def case(channels: int, batch: int, dtype: str, size: int, rounds: int) -> dict:
    """One step and one precision."""
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
