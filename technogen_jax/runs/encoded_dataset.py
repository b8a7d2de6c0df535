"""A training set as its model encodes it: for models with `encode_once`, made before the first step, kept with the run.

A file `codes-HASH.npy` in the workdir: float32, a row for each clip, in order. It is what `encode` says, to the last bit: half as
many bytes would change what is learnt, and a bar's codes are a hundredth of its sound anyway. The hash is of all that
codes follow from, so that those of another set or of other statistics are none.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
from collections.abc import Callable, Sequence

import jax
import numpy as np
from ml_collections import ConfigDict

from technogen_jax.audio import audio_files
from technogen_jax.common import array_files, atomic_files
from technogen_jax.data.clip_source import ClipSource
from technogen_jax.data.manifest import Manifest
from technogen_jax.models import GAN, Statistics

_BATCH = 16  # clips encoded at a time


def path_in(
    workdir: pathlib.Path, config: ConfigDict, manifest: Manifest, statistics: Statistics | None
) -> pathlib.Path:
    """The file of a run's codes, there or not."""
    facts = dict(set=manifest.fingerprint, split=config.data.split, audio=dict(config.audio), model=dict(config.model))
    facts |= dict(labels=manifest.labels, statistics=array_files.content_hash(statistics or {}))
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return workdir / f"codes-{digest[:12]}.npy"


def make(path: pathlib.Path, gan: GAN, source: ClipSource, clip_samples: int, count: Callable[[int], object]) -> None:
    """Encodes all clips of a split into a file, whole or not at all; codes and half codes of before go.

    Args:
        path: from `path_in`.
        gan: the model.
        source: the clips.
        clip_samples: the model's window, from the beginning of each clip.
        count: is told how many clips more are done.
    """
    for old in [*path.parent.glob("codes-*.npy"), *path.parent.glob(".codes-*.tmp")]:
        old.unlink()
    encode = jax.jit(gan.encode)
    weights = weights_of_labels(source.manifest.labels, gan.classes) if gan.classes else None
    with atomic_files.replacing(path) as temporary, open(temporary, "wb") as file:
        for start in range(0, len(source), _BATCH):
            clips = [source[index] for index in range(start, min(start + _BATCH, len(source)))]
            padded = clips + clips[-1:] * (_BATCH - len(clips))  # so that one program does for all
            sound = audio_files.from_int16(np.stack([clip["audio"][:clip_samples] for clip in padded]))
            labels = () if weights is None else (weights[[clip["label"] for clip in padded]],)
            codes = np.asarray(encode(sound, *labels))
            if not start:
                header = dict(descr=codes.dtype.str, fortran_order=False, shape=(len(source), *codes.shape[1:]))
                np.lib.format.write_array_header_1_0(file, header)
            file.write(codes[: len(clips)].tobytes())
            count(len(clips))


def read(path: pathlib.Path) -> np.ndarray:
    """`[clips, ...]`, mapped into memory: a row is read when it is asked for.

    Raises:
        ValueError: not a whole file.
    """
    try:
        return np.load(path, mmap_mode="r").view(np.ndarray)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: unreadable ({error}); delete it and train on: it is made anew") from error


def weights_of_labels(labels: Sequence[str], classes: Sequence[str]) -> np.ndarray:
    """`[labels, classes]` float32: 1 for the class of a label's name, the same for all classes where there is none."""
    known = np.array([[name == label for name in classes] for label in labels], np.float32)
    return np.where(known.any(1, keepdims=True), known, np.float32(1 / len(classes)))
