"""The interface of a model: `GAN`, a NamedTuple of pure functions.

The other packages call nothing else of a model.

Networks are Flax NNX modules, which only `models/` imports. `functional` turns a module into pure
functions of a nested dict of arrays, so that gradients of gradients, Optax, Orbax and averaging
work on ordinary pytrees.
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
    """Properties of a model that can generate any number of bars: its latents, and the reach of a bar.

    z is [style | an anchor for each bar | label weights]. `generate` also takes latents of N bars,
    `[B, N, style + anchor + labels]`, N a multiple of `bars`, and `decode` takes as many bars as it
    is given.

    Attributes:
        bars: bars of a clip.
        reach_bars: bars on either side on which the generated x of a bar depends.
        style_size: components of the style.
        anchor_size: components of an anchor.
    """

    bars: int
    reach_bars: int
    style_size: int
    anchor_size: int


class GAN(NamedTuple):
    """All functions of a model that the other packages call.

    A model with `classes` has labels. The last L components of its latents are then label weights
    that sum to 1, and the last L channels of x `[B, S, K + L]` are the same weights, constant along
    S. `generate` and `encode` put them there, `discriminate` reads them, `decode` drops them.

    Attributes:
        sample_latents: key, n -> z `[n, Z]`; each latent has one class, all equally likely.
        init_g: key -> generator parameters.
        init_d: key -> discriminator parameters.
        generate: g_params, z -> x.
        discriminate: d_params, x, key -> logits: a tuple of `[B, K]`, one for each
            sub-discriminator.
        encode: audio `[B, T, C]` in [-1, 1], and with `classes` label weights `[B, L]` -> x, the
            domain of what `generate` returns and `discriminate` sees.
        decode: x -> audio. A model with `decode_noise` takes a second argument: the noise that is
            part of the sound. Without it, `decode` draws the noise from x.
        calibrate: g_params, key -> g_params for generating. With them, `generate` treats each
            latent by itself, whatever else is in the batch. The identity for models without batch
            normalization; not for training.
        classes: names of the labels; empty for a model without labels. With labels, `encode_once`
            is True.
        encode_once: whether the dataset is encoded before the first step: for a model whose
            `encode` costs more than a step and whose clip is the whole record.
        endless: None if the model cannot generate more bars than a clip has.
        decode_noise: x -> the noise `[B, C, T]` that `decode` draws for x. With it an exported
            model can be given its noise. None if `decode` needs no noise.
    """

    sample_latents: Callable[[jax.Array, int], jax.Array]
    init_g: Callable[[jax.Array], Params]
    init_d: Callable[[jax.Array], Params]
    generate: Callable[[Params, jax.Array], jax.Array]
    discriminate: Callable[[Params, jax.Array, jax.Array], tuple[jax.Array, ...]]
    encode: Callable[..., jax.Array]
    decode: Callable[..., jax.Array]
    calibrate: Callable[[Params, jax.Array], Params]
    classes: tuple[str, ...] = ()
    encode_once: bool = False
    endless: Endless | None = None
    decode_noise: Callable[[jax.Array], jax.Array] | None = None


class Functional(NamedTuple):
    """A module as pure functions.

    Attributes:
        init: key -> the trained parameters, a nested dict of arrays.
        apply: params, *args -> the output of the module.
        statistics: params, *args -> the batch statistics of that call, a nested dict that can be
            merged into params.
    """

    init: Callable[[jax.Array], Params]
    apply: Callable[..., Any]
    statistics: Callable[..., Params]


def functional(make: Callable[..., nnx.Module]) -> Functional:
    """Returns pure functions of a module.

    Args:
        make: called with `rngs`, returns the module; it is traced here and runs in `init`.
    """
    graphdef, abstract_state = nnx.split(nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0))))

    def init(key):
        return nnx.to_pure_dict(nnx.state(make(rngs=nnx.Rngs(key)), nnx.Param))

    def merge(params):
        state = jax.tree.map(lambda x: x, abstract_state)  # a new container: the template must not change
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
    """Returns the number of scalars in a tree of arrays or of shapes."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def uniform_latents(latent_size: int) -> Callable[[jax.Array, int], jax.Array]:
    """Returns `GAN.sample_latents` of the papers: every component is uniform in [-1, 1]."""
    return lambda key, n: jax.random.uniform(key, (n, latent_size), minval=-1.0, maxval=1.0)


def calibration(generator: Functional, sample_latents: Callable) -> Callable[[Params, jax.Array], Params]:
    """Returns `GAN.calibrate` of a generator with batch normalization: means over many latents."""

    def calibrate(g_params, key):
        def statistics(key):
            return generator.statistics(g_params, sample_latents(key, _CALIBRATION_BATCH))

        measured = jax.lax.map(statistics, jax.random.split(key, _CALIBRATION_BATCHES))
        mean = jax.tree.map(lambda x: jnp.mean(x, 0), measured)
        return g_params | {layer: g_params[layer] | mean[layer] for layer in mean}

    return calibrate
