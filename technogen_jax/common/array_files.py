"""Arrays in files: .npz without pickle, with a hash of the contents, whole or not at all."""

from __future__ import annotations

import hashlib
import os
from typing import Any

import numpy as np

from technogen_jax.common import atomic_files


def content_hash(arrays: dict[str, Any]) -> str:
    """SHA-256 over names, types, shapes and little-endian bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.asarray(arrays[name])
        array = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def write(path: str | os.PathLike, arrays: dict[str, Any]) -> None:
    """Writes arrays and their hash, whole or not at all."""
    with atomic_files.replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, sha256=content_hash(arrays), **arrays)


def read(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The arrays of `write`, without the hash.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is none of these, or its contents do not have the hash it names.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        expected = str(arrays.pop("sha256"))
    except FileNotFoundError:
        raise
    except Exception as error:  # a damaged archive raises all sorts
        raise ValueError(f"{path}: unreadable ({type(error).__name__}: {error}); make it again") from error
    if content_hash(arrays) != expected:
        raise ValueError(f"{path}: its contents do not have the hash that it names; make it again")
    return arrays
