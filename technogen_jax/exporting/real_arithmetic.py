"""Rewrites a JAX function without complex numbers, Fourier transforms, running sums and loops.

ONNX lacks these, or its runtimes compute them slowly or inexactly. `real_form` returns the same function in
matrix products, sums and reshapes. It works on the traced program, so it serves every model.

A Fourier transform becomes matrix products in a few factors. ONNX has an operator for it, but
onnxruntime 1.32 takes 1.9 s for the frames of one bar and errs by 0.7 per cent of the peak for 77,824
samples, which is not a power of two.

Reference: transforms in factors: Cooley, Tukey 1965 (Mathematics of Computation 19). Lengths with a large prime factor: Bluestein 1970
(IEEE Transactions on Audio and Electroacoustics 18), a convolution of a length that has small ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core

_LARGEST_FACTOR = 96  # larger matrices are slower than two smaller ones; primes up to here get one matrix
_FOLDED = 20_000  # elements; larger results of constants are computed at run time instead of being stored


class Pair(NamedTuple):
    """A complex array as two real ones."""

    real: Any
    imag: Any


def real_form(function: Callable) -> Callable:
    """Returns the function in real arithmetic without transforms and loops; inputs and outputs are real arrays.

    Raises (when it is called):
        NotImplementedError: an unsupported operation on complex numbers; names it.
    """

    def run(*args):
        traced, shape = jax.make_jaxpr(function, return_shape=True)(*args)
        outputs = _evaluate(traced.jaxpr, traced.consts, args)
        return jax.tree.unflatten(jax.tree.structure(shape), outputs)

    return run


def _evaluate(jaxpr, consts: Sequence[Any], args: Sequence[Any]) -> list[Any]:
    """Evaluates a traced program equation by equation and returns its outputs."""
    values = {}

    def read(atom):
        return _paired(np.asarray(atom.val, atom.aval.dtype)) if isinstance(atom, core.Literal) else values[atom]

    values.update(zip(jaxpr.constvars, map(_paired, consts), strict=True))
    values.update(zip(jaxpr.invars, args, strict=True))
    for equation in jaxpr.eqns:
        inputs = [read(atom) for atom in equation.invars]
        known = not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(inputs))
        if known and sum(variable.aval.size for variable in equation.outvars) <= _FOLDED:
            with jax.ensure_compile_time_eval():
                outputs = _outputs(equation, inputs)
        else:
            outputs = _outputs(equation, inputs)
        values.update(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _outputs(equation, inputs) -> Sequence[Any]:
    name, params = equation.primitive.name, equation.params
    for field in ("jaxpr", "call_jaxpr"):  # a function within: jit, custom_jvp, custom_vjp
        if field in params and name != "scan":
            inner = params[field]
            inner, consts = (inner.jaxpr, inner.consts) if hasattr(inner, "consts") else (inner, ())
            return _evaluate(inner, consts, inputs)
    if name == "scan":
        return _unrolled(equation, inputs)
    if name in _RULES:
        return [_RULES[name](*inputs, **params)]
    if not any(isinstance(value, Pair) for value in inputs):
        outputs = equation.primitive.bind(*inputs, **params)
        return outputs if equation.primitive.multiple_results else [outputs]
    if name in _COMPLEX:
        return [_COMPLEX[name](*inputs, **params)]
    if name in _LINEAR:
        parts = [equation.primitive.bind(*map(part, inputs), **params) for part in (_real, _imag)]
        return list(map(Pair, *parts)) if equation.primitive.multiple_results else [Pair(*parts)]
    raise NotImplementedError(
        f"real_form: no rule for {name} of complex numbers; add it to technogen_jax/exporting/real_arithmetic.py"
    )


def _paired(value):
    return Pair(np.real(value), np.imag(value)) if np.iscomplexobj(value) else value


def _real(value):
    return value.real if isinstance(value, Pair) else value


def _imag(value):
    """Returns the imaginary part: zero for real floats; integers (indices) are returned unchanged."""
    if isinstance(value, Pair):
        return value.imag
    return jnp.zeros_like(value) if jnp.issubdtype(value.dtype, jnp.floating) else value


def _as_pair(value):
    return value if isinstance(value, Pair) else Pair(value, jnp.zeros_like(value))


# ------------------------------------------------------------------------------------------------------- complex numbers

# Linear operations: real and imaginary parts are computed separately.
_LINEAR = {
    "broadcast_in_dim", "concatenate", "copy", "expand_dims", "gather", "neg", "pad", "reduce_sum", "reshape", "rev", "slice",
    "split", "squeeze", "stack", "tile", "transpose", "unstack",
}  # fmt: skip


def _sum(a, b, **_):
    a, b = _as_pair(a), _as_pair(b)
    return Pair(a.real + b.real, a.imag + b.imag)


def _difference(a, b, **_):
    a, b = _as_pair(a), _as_pair(b)
    return Pair(a.real - b.real, a.imag - b.imag)


def _product(a, b, **_):
    if not isinstance(a, Pair):
        a, b = b, a
    if not isinstance(b, Pair):
        return Pair(a.real * b, a.imag * b)
    return Pair(a.real * b.real - a.imag * b.imag, a.real * b.imag + a.imag * b.real)


def _quotient(a, b, **_):
    if isinstance(b, Pair):
        power = b.real * b.real + b.imag * b.imag
        return _product(a, Pair(b.real / power, -b.imag / power))
    return Pair(a.real / b, a.imag / b)


def _added_at(operand, indices, updates, *, dimension_numbers, **_):
    """`operand.at[..., :n].add(updates)`: a window whose place is known."""
    starts = np.zeros(operand.ndim, int)
    starts[list(dimension_numbers.scatter_dims_to_operand_dims)] = np.asarray(indices).ravel()
    if dimension_numbers.inserted_window_dims or len(starts) != len(dimension_numbers.update_window_dims):
        raise NotImplementedError("real_form: of scatter-add only a whole window at one place is known")
    around = [(i, size - i - n, 0) for i, size, n in zip(starts, operand.shape, updates.shape, strict=True)]
    return operand + lax.pad(updates, np.zeros((), updates.dtype), around)


def _added_at_pair(operand, indices, updates, **params):
    parts = zip(_as_pair(operand), _as_pair(updates), strict=True)
    return Pair(*(_added_at(old, indices, new, **params) for old, new in parts))


_COMPLEX = {
    "real": lambda x, **_: x.real,
    "imag": lambda x, **_: x.imag,
    "conj": lambda x, **_: Pair(x.real, -x.imag),
    "abs": lambda x, **_: jnp.sqrt(x.real * x.real + x.imag * x.imag),
    "add": _sum,
    "sub": _difference,
    "mul": _product,
    "div": _quotient,
    "convert_element_type": lambda x, **_: x,
    "scatter-add": _added_at_pair,
}


def _converted(x, *, new_dtype, **_):
    if np.issubdtype(new_dtype, np.complexfloating):
        return x if isinstance(x, Pair) else _as_pair(lax.convert_element_type(x, np.float32))
    return lax.convert_element_type(x, new_dtype)


# ------------------------------------------------------------------------------------------------------------ transforms


def _transform(x, *, fft_type, fft_lengths, **_):
    """`jax.lax.fft` of one axis."""
    if len(fft_lengths) != 1:
        raise NotImplementedError("real_form: only transforms of one axis are known")
    n, kind = fft_lengths[0], str(fft_type).rsplit(".", 1)[-1]
    if kind in ("FFT", "0"):
        return _dft(_as_pair(x), n, -1)
    if kind in ("RFFT", "2"):
        whole = _dft(Pair(x, None), n, -1)
        return Pair(*(part[..., : n // 2 + 1] for part in whole))
    if kind in ("IFFT", "1"):
        return Pair(*(part / n for part in _dft(_as_pair(x), n, 1)))
    # The other half of the spectrum is this one's mirror. An imaginary part at its ends says nothing.
    ends = np.ones(n // 2 + 1, np.float32)
    ends[[0, -1] if n % 2 == 0 else [0]] = 0
    last = (n + 1) // 2  # of a mirror
    real, imag = x.real, x.imag * ends
    real = jnp.concatenate([real, jnp.flip(real[..., 1:last], -1)], -1)
    imag = jnp.concatenate([imag, -jnp.flip(imag[..., 1:last], -1)], -1)
    return _dft(Pair(real, imag), n, 1).real / n


def _waves(n: int, rows: np.ndarray, columns: np.ndarray, sign: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and sines of 2 pi i k / n for rows i and columns k."""
    angles = sign * 2 * np.pi / n * (rows.astype(np.int64)[:, None] * columns % n)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def _dft(x: Pair, n: int, sign: int) -> Pair:
    """Sum over t of x[t] exp(sign 2 pi i f t / n), along the last axis, for f from 0 to n - 1; imag None: x is real."""
    if n <= _LARGEST_FACTOR:
        return _dense(x, n, sign)
    first = max(factor for factor in range(1, _LARGEST_FACTOR + 1) if n % factor == 0)
    if first == 1:
        return _bluestein(x, n, sign)
    last = n // first
    # t = last j + k, f = q + first r
    x = _each(lambda part: part.reshape(*part.shape[:-1], first, last).swapaxes(-1, -2), x)  # [..., k, j]
    x = _dense(x, first, sign)  # [..., k, q]
    cos, sin = _waves(n, np.arange(last), np.arange(first), sign)
    x = _each(lambda part: part.swapaxes(-1, -2), _product(x, Pair(cos, sin)))  # [..., q, k]
    x = _dft(x, last, sign)  # [..., q, r]
    return _each(lambda part: part.swapaxes(-1, -2).reshape(*part.shape[:-2], n), x)


def _dense(x: Pair, n: int, sign: int) -> Pair:
    cos, sin = _waves(n, np.arange(n), np.arange(n), sign)
    if x.imag is None:
        return Pair(_matmul(x.real, cos), _matmul(x.real, sin))
    return Pair(_matmul(x.real, cos) - _matmul(x.imag, sin), _matmul(x.real, sin) + _matmul(x.imag, cos))


def _bluestein(x: Pair, n: int, sign: int) -> Pair:
    """2 f t = f^2 + t^2 - (f - t)^2: a product, a convolution and a product with a chirp."""
    size = 1 << (2 * n - 2).bit_length()
    places = np.arange(n, dtype=np.int64)
    angles = sign * np.pi / n * (places * places % (2 * n))
    chirp = np.exp(1j * angles)
    around = np.zeros(size, complex)
    around[:n], around[size - n + 1 :] = chirp.conj(), chirp.conj()[:0:-1]
    response = np.fft.fft(around) / size
    chirp, response = (Pair(*(part.astype(np.float32) for part in (w.real, w.imag))) for w in (chirp, response))
    x = _product(chirp, x.real if x.imag is None else x)
    x = _each(lambda part: jnp.pad(part, [(0, 0)] * (part.ndim - 1) + [(0, size - n)]), x)
    x = _dft(_product(_dft(x, size, -1), response), size, 1)
    return _product(_each(lambda part: part[..., :n], x), chirp)


def _each(function, x: Pair) -> Pair:
    return Pair(function(x.real), None if x.imag is None else function(x.imag))


def _matmul(x, matrix):
    return jnp.matmul(x, matrix, precision="highest")


# ---------------------------------------------------------------------------------------------------------- sums and loops


def _running_sum(x, *, axis, reverse):
    """Adds pairs first, as JAX does on a CPU. Runtimes add one by one, and float sums would drift from JAX's."""
    if reverse:
        return jnp.flip(_running_sum(jnp.flip(x, axis), axis=axis, reverse=False), axis)
    return jnp.moveaxis(_in_pairs(jnp.moveaxis(x, axis, -1)), -1, axis)


def _in_pairs(x):
    n = x.shape[-1]
    if n == 1:
        return x
    pairs = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, n % 2)]).reshape(*x.shape[:-1], -1, 2)
    through_odd = _in_pairs(pairs[..., 0] + pairs[..., 1])
    through_even = jnp.concatenate([x[..., :1], through_odd[..., :-1] + pairs[..., 1:, 0]], -1)
    return jnp.stack([through_even, through_odd], -1).reshape(*x.shape[:-1], -1)[..., :n]


def _unrolled(equation, inputs):
    """Unrolls a loop with a known number of iterations."""
    jaxpr, length, reverse = (equation.params[name] for name in ("jaxpr", "length", "reverse"))
    jaxpr, consts = (jaxpr.jaxpr, jaxpr.consts) if hasattr(jaxpr, "consts") else (jaxpr, ())
    # Scanned inputs lose their first axis inside the loop. JAX 0.10 and 0.11 name these parameters differently.
    whole, kept = (
        sum(within.aval.ndim == without.aval.ndim for within, without in zip(*pair, strict=True))
        for pair in ((jaxpr.invars, equation.invars), (jaxpr.outvars, equation.outvars))
    )
    given, carried, rows = inputs[: whole - kept], inputs[whole - kept : whole], inputs[whole:]
    made = []
    for i in reversed(range(length)) if reverse else range(length):
        of_turn = [jax.tree.map(lambda part, i=i: part[i], value) for value in rows]
        outputs = _evaluate(jaxpr, consts, [*given, *carried, *of_turn])
        carried, made = outputs[:kept], [*made, outputs[kept:]]
    made = made[::-1] if reverse else made
    return [*carried, *(jax.tree.map(lambda *parts: jnp.stack(parts), *values) for values in zip(*made, strict=True))]


_RULES = {
    "fft": _transform,
    "complex": lambda real, imag: Pair(real, imag),
    "convert_element_type": _converted,
    "cumsum": _running_sum,
    "scatter-add": lambda *inputs, **params: (
        _added_at_pair if any(isinstance(x, Pair) for x in inputs) else _added_at
    )(*inputs, **params),
}
