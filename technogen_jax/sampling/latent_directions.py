"""Directions of a model's latent space, those that change the most first: what an instrument puts under one's fingers.

Latents are drawn alike in all directions, so their own principal components say nothing. What counts is what the generator makes
of them: these are the eigenvectors of E[JᵀJ], J being the Jacobian of x by z. A small step along the first changes x more, in
the mean square over the latent space, than one along any other; and so on.

A mean of J itself would miss most of it: a step that adds a hat to one loop and takes it from another would cancel.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from technogen_jax import models

_DRAWS, _BATCH = 1024, 32  # latents that are looked at: ten for each dimension of a hundred; at a time
_SEED = 0


def find(gan: models.GAN, params: models.contract.Params, count: int) -> np.ndarray:
    """`[count, D]` orthonormal float32 rows; fewer where D is smaller. The same for the same model.

    D is the style of a model that plays without end, since anchors change within a track; of another, all of z but the label
    weights.

    Args:
        gan: the model.
        params: of its generator.
        count: how many.

    *Source*: Constantine, Dow, Wang, "Active subspace methods in theory and practice", SIAM J. Sci. Comput. 36(4), 2014
    (arXiv:1304.2070), equation 2.2. E[JᵀJ] is the covariance of Jᵀr with white noise r (Hutchinson 1990), one backward pass each. The use,
    but not the way to find them: Härkönen et al., GANSpace, 2020 (arXiv:2004.02546).
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
