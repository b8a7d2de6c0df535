import jax.numpy as jnp
import numpy as np
import optax
import pytest

from technogen_jax.training.optimizers import make_optimizer, make_schedule


@pytest.mark.parametrize("b2", [0.9, 0.5])
def test_rmsprop_equals_tensorflow_1(b2):
    """The mean square starts at one and epsilon 1e-10 is under the root."""
    optimizer = make_optimizer("rmsprop", 0.01, 0.5, b2)
    w, mean_square = np.array([1.0, -2.0, 0.0]), np.ones(3)
    params = jnp.asarray(w)
    state = optimizer.init(params)
    for gradient in np.random.default_rng(0).normal(size=(5, 3)) * [1, 1e-3, 0]:
        mean_square = b2 * mean_square + (1 - b2) * gradient**2
        w = w - 0.01 * gradient / np.sqrt(mean_square + 1e-10)
        updates, state = optimizer.update(jnp.asarray(gradient), state, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(params, w, rtol=1e-6)


def test_adam_equals_its_paper():
    optimizer = make_optimizer("adam", 0.01, 0.5, 0.9)
    w, first, second = np.array([1.0, -2.0]), 0.0, 0.0
    params = jnp.asarray(w)
    state = optimizer.init(params)
    for t, gradient in enumerate(np.random.default_rng(0).normal(size=(5, 2)), 1):
        first, second = 0.5 * first + 0.5 * gradient, 0.9 * second + 0.1 * gradient**2
        w = w - 0.01 * (first / (1 - 0.5**t)) / (np.sqrt(second / (1 - 0.9**t)) + 1e-8)
        updates, state = optimizer.update(jnp.asarray(gradient), state, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(params, w, rtol=1e-6)


@pytest.mark.parametrize("name", ["adam", "rmsprop"])
def test_large_update_is_scaled_down_to_the_limit_for_each_array(name):
    params = {"calm": jnp.ones(4), "wild": jnp.ones(3)}
    updates = {}
    for limit in (0.0, 2.0):
        optimizer = make_optimizer(name, 0.01, 0.0, 0.99, limit)
        state = optimizer.init(params)
        for size in (*[1e-3] * 300, 1.0):  # what the mean square is used to, and then a thousand times as much
            gradients = {"calm": jnp.full(4, 1e-3), "wild": size * jnp.array([1.0, -2.0, 0.0])}
            updates[limit], state = optimizer.update(gradients, state, params)
    free, held = updates[0.0], updates[2.0]
    np.testing.assert_array_equal(held["calm"], free["calm"])
    assert np.sqrt(np.mean(free["wild"] ** 2)) > 0.03
    np.testing.assert_allclose(np.sqrt(np.mean(held["wild"] ** 2)), 0.02, rtol=1e-5)
    np.testing.assert_allclose(held["wild"] / held["wild"][0], free["wild"] / free["wild"][0], rtol=1e-6)


def test_unknown_optimizer_is_an_error():
    with pytest.raises(ValueError, match="config.optimizer.name: expected adam or rmsprop, got 'sgd'"):
        make_optimizer("sgd", 0.1, 0.5, 0.9)


def test_schedule_is_half_a_cosine_over_the_tail():
    assert make_schedule(0.1, 1000, 0) == 0.1
    rate = make_schedule(0.1, 1000, 0.4)
    found = [float(rate(count)) for count in (0, 599, 600, 700, 800, 1000)]
    shares = [1, 1, 1, (1 + np.cos(np.pi / 4)) / 2, 0.5, 0]
    np.testing.assert_allclose(found, 0.1 * np.array(shares), atol=1e-7)
