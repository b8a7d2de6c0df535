"""Convolution of stride 1, between zeros (`convolve`) or around a circle (`convolve_circular`).

The result is the same everywhere; the method is the fastest for the device:

- on a CPU, for wide layers over one axis: `frequency_convolution`;
- on a CPU, otherwise: `convolve_in_one_layout`, since XLA has a fast kernel for one layout only;
- on accelerators: `convolve_plainly`, XLA's own convolution;
- around a circle, otherwise: `convolve_by_columns`, one matrix product.

x is `[B, S..., C_in]`, a kernel `[K..., C_in, C_out]`; S... and K... are one axis, or two with
equal numbers of taps.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from technogen_jax.models.frequency_convolution import choose_block, convolve_by_frequency

DIMENSIONS = {1: ("NWC", "WIO", "NWC"), 2: ("NHWC", "HWIO", "NHWC")}  # by the number of axes


def convolve(x: jax.Array, kernel: jax.Array, before: int) -> jax.Array:
    """Computes y[n] = sum_t w[t] x[n + t - before]; x is zero outside.

    Args:
        x: `[B, S..., C_in]`.
        kernel: `[K..., C_in, C_out]`.
        before: taps before the output frame, from 0 to K - 1.

    Returns:
        `[B, S..., C_out]`.
    """
    after = len(kernel) - 1 - before
    if jax.default_backend() != "cpu":
        return convolve_plainly(x, kernel, (before, after))
    if block := choose_block(x, kernel):
        return convolve_by_frequency(x, kernel, before, block)
    return convolve_in_one_layout(x, kernel, (before, after))


def convolve_circular(x: jax.Array, kernel: jax.Array, precision: str | None = None) -> jax.Array:
    """Computes y[n] = sum_t w[t] x[n + t - K // 2], indices modulo T.

    Args:
        x: `[B, T, C_in]`.
        kernel: `[K, C_in, C_out]`, K odd.
        precision: precision of the products, as in JAX. With a precision, rounding matters, and one plain
            product is used.

    Returns:
        `[B, T, C_out]`.
    """
    if precision is None and (block := choose_block(x, kernel, circular=True)):
        return convolve_by_frequency(x, kernel, len(kernel) // 2, block, circular=True)
    return convolve_by_columns(x, kernel, precision)


def convolve_plainly(x: jax.Array, kernel: jax.Array, padding: tuple[int, int], stride: int = 1) -> jax.Array:
    """Computes the convolution by XLA's own function, with (before, after) zeros on each axis."""
    axes = x.ndim - 2
    return lax.conv_general_dilated(x, kernel, (stride,) * axes, (padding,) * axes, dimension_numbers=DIMENSIONS[axes])


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve_in_one_layout(x: jax.Array, kernel: jax.Array, padding: tuple[int, int]) -> jax.Array:
    """Computes `convolve_plainly`; gradients of any order are convolutions of the same layout.

    XLA on a CPU has a fast kernel for this layout only. It converts the layouts of JAX's own
    gradients to this one, but not inside a loop: in a scan over discriminator updates they take
    about 25 times as long (github.com/jax-ml/jax/issues/12868).
    """
    return convolve_plainly(x, kernel, padding)


def _forward(x, kernel, padding):
    return convolve_in_one_layout(x, kernel, padding), (x, kernel)


def _backward(padding, saved, slope):
    x, kernel = saved
    before, after = padding
    reach = len(kernel) - 1
    of_x = convolve_in_one_layout(slope, reverse_taps(kernel).swapaxes(-1, -2), (reach - before, reach - after))
    # w[t] is multiplied by x[n + t - before] for every slope[n]: a convolution of x with the slope,
    # summed over the batch.
    of_kernel = convolve_in_one_layout(x.swapaxes(0, -1), jnp.moveaxis(slope, 0, -2), padding)
    return of_x, jnp.moveaxis(of_kernel, 0, -2)


convolve_in_one_layout.defvjp(_forward, _backward)


def reverse_taps(kernel: jax.Array) -> jax.Array:
    """Returns the kernel with its taps in reverse order, along each axis."""
    return jnp.flip(kernel, range(kernel.ndim - 2))


def convolve_by_columns(x: jax.Array, kernel: jax.Array, precision: str | None = None) -> jax.Array:
    """Computes `convolve_circular` as one matrix product with K shifted copies of x."""
    reach = len(kernel) // 2
    columns = jnp.concatenate([jnp.roll(x, reach - tap, 1) for tap in range(len(kernel))], -1)  # [B, T, K C_in]
    return jnp.matmul(columns, kernel.reshape(-1, kernel.shape[-1]), precision=precision)
