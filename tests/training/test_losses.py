import jax
import jax.numpy as jnp
import numpy as np
import pytest

from technogen_jax.training import losses

KEY = jax.random.key(0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


# (generator's, discriminator's), on single logits r of reals and f of fakes.
NUMPY = {
    "wgan": (lambda r, f: -f, lambda r, f: f - r),
    "dcgan": (lambda r, f: -np.log(sigmoid(f)), lambda r, f: -0.5 * (np.log(sigmoid(r)) + np.log(1 - sigmoid(f)))),
    "lsgan": (lambda r, f: np.square(f - 1), lambda r, f: 0.5 * (np.square(r - 1) + np.square(f))),
    "hinge": (lambda r, f: -f, lambda r, f: np.maximum(0, 1 - r) + np.maximum(0, 1 + f)),
    "relativistic": (lambda r, f: -np.log(sigmoid(f - r)), lambda r, f: -np.log(sigmoid(r - f))),
}


@pytest.mark.parametrize("name", losses.ADVERSARIAL)
def test_adversarial_losses_equal_the_formulas_averaged_over_sub_discriminators(name):
    rng = np.random.default_rng(0)
    real, fake = ([rng.normal(0, 2, size=(6, k)) for k in (1, 5)] for _ in range(2))
    as_jax = [tuple(jnp.asarray(logits, "float32") for logits in side) for side in (real, fake)]
    for side, formula in zip("gd", NUMPY[name], strict=True):
        wanted = np.mean([formula(r, f).mean() for r, f in zip(real, fake, strict=True)])
        np.testing.assert_allclose(getattr(losses.ADVERSARIAL[name], side)(*as_jax), wanted, rtol=1e-5)


@pytest.mark.parametrize("name", losses.ADVERSARIAL)
def test_losses_move_the_logits_in_the_right_direction(name):
    """A step down the discriminator's loss parts the logits; one down the generator's raises those of fakes."""
    real, fake = (jnp.full((4, 1), 0.2),), (jnp.full((4, 1), 0.1),)
    (d_real,), (d_fake,) = jax.grad(losses.ADVERSARIAL[name].d, (0, 1))(real, fake)
    assert (d_real < 0).all() and (d_fake > 0).all()
    (g_fake,) = jax.grad(losses.ADVERSARIAL[name].g, 1)(real, fake)
    assert (g_fake < 0).all()


@pytest.mark.parametrize("name", ["dcgan", "relativistic"])
def test_logistic_losses_stay_finite_for_huge_logits(name):
    for r, f in ((1e4, -1e4), (-1e4, 1e4)):
        for side in losses.ADVERSARIAL[name]:
            value, grads = jax.value_and_grad(side, (0, 1))((jnp.full((1, 1), r),), (jnp.full((1, 1), f),))
            assert np.isfinite(value) and all(np.isfinite(g[0]).all() for g in grads)


def clips(seed):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(5, 7, 2)), "float32")


@pytest.mark.parametrize("scale", [0.0, 0.3, 3.0])
def test_penalties_of_a_linear_score_depend_on_its_weight(scale):
    w = scale * clips(9)[0] / np.linalg.norm(clips(9)[0])  # ||w|| = scale

    def score(x):
        return (jnp.einsum("btc,tc->b", x, w)[:, None],)

    np.testing.assert_allclose(losses.wgan_gp_penalty(score, clips(0), clips(1), KEY), (scale - 1) ** 2, rtol=1e-5)
    np.testing.assert_allclose(losses.zero_centered_penalty(score, clips(0)), scale**2 / 2, rtol=1e-5)


def test_zero_centered_penalty_of_a_quadratic_score():
    x = clips(0)
    # score = (3/2) ||x||^2, its gradient 3 x, half the squared norm of that (9/2) ||x||^2
    wanted = np.mean(np.sum(4.5 * np.square(x), (1, 2)))
    penalty = losses.zero_centered_penalty(lambda x: (1.5 * jnp.sum(x**2, (1, 2))[:, None],), x)
    np.testing.assert_allclose(penalty, wanted, rtol=1e-5)


def test_gradient_penalty_draws_one_mix_for_each_clip():
    real, fake = clips(0), clips(1)
    seen = []

    def score(x):
        seen.append(jax.lax.stop_gradient(x))
        return (0.5 * jnp.sum(x**2, (1, 2))[:, None],)  # its gradient is x

    with jax.disable_jit():
        penalty = losses.wgan_gp_penalty(score, real, fake, KEY)
    mixed = np.asarray(seen[0])
    np.testing.assert_allclose(penalty, np.mean((np.sqrt(np.sum(mixed**2, (1, 2))) - 1) ** 2), rtol=1e-5)
    weights = (mixed - real) / (fake - real)
    mix = np.median(weights, axis=(1, 2))
    np.testing.assert_allclose(weights, np.broadcast_to(mix[:, None, None], weights.shape), atol=1e-3)
    assert (0 < mix).all() and (mix < 1).all() and np.ptp(mix) > 0.1


def test_penalties_sum_the_logits_of_all_sub_discriminators():
    w = clips(3)[0]

    def score(x):
        once = jnp.einsum("btc,tc->b", x, w)[:, None]
        return once, jnp.concatenate([once, -3 * once], 1)  # in sum once + once - 3 once = -once

    np.testing.assert_allclose(losses.zero_centered_penalty(score, clips(0)), np.sum(w**2) / 2, rtol=1e-5)


def test_gradient_penalty_of_a_constant_score_has_a_finite_gradient():
    def penalty(w):
        return losses.wgan_gp_penalty(lambda x: (w * jnp.sum(x, (1, 2))[:, None],), clips(0), clips(1), KEY)

    assert np.isfinite(jax.grad(penalty)(0.0))


def test_gradient_penalty_of_different_shapes_is_an_error():
    with pytest.raises(ValueError, match=r"got \(5, 7, 2\) and \(4, 7, 2\)"):
        losses.wgan_gp_penalty(lambda x: (x,), clips(0), clips(1)[:4], KEY)
