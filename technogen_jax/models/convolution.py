"""Convolution of stride 1, in the form that is fast where it runs: between zeros (`convolve`) or around a circle.

On a CPU XLA has one fast kernel, for one layout: `in_one_layout` keeps to it in gradients too. Along one axis, with many channels
and enough rows, `by_frequency` does a third to two fifths of the multiplications. Elsewhere it is `lax.conv_general_dilated`, as it comes;
around a circle `in_columns`, one product of matrices. Which way is taken depends on shapes, precision and devices alone, so that one
seed still gives one training; all round alike (tests/models/test_convolution.py).

x is `[B, S..., C_in]`, a kernel `[K..., C_in, C_out]`, S... and K... one axis or two with the same number of taps.
"""

from __future__ import annotations

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

DIMENSIONS = {1: ("NWC", "WIO", "NWC"), 2: ("NHWC", "HWIO", "NHWC")}  # by the number of axes
BLOCKS = (8, 16)  # frames; 32 was slower at the paper's size (4.6 s a step, 3.9 without)
# What one number costs that is brought to another place or made in a transform, in multiply-adds of a large product: fitted to
# WaveGAN's layers, and right for TechnoGAN's. If it were 30, layers of 16 channels would gain 3 per cent, and eight seconds of
# 44.1 kHz would take 0.4 GB more.
MOVED = 45


def convolve(x: jax.Array, kernel: jax.Array, before: int) -> jax.Array:
    """y[n] = sum_t w[t] x[n + t - before], `[B, S..., C_out]`: x counts as zero outside, before n and after it as far as K reaches."""
    after = len(kernel) - 1 - before
    if jax.default_backend() != "cpu":
        return plainly(x, kernel, (before, after))
    block = _block_for(x, kernel)
    return by_frequency(x, kernel, before, block) if block else in_one_layout(x, kernel, (before, after))


def convolve_circular(x: jax.Array, kernel: jax.Array, precision: str | None = None) -> jax.Array:
    """y[n] = sum_t w[t] x[n + t - K // 2], indices modulo T.

    Args:
        x: `[B, T, C_in]`.
        kernel: `[K, C_in, C_out]`, K odd.
        precision: of products, as in JAX; where it is given, rounding matters and it is always one sum.

    Returns:
        `[B, T, C_out]`.
    """
    block = None if precision else _block_for(x, kernel, circular=True)
    if block:
        return by_frequency(x, kernel, len(kernel) // 2, block, circular=True)
    return in_columns(x, kernel, precision)


def _block_for(x, kernel, circular=False):
    """`best_block`, None where another way is meant whatever it costs."""
    # A single clip is what an exported model makes: its graph stays plain. In bfloat16 the transforms would round once more. The sum over
    # devices would be of the gradients of transformed kernels, which are four times as large. And off CPUs nothing was measured.
    on_one_cpu = jax.default_backend() == "cpu" and jax.device_count() == 1
    if not on_one_cpu or x.ndim != 3 or len(x) == 1 or x.dtype == jnp.bfloat16:
        return None
    return best_block(x.shape[1], len(x), *kernel.shape, circular)


def plainly(x: jax.Array, kernel: jax.Array, padding: tuple[int, int], stride: int = 1) -> jax.Array:
    """The convolution as XLA has it, with zeros (before, after) along each axis."""
    axes = x.ndim - 2
    return lax.conv_general_dilated(x, kernel, (stride,) * axes, (padding,) * axes, dimension_numbers=DIMENSIONS[axes])


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def in_one_layout(x: jax.Array, kernel: jax.Array, padding: tuple[int, int]) -> jax.Array:
    """`plainly`, its gradients of whatever order being such convolutions again.

    XLA on a CPU has a fast kernel for this layout alone. It turns the layouts of JAX's own gradients into this one, but
    not inside a loop: there, as in a scan over critic updates, they take some twenty-five times as long
    (github.com/jax-ml/jax/issues/12868).
    """
    return plainly(x, kernel, padding)


def _forward(x, kernel, padding):
    return in_one_layout(x, kernel, padding), (x, kernel)


def _backward(padding, saved, slope):
    x, kernel = saved
    before, after = padding
    reach = len(kernel) - 1
    of_x = in_one_layout(slope, turned(kernel).swapaxes(-1, -2), (reach - before, reach - after))
    # w[t] meets x[n + t - before] wherever slope[n] is: a convolution of x with the slope, summed over the batch.
    of_kernel = in_one_layout(x.swapaxes(0, -1), jnp.moveaxis(slope, 0, -2), padding)
    return of_x, jnp.moveaxis(of_kernel, 0, -2)


in_one_layout.defvjp(_forward, _backward)


def turned(kernel: jax.Array) -> jax.Array:
    """The taps in reverse order, along each axis."""
    return jnp.flip(kernel, range(kernel.ndim - 2))


def in_columns(x: jax.Array, kernel: jax.Array, precision: str | None = None) -> jax.Array:
    """`convolve_circular` as one product of matrices, with K shifted copies of x beside each other."""
    reach = len(kernel) // 2
    columns = jnp.concatenate([jnp.roll(x, reach - tap, 1) for tap in range(len(kernel))], -1)  # [B, T, K C_in]
    return jnp.matmul(columns, kernel.reshape(-1, kernel.shape[-1]), precision=precision)


def by_frequency(x: jax.Array, kernel: jax.Array, before: int, block: int, circular: bool = False) -> jax.Array:
    """`convolve` over one axis, or `convolve_circular`, with fewer multiplications: blocks of frames meet the kernel in the frequency domain.

    A block of m outputs of r taps needs N = m + r - 1 inputs. A discrete Fourier transform of length N makes of their correlation one
    product a frequency, and Gauss's trick of each complex product three real ones:

        y = C ((A w) * (B x)),   A [P, r], B [P, N], C [m, P],   P about 1.5 N: 32 where m = 16 and r = 7, instead of 112

    each of the P being a product of matrices over the channels. The transforms are products with constant matrices. All are linear in x and in w,
    so JAX's gradients, of whatever order, have the same form.

    *Source*: Mathieu, Henaff, LeCun, "Fast training of convolutional networks through FFTs" (arXiv:1312.5851); in blocks,
    Lavin, Gray, "Fast algorithms for convolutional neural networks" (arXiv:1509.09308), whose real points lose digits where blocks are this long.

    Args:
        x: `[B, T, C_in]`.
        kernel: `[K, C_in, C_out]`.
        before: as in `convolve`, from 0 to K - 1.
        block: m, at least K - 1; of a circle a divisor of T.
        circular: whether a row's end meets its start, and not zeros.

    Raises:
        ValueError: such a block does not serve.
    """
    (batch, frames, c_in), (taps, _, c_out) = x.shape, kernel.shape
    if block < taps - 1 or (circular and frames % block):
        raise ValueError(
            f"by_frequency: no blocks of {block} for {taps} taps and {frames} frames{' around a circle' * circular}"
        )
    of_kernel, of_input, to_output = (jnp.asarray(matrix, x.dtype) for matrix in transforms(block, taps))
    blocks = -(-frames // block)
    x = jnp.pad(x, ((0, 0), (0, blocks * block - frames), (0, 0)))
    x = jnp.moveaxis(x.reshape(batch, blocks, block, c_in), 2, 0)  # [m, B, blocks, C_in]
    # Each block between the end of the one before and the start of the next: [N, B, blocks, C_in].
    end, start = x[block - before :], x[: taps - 1 - before]
    if circular:
        end, start = jnp.roll(end, 1, 2), jnp.roll(start, -1, 2)
    else:
        end = jnp.pad(end[:, :, :-1], ((0, 0), (0, 0), (1, 0), (0, 0)))
        start = jnp.pad(start[:, :, 1:], ((0, 0), (0, 0), (0, 1), (0, 0)))
    x = jnp.concatenate([end, x, start])
    x = (of_input @ x.reshape(len(x), -1)).reshape(-1, batch * blocks, c_in)
    kernel = (of_kernel @ kernel.reshape(taps, -1)).reshape(-1, c_in, c_out)
    y = to_output @ (x @ kernel).reshape(len(kernel), -1)  # [m, B blocks C_out]
    y = jnp.moveaxis(y.reshape(block, batch, blocks, c_out), 0, 2).reshape(batch, blocks * block, c_out)
    return y[:, :frames]


def best_block(frames: int, batch: int, taps: int, c_in: int, c_out: int, circular: bool = False) -> int | None:
    """Frames in a block for `by_frequency` with so many outputs a row, None where the plain sum costs no more.

    By the number of multiply-adds, and of numbers moved (`MOVED`): the input twice, once as it is and once transformed, the output in
    the same way, and the kernel once; of the plain sum around a circle the columns.
    """
    pair = c_in * c_out

    def cost(block):
        reach, count = block + taps - 1, batch * -(-frames // block)
        products = len(transforms(block, taps)[0])
        moved = count * (c_in * (reach + products) + c_out * (block + products)) + products * pair
        return count * products * pair + MOVED * moved

    fitting = [block for block in BLOCKS if block >= taps - 1 and not (circular and frames % block)]
    best = min(fitting, key=cost, default=None)
    plain = batch * frames * taps * (pair + (MOVED * c_in if circular else 0))
    return best if best and cost(best) < plain else None


@cache
def transforms(block: int, taps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`by_frequency`'s A `[P, r]`, B `[P, N]` and C `[m, P]`, in float64."""
    reach = block + taps - 1
    of_kernel, of_input, to_output = [], [], []
    for k in range(reach // 2 + 1):
        wave = np.exp(-2j * np.pi * k * np.arange(reach) / reach)
        # In a correlation the spectrum of the kernel is conjugate.
        w, x, y = wave[:taps].conj(), wave, wave[:block].conj() / reach
        if 2 * k in (0, reach):
            rows = [w.real], [x.real], [y.real]
        else:
            # (a + bi)(c + di) = p - d (a + b) + (p + c (b - a)) i with p = a (c + d). Twice its real part: for -k too.
            rows = (
                [w.real, w.imag - w.real, w.real + w.imag],
                [x.real + x.imag, x.real, x.imag],
                [2 * (y.real - y.imag), -2 * y.imag, -2 * y.real],
            )
        for matrix, more in zip((of_kernel, of_input, to_output), rows, strict=True):
            matrix += more
    return np.array(of_kernel), np.array(of_input), np.array(to_output).T
