"""Arrays in files: .npz without pickle, with a hash of the content; a file is written completely or not at all."""

from __future__ import annotations

import hashlib
import os
import zipfile
from typing import Any

import numpy as np

from technogen_jax.common import atomic_files

_LARGEST_RATIO = 100  # chosen: zeros are packed 1000 to 1, and an array of numbers 1.1 to 1
_HARMLESS_BYTES = 2**28  # chosen: of any content


def content_hash(arrays: dict[str, Any]) -> str:
    """Returns SHA-256 of names, types, shapes and little-endian bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.asarray(arrays[name])
        array = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def write(path: str | os.PathLike, arrays: dict[str, Any]) -> None:
    """Writes arrays and their hash, completely or not at all."""
    with atomic_files.replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, sha256=content_hash(arrays), **arrays)


def read(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Returns the arrays that `write` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file was not written by `write`, or it is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _check_sizes(archive)
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        expected = str(arrays.pop("sha256"))
    except FileNotFoundError:
        raise
    except Exception as error:  # a damaged archive raises many types
        raise ValueError(f"{path}: unreadable ({type(error).__name__}: {error}); make it again") from error
    if content_hash(arrays) != expected:
        raise ValueError(f"{path}: it is damaged: its content does not match its hash; make it again")
    return arrays


def _check_sizes(archive: zipfile.ZipFile) -> None:
    """Raises a ValueError if the arrays of a small file would fill the memory, as those of a zip bomb."""
    size = sum(member.file_size for member in archive.infolist())
    packed = sum(member.compress_size for member in archive.infolist())
    if size > _LARGEST_RATIO * packed + _HARMLESS_BYTES:
        raise ValueError(f"{packed} bytes that grow to {size}")
