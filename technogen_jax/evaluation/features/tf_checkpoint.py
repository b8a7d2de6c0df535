"""Reads the arrays of a TensorFlow checkpoint (".index" and ".data-00000-of-00001") without TensorFlow.

The index is a sorted table of LevelDB's format, from names to protocol buffers. Each of these says
where an array is in the data file.

Reference: tensorflow/core/util/tensor_bundle and tensorflow/core/protobuf/tensor_bundle.proto;
LevelDB, doc/table_format.md.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

_MAGIC = 0xDB4775248B80FB57.to_bytes(8, "little")  # the last bytes of a table
_FOOTER_BYTES = 48
_TYPES = {1: "<f4", 2: "<f8", 3: "<i4", 9: "<i8"}  # number in types.proto -> type
_DTYPE, _SHAPE, _SHARD, _OFFSET, _SIZE = 1, 2, 3, 4, 5  # fields of a BundleEntryProto


def read_arrays(index: bytes, data: bytes) -> dict[str, np.ndarray]:
    """Returns name -> array.

    Args:
        index: the content of the ".index" file.
        data: the content of the only data file.

    Raises:
        ValueError: another format, a compressed index, several data files, or another type of array.
    """
    try:
        return {name.decode(): _read_array(entry, data) for name, entry in _read_table(index) if name}
    except (IndexError, KeyError) as error:
        raise ValueError(f"damaged checkpoint ({type(error).__name__}: {error})") from None


def _read_array(entry: bytes, data: bytes) -> np.ndarray:
    fields = dict(_read_message(entry))
    if fields.get(_SHARD, 0):
        raise ValueError("expected a checkpoint with one data file")
    kind = fields[_DTYPE]
    if kind not in _TYPES:
        raise ValueError(f"expected arrays of numbers, got TensorFlow's type {kind}")
    shape = [
        dict(_read_message(size)).get(1, 0) for number, size in _read_message(fields.get(_SHAPE, b"")) if number == 2
    ]
    start, size = fields.get(_OFFSET, 0), fields.get(_SIZE, 0)
    content, dtype = data[start : start + size], np.dtype(_TYPES[kind])
    if len(content) != dtype.itemsize * np.prod(shape, dtype=int):
        raise ValueError(f"damaged checkpoint: expected an array of shape {shape}, got {len(content)} bytes")
    return np.frombuffer(content, dtype).reshape(shape)


def _read_table(table: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yields the keys and values of a table."""
    if len(table) < _FOOTER_BYTES or not table.endswith(_MAGIC):
        raise ValueError("expected the index of a TensorFlow checkpoint")
    footer = table[-_FOOTER_BYTES:]
    _, at = _read_handle(footer, 0)  # of the meta index, which is not needed
    index, _ = _read_handle(footer, at)
    for _, handle in _read_block(table, *index):
        yield from _read_block(table, *_read_handle(handle, 0)[0])


def _read_block(table: bytes, start: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Yields the entries of a block. A key shares its first bytes with the one before."""
    if table[start + size]:
        raise ValueError("expected a checkpoint whose index is not compressed")
    block = table[start : start + size]
    restarts = int.from_bytes(block[-4:], "little")
    end, at, key = size - 4 * (restarts + 1), 0, b""
    while at < end:
        shared, at = _read_varint(block, at)
        own, at = _read_varint(block, at)
        length, at = _read_varint(block, at)
        key = key[:shared] + block[at : at + own]
        yield key, block[at + own : at + own + length]
        at += own + length


def _read_handle(data: bytes, at: int) -> tuple[tuple[int, int], int]:
    """Returns (start, size) of a block, and where the next bytes begin."""
    start, at = _read_varint(data, at)
    size, at = _read_varint(data, at)
    return (start, size), at


def _read_message(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yields the field numbers and values of a protocol buffer."""
    at = 0
    while at < len(message):
        key, at = _read_varint(message, at)
        kind = key & 7
        if kind == 0:
            value, at = _read_varint(message, at)
        elif kind == 2:
            length, at = _read_varint(message, at)
            value, at = message[at : at + length], at + length
        else:
            length = {1: 8, 5: 4}[kind]
            value, at = int.from_bytes(message[at : at + length], "little"), at + length
        yield key >> 3, value


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
