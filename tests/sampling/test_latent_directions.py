import jax
import jax.numpy as jnp
import numpy as np
import pytest

from technogen_jax import models
from technogen_jax.models.gan import Endless
from technogen_jax.sampling import latent_directions


def gan_of(make, size, classes=(), endless=None):
    """A GAN that is no more than latents and a function of them."""

    def sample_latents(key, n):
        labels = jnp.tile(jnp.eye(len(classes) or 1)[:1], (n, 1))[:, : len(classes)]
        return jnp.concatenate([jax.random.normal(key, (n, size)), labels], 1)

    nothing = {name: None for name in ("init_g", "init_d", "discriminate", "encode", "decode", "calibrate")}
    return models.GAN(
        **nothing, sample_latents=sample_latents, generate=lambda _, z: make(z), classes=classes, endless=endless
    )


@pytest.fixture(scope="module")
def weights():
    """[5, 40]: a linear generator whose singular values are 9, 6, 4, 2 and 1."""
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.standard_normal((rows, 5)))[0] for rows in (5, 40))
    return np.float32(left * [9, 6, 4, 2, 1] @ right.T)


def test_directions_of_a_linear_generator_are_its_singular_vectors(weights):
    gan = gan_of(lambda z: z @ weights, 5)
    found = latent_directions.find(gan, {}, 3)
    np.testing.assert_array_equal(found, latent_directions.find(gan, {}, 3))
    assert found.shape == (3, 5) and found.dtype == np.float32
    np.testing.assert_allclose(found @ found.T, np.eye(3), atol=1e-6)
    expected = np.linalg.svd(weights)[0].T[:3]
    assert np.abs(np.sum(found * expected, 1)).min() > 0.99  # 1,024 draws leave some chance
    assert (np.take_along_axis(found, np.abs(found).argmax(1)[:, None], 1) > 0).all()


def test_directions_that_cancel_in_the_mean_are_found():
    """x = (3 z1², z0): the mean Jacobian has nothing of z1."""
    found = latent_directions.find(gan_of(lambda z: jnp.stack([3 * z[:, 1] ** 2, z[:, 0]], 1), 4), {}, 2)
    np.testing.assert_allclose(found, np.eye(4)[[1, 0]], atol=0.05)


def test_directions_leave_out_label_weights_and_anchors(weights):
    loud = np.concatenate([weights, 100 * np.ones((3, 40), np.float32)])
    make = lambda z: z @ loud  # noqa: E731
    labelled = latent_directions.find(gan_of(make, 5, classes=("a", "b", "c")), {}, 8)
    assert labelled.shape == (5, 5)  # no more than there are
    loud[2:] *= 100
    endless = latent_directions.find(gan_of(make, 5, ("a", "b", "c"), Endless(1, 1, 2, 3)), {}, 8)
    assert endless.shape == (2, 2)
