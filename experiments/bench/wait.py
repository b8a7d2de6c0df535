"""The share of time that the device waits for data during a training of each config.

Runs the step, the loader and the order of `technogen_jax.train`'s loop, on a dataset of noise in the
page cache, or on random codes for a model that encodes its dataset once. A thread records when the
device has finished each dispatch. The device waits for data if the next dispatch comes later than that,
for at most as long as the loop waited for the loader. `needs_mb_per_s` is the rate at which a storage
must read. `share` is of the whole time after the first three dispatches; `rounds` are periods of equal
length, and `share` is their median.
"""

from __future__ import annotations

import pathlib
import queue
import tempfile
import threading
import time

import jax
import numpy as np
from jax.sharding import SingleDeviceSharding

from experiments.bench import steps, timing
from technogen_jax.data import batching
from technogen_jax.data.clip_source import ClipSource

CONFIGS = {"cpu": ("wavegan_small", "technogan:xs"), "gpu": ("wavegan", "wavegan_44k", "specgan", "technogan:s")}
_AHEAD = 2  # as in `train`
_WARM = 3


def add_options(add):
    """Adds options: which configs, how long."""
    add("--configs", help="(default: configs that the device can train)")
    add("--dispatches", type=int, default=4, help="dispatches in a round (default: %(default)s)")
    add("--rounds", type=int, default=5, help="(default: %(default)s)")


def run(options) -> dict:
    """Measures each config."""
    names = options.configs.split(",") if options.configs else CONFIGS[jax.default_backend()]
    return timing.about("grain") | {"cases": [case(name, options.dispatches, options.rounds) for name in names]}


def case(name: str, dispatches: int, rounds: int) -> dict:
    """Measures a training of one config."""
    config = steps.load(name)
    step = steps.build(config)
    audio, every = config.audio, config.train
    with tempfile.TemporaryDirectory() as folder:
        if step.gan.encode_once:
            clips = np.random.default_rng(0).normal(size=(4096, *step.clips.shape[3:])).astype(np.float32)
            read = 0
        else:
            count = max(64, min(2048, int(2e8 / audio.clip_samples)))
            shape = dict(rate_hz=audio.sample_rate_hz, channels=audio.channels, clip_samples=audio.clip_samples)
            folder = steps.make_set(pathlib.Path(folder) / "set", clips=count, **shape)
            clips, read = batching.ClipAudio(ClipSource(folder, "train")), 2 * audio.clip_samples * audio.channels
        rows = batching.assign_rows(every.batch_size)
        local = batching.iterate_batches(
            clips,
            rows=rows,
            n_critic=every.n_critic,
            steps=every.steps_per_dispatch,
            window=batching.Window(
                length=None if step.gan.encode_once else audio.clip_samples,
                crop=config.data.crop,
                rotate=config.data.rotate,
            ),
            seed=0,
            read_threads=config.data.read_threads,
        )
        on_device = batching.to_device(local, SingleDeviceSharding(jax.devices()[0]), rows)
        ready, asked, came = trained(step, on_device, _WARM + dispatches * rounds)
        local.close()
    # Dispatch i could have started when the previous one was ready. It waits for data at most as long as the loader took.
    waits = [max(0.0, min(came[i] - ready[i - 1], came[i] - asked[i])) for i in range(_WARM, len(ready))]
    starts = range(_WARM, len(ready), dispatches)
    lasted = [ready[i + dispatches - 1] - ready[i - 1] for i in starts]
    shares = [sum(waits[i - _WARM : i - _WARM + dispatches]) / s for i, s in zip(starts, lasted, strict=True)]
    per_step = [s / (dispatches * every.steps_per_dispatch) for s in lasted]
    return {
        "config": name,
        "batch_size": every.batch_size,
        "n_critic": every.n_critic,
        "steps_per_dispatch": every.steps_per_dispatch,
        "read_threads": config.data.read_threads,
        "rounds": rounds,
        "dispatches": dispatches,
        "ms_per_step": timing.spread(per_step, 1e3),
        "share": timing.spread(shares),
        "needs_mb_per_s": timing.digits(read * every.batch_size * every.n_critic / np.median(per_step) / 1e6, 3),
    }


def trained(step: steps.Step, batches, count: int) -> tuple[list[float], list[float], list[float]]:
    """Returns the times when each dispatch was ready, when its batch was requested, and when the batch arrived."""
    done, ready, asked, came = queue.Queue(), [], [], []

    def note():
        while (metrics := done.get()) is not None:
            jax.block_until_ready(metrics)
            ready.append(time.perf_counter())

    thread = threading.Thread(target=note)
    thread.start()
    state, key, pending = jax.jit(step.new_state)(jax.random.key(0)), jax.random.key(1), []
    for _ in range(count):
        asked.append(time.perf_counter())
        clips = next(batches)
        came.append(time.perf_counter())
        state, metrics = step.jitted(state, clips, key)
        done.put(metrics)
        pending.append(metrics)
        if len(pending) > _AHEAD:
            jax.block_until_ready(pending.pop(0))
    done.put(None)
    thread.join()
    return ready, asked, came
