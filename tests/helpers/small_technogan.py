"""Small TechnoGANs with the statistics of six bars, for tests of their networks."""

import functools

import numpy as np
from helpers import building
from helpers.bars import PARTS, SMALL, TONES, bar
from helpers.endless_model import NETWORKS

from technogen_jax.models.technogan.codec import partials
from technogen_jax.models.technogan.codec.codec import Codec

WITHOUT_LOW = np.r_[:15, 25:27]  # components of `PARTS` that are not of the low end


@functools.cache
def make_bars():
    """Six bars of stereo `[6, T, 2]`."""
    return np.stack([bar(seed) for seed in range(6)])


def make_model(audio, **options):
    """(model, statistics) of audio `[B, T, C]`."""
    options = SMALL | PARTS | options | dict(clip_samples=audio.shape[1], audio_channels=audio.shape[2])
    statistics = building.measure("technogan", [audio[:2], audio[2:]], **options)
    return building.build("technogan", **options | NETWORKS, statistics=statistics), statistics


@functools.cache
def make_plain():
    """(model, statistics) of `make_bars`, without pitch and partials."""
    return make_model(make_bars())


@functools.cache
def make_tonal():
    """(model, its codec) of `make_bars`, with pitch and partials, of which all components are kept."""
    names = ("pitch_components", "partial_components", "side_partial_components")
    options = TONES | dict.fromkeys(names, partials.FEATURES) | dict(shaper="new")
    gan, statistics = make_model(make_bars(), **options)
    return gan, Codec(*building.configs("technogan", **SMALL | PARTS | options), statistics)
