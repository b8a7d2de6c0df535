"""Codecs of small bars, for tests of TechnoGAN's codec; each is measured once in a process."""

import functools

import jax
import numpy as np
from helpers import building
from helpers.bars import PARTS, SMALL, TONES, bar

from technogen_jax.models.technogan.codec import correction, shaper
from technogen_jax.models.technogan.codec.analysis import make_bands
from technogen_jax.models.technogan.codec.codec import Codec
from technogen_jax.models.technogan.layout import BeatGrid

GRID = BeatGrid(SMALL["clip_samples"], SMALL["sample_rate_hz"], 1, SMALL["frames_per_step"])
BANDS = make_bands(GRID, SMALL["n_mels"])
_DISK_NAMES = dict(partial="line", side_partial="side_line")
KEY = jax.random.key(0)


@functools.cache
def bars():
    """Six bars `[6, T, 2]`."""
    return np.stack([bar(seed) for seed in range(6)])


@functools.cache
def linear():
    """(codec, statistics) of `bars`, without a shaper."""
    return measure(bars())


@functools.cache
def tonal():
    """(codec, statistics) of `bars`, with a new shaper, pitch and partials."""
    return measure(bars(), **TONES, shaper="new")


def fields(audio, **options):
    """Fields of the model and the audio that fit clips `[B, T, C]`."""
    return SMALL | PARTS | options | dict(clip_samples=audio.shape[1], audio_channels=audio.shape[2])


def measure(audio, **options):
    """The codec of a dataset, which is this `[B, T, C]`, with compiled methods, and its statistics."""
    options = fields(audio, **options)
    statistics = building.measure("technogan", [audio[:2], audio[2:]], **options)
    return make(statistics, options["audio_channels"], **options), statistics


def make(statistics, channels=2, clips=1, **options):
    """The codec of statistics, for that many clips in a row, with as many components as these have."""
    options = SMALL | PARTS | options | dict(audio_channels=channels)
    options["shaper"] = "new" if "pitch_basis" in (statistics or {}) else "none"
    for part in ("mid", "side", "low", "pitch", "partial", "side_partial", "pan"):
        basis = (statistics or {}).get(f"{_DISK_NAMES.get(part, part)}_basis")
        if basis is not None:
            options[f"{part}_components"] = basis.shape[1]
    codec = Codec(*building.configs("technogan", **options), statistics, clips)
    for name in ("encode", "decode", "synthesize"):  # compiled once, not in each test
        setattr(codec, name, jax.jit(getattr(codec, name)))
    return codec


def correct(batches, statistics, **options):
    """Statistics with corrections, measured on audio of the fields in `options`."""
    return correction.correct(batches, statistics, *building.configs("technogan", **options))


def biased_shaper(**gates):
    """Parameters of a shaper whose gates are these, such as `mid_noise`, the same in all bands and at all times."""
    params = jax.tree.map(np.array, shaper.make_shaper(SMALL["n_mels"]).init(KEY))
    names = [f"mid_{name}" for name in shaper.MidGates._fields]
    names += [f"side_{name}" for name in shaper.SideGates._fields]
    for name, value in gates.items():
        params["gates"]["bias"].reshape(len(names), -1)[names.index(name)] = value
    return params
