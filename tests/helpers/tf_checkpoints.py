"""Writes TensorFlow checkpoints without TensorFlow: the inverse of `features/tf_checkpoint.py`."""

import struct
import zipfile

import numpy as np

TYPES = {"<f4": 1, "<f8": 2, "<i4": 3, "<i8": 9}


def varint(number):
    parts = []
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def block(entries):
    """A LevelDB block; each key shares its beginning with the one before, except every fourth."""
    out, restarts, before = b"", [], b""
    for number, (key, value) in enumerate(entries):
        shared = 0
        if number % 4 == 0:
            restarts.append(len(out))
        else:
            while shared < min(len(key), len(before)) and key[shared] == before[shared]:
                shared += 1
        out += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        before = key
    return out + struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))


def write(arrays, per_block=10):
    """Returns the contents of the index and of the data file."""
    data, entries = b"", [(b"", field(1, 1))]  # the header: one data file
    for name in sorted(arrays):
        array = np.asarray(arrays[name], order="C")
        shape = b"".join(field(2, field(1, size)) for size in array.shape)
        entry = field(1, TYPES[array.dtype.str]) + field(2, shape) + field(4, len(data)) + field(5, array.nbytes)
        entries.append((name.encode(), entry + varint(6 << 3 | 5) + bytes(4)))  # the checksum is not read
        data += array.tobytes()
    table, handles = b"", []
    for start in range(0, len(entries), per_block):
        some = entries[start : start + per_block]
        content = block(some)
        handles.append((some[-1][0] + b"\xff", varint(len(table)) + varint(len(content))))
        table += content + bytes(5)  # not compressed, and the checksum
    places = []
    for content in (block([]), block(handles)):
        places.append(varint(len(table)) + varint(len(content)))
        table += content + bytes(5)
    return table + b"".join(places).ljust(40, b"\0") + bytes.fromhex("57fb808b247547db"), data


def write_wheel(path, models):
    """Writes a wheel as musicnn's, {model: arrays}."""
    with zipfile.ZipFile(path, "w") as wheel:
        for model, arrays in models.items():
            index, data = write(arrays)
            wheel.writestr(f"musicnn/{model}/.index", index)
            wheel.writestr(f"musicnn/{model}/.data-00000-of-00001", data)
