"""The layers that models are made of: 1-D convolutions in polyphase form, phase shuffle, batch norm.

A convolution of stride s, written the obvious way, reaches only slow kernels in XLA on a CPU, backwards above all; so
does a transposed one. In polyphase form both are one stride-1 convolution with s times the channels, and the function,
the parameters and the gradients are the same. `form="plain"` keeps the obvious way: it is the oracle of the tests.

Padding is TensorFlow's "SAME" throughout. Kernels are `[K, C_in, C_out]`; audio and features are `[B, T, C]`.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

FORMS = ("polyphase", "plain")
_DIMENSIONS = ("NWC", "WIO", "NWC")


def conv1d(x: jax.Array, kernel: jax.Array, stride: int = 1, form: str = "polyphase") -> jax.Array:
    """Strided convolution with "SAME" padding.

    Args:
        x: `[B, T, C_in]`, T a multiple of the stride.
        kernel: `[K, C_in, C_out]`.
        stride: samples from one output to the next.
        form: "polyphase" or "plain".

    Returns:
        `[B, T / stride, C_out]`.

    Raises:
        ValueError: T is no multiple of the stride.
    """
    taps, c_in, c_out = kernel.shape
    batch, length, _ = x.shape
    if length % stride:
        raise ValueError(f"conv1d: expected a length that is a multiple of the stride {stride}, got {length}")
    before = max(taps - stride, 0) // 2
    after = max(taps - stride, 0) - before
    if form == "plain":
        return lax.conv_general_dilated(x, kernel, (stride,), ((before, after),), dimension_numbers=_DIMENSIONS)
    if stride == 1:
        return _convolve(x, kernel, (before, after))
    # y[n] = sum_t w[t] x[s n + t - before]. With the kernel delayed to begin on a multiple of s, tap t = s j + r reads
    # phase r of the input, j frames on.
    lead = -(-before // stride)  # frames before n that the kernel reaches
    front = lead * stride - before
    frames = -(-(taps + front) // stride)
    kernel = jnp.pad(kernel, ((front, frames * stride - taps - front), (0, 0), (0, 0)))
    kernel = kernel.reshape(frames, stride * c_in, c_out)
    x = x.reshape(batch, length // stride, stride * c_in)  # [B, T, C] -> [B, T/s, s C]
    return _convolve(x, kernel, (lead, frames - 1 - lead))


def conv1d_transpose(x: jax.Array, kernel: jax.Array, stride: int, form: str = "polyphase") -> jax.Array:
    """Transposed convolution: the gradient of `conv1d` with regard to its input, as TensorFlow defines "SAME".

    Args:
        x: `[B, T, C_in]`.
        kernel: `[K, C_in, C_out]`, K not below the stride.
        stride: output samples for each input sample.
        form: "polyphase" or "plain".

    Returns:
        `[B, T * stride, C_out]`.

    Raises:
        ValueError: the kernel is shorter than the stride.
    """
    taps, c_in, c_out = kernel.shape
    batch, length, _ = x.shape
    if taps < stride:
        raise ValueError(f"conv1d_transpose: expected a kernel not shorter than the stride {stride}, got {taps}")
    if form == "plain":
        return lax.conv_transpose(
            x, kernel.swapaxes(1, 2), (stride,), "SAME", dimension_numbers=_DIMENSIONS, transpose_kernel=True
        )
    # y[s q + r] = sum_j x[q - j] w[s j + r + before]: each of the s output phases is a stride-1 convolution.
    before = (taps - stride) // 2
    first = -((before + stride - 1) // stride)
    last = (taps - 1 - before) // stride
    front = -(stride * first + before)
    frames = last - first + 1
    kernel = jnp.pad(kernel, ((front, frames * stride - taps - front), (0, 0), (0, 0)))
    kernel = kernel.reshape(frames, stride, c_in, c_out)[::-1]  # a convolution here is a correlation: turn it round
    kernel = kernel.transpose(0, 2, 1, 3).reshape(frames, c_in, stride * c_out)
    y = _convolve(x, kernel, (last, -first))
    return y.reshape(batch, length * stride, c_out)  # [B, T, s C] -> [B, s T, C]


def conv1d_upsampled(x: jax.Array, kernel: jax.Array, stride: int, form: str = "polyphase") -> jax.Array:
    """Nearest-neighbour upsampling by `stride`, then a stride-1 convolution with "SAME" padding.

    Args:
        x: `[B, T, C_in]`.
        kernel: `[K, C_in, C_out]`.
        stride: how often each sample is repeated.
        form: "polyphase" or "plain".

    Returns:
        `[B, T * stride, C_out]`.
    """
    taps, c_in, c_out = kernel.shape
    batch, length, _ = x.shape
    before = (taps - 1) // 2
    if form == "plain":
        return conv1d(jnp.repeat(x, stride, axis=1), kernel, 1, form)
    # y[s q + r] = sum_t w[t] x[q + floor((r + t - before) / s)]: taps that read the same sample are added up first.
    reads = (np.arange(stride)[:, None] + np.arange(taps)[None, :] - before) // stride  # [s, K]
    first, last = int(reads.min()), int(reads.max())
    gather = (reads[None] == np.arange(first, last + 1)[:, None, None]).astype(kernel.dtype)  # [J, s, K]
    kernel = jnp.einsum("jst,tio->jiso", gather, kernel, precision=lax.Precision.HIGHEST)
    y = _convolve(x, kernel.reshape(last - first + 1, c_in, stride * c_out), (-first, last))
    return y.reshape(batch, length * stride, c_out)


def phase_shuffle(x: jax.Array, key: jax.Array, radius: int) -> jax.Array:
    """The whole batch shifted in time by one random n in [-radius, radius], the gap filled by reflection.

    Args:
        x: `[B, T, C]`.
        key: PRNG key.
        radius: the largest shift in samples; 0 returns x.

    *Source*: Donahue, McAuley, Puckette, "Adversarial Audio Synthesis" (2019), section 3.3; as in the authors' code,
    one shift serves the whole batch.
    """
    if radius == 0:
        return x
    shift = jax.random.randint(key, (), -radius, radius + 1)
    padded = jnp.pad(x, ((0, 0), (radius, radius), (0, 0)), mode="reflect")
    return lax.dynamic_slice_in_dim(padded, radius - shift, x.shape[1], axis=1)


def leaky_relu(x: jax.Array) -> jax.Array:
    """max(0.2 x, x): the slope of DCGAN and WaveGAN."""
    return jnp.maximum(0.2 * x, x)


class Conv1D(nnx.Module):
    """A 1-D convolution layer: strided, transposed, or after nearest-neighbour upsampling.

    Kernels start Glorot-uniform and biases at zero, TensorFlow 1's defaults, with which the paper's results were made.

    Args:
        c_in: input channels.
        c_out: output channels.
        taps: kernel length.
        stride: the factor by which the length shrinks ("down") or grows (the others).
        direction: "down", "transpose" or "nearest".
        bias: whether the layer adds a bias.
        form: "polyphase" or "plain".
        rngs: source of the initial values.
    """

    def __init__(self, c_in, c_out, taps, stride=1, *, direction="down", bias=True, form="polyphase", rngs):
        self.kernel = nnx.Param(nnx.initializers.glorot_uniform()(rngs.params(), (taps, c_in, c_out)))
        self.bias = nnx.Param(jnp.zeros(c_out)) if bias else None
        self.stride, self.direction, self.form = stride, direction, form

    def __call__(self, x):
        """[B, T, c_in] to [B, T / stride, c_out] or [B, T * stride, c_out]."""
        function = {"down": conv1d, "transpose": conv1d_transpose, "nearest": conv1d_upsampled}[self.direction]
        y = function(x, self.kernel[...], self.stride, self.form)
        return y if self.bias is None else y + self.bias[...]


class Dense(nnx.Module):
    """A dense layer, Glorot-uniform, bias zero."""

    def __init__(self, c_in, c_out, *, rngs):
        self.kernel = nnx.Param(nnx.initializers.glorot_uniform()(rngs.params(), (c_in, c_out)))
        self.bias = nnx.Param(jnp.zeros(c_out))

    def __call__(self, x):
        """[B, c_in] to [B, c_out]."""
        return x @ self.kernel[...] + self.bias[...]


class BatchNorm(nnx.Module):
    """Batch normalisation over all axes but the last, ε 1e-3 (TensorFlow 1's default).

    It uses the batch's own statistics, unless the parameters bring some: those that `GAN.calibrate` puts in, so that
    a sound does not depend on what else is in its batch.
    """

    def __init__(self, channels):
        self.scale = nnx.Param(jnp.ones(channels))
        self.bias = nnx.Param(jnp.zeros(channels))
        self.mean = nnx.BatchStat(None)
        self.var = nnx.BatchStat(None)

    def __call__(self, x):
        """[..., C] normalised."""
        if self.mean.get_value() is None:
            axes = tuple(range(x.ndim - 1))
            self.mean.set_value(jnp.mean(x, axes))  # for calibration to read; a training step throws the module away
            self.var.set_value(jnp.var(x, axes))
        return (x - self.mean[...]) * lax.rsqrt(self.var[...] + 1e-3) * self.scale[...] + self.bias[...]


def _convolve(x, kernel, padding):
    """Stride-1 convolution: x `[B, T, C_in]`, kernel `[K, C_in, C_out]`, padding (before, after)."""
    if jax.default_backend() == "cpu":
        return _convolve_one_layout(x, kernel, padding)
    return lax.conv_general_dilated(x, kernel, (1,), (padding,), dimension_numbers=_DIMENSIONS)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolve_one_layout(x, kernel, padding):
    """The same, its gradients of whatever order being such convolutions again.

    XLA on a CPU has a fast kernel for this layout alone. It turns the layouts of JAX's own gradients into this one, but
    not inside a loop: there, as in a scan over critic updates, they take some twenty-five times as long
    (github.com/jax-ml/jax/issues/12868).
    """
    return lax.conv_general_dilated(x, kernel, (1,), (padding,), dimension_numbers=_DIMENSIONS)


def _forward(x, kernel, padding):
    return _convolve_one_layout(x, kernel, padding), (x, kernel)


def _backward(padding, saved, slope):
    x, kernel = saved
    before, after = padding
    reach = len(kernel) - 1
    of_x = _convolve_one_layout(slope, kernel[::-1].swapaxes(1, 2), (reach - before, reach - after))
    # w[t] meets x[n + t - before] wherever slope[n] is: a convolution of x with the slope, summed over the batch.
    of_kernel = _convolve_one_layout(x.transpose(2, 1, 0), slope.transpose(1, 0, 2), padding)
    return of_x, of_kernel.transpose(1, 0, 2)


_convolve_one_layout.defvjp(_forward, _backward)
