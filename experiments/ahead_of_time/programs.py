"""The programs of a config, lowered for devices that are not at hand."""

from __future__ import annotations

import ast
import contextlib
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from experiments.bench import steps
from technogen_jax.common import distributed
from technogen_jax.data import batching
from technogen_jax.training.loop import build_training
from technogen_jax.training.step import run_several

PARTS = ("step", "generate", "encode", "decode")
_DECODED = 16  # clips that are encoded, generated and decoded at a time, as commands do


def change_fields(config: ConfigDict, changes: list[str]) -> None:
    """Sets fields of a config, written as "train.batch_size=64"."""
    for change in changes:
        path, _, text = change.partition("=")
        *sections, name = path.removeprefix("config.").split(".")
        node = functools.reduce(lambda node, section: node[section], sections, config)
        value = text
        with contextlib.suppress(ValueError, SyntaxError):
            value = ast.literal_eval(text)
        if name not in node:
            raise ValueError(f"--set: there is no field {path}")
        node[name] = value


@contextlib.contextmanager
def tracing_for(backend: str) -> Iterator[None]:
    """While it is open, models choose the form of their convolutions for another backend."""
    with mock.patch.object(jax, "default_backend", lambda: backend):
        yield


class Programs:
    """The programs of a config on a mesh of devices.

    Args:
        config: with every field.
        mesh: the devices.
        resident: clips of a dataset in the devices' memory; 0: batches come from the host.

    Attributes:
        devices: their number.
    """

    def __init__(self, config: ConfigDict, mesh: Mesh, resident: int = 0):
        self._config, self._mesh, self._resident = config, mesh, resident
        self._statistics = steps.statistics(config)
        self._replicated, self.devices = distributed.replicated(mesh), mesh.size

    def runs(self, part: str) -> int:
        """Returns the steps, or the runs of another part, that its program contains."""
        return self._config.train.steps_per_dispatch if part == "step" else 1

    def trace(self, part: str) -> Any:
        """Returns the traced program of a part of `PARTS`; `lower` it, then `compile`."""
        if part == "step":
            return self._trace_step()
        gan = build_training(self._config, None, self._statistics).gan
        audio = self._config.audio
        clips = jax.ShapeDtypeStruct((_DECODED, audio.clip_samples, audio.channels), jnp.float32)
        latents = jax.eval_shape(lambda key: gan.sample_latents(key, _DECODED), _key())
        params = jax.eval_shape(gan.init_g, _key())
        weights = [jax.ShapeDtypeStruct((_DECODED, len(gan.classes)), jnp.float32)] if gan.classes else []
        if part == "generate":
            return self._jit(gan.generate).trace(params, latents)
        if part == "encode":
            return self._jit(gan.encode).trace(clips, *weights)
        return self._jit(gan.decode).trace(jax.eval_shape(gan.generate, params, latents))

    def _jit(self, function: Callable) -> Any:
        return jax.jit(function, in_shardings=self._replicated, out_shardings=self._replicated)

    def _trace_step(self) -> Any:
        config, train, audio = self._config, self._config.train, self._config.audio
        init = build_training(config, None, self._statistics).init
        state = jax.eval_shape(init, _key())
        shardings = distributed.choose_shardings(state, self._mesh, train.shard_parameters)
        gan, step, _ = build_training(
            config,
            distributed.sharded(self._mesh),
            self._statistics,
            shardings if train.shard_parameters else None,
        )
        lead = (train.steps_per_dispatch, train.n_critic, train.batch_size)
        clip = jax.ShapeDtypeStruct((audio.clip_samples, audio.channels), jnp.int16)
        if gan.encode_once:
            clip = jax.eval_shape(lambda key: gan.generate(gan.init_g(key), gan.sample_latents(key, 1))[0], _key())
        by_row = distributed.sharded(self._mesh, 2)
        clips, of_clips, pick = jax.ShapeDtypeStruct((*lead, *clip.shape), clip.dtype), by_row, None
        if self._resident:
            dataset = jax.ShapeDtypeStruct((self._resident, *clip.shape), clip.dtype)
            clips = dataset, jax.ShapeDtypeStruct((*lead, 3), jnp.int32)
            of_clips, pick = (
                (self._replicated, by_row),
                functools.partial(batching.gather, length=clip.shape[0], rotate=bool(config.data.rotate)),
            )
        jitted = jax.jit(
            run_several(step, pick),
            in_shardings=(shardings, of_clips, self._replicated),
            out_shardings=(shardings, self._replicated),
            donate_argnums=0,
        )
        return jitted.trace(state, clips, _key())


def count_flops(jaxpr: Any) -> float:
    """Returns the floating-point operations of all products and convolutions, loops by their length."""
    total = 0.0
    for equation in jaxpr.eqns:
        name, parameters = equation.primitive.name, equation.params
        out = equation.outvars[0].aval if equation.outvars else None
        if name == "dot_general":
            (contracted, _), _ = parameters["dimension_numbers"]
            left = equation.invars[0].aval.shape
            total += 2.0 * math.prod(out.shape) * math.prod(left[axis] for axis in contracted)
        elif name == "conv_general_dilated":
            numbers, kernel = parameters["dimension_numbers"], equation.invars[1].aval.shape
            taps = math.prod(kernel) / kernel[numbers.rhs_spec[0]]
            total += 2.0 * math.prod(out.shape) * taps / math.prod(parameters["lhs_dilation"])
        length = parameters.get("length", 1) if name == "scan" else 1
        total += length * sum(count_flops(inner) for inner in _inner_jaxprs(parameters))
    return total


def _inner_jaxprs(parameters: dict[str, Any]) -> Iterator[Any]:
    for value in parameters.values():
        for item in value if isinstance(value, (tuple, list)) else [value]:
            inner = getattr(item, "jaxpr", item)
            if hasattr(inner, "eqns"):
                yield inner


def _key() -> Any:
    return jax.eval_shape(lambda: jax.random.key(0))
