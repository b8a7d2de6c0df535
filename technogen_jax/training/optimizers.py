"""Optimizers and learning rate schedules, as the authors of the papers used them."""

from __future__ import annotations

import optax
from ml_collections import ConfigDict

from technogen_jax.training.state import Pair


def make_optimizers(config: ConfigDict) -> Pair:
    """Returns the optimizer of each network, from `config.optimizer` and `config.train`."""
    fields, steps = config.optimizer, config.train.steps
    return Pair(
        *(
            make_optimizer(
                fields.name, make_schedule(rate, updates, fields.tail), fields.b1, fields.b2, fields.largest_update
            )
            for rate, updates in (
                (fields.learning_rate_g, steps),
                (fields.learning_rate_d, steps * config.train.n_critic),
            )
        )
    )


def make_optimizer(
    name: str, learning_rate: float | optax.Schedule, b1: float, b2: float, largest_update: float = 0.0
) -> optax.GradientTransformation:
    """Returns Adam or RMSProp with the defaults of TensorFlow 1, which WaveGAN's authors used.

    One difference: Adam's epsilon is added to the bias-corrected root, as in its paper; TensorFlow
    1 adds it before.

    Args:
        name: "adam" or "rmsprop".
        learning_rate: a number, or a function of the count of updates.
        b1: decay of the first moment, for Adam.
        b2: decay of the second moment, for both.
        largest_update: the largest root mean square of an array's update, in learning rates; 0 for
            no limit. A larger update is scaled down to it: gradients may grow before the second
            moment does.

    Raises:
        ValueError: an unknown name.

    Reference: for the limit, Shazeer, Stern 2018 (arXiv:1804.04235), section 6, where it is 1.
    """
    if name == "adam":
        direction = optax.scale_by_adam(b1=b1, b2=b2, eps=1e-8)
    elif name == "rmsprop":  # TensorFlow 1 starts the mean square at one and adds epsilon under the root
        direction = optax.scale_by_rms(decay=b2, eps=1e-10, initial_scale=1.0, eps_in_sqrt=True)
    else:
        raise ValueError(f"config.optimizer.name: expected adam or rmsprop, got {name!r}")
    limit = [optax.clip_by_block_rms(largest_update)] if largest_update else []
    return optax.chain(direction, *limit, optax.scale_by_learning_rate(learning_rate))


def make_schedule(rate: float, updates: int, tail: float) -> float | optax.Schedule:
    """Returns a learning rate that falls to zero along half a cosine.

    Args:
        rate: at the start.
        updates: their total count.
        tail: share of the updates, the last ones, over which the rate falls; 0: it is constant, a
            plain number.
    """
    if not tail:
        return rate
    constant = round(updates * (1 - tail))
    fall = optax.cosine_decay_schedule(rate, max(1, updates - constant))
    return optax.join_schedules([optax.constant_schedule(rate), fall], [constant])
