"""Writes a JAX function as an ONNX graph: it is traced, and each traced operation becomes ONNX nodes.

The function must be in real arithmetic with known shapes (`real_arithmetic` makes such functions). The
tables `_RULES` and `_ELEMENTWISE` hold the supported operations; any other raises an error that names it.

Why not jax2onnx: measured with jax2onnx 0.17.1, jax 0.10.2 and onnxruntime 1.32 on the shipped model. It
cannot convert the complex irfft, so `real_arithmetic` would still be needed. After that it agrees with
JAX (1.4e-5), but converts for 351 s on a shared machine and writes 48.6 MB, against 8.7 MB here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import onnx
from jax.extend import core
from onnx import helper, numpy_helper

OPSET = 18  # from 2022, so that runtimes on phones support it
_IR_VERSION = 8  # the file format of that opset
_LEAST_HALVED = 1024  # elements; smaller constants are not stored in 16 bits


class Graph(NamedTuple):
    """The graph under construction.

    Attributes:
        nodes: the operations, in order.
        constants: stored arrays by their content, so that each is stored once.
    """

    nodes: list[onnx.NodeProto]
    constants: dict[Any, Constant]


class Constant(NamedTuple):
    """A stored array: its name in the graph and its content in the file."""

    name: str
    stored: onnx.TensorProto


class Value(NamedTuple):
    """An array in the graph.

    Attributes:
        source: its name in the graph, or its values if they are constant.
        shape: its current shape; it is broadcast to the traced shape only when an operation needs that.
    """

    source: str | np.ndarray
    shape: tuple[int, ...]


def convert(function: Callable, inputs: Mapping[str, Sequence[int]], output: str) -> onnx.ModelProto:
    """Returns the ONNX model of a function of float32 arrays that returns one array.

    Args:
        function: takes the arrays in the order of `inputs`.
        inputs: names and shapes of the arguments.
        output: name of the result.

    Raises:
        NotImplementedError: an unsupported operation; names it.
    """
    shapes = [jax.ShapeDtypeStruct(tuple(shape), np.float32) for shape in inputs.values()]
    traced = jax.make_jaxpr(function)(*shapes)
    graph = Graph([], {})
    args = [Value(name, tuple(shape)) for name, shape in inputs.items()]
    (result,) = _write(graph, traced.jaxpr, traced.consts, args)
    result = _whole(graph, result, traced.out_avals[0].shape)
    graph.nodes.append(helper.make_node("Identity", [_name(graph, result.source)], [output]))
    info = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in inputs.items()]
    made = helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, traced.out_avals[0].shape)
    model = helper.make_model(
        helper.make_graph(graph.nodes, "sound", info, [made], [each.stored for each in graph.constants.values()]),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=_IR_VERSION,
        producer_name="technogen_jax",
    )
    onnx.checker.check_model(model)
    return model


def _write(graph: Graph, jaxpr, consts, args: Sequence[Value]) -> list[Value]:
    values = dict(zip(jaxpr.constvars, map(_known, consts), strict=True)) | dict(zip(jaxpr.invars, args, strict=True))

    def read(atom):
        return _known(np.asarray(atom.val, atom.aval.dtype)) if isinstance(atom, core.Literal) else values[atom]

    for equation in jaxpr.eqns:
        name, params, inputs = equation.primitive.name, equation.params, [read(atom) for atom in equation.invars]
        if name != "scan" and ("jaxpr" in params or "call_jaxpr" in params):  # a function within
            inner = params.get("jaxpr", params.get("call_jaxpr"))
            inner, inner_consts = (inner.jaxpr, inner.consts) if hasattr(inner, "consts") else (inner, ())
            outputs = _write(graph, inner, inner_consts, inputs)
        elif name in _ELEMENTWISE:
            made = _ELEMENTWISE[name](graph, *(value.source for value in inputs), **params)
            outputs = [Value(made, np.broadcast_shapes(*(value.shape for value in inputs)))]
        elif name in _RULES:
            whole = [_whole(graph, value, atom.aval.shape) for value, atom in zip(inputs, equation.invars, strict=True)]
            wanted = equation.outvars[0].aval
            made = _RULES[name](graph, *(whole if name not in _LAZY else inputs), wanted=wanted, **params)
            if isinstance(made, Value):
                outputs = [made]
            else:
                sources = made if isinstance(made, list) else [made]
                shapes = [variable.aval.shape for variable in equation.outvars]
                outputs = [Value(source, shape) for source, shape in zip(sources, shapes, strict=True)]
        else:
            raise NotImplementedError(f"onnxgraph: no rule for the operation {name}")
        values.update(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _known(array) -> Value:
    array = np.asarray(array)
    return Value(array, array.shape)


def _name(graph: Graph, source: str | np.ndarray) -> str:
    """Returns the name of an array; stores it first if it is constant."""
    if isinstance(source, str):
        return source
    array = np.asarray(source)
    content = array.dtype.str, array.shape, array.tobytes()
    if content not in graph.constants:
        name = stored = f"c{len(graph.constants)}"
        if (half := _halved(array)) is not None:
            array, stored = half, f"{name}_16"
            graph.nodes.append(helper.make_node("Cast", [stored], [name], to=onnx.TensorProto.FLOAT))
        graph.constants[content] = Constant(name, numpy_helper.from_array(array, stored))
    return graph.constants[content].name


def _halved(array: np.ndarray) -> np.ndarray | None:
    """Returns the array in 16 bits if that is exact (as for weights of an exported file) and saves space, else None."""
    if array.dtype != np.float32 or array.size < _LEAST_HALVED:
        return None
    with np.errstate(over="ignore"):
        half = array.astype(np.float16)
    return half if np.array_equal(half, array) else None


def _emit(graph: Graph, operation: str, *inputs: str | np.ndarray, outputs: int = 0, **attributes) -> Any:
    """Adds an operation and returns the name of its output, or a list of names if it has several."""
    names = [f"v{len(graph.nodes)}_{i}" for i in range(max(outputs, 1))]
    graph.nodes.append(helper.make_node(operation, [_name(graph, source) for source in inputs], names, **attributes))
    return names if outputs else names[0]


def _whole(graph: Graph, value: Value, shape: Sequence[int]) -> Value:
    """Returns the array broadcast to its traced shape."""
    if value.shape == tuple(shape):
        return value
    return Value(_emit(graph, "Expand", value.source, _ints(shape)), tuple(shape))


def _ints(values: Sequence[int]) -> np.ndarray:
    return np.array(values, np.int64)


def _kind(dtype) -> int:
    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


# ----------------------------------------------------------------------------------------------------------- elementwise


def _as(operation: str) -> Callable:
    """Returns a rule that maps to one ONNX operation."""
    return lambda graph, *inputs, **_: _emit(graph, operation, *inputs)


def _power(graph, x, *, y, **_):
    if y == 2:
        return _emit(graph, "Mul", x, x)
    return _emit(graph, "Pow", x, np.float32(y))


def _rounded(graph, x, *, rounding_method, **_):
    if int(rounding_method) != 1:
        raise NotImplementedError("onnxgraph: ONNX rounds halves to even numbers; use jnp.round, not lax.round")
    return _emit(graph, "Round", x)


def _chosen(graph, which, *cases, **_):
    if len(cases) != 2:
        raise NotImplementedError("onnxgraph: of select_n only a choice of two is known")
    return _emit(graph, "Where", which, cases[1], cases[0])


_ELEMENTWISE = {
    name: _as(operation)
    for name, operation in dict(
        add="Add", add_any="Add", sub="Sub", mul="Mul", div="Div", max="Max", min="Min", pow="Pow", neg="Neg", abs="Abs", exp="Exp",
        log="Log", sqrt="Sqrt", tanh="Tanh", sin="Sin", cos="Cos", floor="Floor", ceil="Ceil", sign="Sign", erf="Erf",
        logistic="Sigmoid", lt="Less", gt="Greater", le="LessOrEqual", ge="GreaterOrEqual", eq="Equal", copy="Identity",
        stop_gradient="Identity", optimization_barrier="Identity",
    ).items()
} | {
    "and": _as("And"),
    "or": _as("Or"),
    "not": _as("Not"),
    "ne": lambda graph, a, b, **_: _emit(graph, "Not", _emit(graph, "Equal", a, b)),
    "rsqrt": lambda graph, x, **_: _emit(graph, "Reciprocal", _emit(graph, "Sqrt", x)),
    "square": lambda graph, x, **_: _emit(graph, "Mul", x, x),
    "log2": lambda graph, x, **_: _emit(graph, "Div", _emit(graph, "Log", x), np.float32(np.log(2))),
    "log1p": lambda graph, x, **_: _emit(graph, "Log", _emit(graph, "Add", x, np.float32(1))),  # absolute error 1e-7, not relative to x
    "exp2": lambda graph, x, **_: _emit(graph, "Pow", np.float32(2), x),
    "integer_pow": _power,
    "round": _rounded,
    "select_n": _chosen,
    "clamp": lambda graph, least, x, most, **_: _emit(graph, "Min", _emit(graph, "Max", x, least), most),
    "convert_element_type": lambda graph, x, *, new_dtype, **_: _emit(graph, "Cast", x, to=_kind(new_dtype)),
}  # fmt: skip


# ---------------------------------------------------------------------------------------------------------------- shapes


def _broadcast(graph, x, *, shape, broadcast_dimensions, wanted, **_):
    """Inserts axes of size one; the operations that follow broadcast."""
    own = [1] * len(shape)
    for axis, place in enumerate(broadcast_dimensions):
        own[place] = x.shape[axis]
    return Value(_reshaped(graph, x.source, own), tuple(own))


def _reshaped(graph, source, shape):
    if isinstance(source, np.ndarray):
        return source.reshape(shape)
    return _emit(graph, "Reshape", source, _ints(shape))


def _to_wanted(graph, x, *, wanted, **_):
    return _reshaped(graph, x.source, wanted.shape)


def _transposed(graph, x, *, permutation, **_):
    return _emit(graph, "Transpose", x.source, perm=list(permutation))


def _sliced(graph, x, *, start_indices, limit_indices, strides, **_):
    steps = strides or [1] * len(start_indices)
    return _cut(graph, x.source, start_indices, limit_indices, steps)


def _cut(graph, source, starts, ends, steps):
    return _emit(graph, "Slice", source, _ints(starts), _ints(ends), _ints(range(len(starts))), _ints(steps))


def _reversed(graph, x, *, dimensions, **_):
    n = len(dimensions)
    return _emit(graph, "Slice", x.source, _ints([-1] * n), _ints([-(2**31)] * n), _ints(dimensions), _ints([-1] * n))


def _padded(graph, x, fill, *, padding_config, **_):
    if any(within for _, _, within in padding_config):
        raise NotImplementedError("onnxgraph: of pad only what is put around is known")
    source = x.source
    if any(low < 0 or high < 0 for low, high, _ in padding_config):
        ends = [size + min(high, 0) for size, (_, high, _) in zip(x.shape, padding_config, strict=True)]
        source = _cut(graph, source, [max(-low, 0) for low, _, _ in padding_config], ends, [1] * len(ends))
    around = [max(low, 0) for low, _, _ in padding_config] + [max(high, 0) for _, high, _ in padding_config]
    return _emit(graph, "Pad", source, _ints(around), fill.source) if any(around) else source


def _joined(graph, *parts, dimension, **_):
    return _emit(graph, "Concat", *(part.source for part in parts), axis=dimension)


def _stacked(graph, *parts, axis, **_):
    shape = [*parts[0].shape[:axis], 1, *parts[0].shape[axis:]]
    return _emit(graph, "Concat", *(_reshaped(graph, part.source, shape) for part in parts), axis=axis)


def _split(graph, x, *, sizes, axis, **_):
    return _emit(graph, "Split", x.source, _ints(sizes), outputs=len(sizes), axis=axis)


def _unstacked(graph, x, *, axis, **_):
    count = x.shape[axis]
    parts = _emit(graph, "Split", x.source, _ints([1] * count), outputs=count, axis=axis)
    return [_reshaped(graph, part, [*x.shape[:axis], *x.shape[axis + 1 :]]) for part in parts]


def _tiled(graph, x, *, reps, **_):
    return _emit(graph, "Tile", x.source, _ints(reps))


def _counted(graph, *, dtype, shape, dimension, **_):
    own = [1] * len(shape)
    own[dimension] = shape[dimension]
    return Value(np.arange(shape[dimension], dtype=dtype).reshape(own), tuple(own))


def _gathered(graph, x, places, *, dimension_numbers, slice_sizes, **_):
    """Gathers whole rows, or single elements, at given places."""
    numbers = dimension_numbers
    indexed = list(numbers.start_index_map)
    rest = [axis for axis in range(len(x.shape)) if axis not in indexed]
    if set(numbers.collapsed_slice_dims) != set(indexed) or any(slice_sizes[axis] != x.shape[axis] for axis in rest):
        raise NotImplementedError("onnxgraph: of gather only whole rows and single numbers are known")
    ordered = (
        _emit(graph, "Transpose", x.source, perm=indexed + rest)
        if indexed + rest != sorted(indexed + rest)
        else x.source
    )
    rows = _emit(graph, "GatherND", ordered, _emit(graph, "Cast", places.source, to=onnx.TensorProto.INT64))
    batch = len(places.shape) - 1  # rows are [batch..., rest...]; JAX puts the rest at offset_dims
    total, permutation, batches, others = (
        batch + len(rest),
        [],
        iter(range(batch)),
        iter(range(batch, batch + len(rest))),
    )
    for axis in range(total):
        permutation.append(next(others if axis in numbers.offset_dims else batches))
    return _emit(graph, "Transpose", rows, perm=permutation)


# ------------------------------------------------------------------------------------------- products and convolutions


def _multiplied(graph, a, b, *, dimension_numbers, **_):
    (of_a, of_b), (batch_a, batch_b) = dimension_numbers
    if not batch_a and tuple(of_a) == (len(a.shape) - 1,) and tuple(of_b) == (0,) and len(b.shape) == 2:
        return _emit(graph, "MatMul", a.source, b.source)
    letters = iter("abcdefghijklmnopqrstuvwxyz")
    left, right = [next(letters) for _ in a.shape], [next(letters) for _ in b.shape]
    for i, j in [*zip(of_a, of_b, strict=True), *zip(batch_a, batch_b, strict=True)]:
        right[j] = left[i]
    free_a = [letter for i, letter in enumerate(left) if i not in (*of_a, *batch_a)]
    free_b = [letter for i, letter in enumerate(right) if i not in (*of_b, *batch_b)]
    result = "".join([left[i] for i in batch_a] + free_a + free_b)
    return _emit(graph, "Einsum", a.source, b.source, equation=f"{''.join(left)},{''.join(right)}->{result}")


def _convolved(graph, x, kernel, *, window_strides, padding, lhs_dilation, rhs_dilation, dimension_numbers, **params):
    if any(step != 1 for step in lhs_dilation):
        raise NotImplementedError("onnxgraph: a transposed convolution is known in polyphase form only")
    numbers = dimension_numbers
    x = _emit(
        graph, "Transpose", x.source, perm=list(numbers.lhs_spec)
    )  # the specs name the axes of batch, channels and space
    kernel = _emit(graph, "Transpose", kernel.source, perm=list(numbers.rhs_spec))
    y = _emit(
        graph,
        "Conv",
        x,
        kernel,
        strides=list(window_strides),
        pads=[low for low, _ in padding] + [high for _, high in padding],
        dilations=list(rhs_dilation),
        group=params["feature_group_count"],
    )
    return _emit(graph, "Transpose", y, perm=list(np.argsort(numbers.out_spec)))


def _reduced(operation: str) -> Callable:
    return lambda graph, x, *, axes, **_: _emit(graph, operation, x.source, _ints(axes), keepdims=0)


def _where_largest(operation: str) -> Callable:
    def rule(graph, x, *, axes, index_dtype, **_):
        return _emit(graph, "Cast", _emit(graph, operation, x.source, axis=axes[0], keepdims=0), to=_kind(index_dtype))

    return rule


_LAZY = {"broadcast_in_dim"}
_RULES = {
    "broadcast_in_dim": _broadcast,
    "reshape": _to_wanted,
    "squeeze": _to_wanted,
    "expand_dims": _to_wanted,
    "transpose": _transposed,
    "slice": _sliced,
    "rev": _reversed,
    "pad": _padded,
    "concatenate": _joined,
    "stack": _stacked,
    "split": _split,
    "unstack": _unstacked,
    "tile": _tiled,
    "iota": _counted,
    "gather": _gathered,
    "dot_general": _multiplied,
    "conv_general_dilated": _convolved,
    "reduce_sum": _reduced("ReduceSum"),
    "reduce_max": _reduced("ReduceMax"),
    "reduce_min": _reduced("ReduceMin"),
    "reduce_prod": _reduced("ReduceProd"),
    "argmax": _where_largest("ArgMax"),
    "argmin": _where_largest("ArgMin"),
}
