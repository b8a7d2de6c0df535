"""Models: a GAN is a NamedTuple of pure functions, and a config names the model it wants.

    gan                  what a model is: the functions that the rest of the code calls
    registry             the models by name; `build` returns the GAN that a config describes
    stages               work that a model needs done on the dataset before the first step
    convolutional_config the fields that WaveGAN and SpecGAN share
    wavegan, specgan     the two models of Donahue et al. 2019: waveforms and spectrograms
    technogan            bars that loop, as sequences on the beat grid
    layers               dense layers, convolutions, batch norm, phase shuffle
    convolution          convolutions computed by phases and by frequency

To add a model: write a file with a config dataclass and `build`, add a line to `registry.MODELS`,
and write a config file.
"""

from technogen_jax.models.gan import GAN, Params, count_parameters
from technogen_jax.models.registry import (
    MODELS,
    Model,
    Statistics,
    add_missing_fields,
    build,
    check_values,
    default_fields,
    differences,
    find,
    measure,
)

__all__ = [
    "GAN",
    "MODELS",
    "Model",
    "Params",
    "Statistics",
    "add_missing_fields",
    "build",
    "check_values",
    "count_parameters",
    "default_fields",
    "differences",
    "find",
    "measure",
]
