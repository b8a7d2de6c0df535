"""Adversarial losses and gradient penalties, on logits that are a tuple of `[B, K]`, one a sub-discriminator."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import relu, softplus

Logits = tuple[jax.Array, ...]


class Adversarial(NamedTuple):
    """What each side minimises: (logits of reals, logits of fakes) -> scalar.

    A generator's loss may look at the reals (relativistic) or not (the others).
    """

    g: Callable[[Logits, Logits], jax.Array]
    d: Callable[[Logits, Logits], jax.Array]


def _per_logit(loss):
    """Lifts a loss of two logits to tuples of `[B, K]`: the mean over each, then over the sub-discriminators."""
    return lambda real, fake: sum(jnp.mean(loss(r, f)) for r, f in zip(real, fake, strict=True)) / len(real)


# Sources: wgan: Arjovsky et al. 2017 (arXiv:1701.07875), eq. 2 and algorithm 1; with a gradient penalty it is WGAN-GP.
# dcgan: Goodfellow et al. 2014 (arXiv:1406.2661), non-saturating; the halves are WaveGAN's authors'. lsgan: Mao et al. 2017
# (arXiv:1611.04076), eq. 9. hinge: Lim and Ye 2017 (arXiv:1705.02894). relativistic: Jolicoeur-Martineau 2018
# (arXiv:1807.00734) in the pairing form of Huang et al. 2024 (arXiv:2501.05441), to be used with R1 and R2.
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
    """Mean of (‖∇score(x̂)‖₂ - 1)² over x̂ drawn evenly between each real and its fake.

    Args:
        score: x `[B, ...]` -> logits.
        real: `[B, ...]`.
        fake: the same shape.
        key: draws one mixing weight a clip, uniform in (0, 1).

    Raises:
        ValueError: real and fake differ in shape.

    *Source*: Gulrajani et al. 2017 (arXiv:1704.00028), eq. 3; the norm runs over all axes of a clip.
    """
    if real.shape != fake.shape:
        raise ValueError(f"wgan_gp_penalty: expected real and fake of one shape, got {real.shape} and {fake.shape}")
    mix = jax.random.uniform(key, (len(real),) + (1,) * (real.ndim - 1))
    squared = _squared_gradient(score, real + mix * (fake - real))
    # The root's derivative is infinite at zero, where a discriminator that has not learnt anything may sit.
    return jnp.mean((jnp.sqrt(squared + 1e-12) - 1) ** 2)


def zero_centered_penalty(score: Callable[[jax.Array], Logits], x: jax.Array) -> jax.Array:
    """Half the mean of ‖∇score(x)‖₂²: R1 where x is real, R2 where it is fake.

    *Source*: Mescheder, Geiger, Nowozin 2018 (arXiv:1801.04406), eqs. 9 and 10, without the factor γ.
    """
    return jnp.mean(_squared_gradient(score, x)) / 2


def _squared_gradient(score, x):
    """[B]: the squared norm of the gradient of each clip's summed logits with regard to that clip."""
    gradient = jax.grad(lambda x: sum(jnp.sum(logits) for logits in score(x)))(x)
    return jnp.sum(gradient**2, axis=tuple(range(1, x.ndim)))
