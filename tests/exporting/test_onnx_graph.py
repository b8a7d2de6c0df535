import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

pytest.importorskip("onnx", reason="pip install -r requirements-export.txt")
onnxruntime = pytest.importorskip("onnxruntime", reason="pip install -r requirements-export.txt")
from technogen_jax.exporting import onnx_graph  # noqa: E402
from technogen_jax.models import layers  # noqa: E402

RNG = np.random.default_rng(0)
TABLE = RNG.standard_normal((7, 3)).astype(np.float32)


def run(function, *inputs):
    """What onnxruntime makes of a function of arrays."""
    named = {f"input_{i}": np.float32(x) for i, x in enumerate(inputs)}
    model = onnx_graph.convert(function, {name: x.shape for name, x in named.items()}, "output")
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(None, {name: x for name, x in named.items() if name in {i.name for i in session.get_inputs()}})[
        0
    ]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: jnp.exp(-x) + jnp.tanh(x) * jnp.sin(x) / jnp.sqrt(1 + x**2) - jnp.cos(x**3),
        lambda x: jnp.where((x > 0) & (x != 1) | ~(x <= 1), lax.rsqrt(1 + x * x), jnp.floor(x) + jnp.round(3 * x)),
        lambda x: jnp.clip(x, -0.5, 0.5) + jnp.maximum(x, 0) + jnp.abs(x) + jnp.sign(x) + jax.nn.sigmoid(x),
        lambda x: x.sum(1, keepdims=True) + x.max((0, 2)) @ x[0] + x.min() + jax.nn.softmax(x),
        lambda x: jnp.pad(x, [(0, 1), (2, 3), (0, 0)], constant_values=2)[:, ::2, ::-1],
        lambda x: lax.pad(x, 1.0, [(0, 0, 0), (-1, 2, 0), (3, -2, 0)]),
        lambda x: jnp.stack(jnp.split(jnp.tile(x, (1, 2, 1)), 2, 1), 2) + jnp.roll(x, 1, 1)[:, :, None],
        lambda x: jnp.concatenate([x, jnp.ones_like(x)], 2) * jnp.arange(8) + jnp.repeat(x[:, :1], 5, 1)[..., :1],
        lambda x: jnp.log2(1 + x * x) + jnp.exp2(x) - jnp.unstack(x, axis=1)[2][:, None],
        lambda x: jnp.log1p(x * x) + jax.nn.log_sigmoid(30 * x),
        lambda x: jnp.asarray(TABLE)[jnp.argmax(x, -1)],
        lambda x: jnp.asarray(TABLE.T)[:, jnp.argmax(x, -1)] + jnp.asarray(TABLE)[jnp.argmin(x, -1), 2],
        lambda x: jnp.asarray(TABLE)[jnp.argmax(x, -1), np.arange(5) % 3],
        lambda x: (
            jnp.einsum("abc,abd->bcd", x, 2 * x)
            + jnp.einsum("abc,dc->ad", x, TABLE[:, :1] + np.ones(4, np.float32))[0, 0]
        ),
        lambda x: (x * 1e9).astype(jnp.int32) * 77 + 5 * jnp.cumsum(jnp.ones(4, jnp.int32), dtype=jnp.int32)[0],
        lambda x: layers.conv_transpose(x, TABLE[:6].reshape(3, 2, 3)[:, :, :].repeat(2, 1), 2),
    ],
)
def test_graphs_compute_what_jax_computes(function):
    from technogen_jax.exporting import real_arithmetic

    x = RNG.standard_normal((2, 5, 4)).astype(np.float32)
    wanted = np.asarray(function(x), np.float32)
    got = run(lambda x: jnp.asarray(real_arithmetic.real_form(function)(x), jnp.float32), x)
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


def test_an_unsupported_operation_is_named():
    with pytest.raises(NotImplementedError, match="no rule for the operation sort"):
        run(jnp.sort, np.ones(3))
    with pytest.raises(NotImplementedError, match="no rule for the operation while"):
        run(lambda x: lax.while_loop(lambda x: x[0] < 9, lambda x: x + 1, x), np.ones(3))


def test_a_constant_is_stored_once():
    table = np.ones((50, 50), np.float32)
    model = onnx_graph.convert(lambda x: (x @ table) @ table.copy(), {"x": (1, 50)}, "y")
    assert len(model.graph.initializer) == 1


def test_constants_that_fit_16_bits_are_stored_so_and_used_in_float32():
    exact = RNG.standard_normal((40, 40)).astype(np.float16).astype(np.float32)
    for table, bits in ((exact, 16), (exact * np.float32(1.001), 32), (exact * np.float32(1e6), 32), (exact[:20], 32)):

        def function(x, table=table):
            return x + jnp.asarray(table)

        x = np.zeros(table.shape, np.float32)
        stored = onnx_graph.convert(function, {"input_0": x.shape}, "output").ByteSize()
        assert 0 <= stored - table.size * bits / 8 < 500
        np.testing.assert_array_equal(run(function, x), table)
