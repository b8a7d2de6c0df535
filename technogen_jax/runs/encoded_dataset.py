"""The training dataset as its model encodes it, for models with `encode_once`.

It is the file `codes-HASH.npy` in the workdir: float32, one row for each clip, in the order of the
dataset. The values are those that `encode` returns, to the last bit; float16 would change what is
learnt, and the code of a bar takes only a hundredth of its audio. HASH is of everything that the
codes depend on, so that codes of another dataset or statistics are not used.
"""

from __future__ import annotations

import collections
import hashlib
import json
import pathlib
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures

import jax
import numpy as np
from ml_collections import ConfigDict

from technogen_jax.audio import audio_files
from technogen_jax.common import array_files, atomic_files
from technogen_jax.data.clip_source import ClipSource
from technogen_jax.data.manifest import Manifest
from technogen_jax.models import GAN, Statistics

_BATCH = 16  # clips encoded at a time
_THREADS = 2  # batches at work: one is read, or in a part that uses one core, while the other computes


def find_path(
    workdir: pathlib.Path, config: ConfigDict, manifest: Manifest, statistics: Statistics | None
) -> pathlib.Path:
    """Returns the path of a run's encoded dataset, whether or not the file exists."""
    facts = dict(set=manifest.fingerprint, split=config.data.split, audio=dict(config.audio), model=dict(config.model))
    facts |= dict(labels=manifest.labels, statistics=array_files.content_hash(statistics or {}))
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return workdir / f"codes-{digest[:12]}.npy"


def write(
    path: pathlib.Path, gan: GAN, source: ClipSource, clip_samples: int, on_progress: Callable[[int], object]
) -> None:
    """Encodes all clips of a split and writes the file, whole or not at all.

    Older files are deleted.

    Args:
        path: from `find_path`.
        gan: the model.
        source: the clips.
        clip_samples: length of the model's window, which begins at the start of each clip.
        on_progress: takes the number of clips done since the last call.
    """
    for old in [*path.parent.glob("codes-*.npy"), *path.parent.glob(".codes-*.tmp")]:
        old.unlink()
    encode = jax.jit(gan.encode)
    weights = make_label_weights(source.manifest.labels, gan.classes) if gan.classes else None

    def encode_batch(start: int) -> np.ndarray:
        clips = [source[index] for index in range(start, min(start + _BATCH, len(source)))]
        # All batches have one shape, so that encode is compiled once.
        padded = clips + clips[-1:] * (_BATCH - len(clips))
        sound = audio_files.from_int16(np.stack([clip["audio"][:clip_samples] for clip in padded]))
        labels = () if weights is None else (weights[[clip["label"] for clip in padded]],)
        return np.asarray(encode(sound, *labels))[: len(clips)]

    with atomic_files.replacing(path) as temporary, open(temporary, "wb") as file:
        for codes in _map_in_threads(encode_batch, range(0, len(source), _BATCH)):
            if not file.tell():
                header = dict(descr=codes.dtype.str, fortran_order=False, shape=(len(source), *codes.shape[1:]))
                np.lib.format.write_array_header_1_0(file, header)
            file.write(codes.tobytes())
            on_progress(len(codes))


def _map_in_threads(function: Callable[[int], np.ndarray], starts: Sequence[int]) -> Iterator[np.ndarray]:
    """Yields the results in order; threads work ahead, but only so far that memory stays small."""
    with futures.ThreadPoolExecutor(_THREADS) as pool:
        waiting = collections.deque()
        for start in starts:
            waiting.append(pool.submit(function, start))
            if len(waiting) > _THREADS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def find_shape(gan: GAN, manifest: Manifest, clips: int, clip_samples: int) -> jax.ShapeDtypeStruct:
    """Returns shape and type of what `read` will return, before the dataset is encoded."""
    sound = jax.ShapeDtypeStruct((1, clip_samples, manifest.channels), np.float32)
    labels = (jax.ShapeDtypeStruct((1, len(gan.classes)), np.float32),) if gan.classes else ()
    codes = jax.eval_shape(gan.encode, sound, *labels)
    return jax.ShapeDtypeStruct((clips, *codes.shape[1:]), codes.dtype)


def read(path: pathlib.Path) -> np.ndarray:
    """Returns `[clips, ...]`, mapped into memory: a row is read when it is used.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        return np.load(path, mmap_mode="r").view(np.ndarray)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: unreadable ({error}); delete it and train on: it is made anew") from error


def make_label_weights(labels: Sequence[str], classes: Sequence[str]) -> np.ndarray:
    """Returns `[labels, classes]`: 1 for the class of the label's name, or else equal weights."""
    known = np.array([[name == label for name in classes] for label in labels], np.float32)
    return np.where(known.any(1, keepdims=True), known, np.float32(1 / len(classes)))
