"""Optimizers and learning rates, as the papers' authors used them."""

from __future__ import annotations

import optax


def make_optimizer(
    name: str, learning_rate: float | optax.Schedule, b1: float, b2: float, largest_update: float = 0.0
) -> optax.GradientTransformation:
    """Adam or RMSProp as WaveGAN's authors used them: TensorFlow 1's defaults for what has no argument.

    Adam's epsilon meets the bias-corrected root, as in its paper; TensorFlow 1 has it before the correction.

    Args:
        name: "adam" or "rmsprop".
        learning_rate: step size, or a function of the number of updates.
        b1: Adam's decay of the first moment.
        b2: decay of the second moment, in RMSProp too.
        largest_update: of each array, root mean square in learning rates; a larger one, as when gradients suddenly grow and
            the second moment has not seen it yet, is scaled down to it. 0: no limit.

    Raises:
        ValueError: another name.

    *Source*: the limit: Shazeer, Stern 2018 (arXiv:1804.04235), section 6, where it is 1.
    """
    if name == "adam":
        direction = optax.scale_by_adam(b1=b1, b2=b2, eps=1e-8)
    elif name == "rmsprop":  # TensorFlow 1 starts the mean square at one and adds epsilon under the root
        direction = optax.scale_by_rms(decay=b2, eps=1e-10, initial_scale=1.0, eps_in_sqrt=True)
    else:
        raise ValueError(f"config.optimizer.name: expected adam or rmsprop, got {name!r}")
    limit = [optax.clip_by_block_rms(largest_update)] if largest_update else []
    return optax.chain(direction, *limit, optax.scale_by_learning_rate(learning_rate))


def falling(rate: float, updates: int, tail: float) -> float | optax.Schedule:
    """A learning rate that falls to zero by half a cosine.

    Args:
        rate: to begin with.
        updates: in all.
        tail: share of them, the last ones, over which it falls; 0: it stays, a plain number.
    """
    if not tail:
        return rate
    constant = round(updates * (1 - tail))
    fall = optax.cosine_decay_schedule(rate, max(1, updates - constant))
    return optax.join_schedules([optax.constant_schedule(rate), fall], [constant])
