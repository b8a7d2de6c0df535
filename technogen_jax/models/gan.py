"""The contract between a model and everything else: a GAN is a NamedTuple of pure functions.

Modules are written in Flax NNX and live in `models/` alone. `functional` turns one into pure functions of a plain
nested dict of arrays, so that gradients of gradients, Optax, Orbax and averaging see ordinary pytrees.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

Params = dict[str, Any]

_CALIBRATION_BATCHES, _CALIBRATION_BATCH = 16, 64  # 1,024 latents, in batches of the papers' size


class Endless(NamedTuple):
    """How latents lie in z, and what a model needs that can play without end.

    z is [style | an anchor for each bar | label weights]. `generate` also takes latents of N bars,
    `[B, N, style + anchor + labels]`, and `decode` as many as it is given; N is a multiple of `bars`.

    Attributes:
        bars: of a clip.
        reach_bars: bars on either side on which what `generate` makes depends.
        style_size: numbers of the style.
        anchor_size: numbers of an anchor.
    """

    bars: int
    reach_bars: int
    style_size: int
    anchor_size: int


class GAN(NamedTuple):
    """Everything the rest of the code may ask of a model.

    A model with `classes` knows labels. The last L of its latents are then label weights that sum to 1, and the last L
    channels of x `[B, S, K + L]` are the same weights, constant along S: `generate` and `encode` put them there,
    `discriminate` reads them, `decode` drops them.

    Attributes:
        sample_latents: key, n -> z `[n, Z]`; for each latent one class, all as likely.
        init_g: key -> generator parameters.
        init_d: key -> discriminator parameters.
        generate: g_params, z -> x.
        discriminate: d_params, x, key -> logits: a tuple of `[B, K]`, one a sub-discriminator.
        encode: audio `[B, T, C]` in [-1, 1], and with `classes` label weights `[B, L]` -> x, the domain in which the two
            networks meet.
        decode: x -> audio.
        calibrate: g_params, key -> g_params for making sound: with them `generate` treats each latent by itself,
            whatever else is in the batch. The identity for models without batch normalisation; not for training.
        classes: names of the labels; empty where the model knows none, else `encode_once` is set.
        encode_once: the training set is encoded before the first step, for a model whose `encode` costs more than a step
            and whose window is the whole record.
        endless: of a model that can play without end.
    """

    sample_latents: Callable[[jax.Array, int], jax.Array]
    init_g: Callable[[jax.Array], Params]
    init_d: Callable[[jax.Array], Params]
    generate: Callable[[Params, jax.Array], jax.Array]
    discriminate: Callable[[Params, jax.Array, jax.Array], tuple[jax.Array, ...]]
    encode: Callable[[jax.Array], jax.Array]
    decode: Callable[[jax.Array], jax.Array]
    calibrate: Callable[[Params, jax.Array], Params]
    classes: tuple[str, ...] = ()
    encode_once: bool = False
    endless: Endless | None = None


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


def uniform_latents(latent_size: int) -> Callable[[jax.Array, int], jax.Array]:
    """`sample_latents` of the papers: each of the latents uniform in [-1, 1]."""
    return lambda key, n: jax.random.uniform(key, (n, latent_size), minval=-1.0, maxval=1.0)


def calibration(generator: Functional, sample_latents: Callable) -> Callable[[Params, jax.Array], Params]:
    """`calibrate` of a generator with batch norm: its statistics averaged over many latents."""

    def calibrate(g_params, key):
        def statistics(key):
            return generator.statistics(g_params, sample_latents(key, _CALIBRATION_BATCH))

        measured = jax.lax.map(statistics, jax.random.split(key, _CALIBRATION_BATCHES))
        mean = jax.tree.map(lambda x: jnp.mean(x, 0), measured)
        return g_params | {layer: g_params[layer] | mean[layer] for layer in mean}

    return calibrate
