"""All that a training run carries from one step to the next."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from technogen_jax.models import GAN


class Pair(NamedTuple):
    """One value for the generator, one for the discriminator."""

    g: Any
    d: Any


class TrainState(NamedTuple):
    """All that a training run carries from one step to the next.

    Attributes:
        step: `[]` int32, generator updates done so far.
        params: of both networks.
        opt: optimiser states of both.
        ema: averaged generator parameters, the ones that sound is made from.
    """

    step: jax.Array
    params: Pair
    opt: Pair
    ema: Any


def init_state(gan: GAN, optimizers: Pair, key: jax.Array) -> TrainState:
    """The state before the first step."""
    g_key, d_key = jax.random.split(key)
    params = Pair(gan.init_g(g_key), gan.init_d(d_key))
    opt = Pair(optimizers.g.init(params.g), optimizers.d.init(params.d))
    # A copy: the step donates its input, and one buffer cannot be given away twice.
    return TrainState(jnp.zeros((), jnp.int32), params, opt, jax.tree.map(jnp.copy, params.g))
