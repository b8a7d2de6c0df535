import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from technogen_jax.models import gan as contract
from technogen_jax.models.layers import BatchNorm, Dense

KEY = jax.random.key(0)


class Small(nnx.Module):
    def __init__(self, *, rngs):
        self.dense = Dense(3, 4, rngs=rngs)
        self.norm = BatchNorm(4)
        self.output = Dense(4, 1, rngs=rngs)

    def __call__(self, x):
        return self.output(jnp.tanh(self.norm(self.dense(x))))


@pytest.fixture
def small():
    return contract.functional(Small)


def test_parameters_are_a_plain_dict_of_arrays_of_what_is_trained(small):
    params = small.init(KEY)
    shapes = jax.tree.map(jnp.shape, params)
    assert type(params) is dict and type(params["dense"]) is dict
    assert shapes == {
        "dense": {"kernel": (3, 4), "bias": (4,)},
        "norm": {"scale": (4,), "bias": (4,)},
        "output": {"kernel": (4, 1), "bias": (1,)},
    }
    assert contract.count_parameters(params) == 12 + 4 + 8 + 4 + 1
    assert contract.count_parameters(jax.eval_shape(small.init, KEY)) == 29


def test_apply_is_pure_and_initial_values_are_the_keys(small):
    params, x = small.init(KEY), jnp.arange(6.0).reshape(2, 3)
    first = small.apply(params, x)
    np.testing.assert_array_equal(small.apply(params, x), first)
    np.testing.assert_array_equal(small.apply(small.init(KEY), x), first)
    np.testing.assert_allclose(jax.jit(small.apply)(params, x), first, atol=1e-6)
    assert "mean" not in params["norm"]


def test_gradient_of_gradient_with_batch_statistics_inside(small):
    params, x = jax.jit(small.init)(KEY), jax.random.normal(KEY, (5, 3))

    @jax.jit
    def penalty(params):
        return jnp.sum(jax.grad(lambda x: jnp.sum(small.apply(params, x) ** 2))(x) ** 2)

    with jax.enable_x64(True):
        params, x = jax.tree.map(lambda a: jnp.asarray(a, "float64"), (params, x))
        gradient = float(jax.grad(penalty)(params)["dense"]["kernel"][0, 0])
        nudged = [
            float(
                penalty({**params, "dense": {**params["dense"], "kernel": params["dense"]["kernel"].at[0, 0].add(h)}})
            )
            for h in (1e-5, -1e-5)
        ]
    np.testing.assert_allclose(gradient, (nudged[0] - nudged[1]) / 2e-5, rtol=1e-4)


def test_statistics_are_of_the_call_and_are_used_once_among_the_parameters(small):
    params, x = small.init(KEY), jax.random.normal(KEY, (7, 3))
    statistics = small.statistics(params, x)
    hidden = x @ params["dense"]["kernel"]
    np.testing.assert_allclose(statistics["norm"]["mean"], hidden.mean(0), atol=1e-6)
    np.testing.assert_allclose(statistics["norm"]["var"], hidden.var(0), atol=1e-6)
    stored = params | {"norm": params["norm"] | statistics["norm"]}
    np.testing.assert_allclose(small.apply(stored, x[:1]), small.apply(params, x)[:1], atol=1e-6)
