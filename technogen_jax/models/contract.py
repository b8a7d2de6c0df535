"""The contract between a model and everything else: a GAN is a NamedTuple of pure functions.

Modules are written in Flax NNX and live in `models/` alone. `functional` turns one into pure functions of a plain
nested dict of arrays, so that gradients of gradients, Optax, Orbax and averaging see ordinary pytrees.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from flax import nnx

Params = dict[str, Any]


class GAN(NamedTuple):
    """Everything the rest of the code may ask of a model.

    Attributes:
        sample_latents: key, n -> z `[n, Z]`.
        init_g: key -> generator parameters.
        init_d: key -> discriminator parameters.
        generate: g_params, z -> x.
        discriminate: d_params, x, key -> logits: a tuple of `[B, K]`, one a sub-discriminator.
        encode: audio `[B, T, C]` in [-1, 1] -> x, the domain in which the two networks meet.
        decode: x -> audio.
        calibrate: g_params, key -> g_params for making sound: with them `generate` treats each latent by itself,
            whatever else is in the batch. The identity for models without batch normalisation; not for training.
    """

    sample_latents: Callable[[jax.Array, int], jax.Array]
    init_g: Callable[[jax.Array], Params]
    init_d: Callable[[jax.Array], Params]
    generate: Callable[[Params, jax.Array], jax.Array]
    discriminate: Callable[[Params, jax.Array, jax.Array], tuple[jax.Array, ...]]
    encode: Callable[[jax.Array], jax.Array]
    decode: Callable[[jax.Array], jax.Array]
    calibrate: Callable[[Params, jax.Array], Params]


class Functional(NamedTuple):
    """A module as pure functions.

    Attributes:
        init: key -> what is trained, a nested dict of arrays.
        apply: params, *args -> the module's output.
        statistics: params, *args -> the batch statistics of that call, a nested dict that fits into params.
    """

    init: Callable[[jax.Array], Params]
    apply: Callable[..., Any]
    statistics: Callable[..., Params]


def functional(make: Callable[..., nnx.Module]) -> Functional:
    """Pure functions for the module that `make(rngs=...)` returns; `make` is traced, never run, until `init`."""
    graphdef, abstract_state = nnx.split(nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0))))

    def init(key):
        return nnx.to_pure_dict(nnx.state(make(rngs=nnx.Rngs(key)), nnx.Param))

    def merge(params):
        state = jax.tree.map(lambda x: x, abstract_state)  # a fresh container: replacing must not touch the template
        nnx.replace_by_pure_dict(state, params)
        return nnx.merge(graphdef, state, copy=True)  # a copy, so that statistics may be set inside a gradient

    def apply(params, *args):
        return merge(params)(*args)

    def statistics(params, *args):
        module = merge(params)
        module(*args)
        return nnx.to_pure_dict(nnx.state(module, nnx.BatchStat))

    return Functional(init, apply, statistics)


def count_parameters(params: Params) -> int:
    """Number of scalars in a tree of arrays or of shapes."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
