"""What fits into the memory of a device."""

from __future__ import annotations

import math
import os

import jax
from ml_collections import ConfigDict

from technogen_jax import models
from technogen_jax.training.errors import TrainError
from technogen_jax.training.state import TrainState

_DATASET_SHARE = 0.1  # chosen: with data.resident "auto" a dataset may take this share of a device's memory


def read_memory_bytes() -> float:
    """Returns the memory of a device; for a CPU, the memory of the machine; infinity if it is not known."""
    statistics = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in statistics:
        return statistics["bytes_limit"]
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return math.inf


def check_state_fits(config: ConfigDict, shapes: TrainState, shardings: TrainState) -> None:
    """Checks that the state fits into a device; what a step needs besides is not counted.

    Raises:
        TrainError: the state is larger than the device's memory.
    """
    needed = sum(
        math.prod(sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf, sharding in zip(jax.tree.leaves(shapes), jax.tree.leaves(shardings), strict=True)
    )
    if needed > (available := read_memory_bytes()):
        raise TrainError(
            f"config.model: {config.model.name} of this size needs {needed / 1e9:.3g} GB for its "
            f"{models.count_parameters(shapes.params) / 1e6:.3g} M parameters, their optimizer states and averages alone, and "
            f"the device has {available / 1e9:.3g} GB; lower config.model.channels"
        )


def dataset_stays_on_device(config: ConfigDict, clips: jax.ShapeDtypeStruct) -> bool:
    """Whether all clips are to be in the devices' memory: as configured by config.data.resident.

    "auto" means yes if the device is an accelerator and the clips take a small share of its memory.
    A CPU gains nothing.
    """
    if config.data.resident == "auto" and jax.default_backend() != "cpu":
        return math.prod(clips.shape) * clips.dtype.itemsize <= _DATASET_SHARE * read_memory_bytes()
    return config.data.resident == "always"
