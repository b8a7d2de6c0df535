"""The directions of a model's latent space that change the sound the most: useful controls for an instrument.

Latents have the same distribution in all directions, so their principal components mean nothing. The directions are the
eigenvectors of E[JᵀJ], where J is the Jacobian of x with respect to z: a small step along the first changes x more, in the
mean square over the latent space, than a step along any other; and so on.

The mean of J itself would not do: a step that adds a hat to one loop and removes it from another would cancel out.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from technogen_jax import models

_DRAWS, _BATCH = 1024, 32  # latents in all (ten for each of a hundred dimensions), and at a time (chosen)
_SEED = 0


def find(gan: models.GAN, params: models.contract.Params, count: int) -> np.ndarray:
    """Returns `[count, D]` orthonormal float32 rows, or D rows if D is smaller; always the same for the same model.

    D is the size of the style for a model that plays without end, since its anchors change within a track; for other models the
    size of z without the label weights.

    Args:
        gan: the model.
        params: parameters of its generator.
        count: number of directions.

    Reference: Constantine, Dow, Wang, "Active subspace methods in theory and practice", SIAM J. Sci. Comput. 36(4), 2014
    (arXiv:1304.2070), equation 2.2. E[JᵀJ] is the covariance of Jᵀr with white noise r (Hutchinson 1990), one backward pass
    each. Their use as controls, but not the method: Härkönen et al., GANSpace, 2020 (arXiv:2004.02546).
    """

    @jax.jit
    def pulled(key):
        z_key, r_key = jax.random.split(key)
        z = gan.sample_latents(z_key, _BATCH)
        size = gan.endless.style_size if gan.endless else z.shape[1] - len(gan.classes)
        x, pull = jax.vjp(lambda front: gan.generate(params, jnp.concatenate([front, z[:, size:]], 1)), z[:, :size])
        return pull(jax.random.normal(r_key, x.shape, x.dtype))[0]

    keys = jax.random.split(jax.random.key(_SEED), _DRAWS // _BATCH)
    gradients = np.concatenate([np.asarray(pulled(key), np.float64) for key in keys])
    _, vectors = np.linalg.eigh(gradients.T @ gradients)
    rows = vectors.T[::-1][:count]
    largest = np.take_along_axis(rows, np.abs(rows).argmax(1)[:, None], 1)
    return np.float32(rows * np.sign(largest))  # an eigenvector has no sign of its own
