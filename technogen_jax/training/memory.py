"""What fits into the memory of a device."""

from __future__ import annotations

import contextlib
import math
import os
import pathlib

import jax
from ml_collections import ConfigDict

from technogen_jax import models
from technogen_jax.training.errors import TrainError
from technogen_jax.training.state import TrainState

_CONTAINER_LIMITS = [  # files with the limit of a container, of both versions of Linux' control groups
    pathlib.Path("/sys/fs/cgroup/memory.max"),
    pathlib.Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
]
_SURE_SHARE = 0.8  # chosen: of the batch that fits by proportion; other programs need memory too
_DATASET_SHARE = 0.1  # chosen: with data.resident "auto" a dataset may take this share of a device's memory


def read_memory_bytes() -> float:
    """Returns the memory of a device; for a CPU, that of the machine or container; infinity if it is not known."""
    statistics = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in statistics:
        return statistics["bytes_limit"]
    found = [math.inf]
    with contextlib.suppress(AttributeError, ValueError, OSError):  # Windows has no sysconf
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for path in _CONTAINER_LIMITS:
        with contextlib.suppress(ValueError, OSError):  # "max": no limit
            found.append(int(path.read_text(encoding="ascii")))
    return min(found)


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


def check_step_fits(config: ConfigDict, program: jax.stages.Compiled) -> None:
    """Checks that a compiled training step fits into a device.

    Args:
        config: the config of the run.
        program: the step.

    Raises:
        TrainError: it needs more than the device's memory; names a batch that fits.
    """
    sizes = program.memory_analysis()
    if sizes is None:  # not every device tells
        return
    fixed, available = sizes.argument_size_in_bytes, read_memory_bytes()
    if fixed + sizes.temp_size_in_bytes <= available:
        return
    batch = config.train.batch_size
    fitting = int(batch * max(0, available - fixed) / sizes.temp_size_in_bytes * _SURE_SHARE)
    advice = f"try config.train.batch_size={fitting}" if 1 <= fitting < batch else "lower config.model.channels"
    raise TrainError(
        f"config.train.batch_size: a step with {batch} clips needs {(fixed + sizes.temp_size_in_bytes) / 1e9:.3g} GB, and "
        f"the device has {available / 1e9:.3g} GB; {advice}"
    )


def dataset_stays_on_device(config: ConfigDict, clips: jax.ShapeDtypeStruct) -> bool:
    """Whether all clips are to be in the devices' memory: as configured by config.data.resident.

    "auto" means yes if the device is an accelerator and the clips take a small share of its memory.
    A CPU gains nothing.
    """
    if config.data.resident == "auto" and jax.default_backend() != "cpu":
        return math.prod(clips.shape) * clips.dtype.itemsize <= _DATASET_SHARE * read_memory_bytes()
    return config.data.resident == "always"
