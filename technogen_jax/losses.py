"""Adversarial losses and gradient penalties, on logits that are a tuple of `[B, K]`, one a sub-discriminator."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import relu, softplus

from technogen_jax import dsp

Logits = tuple[jax.Array, ...]
_ENERGY_N_FFT = (256, 512, 1024, 2048, 4096)


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


def spectral_energy(
    real: jax.Array, first: jax.Array, second: jax.Array, sample_rate_hz: float
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """How far two sounds made from one code, by different noise, are from the real one, beyond what they differ by themselves.

    The energy distance, a proper score: its least value is reached by sounds that are distributed as the real ones, noise as
    noise, not by their mean. The distance of two sounds is that of their spectra at five resolutions, magnitudes to the
    power 0.3, weighted over frequency about as a mel scale is dense; the first channel counts twice the others.

    Args:
        real: `[B, C, T]` in [-1, 1].
        first: of the same shape.
        second: of the same shape.
        sample_rate_hz: of all.

    Returns:
        The loss, and its parts: "attraction", the mean distance to the real, and "repulsion", half the distance of the two.

    *Source*: Gritsenko et al. 2020 (arXiv:2008.01160), eq. 5 with their generalised energy distance.
    """
    attraction = repulsion = 0.0
    for n_fft in _ENERGY_N_FFT:
        spectra = [_compressed(sound, n_fft) for sound in (real, first, second)]
        frequencies_hz = np.arange(n_fft // 2 + 1) * (sample_rate_hz / n_fft)
        weights = 1 / (700 + frequencies_hz)  # the slope of the mel scale
        weights = (weights / weights.sum()).astype(np.float32)

        def distance(a, b, weights=weights):
            by_channel = jnp.mean(jnp.sum(jnp.abs(a - b) * weights, -1), (0, 2))
            return by_channel[0] + jnp.sum(by_channel[1:]) / 2

        attraction += (distance(spectra[0], spectra[1]) + distance(spectra[0], spectra[2])) / 2
        repulsion += distance(spectra[1], spectra[2]) / 2
    return attraction - repulsion, {"attraction": attraction, "repulsion": repulsion}


def _compressed(sound: jax.Array, n_fft: int) -> jax.Array:
    """`[B, C, T]` to magnitudes `[B, C, N, n_fft // 2 + 1]` to the power 0.3, a sine at full scale being about 1."""
    hop = n_fft // 2
    blocks = sound[..., : sound.shape[-1] // hop * hop].reshape(*sound.shape[:-1], -1, hop)
    spectrum = jnp.fft.rfft(jnp.concatenate([blocks[..., :-1, :], blocks[..., 1:, :]], -1) * dsp.hann(n_fft))
    power = (spectrum.real**2 + spectrum.imag**2) * (4 / n_fft) ** 2
    return (power + 1e-9) ** 0.15  # -90 dB: what is below says nothing
