"""Speed of generating sound, in times real time.

WaveGAN and SpecGAN have random weights, because their speed does not depend on them; TechnoGAN is the
shipped model. Measured: one clip; sixteen clips as `technogen_jax.sample` renders them, each separately
on the CPU's cores; sixteen in one call; and for a model that plays without end, a track in blocks, with
its latents and the joins between blocks. `x_realtime` is seconds of sound (all channels together) over
the median time; `x_processor` is the same over the processor time of all cores, which other programs
affect less.
"""

from __future__ import annotations

import os

import jax
import numpy as np

from experiments.bench import steps, timing
from technogen_jax import models
from technogen_jax.sampling import arrangement, generator

PRETRAINED = "technogen_jax/pretrained/technogan.npz"
MODELS = ("wavegan", "specgan", "wavegan_44k", "specgan_44k")
_MANY = 16
_BARS = 30  # length of the track: two blocks


def add_options(add):
    """Adds options: which models, how many rounds."""
    add("--models", default=",".join((*MODELS, PRETRAINED)), help="configs, files, workdirs (default: %(default)s)")
    add("--rounds", type=int, default=5, help="(default: %(default)s)")


def run(options) -> dict:
    """Measures each model."""
    return timing.about() | {"cases": [case(name, options.rounds) for name in options.models.split(",")]}


def case(name: str, rounds: int) -> dict:
    """Measures one model in each way of rendering."""
    try:
        trained = generator.load(name) if os.path.exists(name) else random(name)
    except ValueError as error:
        return {"model": name, "skipped": str(error)}
    gan, audio = trained.gan, trained.config.audio
    clip_s = audio.clip_samples / audio.sample_rate_hz
    latents = generator.draw_latents(gan, 0, range(_MANY))
    sides = {
        "one": lambda: list(generator.render(trained, latents[:1])),
        f"{_MANY} clips": lambda: list(generator.render(trained, latents)),
        f"batch of {_MANY}": lambda: generator.render_batches(gan, trained.params, latents, _MANY),
    }
    seconds = {"one": clip_s, f"{_MANY} clips": _MANY * clip_s, f"batch of {_MANY}": _MANY * clip_s}
    if gan.endless is not None:
        bars = _BARS // gan.endless.bars * gan.endless.bars
        track = arrangement.latents_of(gan, [arrangement.Section(bars)], 4 * gan.endless.bars)
        sides["endless"] = lambda: list(arrangement.render(trained, track))
        seconds["endless"] = bars / gan.endless.bars * clip_s
    wall, processor = timing.wall_and_processor(sides, rounds)
    return {
        "model": name,
        "sample_rate_hz": audio.sample_rate_hz,
        "channels": audio.channels,
        "clip_samples": audio.clip_samples,
        "rounds": rounds,
        "ms": {side: timing.spread(values, 1e3) for side, values in wall.items()},
        "x_realtime": {side: timing.digits(seconds[side] / np.median(values), 3) for side, values in wall.items()},
        "x_processor": {
            side: timing.digits(seconds[side] / np.median(values), 3) for side, values in processor.items()
        },
    }


def random(name: str) -> generator.Trained:
    """Returns an untrained generator of a config."""
    config = steps.load(name)
    gan = models.build(config, steps.statistics(config))
    return generator.Trained(gan, jax.jit(gan.init_g)(jax.random.key(0)), config, name, 0, "")
