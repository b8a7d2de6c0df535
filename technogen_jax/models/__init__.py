"""Models: `build(config)` gives the `GAN` that `config.model.name` selects from `MODELS`.

To add one: a file with a `build(...) -> GAN`, a line in `MODELS`, a config. Nothing else changes.
"""

from __future__ import annotations

import inspect

from technogen_jax.models import wavegan
from technogen_jax.models.contract import GAN, count_parameters

__all__ = ["GAN", "MODELS", "build", "count_parameters"]

MODELS = {
    "wavegan": wavegan.build,
}


def build(config) -> GAN:
    """The GAN that a config describes.

    Args:
        config: with `model` (its `name` and the arguments of that model's `build`) and `audio`.

    Raises:
        ValueError: an unknown model, or a field that it does not have or cannot use; names the field and its value.
    """
    options = dict(config.model)
    name = options.pop("name")
    if name not in MODELS:
        raise ValueError(f"config.model.name: expected one of {', '.join(MODELS)}, got {name!r}")
    unknown = options.keys() - inspect.signature(MODELS[name]).parameters.keys()
    if unknown:
        raise ValueError(f"config.model: {name} has no field {', '.join(sorted(unknown))}")
    return MODELS[name](clip_samples=config.audio.clip_samples, audio_channels=config.audio.channels, **options)
