"""The state of a training run: what a step changes and a checkpoint contains."""

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
    """The state of a training run.

    Attributes:
        step: `[]` int32, the count of generator updates.
        params: parameters of both networks.
        opt: optimizer states of both networks.
        ema: moving average of the generator's parameters; sound is generated with these.
    """

    step: jax.Array
    params: Pair
    opt: Pair
    ema: Any


def init_state(gan: GAN, optimizers: Pair, key: jax.Array) -> TrainState:
    """Returns the state before the first step."""
    g_key, d_key = jax.random.split(key)
    params = Pair(gan.init_g(g_key), gan.init_d(d_key))
    opt = Pair(optimizers.g.init(params.g), optimizers.d.init(params.d))
    # A copy: the step donates its input, and one buffer cannot be donated twice.
    return TrainState(jnp.zeros((), jnp.int32), params, opt, jax.tree.map(jnp.copy, params.g))
