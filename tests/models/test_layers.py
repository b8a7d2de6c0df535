import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from technogen_jax.models import layers

# (taps, stride, length in, channels in, channels out)
GEOMETRIES = [
    (25, 4, 32, 3, 2),
    (25, 4, 8, 1, 4),
    (25, 2, 12, 2, 1),
    (5, 2, 10, 2, 3),
    (4, 4, 16, 1, 1),
    (7, 3, 12, 2, 2),
    (24, 4, 16, 3, 1),
    (6, 5, 10, 1, 2),
    (3, 1, 7, 2, 2),
    (512, 1, 20, 1, 1),
]
WITH_GRADIENTS = [*GEOMETRIES[:7], (3, 1, 7, 2, 2)]
# (taps along both axes, stride, lengths in, channels in, channels out); SpecGAN's first
IMAGES = [
    ((5, 5), 2, (8, 12), 3, 2),
    ((5, 5), 2, (2, 12), 1, 4),
    ((4, 4), 2, (6, 6), 2, 1),
    ((6, 6), 3, (9, 6), 2, 2),
    ((3, 3), 1, (5, 4), 2, 2),
]


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def make(geometry, upwards):
    taps, stride, length, c_in, c_out = geometry
    rng = np.random.default_rng(taps * stride + length)
    x = rng.normal(size=(2, length if not upwards else max(length // stride, 1), c_in))
    return x, rng.normal(size=(taps, c_in, c_out)), stride


def direct_conv(x, kernel, stride, before):
    """The definition: y[n, o] = sum over t and i of w[t, i, o] x[s n + t - before, i], zeros outside."""
    taps = len(kernel)
    padded = np.pad(x, ((0, 0), (before, taps), (0, 0)))
    windows = [np.einsum("bti,tio->bo", padded[:, n : n + taps], kernel) for n in range(0, x.shape[1], stride)]
    return np.stack(windows, 1)


def gradients(way, x, kernel):
    """Of a score with regard to kernel and input, and of its gradient penalty with regard to the kernel."""

    def score(kernel, x):  # not linear, so that second derivatives are not zero
        return jnp.sum(jnp.tanh(way(x, kernel)))

    def penalty(kernel):
        return jnp.mean(jnp.sqrt(jnp.sum(jax.grad(score, 1)(kernel, x) ** 2, range(1, x.ndim))))

    return jax.jit(lambda: (*jax.grad(score, (0, 1))(kernel, x), jax.grad(penalty)(kernel)))()


def same_padding(taps, stride):
    return max(taps - stride, 0) // 2


def test_same_padding_is_what_the_papers_code_gets():
    # Samples before and after, for (taps, stride) of WaveGAN, its stride 2, SpecGAN and the post-filter.
    wanted = {(25, 4): (10, 11), (25, 2): (11, 12), (5, 2): (1, 2), (512, 1): (255, 256)}
    for (taps, stride), (before, after) in wanted.items():
        assert (before, after) == (same_padding(taps, stride), taps - stride - same_padding(taps, stride))
        # A kernel that only has its first tap shows how far before the frame it reads.
        x = np.arange(1.0, 1 + 600 * stride).reshape(1, -1, 1)
        first = np.zeros((taps, 1, 1))
        first[0] = 1
        y = layers.conv(x, jnp.asarray(first), stride)
        n = 400
        assert y[0, n, 0] == x[0, n * stride - before, 0]


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("form", layers.FORMS)
def test_conv_is_the_definition(geometry, form):
    x, kernel, stride = make(geometry, upwards=False)
    wanted = direct_conv(x, kernel, stride, same_padding(len(kernel), stride))
    np.testing.assert_allclose(layers.conv(x, kernel, stride, form), wanted, atol=1e-12)


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("form", layers.FORMS)
def test_conv_transpose_is_the_gradient_of_the_convolution(geometry, form):
    x, kernel, stride = make(geometry, upwards=True)
    # <conv(u), x> = <u, transpose(x)> for every u: take u from the unit vectors.
    length, c_out = x.shape[1] * stride, kernel.shape[2]
    unit = np.eye(length * c_out).reshape(-1, length, c_out)
    kernel_t = kernel.swapaxes(1, 2)  # the convolution that it transposes reads c_out and gives c_in
    responses = direct_conv(unit, kernel_t, stride, same_padding(len(kernel), stride))
    wanted = np.einsum("uti,bti->bu", responses, x).reshape(len(x), length, c_out)
    np.testing.assert_allclose(layers.conv_transpose(x, kernel, stride, form), wanted, atol=1e-12)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_conv_transpose_is_lax_conv_transpose(geometry):
    x, kernel, stride = make(geometry, upwards=True)
    wanted = lax.conv_transpose(
        x, kernel.swapaxes(1, 2), (stride,), "SAME", dimension_numbers=("NWC", "WIO", "NWC"), transpose_kernel=True
    )
    np.testing.assert_allclose(layers.conv_transpose(x, kernel, stride), wanted, atol=1e-12)


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("form", layers.FORMS)
def test_conv1d_upsampled_is_repeat_then_convolve(geometry, form):
    x, kernel, stride = make(geometry, upwards=True)
    wanted = direct_conv(np.repeat(x, stride, 1), kernel, 1, same_padding(len(kernel), 1))
    np.testing.assert_allclose(layers.conv1d_upsampled(x, kernel, stride, form), wanted, atol=1e-12)


@pytest.mark.parametrize(
    "name, geometry",
    [(name, g) for name in ("conv", "conv_transpose", "conv1d_upsampled") for g in WITH_GRADIENTS]
    + [(name, g) for name in ("conv", "conv_transpose") for g in IMAGES],
)
def test_forms_have_the_same_gradients(name, geometry):
    """With regard to the parameters, to the input, and of a gradient penalty with regard to the parameters."""
    x, kernel, stride = (make_image if geometry in IMAGES else make)(geometry, upwards=name != "conv")

    def of(form):
        return gradients(lambda x, w: getattr(layers, name)(x, w, stride, form) / 5, x, kernel)

    for fast, plain in zip(of("polyphase"), of("plain"), strict=True):
        assert np.abs(plain).max() > 1e-6
        np.testing.assert_allclose(fast, plain, atol=1e-11)


def make_image(geometry, upwards):
    taps, stride, lengths, c_in, c_out = geometry
    rng = np.random.default_rng(sum(taps) * stride + sum(lengths))
    lengths = [max(n // stride, 1) for n in lengths] if upwards else lengths
    return rng.normal(size=(2, *lengths, c_in)), rng.normal(size=(*taps, c_in, c_out)), stride


def direct_conv_of_images(x, kernel, stride):
    taps = kernel.shape[:2]
    before = [same_padding(k, stride) for k in taps]
    padded = np.pad(x, ((0, 0), *((b, k) for b, k in zip(before, taps, strict=True)), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, taps, (1, 2))[:, : x.shape[1] : stride]
    return np.einsum("bnfcij,ijco->bnfo", windows[:, :, : x.shape[2] : stride], kernel)


@pytest.mark.parametrize("geometry", IMAGES)
@pytest.mark.parametrize("form", layers.FORMS)
def test_conv_of_images_is_the_definition(geometry, form):
    x, kernel, stride = make_image(geometry, upwards=False)
    wanted = direct_conv_of_images(x, kernel, stride)
    np.testing.assert_allclose(layers.conv(x, kernel, stride, form), wanted, atol=1e-12)
    lax_own = lax.conv_general_dilated(x, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    np.testing.assert_allclose(wanted, lax_own, atol=1e-12)


@pytest.mark.parametrize("geometry", IMAGES)
@pytest.mark.parametrize("form", layers.FORMS)
def test_conv_transpose_of_images_is_the_gradient_of_the_convolution(geometry, form):
    x, kernel, stride = make_image(geometry, upwards=True)
    shape = (2, x.shape[1] * stride, x.shape[2] * stride, kernel.shape[3])
    back = jax.linear_transpose(
        lambda u: lax.conv_general_dilated(
            u, kernel.swapaxes(2, 3), (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        ),
        jax.ShapeDtypeStruct(shape, x.dtype),
    )
    np.testing.assert_allclose(layers.conv_transpose(x, kernel, stride, form), back(x)[0], atol=1e-12)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="elsewhere the gradients are JAX's own")
@pytest.mark.parametrize(
    "name, made, layout",
    [
        ("conv", make(GEOMETRIES[0], upwards=False), "b0f_0io->b0f"),
        ("conv_transpose", make(GEOMETRIES[0], upwards=True), "b0f_0io->b0f"),
        ("conv1d_upsampled", make(GEOMETRIES[0], upwards=True), "b0f_0io->b0f"),
        ("conv", make_image(IMAGES[0], upwards=False), "b01f_01io->b01f"),
        ("conv_transpose", make_image(IMAGES[0], upwards=True), "b01f_01io->b01f"),
    ],
)
def test_inside_a_loop_every_gradient_has_the_layout_that_is_fast_on_a_cpu(name, made, layout):
    """On a CPU, XLA brings other layouts into this one, but not in a loop's body: there it takes the slow way."""
    x, kernel, stride = made

    def penalty(kernel, x):
        def score(x):
            return jnp.sum(jnp.tanh(getattr(layers, name)(x, kernel, stride)))

        return score(x) + jnp.sum(jax.grad(score)(x) ** 2)

    def loop(kernel, xs):
        return jax.lax.scan(lambda kernel, x: (kernel - jax.grad(penalty)(kernel, x), None), kernel, xs)[0]

    compiled = jax.jit(loop).lower(np.float32(kernel), np.float32(np.stack([x, x]))).compile().as_text()
    layouts = re.findall(r" convolution\(.*dim_labels=([^, ]+)", compiled)
    assert len(layouts) >= 5
    assert set(layouts) == {layout}


def test_conv_errors_name_the_numbers():
    with pytest.raises(ValueError, match="multiple of the stride 4, got 10"):
        layers.conv(np.zeros((1, 10, 1)), np.zeros((25, 1, 1)), 4)
    with pytest.raises(ValueError, match="multiple of the stride 2, got 4 x 5"):
        layers.conv(np.zeros((1, 4, 5, 1)), np.zeros((5, 5, 1, 1)), 2)
    with pytest.raises(ValueError, match="stride 4, got 3"):
        layers.conv_transpose(np.zeros((1, 10, 1)), np.zeros((3, 1, 1)), 4)


def shift_as_the_paper(x, n):
    """One shift: n samples to the right (to the left if negative), the gap filled by reflection about the edge."""
    if n > 0:
        return np.concatenate([x[:, 1 : n + 1][:, ::-1], x[:, :-n]], 1)
    if n < 0:
        return np.concatenate([x[:, -n:], x[:, n - 1 : -1][:, ::-1]], 1)
    return x


@pytest.mark.parametrize("radius", [1, 2, 5])
def test_phase_shuffle_draws_every_shift_alike_and_shifts_the_whole_batch_by_it(radius):
    x = np.random.default_rng(0).normal(size=(3, 16, 2))
    wanted = {n: shift_as_the_paper(x, n) for n in range(-radius, radius + 1)}
    draws = 200 * len(wanted)
    shuffled = jax.vmap(lambda key: layers.phase_shuffle(x, key, radius))(jax.random.split(jax.random.key(0), draws))
    counts = {n: int(np.sum(np.all(np.asarray(shuffled) == w, axis=(1, 2, 3)))) for n, w in wanted.items()}
    assert sum(counts.values()) == draws
    # Chi-squared, 200 expected in each: five deviations of a binomial count are 5 * sqrt(200).
    assert all(abs(count - 200) < 5 * 200**0.5 for count in counts.values()), counts


def test_auto_is_plain_for_wide_layers_on_a_tpu_only(monkeypatch):
    wide, narrow = np.zeros((25, 64, 128)), np.zeros((25, 1, 64))
    assert {layers.choose_form(kernel, 4) for kernel in (wide, narrow)} == {"polyphase"}
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert [layers.choose_form(kernel, 4) for kernel in (wide, narrow)] == ["plain", "polyphase"]
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert {layers.choose_form(kernel, 4) for kernel in (wide, narrow)} == {"polyphase"}


def test_phase_shuffle_of_radius_zero_is_the_identity():
    x = np.ones((1, 4, 1))
    assert layers.phase_shuffle(x, jax.random.key(0), 0) is x


def test_leaky_relu_has_slope_a_fifth_below_zero():
    np.testing.assert_allclose(layers.leaky_relu(jnp.array([-2.0, 0.0, 3.0])), [-0.4, 0.0, 3.0])


def test_kernels_start_glorot_uniform_with_tensorflows_fans_and_biases_at_zero():
    from flax import nnx

    taps, c_in, c_out = 25, 32, 64
    limit = (6 / (taps * c_in + taps * c_out)) ** 0.5
    layer = layers.Conv(c_in, c_out, (taps,), 4, rngs=nnx.Rngs(0))
    kernel = np.asarray(layer.kernel[...])
    assert np.abs(kernel).max() <= limit
    # Of a uniform in (-limit, limit): deviation limit / sqrt(3), and 51,200 draws come near the ends.
    np.testing.assert_allclose(kernel.std(), limit / 3**0.5, rtol=0.02)
    assert np.abs(kernel).max() > 0.999 * limit
    assert not layer.bias[...].any()
    dense = layers.Dense(100, 512, rngs=nnx.Rngs(0))
    limit = (6 / 612) ** 0.5
    assert 0.999 * limit < np.abs(np.asarray(dense.kernel[...])).max() <= limit
    assert not dense.bias[...].any()


def test_batch_norm_is_numpys_over_batch_and_time():
    x = np.random.default_rng(0).normal(3, 2, size=(4, 5, 2))
    norm = layers.BatchNorm(2)
    wanted = (x - x.mean((0, 1))) / np.sqrt(x.var((0, 1)) + 1e-3)
    np.testing.assert_allclose(norm(x), wanted, atol=1e-6)


def test_batch_norm_with_statistics_uses_them():
    norm = layers.BatchNorm(2)
    norm.mean.set_value(jnp.array([1.0, 2.0]))
    norm.var.set_value(jnp.array([4.0, 9.0]))
    np.testing.assert_allclose(norm(np.ones((1, 1, 2))), [[[0, -1 / np.sqrt(9.001)]]], atol=1e-6)


@pytest.mark.parametrize("rows", [1, 4])
def test_in_parts_is_the_same_function_with_the_same_second_derivatives(rows):
    rng = np.random.default_rng(0)
    w, x = rng.normal(size=(3, 3)), rng.normal(size=(6, 3))

    def penalty(w, rows):
        def network(x):
            return jnp.tanh(x @ w) ** 3

        slope = jax.grad(lambda x: jnp.sum(layers.in_parts(network, x, rows)))(x)
        return jnp.sum(slope**2), layers.in_parts(network, x, rows)

    found, wanted = (jax.value_and_grad(penalty, has_aux=True)(w, size) for size in (rows, 0))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), found, wanted)


def test_minibatch_deviation_is_computed_within_each_group():
    x = np.random.default_rng(0).standard_normal((6, 4, 5)).astype(np.float32)
    x[[1, 3, 5]] = x[1]  # 6 is not a multiple of 4: groups of three, every second clip
    found = np.asarray(layers.minibatch_deviation(x, 4))
    np.testing.assert_array_equal(found[..., :5], x)
    np.testing.assert_allclose(found[::2, :, 5], x[::2].std(0).mean(), rtol=1e-5)
    np.testing.assert_allclose(found[1::2, :, 5], 0, atol=2e-4)
    slope = jax.grad(lambda x: jnp.sum(layers.minibatch_deviation(x, 4)))(jnp.zeros((4, 2, 2)))
    assert np.isfinite(slope).all()
