"""Layers of the models: convolutions, dense layers, batch normalization, phase shuffle.

A strided or a transposed convolution has two forms, with the same function, parameters and
gradients:

- "polyphase": one convolution of stride 1 (`convolution.convolve`) with s times the channels along
  each axis. On a CPU XLA has only slow kernels for other strides, above all in the backward pass.
- "plain": XLA's own, which is the reference of the tests.

`form="auto"` takes what is faster for the backend and the shape (`choose_form`).

Padding is TensorFlow's "SAME". Audio and its features are `[B, T, C]` with kernels
`[K, C_in, C_out]`, images `[B, N, F, C]` with square kernels `[K, K, C_in, C_out]`; `S...` and
`K...` stand for one axis or two.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from technogen_jax.models.convolution import (
    DIMENSIONS,
    convolve,
    convolve_circular,
    convolve_plainly,
    reverse_taps,
)

FORMS = ("auto", "polyphase", "plain")
# Channels from which a TPU computes the plain form faster, by the compiler's estimates:
# docs/accelerators.md.
_PLAIN_CHANNELS = 64
DTYPES = {
    "float32": None,
    "bfloat16": jnp.bfloat16,
}  # config value -> dtype of inner layers; None: the parameters' dtype


def choose_form(kernel: jax.Array, stride: int) -> str:
    """Returns the faster form of a convolution on this backend.

    On a TPU the polyphase form copies its input and its output, but with few channels the plain
    form leaves most of a matrix unit without work.

    Args:
        kernel: `[K..., C_in, C_out]`.
        stride: of the convolution, or of the one that it transposes.
    """
    is_wide = min(kernel.shape[-2:]) >= _PLAIN_CHANNELS
    return "plain" if jax.default_backend() == "tpu" and stride > 1 and is_wide else "polyphase"


def conv(x: jax.Array, kernel: jax.Array, stride: int = 1, form: str = "auto") -> jax.Array:
    """Computes a strided convolution with "SAME" padding, over one axis or two.

    Args:
        x: `[B, S..., C_in]`, each S a multiple of the stride.
        kernel: `[K..., C_in, C_out]`.
        stride: from one output to the next, along each axis.
        form: one of `FORMS`.

    Returns:
        `[B, S / stride..., C_out]`.

    Raises:
        ValueError: a length is no multiple of the stride.
    """
    taps = len(kernel)
    if any(length % stride for length in x.shape[1:-1]):
        found = " x ".join(map(str, x.shape[1:-1]))
        raise ValueError(f"conv: expected a length that is a multiple of the stride {stride}, got {found}")
    before = max(taps - stride, 0) // 2
    after = max(taps - stride, 0) - before
    form = choose_form(kernel, stride) if form == "auto" else form
    if form == "plain":
        return convolve_plainly(x, kernel, (before, after), stride)
    if stride == 1:
        return convolve(x, kernel, before)
    # y[n] = sum_t w[t] x[s n + t - before]. When zeros before the kernel make it begin on a
    # multiple of s, tap t = s j + r reads phase r of the input, j frames later.
    lead = -(-before // stride)  # frames before n that the kernel reads
    front = lead * stride - before
    frames = -(-(taps + front) // stride)
    kernel = _fold(_pad_taps(kernel, front, frames * stride - taps - front), stride, first_axis=0)
    return convolve(_fold(x, stride, first_axis=1), kernel, lead)


def conv_transpose(x: jax.Array, kernel: jax.Array, stride: int, form: str = "auto") -> jax.Array:
    """Computes a transposed convolution: the gradient of `conv` with respect to its input.

    Args:
        x: `[B, S..., C_in]`.
        kernel: `[K..., C_in, C_out]`, K not below the stride.
        stride: outputs for each input, along each axis.
        form: one of `FORMS`.

    Returns:
        `[B, S * stride..., C_out]`.

    Raises:
        ValueError: the kernel is shorter than the stride.
    """
    taps, axes = len(kernel), x.ndim - 2
    if taps < stride:
        raise ValueError(f"conv_transpose: expected a kernel not shorter than the stride {stride}, got {taps}")
    form = choose_form(kernel, stride) if form == "auto" else form
    if form == "plain":
        kernel, numbers = kernel.swapaxes(-1, -2), DIMENSIONS[axes]
        return lax.conv_transpose(x, kernel, (stride,) * axes, "SAME", dimension_numbers=numbers, transpose_kernel=True)
    # y[s q + r] = sum_j x[q - j] w[s j + r + before]: each of the s output phases is a stride-1
    # convolution.
    before = (taps - stride) // 2
    first = -((before + stride - 1) // stride)
    last = (taps - 1 - before) // stride
    front = -(stride * first + before)
    frames = last - first + 1
    kernel = _pad_taps(kernel, front, frames * stride - taps - front).swapaxes(-1, -2)
    kernel = reverse_taps(_fold(kernel, stride, first_axis=0))  # a convolution here is a correlation
    return _unfold(convolve(x, kernel.swapaxes(-1, -2), last), stride)


def conv1d_upsampled(x: jax.Array, kernel: jax.Array, stride: int, form: str = "auto") -> jax.Array:
    """Computes nearest-neighbour upsampling by `stride`, then a convolution of stride 1.

    Args:
        x: `[B, T, C_in]`.
        kernel: `[K, C_in, C_out]`.
        stride: how many times each sample is repeated.
        form: one of `FORMS`.

    Returns:
        `[B, T * stride, C_out]`.
    """
    taps, c_in, c_out = kernel.shape
    batch, length, _ = x.shape
    before = (taps - 1) // 2
    if form == "plain":
        return conv(jnp.repeat(x, stride, axis=1), kernel, 1, form)
    # y[s q + r] = sum_t w[t] x[q + floor((r + t - before) / s)]: taps that read the same sample are
    # added first.
    reads = (np.arange(stride)[:, None] + np.arange(taps)[None, :] - before) // stride  # [s, K]
    first, last = int(reads.min()), int(reads.max())
    gather = (reads[None] == np.arange(first, last + 1)[:, None, None]).astype(kernel.dtype)  # [J, s, K]
    kernel = jnp.einsum("jst,tio->jiso", gather, kernel, precision=lax.Precision.HIGHEST)
    y = convolve(x, kernel.reshape(last - first + 1, c_in, stride * c_out), -first)
    return y.reshape(batch, length * stride, c_out)


def phase_shuffle(x: jax.Array, key: jax.Array, radius: int) -> jax.Array:
    """Shifts the whole batch in time by one random n in [-radius, radius].

    The gap is filled by reflection.

    Args:
        x: `[B, T, C]`.
        key: PRNG key.
        radius: the largest shift in samples; 0 returns x.

    Reference: Donahue, McAuley, Puckette, "Adversarial Audio Synthesis" (2019), section 3.3. One
    shift for the whole batch is what the authors' code does.
    """
    if radius == 0:
        return x
    shift = jax.random.randint(key, (), -radius, radius + 1)
    padded = jnp.pad(x, ((0, 0), (radius, radius), (0, 0)), mode="reflect")
    return lax.dynamic_slice_in_dim(padded, radius - shift, x.shape[1], axis=1)


def minibatch_deviation(x: jax.Array, group: int) -> jax.Array:
    """Adds a channel that says how much the clips of a group differ.

    A discriminator sees a lack of variety by it.

    Args:
        x: `[B, T, C]`.
        group: clips of a group; if the batch is not a multiple of it, the largest smaller number
            that divides the batch.

    Returns:
        `[B, T, C + 1]`; the new channel is the mean over all features of their standard deviation
        within the group.

    Reference: Karras et al. 2018 (arXiv:1710.10196), section 3.
    """
    group = next(size for size in range(group, 0, -1) if len(x) % size == 0)
    grouped = x.reshape(group, -1, *x.shape[1:])
    deviation = jnp.sqrt(jnp.var(grouped, 0) + 1e-8)  # the derivative of the root is infinite at zero
    mean = jnp.tile(jnp.mean(deviation, (1, 2)), group)  # [B]: the same for all clips of a group
    return jnp.concatenate([x, jnp.broadcast_to(mean[:, None, None], (*x.shape[:-1], 1))], -1)


def leaky_relu(x: jax.Array) -> jax.Array:
    """Returns max(0.2 x, x): the slope of DCGAN and WaveGAN."""
    return jnp.maximum(0.2 * x, x)


class Conv(nnx.Module):
    """A convolution layer over one axis or two: strided, transposed, or after upsampling.

    Kernels start Glorot-uniform and biases at zero: the defaults of TensorFlow 1, which the paper
    used.

    Args:
        c_in: input channels.
        c_out: output channels.
        taps: kernel length along each axis: `(25,)` for audio, `(5, 5)` for images.
        stride: the factor by which each axis shrinks ("down") or grows (the others).
        direction: "down", "transpose" or, for audio, "nearest".
        bias: whether the layer adds a bias.
        form: one of `FORMS`.
        dtype: the type of computation and output; None: the parameters' dtype.
        rngs: source of the initial values.
    """

    def __init__(self, c_in, c_out, taps, stride=1, *, direction="down", bias=True, form="auto", dtype=None, rngs):
        self.kernel = nnx.Param(nnx.initializers.glorot_uniform()(rngs.params(), (*taps, c_in, c_out)))
        self.bias = nnx.Param(jnp.zeros(c_out)) if bias else None
        self.stride, self.direction, self.form, self.dtype = stride, direction, form, dtype

    def __call__(self, x):
        """[B, S..., c_in] to [B, S / stride..., c_out] or [B, S * stride..., c_out]."""
        function = {"down": conv, "transpose": conv_transpose, "nearest": conv1d_upsampled}[self.direction]
        kernel = self.kernel[...]
        dtype = self.dtype or kernel.dtype
        y = function(x.astype(dtype), kernel.astype(dtype), self.stride, self.form)
        return y if self.bias is None else y + self.bias[...].astype(dtype)


class CircularConv(nnx.Module):
    """A circular convolution layer.

    Kernels start Glorot-uniform, or with `zero` at zero: for the end of a residual branch.
    """

    def __init__(self, c_in, c_out, taps, *, zero=False, rngs):
        start = nnx.initializers.zeros if zero else nnx.initializers.glorot_uniform()
        self.kernel = nnx.Param(start(rngs.params(), (taps, c_in, c_out)))
        self.bias = nnx.Param(jnp.zeros(c_out))

    def __call__(self, x):
        """[B, T, c_in] to [B, T, c_out]."""
        return convolve_circular(x, self.kernel[...]) + self.bias[...]


class Dense(nnx.Module):
    """A dense layer. The kernel starts Glorot-uniform, the bias at zero."""

    def __init__(self, c_in, c_out, *, rngs):
        self.kernel = nnx.Param(nnx.initializers.glorot_uniform()(rngs.params(), (c_in, c_out)))
        self.bias = nnx.Param(jnp.zeros(c_out))

    def __call__(self, x):
        """[..., c_in] to [..., c_out]."""
        return x @ self.kernel[...] + self.bias[...]


class BatchNorm(nnx.Module):
    """Batch normalization over all axes but the last, with epsilon 1e-3 (TensorFlow 1's default).

    It uses the statistics of the batch, unless the parameters contain statistics. `GAN.calibrate`
    adds these, so that a generated clip does not depend on the rest of its batch. It computes in
    the dtype of its parameters.
    """

    def __init__(self, channels):
        self.scale = nnx.Param(jnp.ones(channels))
        self.bias = nnx.Param(jnp.zeros(channels))
        self.mean = nnx.BatchStat(None)
        self.var = nnx.BatchStat(None)

    def __call__(self, x):
        """[..., C] to [..., C]."""
        dtype, x = x.dtype, x.astype(self.scale[...].dtype)
        if self.mean.get_value() is None:
            axes = tuple(range(x.ndim - 1))
            self.mean.set_value(jnp.mean(x, axes))  # read by calibration; a training step discards the module
            self.var.set_value(jnp.var(x, axes))
        x = (x - self.mean[...]) * lax.rsqrt(self.var[...] + 1e-3) * self.scale[...] + self.bias[...]
        return x.astype(dtype)


def in_parts(network: Callable[[jax.Array], jax.Array], x: jax.Array, rows: int) -> jax.Array:
    """Applies a network to some rows at a time, with rematerialization.

    The backward pass computes each part again.

    Only x is kept for the backward pass, and memory is that of one part. Rematerialization of
    single layers saves nothing here: the input of a layer is what its backward pass needs, and the
    layer next to the audio has half of all memory.

    Args:
        network: maps `[b, ...]`, each row independently.
        x: `[B, ...]`.
        rows: b; if B is not a multiple of it, the largest smaller number that divides B. 0: all
            rows at once, without rematerialization.

    Returns:
        The output of the network, `[B, ...]`.
    """
    if not rows or len(x) <= rows:
        return network(x)
    rows = next(size for size in range(rows, 0, -1) if len(x) % size == 0)
    # A part has rows from the whole batch: the same number from each of several devices.
    parts = jnp.moveaxis(x.reshape(rows, -1, *x.shape[1:]), 1, 0)
    y = jnp.moveaxis(lax.map(jax.checkpoint(network), parts), 0, 1)
    return y.reshape(len(x), *y.shape[2:])


def widths(layers: int, channels: int, max_channels: int | None) -> list[int]:
    """Returns the channels at the generator's input and after each layer but the last.

    They double inwards from `channels`.
    """
    return [min(channels * 2**i, max_channels or math.inf) for i in reversed(range(layers))]


def _pad_taps(kernel, before, after):
    """Adds zeros before and after the taps, along each axis."""
    return jnp.pad(kernel, (*((before, after),) * (kernel.ndim - 2), (0, 0), (0, 0)))


def _fold(x, stride, first_axis):
    """Moves the phases of the axes from `first_axis` on into the channels.

    `[..., S..., C, ...]` to `[..., S / s..., s C, ...]`.
    """
    axes = x.ndim - 2
    end = first_axis + axes
    split = [part for length in x.shape[first_axis:end] for part in (length // stride, stride)]
    x = x.reshape(*x.shape[:first_axis], *split, *x.shape[end:])
    x = jnp.moveaxis(x, [first_axis + 2 * i + 1 for i in range(axes)], range(end, end + axes))
    return x.reshape(*x.shape[:end], -1, *x.shape[end + axes + 1 :])


def _unfold(x, stride):
    """Does the reverse of `_fold`: `[B, S..., s C]` to `[B, s S..., C]`."""
    axes, lengths = x.ndim - 2, x.shape[1:-1]
    x = x.reshape(*x.shape[:-1], *(stride,) * axes, -1)
    x = jnp.moveaxis(x, range(1 + axes, 1 + 2 * axes), [2 * i + 2 for i in range(axes)])
    return x.reshape(len(x), *(length * stride for length in lengths), -1)
