"""Convolution of stride 1 in the frequency domain, in blocks: fewer multiplications on a CPU.

Measured gain, two idle cores: a training step of WaveGAN at the paper's size 41.2 s -> 19.9 s, of
`wavegan_44k` 9.2 s -> 7.5 s; one core: of `technogan:xs` 113 ms -> 94 ms, of `technogan:m` 608 ms
-> 415 ms. Cost: the step of `wavegan_44k` takes 3.7 GB instead of 3.0, since transformed inputs are
kept for the gradients. Measured: experiments/log/2026-11-30-frequency-convolution.md.

A block of m outputs of r taps needs N = m + r - 1 inputs. A discrete Fourier transform of length N
turns their correlation into one product for each frequency, and Gauss's trick turns each complex
product into three real ones:

    y = C ((A w) * (B x)),   A [P, r], B [P, N], C [m, P],   P about 1.5 N

P is 32 where m = 16 and r = 7, instead of 112 multiplications. Each of the P products is a product
of matrices over the channels. The transforms are products with constant matrices. All are linear in
x and in w, so that JAX's gradients, of any order, have the same form.

Reference: Mathieu, Henaff, LeCun, "Fast training of convolutional networks through FFTs"
(arXiv:1312.5851). In blocks: Lavin, Gray, "Fast algorithms for convolutional neural networks"
(arXiv:1509.09308), whose real interpolation points lose digits where blocks are this long.
"""

from __future__ import annotations

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

# Frames of a block. With 32 an update of the paper's WaveGAN took 4.6 s instead of 3.9 s.
BLOCKS = (8, 16)
# The cost of moving or transforming one number, in multiply-adds of a large product. Fitted to the
# layers of WaveGAN, and right for those of TechnoGAN. With 30, layers of 16 channels would gain 3
# per cent, and `wavegan_44k` would take 0.4 GB more.
MOVE_COST = 45


def convolve_by_frequency(
    x: jax.Array, kernel: jax.Array, before: int, block: int, circular: bool = False
) -> jax.Array:
    """Computes `convolution.convolve` over one axis, or `convolve_circular`, block by block.

    Args:
        x: `[B, T, C_in]`.
        kernel: `[K, C_in, C_out]`.
        before: taps before the output frame, from 0 to K - 1.
        block: m, at least K - 1; for a circle, a divisor of T.
        circular: whether the end of a row is followed by its start, not by zeros.

    Returns:
        `[B, T, C_out]`.

    Raises:
        ValueError: a block of that length is not possible.
    """
    (batch, frames, c_in), (taps, _, c_out) = x.shape, kernel.shape
    if block < taps - 1 or (circular and frames % block):
        raise ValueError(
            f"convolve_by_frequency: no blocks of {block} for {taps} taps and {frames} frames"
            f"{' around a circle' * circular}"
        )
    of_kernel, of_input, to_output = (jnp.asarray(matrix, x.dtype) for matrix in make_transforms(block, taps))
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


def choose_block(x: jax.Array, kernel: jax.Array, circular: bool = False) -> int | None:
    """Returns the frames of a block for this convolution; None for the plain convolution.

    The choice depends on shapes, precision and devices alone, so that a seed gives one training.
    """
    # - A single clip is what an exported model generates: its graph stays plain.
    # - In bfloat16 the transforms would round once more.
    # - Over several devices the gradients of transformed kernels would be summed, four times as
    #   large.
    # - Elsewhere than on a CPU nothing was measured.
    on_one_cpu = jax.default_backend() == "cpu" and jax.device_count() == 1
    if not on_one_cpu or x.ndim != 3 or len(x) == 1 or x.dtype == jnp.bfloat16:
        return None
    return find_best_block(x.shape[1], len(x), *kernel.shape, circular)


def find_best_block(frames: int, batch: int, taps: int, c_in: int, c_out: int, circular: bool = False) -> int | None:
    """Returns the frames of the cheapest block; None if the plain convolution costs no more.

    The cost counts multiply-adds, and with `MOVE_COST` the numbers that are moved: the input twice,
    plain and transformed, the output likewise, the kernel once; of the plain circular convolution
    the columns.
    """
    pairs = c_in * c_out

    def cost(block):
        reach, count = block + taps - 1, batch * -(-frames // block)
        products = len(make_transforms(block, taps)[0])
        moved = count * (c_in * (reach + products) + c_out * (block + products)) + products * pairs
        return count * products * pairs + MOVE_COST * moved

    possible = [block for block in BLOCKS if block >= taps - 1 and not (circular and frames % block)]
    best = min(possible, key=cost, default=None)
    plain = batch * frames * taps * (pairs + (MOVE_COST * c_in if circular else 0))
    return best if best and cost(best) < plain else None


@cache
def make_transforms(block: int, taps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns A `[P, r]`, B `[P, N]` and C `[m, P]` of the module's equation, in float64."""
    reach = block + taps - 1
    of_kernel, of_input, to_output = [], [], []
    for k in range(reach // 2 + 1):
        wave = np.exp(-2j * np.pi * k * np.arange(reach) / reach)
        # In a correlation the spectrum of the kernel is conjugate.
        w, x, y = wave[:taps].conj(), wave, wave[:block].conj() / reach
        if 2 * k in (0, reach):
            rows = [w.real], [x.real], [y.real]
        else:
            # (a + bi)(c + di) = p - d (a + b) + (p + c (b - a)) i with p = a (c + d). Twice its
            # real part: for -k too.
            rows = (
                [w.real, w.imag - w.real, w.real + w.imag],
                [x.real + x.imag, x.real, x.imag],
                [2 * (y.real - y.imag), -2 * y.imag, -2 * y.real],
            )
        for matrix, more in zip((of_kernel, of_input, to_output), rows, strict=True):
            matrix += more
    return np.array(of_kernel), np.array(of_input), np.array(to_output).T
