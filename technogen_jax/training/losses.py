"""Adversarial losses and gradient penalties.

Logits are a tuple of arrays `[B, K]`, one for each sub-discriminator.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import relu, softplus

Logits = tuple[jax.Array, ...]


class Adversarial(NamedTuple):
    """The two losses, each (logits of reals, logits of fakes) -> scalar.

    Attributes:
        g: what the generator minimizes; only a relativistic loss depends on the reals.
        d: what the discriminator minimizes.
    """

    g: Callable[[Logits, Logits], jax.Array]
    d: Callable[[Logits, Logits], jax.Array]


def _per_logit(loss):
    """Returns a loss of tuples of `[B, K]`: its mean over each array, then over the tuple."""
    return lambda real, fake: sum(jnp.mean(loss(r, f)) for r, f in zip(real, fake, strict=True)) / len(real)


# The values of config.loss.adversarial. References: wgan Arjovsky et al. 2017 (arXiv:1701.07875),
# eq. 2 and algorithm 1; WGAN-GP with a gradient penalty. dcgan Goodfellow et al. 2014
# (arXiv:1406.2661), non-saturating; the factor 1/2 is from WaveGAN's code. lsgan Mao et al. 2017
# (arXiv:1611.04076), eq. 9. hinge Lim and Ye 2017 (arXiv:1705.02894). relativistic
# Jolicoeur-Martineau 2018 (arXiv:1807.00734), in the paired form of Huang et al. 2024
# (arXiv:2501.05441), to be used with R1 and R2.
ADVERSARIAL = {
    "wgan": Adversarial(
        g=_per_logit(lambda real, fake: -fake),
        d=_per_logit(lambda real, fake: fake - real),
    ),
    "dcgan": Adversarial(
        g=_per_logit(lambda real, fake: softplus(-fake)),
        d=_per_logit(lambda real, fake: (softplus(fake) + softplus(-real)) / 2),
    ),
    "lsgan": Adversarial(
        g=_per_logit(lambda real, fake: (fake - 1) ** 2),
        d=_per_logit(lambda real, fake: ((real - 1) ** 2 + fake**2) / 2),
    ),
    "hinge": Adversarial(
        g=_per_logit(lambda real, fake: -fake),
        d=_per_logit(lambda real, fake: relu(1 - real) + relu(1 + fake)),
    ),
    "relativistic": Adversarial(
        g=_per_logit(lambda real, fake: softplus(real - fake)),
        d=_per_logit(lambda real, fake: softplus(fake - real)),
    ),
}


def wgan_gp_penalty(
    score: Callable[[jax.Array], Logits], real: jax.Array, fake: jax.Array, key: jax.Array
) -> jax.Array:
    """Returns the mean of (‖∇score(x̂)‖₂ - 1)², x̂ drawn uniformly between each real and its fake.

    Args:
        score: x `[B, ...]` -> logits.
        real: `[B, ...]`.
        fake: the same shape.
        key: for the mixing weights, one per clip, uniform in (0, 1).

    Raises:
        ValueError: real and fake differ in shape.

    Reference: Gulrajani et al. 2017 (arXiv:1704.00028), eq. 3; the norm is over all axes of a clip.
    """
    if real.shape != fake.shape:
        raise ValueError(f"wgan_gp_penalty: expected real and fake of one shape, got {real.shape} and {fake.shape}")
    mix = jax.random.uniform(key, (len(real),) + (1,) * (real.ndim - 1))
    squared = _squared_gradient(score, real + mix * (fake - real))
    # The derivative of the root is infinite at zero, where the gradient of an untrained
    # discriminator may be.
    return jnp.mean((jnp.sqrt(squared + 1e-12) - 1) ** 2)


def zero_centered_penalty(score: Callable[[jax.Array], Logits], x: jax.Array) -> jax.Array:
    """Returns half the mean of ‖∇score(x)‖₂²: R1 if x is real, R2 if x is fake.

    Reference: Mescheder, Geiger, Nowozin 2018 (arXiv:1801.04406), eqs. 9 and 10, without the factor
    γ.
    """
    return jnp.mean(_squared_gradient(score, x)) / 2


def _squared_gradient(score, x):
    """Returns `[B]`: the squared norm of the gradient of each clip's summed logits."""
    gradient = jax.grad(lambda x: sum(jnp.sum(logits) for logits in score(x)))(x)
    return jnp.sum(gradient**2, axis=tuple(range(1, x.ndim)))
