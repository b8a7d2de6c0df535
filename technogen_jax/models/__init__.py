"""Models: `build(config)` gives the `GAN` that `config.model.name` selects from `MODELS`.

To add one: a file with a `build(...) -> GAN`, a line in `MODELS`, a config. Nothing else changes. A model that has to know
its training set brings a `measure(batches, ...)` too: what that returns is kept with the run and handed to `build`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from technogen_jax.models import specgan, wavegan
from technogen_jax.models.gan import GAN, count_parameters
from technogen_jax.models.technogan import model as technogan
from technogen_jax.models.technogan.codec import codec

__all__ = ["GAN", "MODELS", "Model", "Statistics", "build", "correct", "count_parameters", "find", "measure"]

Statistics = dict[str, np.ndarray]


class Model(NamedTuple):
    """A model's two functions; each is given those fields of `config.model` and `config.audio` that it has arguments for.

    Attributes:
        build: fields, and `statistics` where `measure` is not None -> GAN.
        measure: batches of the training set's audio `[B, T, C]`, fields -> statistics; None: nothing is measured.
        correct: what gives such batches of a part of the set, statistics, fields -> statistics that know how decoded sound differs;
            None: they do not.
    """

    build: Callable[..., GAN]
    measure: Callable[..., Statistics] | None = None
    correct: Callable[..., Statistics] | None = None


MODELS = {
    "wavegan": Model(wavegan.build),
    "specgan": Model(specgan.build, specgan.measure),
    "technogan": Model(technogan.build, codec.measure, codec.correct),
}


def find(config) -> Model:
    """The model that a config names.

    Raises:
        ValueError: an unknown one, or a field that it does not have; names it.
    """
    options = dict(config.model)
    name = options.pop("name")
    if name not in MODELS:
        raise ValueError(f"config.model.name: expected one of {', '.join(MODELS)}, got {name!r}")
    unknown = options.keys() - inspect.signature(MODELS[name].build).parameters.keys()
    if unknown:
        raise ValueError(f"config.model: {name} has no field {', '.join(sorted(unknown))}")
    return MODELS[name]


def build(config, statistics: Statistics | None = None) -> GAN:
    """The GAN that a config describes.

    Args:
        config: with `model` (its `name` and the arguments of that model's `build`) and `audio`.
        statistics: what `measure` returned; a model that needs it builds without, but cannot meet audio.

    Raises:
        ValueError: see `find`; a field that the model cannot use, with its value.
    """
    model = find(config)
    measured = {"statistics": statistics} if model.measure else {}
    return model.build(**_arguments(model.build, config), **measured)


def measure(config, batches: Iterable[np.ndarray]) -> Statistics:
    """What the config's model has to know of its training set, given a batch of audio `[B, T, C]` at a time."""
    function = find(config).measure
    return function(batches, **_arguments(function, config))


def correct(config, batches: Callable[[], Iterable[np.ndarray]], statistics: Statistics) -> Statistics:
    """Statistics with how what the config's model decodes differs from the set, given audio `[B, T, C]` from all over it.

    That is heard as often as `batches` is called.
    """
    function = find(config).correct
    return function(batches, statistics, **_arguments(function, config))


def _arguments(function: Callable, config) -> dict[str, Any]:
    audio = config.audio
    known = dict(config.model) | dict(
        clip_samples=audio.clip_samples, audio_channels=audio.channels, sample_rate_hz=audio.sample_rate_hz
    )
    return {name: known[name] for name in inspect.signature(function).parameters if name in known}
