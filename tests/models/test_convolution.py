import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_layers import direct_conv, gradients

from technogen_jax.models import convolution, frequency_convolution, layers

# (batch, frames, taps, channels in, channels out, taps before, block); 7 taps are WaveGAN's in polyphase form
GEOMETRIES = [
    (3, 48, 7, 4, 5, 3, 16),
    (2, 37, 7, 2, 3, 3, 8),
    (2, 16, 7, 3, 2, 2, 16),
    (1, 5, 7, 2, 2, 3, 16),
    (2, 21, 6, 2, 1, 0, 8),
    (2, 24, 9, 1, 2, 8, 8),
    (2, 30, 1, 2, 2, 0, 8),
    (2, 19, 2, 2, 3, 1, 9),
]

CIRCLES = [  # (batch, frames, taps, channels in, channels out, block); 5 taps around 32 sixteenths are TechnoGAN's
    (3, 32, 5, 4, 5, 16),
    (2, 32, 5, 3, 2, 8),
    (2, 16, 5, 2, 3, 16),
    (1, 8, 9, 2, 2, 8),
    (2, 28, 3, 1, 2, 7),
    (2, 16, 1, 2, 2, 8),
]


def make(geometry, dtype=np.float64):
    batch, frames, taps, c_in, c_out, before, block = geometry
    rng = np.random.default_rng(frames + taps)
    x, kernel = rng.normal(size=(batch, frames, c_in)), rng.normal(size=(taps, c_in, c_out)) / np.sqrt(taps * c_in)
    return x.astype(dtype), kernel.astype(dtype), before, block


def definition(x, kernel, before):
    return direct_conv(x.astype(np.float64), kernel, 1, before)


def make_circle(circle, dtype=np.float64):
    batch, frames, taps, c_in, c_out, block = circle
    x, kernel, _, _ = make((batch, frames, taps, c_in, c_out, None, block), dtype)
    return x, kernel, block


def definition_around(x, kernel):
    """Of the circle: what comes out in the middle of three rounds."""
    before = len(kernel) // 2
    return definition(np.tile(x, (1, 3, 1)), kernel, before)[:, x.shape[1] : 2 * x.shape[1]]


def apart(got, wanted):
    return np.linalg.norm(got - wanted) / np.linalg.norm(wanted)


@pytest.mark.parametrize("block, taps", [(8, 7), (16, 7), (8, 6), (9, 4), (5, 2), (8, 1)])
def test_the_transforms_correlate_with_fewer_products(block, taps):
    of_kernel, of_input, to_output = frequency_convolution.make_transforms(block, taps)
    rng = np.random.default_rng(block)
    w, x = rng.normal(size=taps), rng.normal(size=block + taps - 1)
    np.testing.assert_allclose(to_output @ ((of_kernel @ w) * (of_input @ x)), np.correlate(x, w, "valid"), atol=1e-13)
    assert len(of_kernel) <= 1.5 * (block + taps)
    if (block, taps) == (16, 7):
        assert len(of_kernel) == 32  # what the docstring says


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_by_frequency_is_the_definition(geometry):
    with jax.enable_x64(True):
        x, kernel, before, block = make(geometry)
        got = frequency_convolution.convolve_by_frequency(jnp.asarray(x), jnp.asarray(kernel), before, block)
        np.testing.assert_allclose(got, definition(x, kernel, before), atol=1e-12)


@pytest.mark.parametrize("geometry", GEOMETRIES[:6])
def test_all_ways_have_the_same_gradients(geometry):
    """With regard to kernel and input, and of a gradient penalty with regard to the kernel."""
    with jax.enable_x64(True):
        x, kernel, before, block = make(geometry)
        padding = before, len(kernel) - 1 - before
        wanted = gradients(lambda x, w: convolution.convolve_plainly(x, w, padding), x, kernel)
        for way in (
            lambda x, w: frequency_convolution.convolve_by_frequency(x, w, before, block),
            lambda x, w: convolution.convolve_in_one_layout(x, w, padding),
        ):
            for got, want in zip(gradients(way, x, kernel), wanted, strict=True):
                assert np.abs(want).max() > 1e-6
                np.testing.assert_allclose(got, want, atol=1e-11)


@pytest.mark.parametrize("circle", CIRCLES)
def test_both_ways_around_a_circle_are_the_definition_with_the_same_gradients(circle):
    with jax.enable_x64(True):
        x, kernel, block = make_circle(circle)

        def by_frequency(x, w):
            return frequency_convolution.convolve_by_frequency(x, w, len(w) // 2, block, circular=True)

        for way in by_frequency, convolution.convolve_by_columns:
            np.testing.assert_allclose(
                way(jnp.asarray(x), jnp.asarray(kernel)), definition_around(x, kernel), atol=1e-12
            )
        wanted = gradients(convolution.convolve_by_columns, x, kernel)
        for got, want in zip(gradients(by_frequency, x, kernel), wanted, strict=True):
            assert np.abs(want).max() > 1e-6
            np.testing.assert_allclose(got, want, atol=1e-11)


def test_all_ways_round_alike():
    # Of 1,792 products a sum, as WaveGAN's third layer has them; a sum in float32 has 3e-7 or so.
    x, kernel, before, _ = make((2, 64, 7, 256, 32, 3, None), np.float32)
    wanted = definition(x, kernel, before)
    plain = apart(convolution.convolve_plainly(x, kernel, (3, 3)), wanted)
    for block in frequency_convolution.BLOCKS:
        assert apart(frequency_convolution.convolve_by_frequency(x, kernel, before, block), wanted) < max(
            4 * plain, 1e-6
        )
    x, kernel, _ = make_circle((4, 32, 5, 80, 80, None), np.float32)
    wanted = definition_around(x, kernel)
    plain = apart(convolution.convolve_by_columns(x, kernel), wanted)
    for block in frequency_convolution.BLOCKS:
        assert apart(frequency_convolution.convolve_by_frequency(x, kernel, 2, block, circular=True), wanted) < max(
            4 * plain, 1e-6
        )


def test_around_a_circle_whatever_the_precision_it_is_the_definition():
    x, kernel, _ = make_circle((2, 7, 5, 3, 4, None), np.float32)
    for precision in None, "highest":
        got = convolution.convolve_circular(jnp.asarray(x), jnp.asarray(kernel), precision)
        np.testing.assert_allclose(got, definition_around(x, kernel), atol=1e-5)


on_one_cpu = pytest.mark.skipif(
    jax.default_backend() != "cpu" or jax.device_count() > 1, reason="the choice is for one CPU"
)


@pytest.fixture
def taken(monkeypatch):
    """The blocks with which `by_frequency` is called."""
    blocks, by_frequency = [], frequency_convolution.convolve_by_frequency

    def noted(x, kernel, before, block, circular=False):
        blocks.append(block)
        return by_frequency(x, kernel, before, block, circular)

    monkeypatch.setattr(convolution, "convolve_by_frequency", noted)
    return blocks


@on_one_cpu
@pytest.mark.parametrize("name", ["conv", "conv_transpose", "conv1d_upsampled"])
def test_a_wide_layer_goes_by_frequency_and_is_the_plain_one(name, taken):
    rng = np.random.default_rng(0)
    down = name == "conv"
    x = jnp.asarray(rng.normal(size=(16, 256 if down else 64, 64 if down else 128)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(25, x.shape[-1], 192 - x.shape[-1])) / 40, jnp.float32)
    got = getattr(layers, name)(x, kernel, 4)
    assert taken in ([8], [16])
    assert apart(got, getattr(layers, name)(x, kernel, 4, "plain")) < 2e-6


@on_one_cpu
@pytest.mark.parametrize(
    "x_shape, kernel_shape, dtype",
    [
        ((16, 64, 8), (7, 8, 16), "float32"),  # too few channels for what the transforms cost
        ((2, 16, 1024), (7, 1024, 512), "float32"),  # too few rows for what the kernel's transform costs
        ((16, 4096, 1), (512, 1, 1), "float32"),  # more taps than a block
        ((1, 4096, 64), (7, 64, 128), "float32"),  # a single clip
        ((16, 256, 256), (7, 256, 128), "bfloat16"),
        ((16, 64, 64, 64), (3, 3, 64, 64), "float32"),  # two axes
    ],
)
def test_where_it_does_not_pay_or_is_not_meant_a_layer_stays_plain(x_shape, kernel_shape, dtype, monkeypatch):
    monkeypatch.setattr(convolution, "convolve_by_frequency", None)
    shapes = jax.ShapeDtypeStruct(x_shape, dtype), jax.ShapeDtypeStruct(kernel_shape, dtype)
    y = jax.eval_shape(lambda x, w: convolution.convolve(x, w, kernel_shape[0] // 2), *shapes)
    assert y.shape == (*x_shape[:-1], kernel_shape[-1]) and y.dtype == dtype


@on_one_cpu
def test_on_several_devices_a_layer_stays_plain(monkeypatch):
    monkeypatch.setattr(convolution, "convolve_by_frequency", None)
    monkeypatch.setattr(jax, "device_count", lambda: 2)
    shapes = jax.ShapeDtypeStruct((16, 256, 256), "float32"), jax.ShapeDtypeStruct((7, 256, 128), "float32")
    assert jax.eval_shape(lambda x, w: convolution.convolve(x, w, 3), *shapes).shape == (16, 256, 128)


@on_one_cpu
def test_around_a_circle_a_batch_of_training_goes_by_frequency(taken):
    x, kernel, _ = make_circle((32, 32, 5, 48, 48, None), np.float32)  # xs's critic
    got = convolution.convolve_circular(jnp.asarray(x), jnp.asarray(kernel))
    assert taken in ([8], [16])
    assert apart(got, convolution.convolve_by_columns(x, kernel)) < 2e-6


@on_one_cpu
@pytest.mark.parametrize(
    "batch, frames, taps, channels, precision",
    [
        (32, 32, 5, 48, "highest"),  # of a codec: noise follows from the last bits
        (1, 32, 5, 256, None),  # a single clip
        (32, 2, 3, 48, None),  # bars of a loop: shorter than a block
        (32, 20, 5, 128, None),  # blocks do not fit
        (32, 32, 1, 128, None),  # one tap: nothing to save
        (32, 32, 5, 4, None),  # too few channels
    ],
)
def test_around_a_circle_where_it_does_not_pay_or_is_not_meant_it_is_one_product(
    batch, frames, taps, channels, precision, monkeypatch
):
    monkeypatch.setattr(convolution, "convolve_by_frequency", None)
    shapes = (
        jax.ShapeDtypeStruct(shape, "float32") for shape in ((batch, frames, channels), (taps, channels, channels))
    )
    y = jax.eval_shape(lambda x, w: convolution.convolve_circular(x, w, precision), *shapes)
    assert y.shape == (batch, frames, channels)


@pytest.mark.parametrize("block, circular", [(2, False), (16, True)])
def test_blocks_that_do_not_serve_are_refused(block, circular):
    with pytest.raises(ValueError, match=f"no blocks of {block} for 5 taps and 24 frames"):
        frequency_convolution.convolve_by_frequency(jnp.zeros((2, 24, 3)), jnp.zeros((5, 3, 3)), 2, block, circular)
