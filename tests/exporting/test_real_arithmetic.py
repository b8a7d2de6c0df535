import jax
import jax.numpy as jnp
import numpy as np
import pytest

from technogen_jax.audio import spectral
from technogen_jax.exporting import real_arithmetic

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("n", [2, 7, 202, 1216, 77824])
@pytest.mark.parametrize("kind", ["rfft", "irfft"])
def test_transforms_equal_those_of_numpy(n, kind):
    """Powers of two, mixed and large prime factors: 202 = 2 * 101 needs Bluestein's form."""
    x = RNG.standard_normal((2, n)).astype(np.float32)
    if kind == "rfft":
        wanted, transform = np.fft.rfft(x.astype(np.float64)), jnp.fft.rfft
        real, imag = real_arithmetic.real_form(lambda x: (transform(x).real, transform(x).imag))(x)
        got = np.asarray(real) + 1j * np.asarray(imag)
    else:
        spectrum = np.fft.rfft(x.astype(np.float64))
        spectrum.imag[:, 0] = 3  # says nothing
        wanted = np.fft.irfft(spectrum, n)
        got = real_arithmetic.real_form(lambda re, im: jnp.fft.irfft(jax.lax.complex(re, im), n))(
            np.float32(spectrum.real), np.float32(spectrum.imag)
        )
    np.testing.assert_allclose(got, wanted, atol=2e-6 * np.abs(wanted).max())


def test_complex_arithmetic_and_windows_equal_those_of_jax():
    def function(x, y):
        a, b = jnp.fft.rfft(x), jnp.fft.rfft(y)
        c = (a * b - a / (b + 3)) * x[..., :1] + 1j * jnp.conj(a)
        c = jnp.concatenate([-c, c[..., ::-1]], -1).at[:, :5].add(b[:, :5])
        return jnp.abs(c), jnp.roll(c, 2, -1).real, jnp.fft.ifft(jnp.fft.fft(c)).imag

    x, y = RNG.standard_normal((2, 3, 16)).astype(np.float32)
    for got, wanted in zip(jax.jit(real_arithmetic.real_form(function))(x, y), function(x, y), strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("n", [1, 19])
def test_integer_running_sums_overflow_as_in_jax(n):
    x = RNG.integers(-(2**31), 2**31, (2, n)).astype(np.int32)
    for function in (lambda x: jnp.cumsum(x, 1), lambda x: jax.lax.cumsum(x, 1, reverse=True)):
        np.testing.assert_array_equal(jax.jit(real_arithmetic.real_form(function))(x), function(x))


def test_loops_are_unrolled():
    magnitude = np.abs(RNG.standard_normal((1, 5, 17))).astype(np.float32)

    def function(magnitude):
        return spectral.griffin_lim(magnitude, 32, 16, 2, 0.5)

    text = str(jax.make_jaxpr(real_arithmetic.real_form(function))(magnitude))
    assert not any(word in text for word in ("scan", "while", "fft", "c64"))
    np.testing.assert_allclose(jax.jit(real_arithmetic.real_form(function))(magnitude), function(magnitude), atol=1e-4)


def test_an_unsupported_operation_is_named():
    with pytest.raises(NotImplementedError, match="no rule for exp of complex numbers"):
        real_arithmetic.real_form(lambda x: jnp.exp(1j * x).real)(np.ones(3, np.float32))
