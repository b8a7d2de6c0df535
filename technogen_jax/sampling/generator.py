"""Workdir to sound: load a trained generator, draw latents, interpolate, render clips.

Clip i of a seed is a function of the weights, the seed and i alone, whatever the number of clips asked for; clips are
rendered one by one, so that each comes out the same to the last bit wherever it stands.
"""

from __future__ import annotations

import collections
import functools
import hashlib
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent import futures
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from technogen_jax import models
from technogen_jax.runs import bundle
from technogen_jax.runs.checkpoints import Checkpoints
from technogen_jax.runs.workdir import WorkdirError, read_config, read_statistics

PURPOSES = ("init", "train", "preview", "evaluate")  # what a run draws keys for; the order decides them
_MOST_THREADS = 8  # that make clips: each takes memory
_CALIBRATION_SEED = 0  # of the latents over which batch statistics are measured


class Trained(NamedTuple):
    """A generator ready to make sound.

    Attributes:
        gan: the model.
        params: averaged generator parameters, with batch statistics where the model has them.
        config: of the run.
        workdir: the run's folder, or the file that it was exported to, absolute.
        step: generator updates done when the parameters were saved.
        weights: SHA-256 of the parameters and, where the model has them, its training set's statistics, in hexadecimal.
    """

    gan: models.GAN
    params: models.contract.Params
    config: ConfigDict
    workdir: str
    step: int
    weights: str


def load(workdir: str | os.PathLike, step: int | str = "latest") -> Trained:
    """The generator of a run, from the averaged weights of a checkpoint.

    Args:
        workdir: the folder given to `train`, or a file that `technogen_jax.export` wrote.
        step: "latest", "best" (the smallest evaluation metric) or a step that has a checkpoint.

    Raises:
        WorkdirError: no config, no statistics where the model needs them, or no such checkpoint; names what there is.
    """
    if pathlib.Path(workdir).suffix == bundle.SUFFIX:
        gan, params, statistics, config, card = bundle.read(workdir, step)
        weights = fingerprint(params | statistics)
        return Trained(gan, params, config, os.path.abspath(workdir), card["step"], weights)
    config = read_config(workdir)
    statistics = read_statistics(workdir) if models.find(config).measure else None
    gan = models.build(config, statistics)
    with Checkpoints(workdir, read_only=True) as checkpoints:
        steps = checkpoints.steps()
        if not steps:
            raise WorkdirError(f"{workdir}: no checkpoint yet; the first comes after {config.train.save_every} steps")
        if step == "latest":
            step = steps[-1]
        elif step == "best":
            step = checkpoints.best_step()
            if step is None:
                raise WorkdirError(f"{workdir}: no checkpoint was evaluated; use the latest")
        ema = checkpoints.restore_ema(step, jax.eval_shape(gan.init_g, jax.random.key(0)))
    params = calibrated(gan, ema)
    return Trained(gan, params, config, os.path.abspath(workdir), step, fingerprint(ema | (statistics or {})))


def folder_for(workdir: str | os.PathLike) -> pathlib.Path:
    """Where what is made from a run goes unless told: its folder; of a generator that is one file, the current folder."""
    return pathlib.Path() if os.path.isfile(workdir) else pathlib.Path(workdir)


def tempo_bpm(trained: Trained) -> float | None:
    """The tempo of its clips, which are whole bars of four beats; None where they are not."""
    endless, audio = trained.gan.endless, trained.config.audio
    return 240 * endless.bars * audio.sample_rate_hz / audio.clip_samples if endless else None


def run_key(seed: int, purpose: str) -> jax.Array:
    """The PRNG key of a run for one of `PURPOSES`; no two are alike."""
    return jax.random.fold_in(jax.random.key(seed), PURPOSES.index(purpose))


def calibrated(gan: models.GAN, params: models.contract.Params) -> models.contract.Params:
    """Generator parameters with batch statistics measured over fixed latents; unchanged where the model has none."""
    return jax.jit(gan.calibrate)(params, jax.random.key(_CALIBRATION_SEED))


def fingerprint(params: models.contract.Params) -> str:
    """SHA-256 over names, shapes and bytes of all parameters."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        digest.update(f"{jax.tree_util.keystr(path)} {leaf.dtype} {leaf.shape}".encode())
        digest.update(np.ascontiguousarray(leaf).data)
    return digest.hexdigest()


def draw_latents(
    gan: models.GAN,
    seed: int,
    indices: Sequence[int],
    truncation: float = 1.0,
    label: str | Mapping[str, float] | None = None,
) -> np.ndarray:
    """`[n, Z]`: latent i of a seed for each index, scaled by `truncation`.

    Args:
        gan: the model.
        seed: another one gives other sounds.
        indices: which of the seed's latents.
        truncation: in (0, 1]: smaller keeps nearer the middle of the latent space, for safer and more alike sounds.
        label: see `label_weights`; None: each latent has a class of its own, where the model has classes.

    Raises:
        ValueError: a label that the model does not know.
    """
    latents = np.array(_drawer(gan)(jax.random.key(seed), jnp.asarray(indices, jnp.uint32)))
    weights = slice(latents.shape[1] - len(gan.classes), None)
    latents[:, : weights.start] *= np.float32(truncation)
    if label is not None:
        latents[:, weights] = label_weights(gan, label)
    return latents


def label_weights(gan: models.GAN, label: str | Mapping[str, float]) -> np.ndarray:
    """`[L]` float32 that sum to 1: how much of each of the model's classes.

    Args:
        gan: the model.
        label: a class, or weights of some.

    Raises:
        ValueError: a class that the model does not have, or weights that are none; names it and the classes there are.
    """
    given = {label: 1.0} if isinstance(label, str) else label
    if not gan.classes:
        raise ValueError(f"label {', '.join(given)}: the model knows none; train one with config.model.classes")
    if unknown := [name for name in given if name not in gan.classes]:
        raise ValueError(f"label {unknown[0]!r}: the model knows {', '.join(gan.classes)}")
    weights = np.array([given.get(name, 0.0) for name in gan.classes], np.float64)
    if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.sum()):
        raise ValueError(f"label: expected weights of 0 and more, one of them more, got {dict(given)}")
    return np.float32(weights / weights.sum())


def interpolate(start: np.ndarray, end: np.ndarray, count: int) -> np.ndarray:
    """`[count, Z]` on the straight line from one latent `[Z]` to another, both included.

    The line stays inside the cube that uniform latents are drawn from.
    """
    share = np.linspace(0, 1, count, dtype=np.float32)[:, None]
    return start * (1 - share) + end * share


def render(trained: Trained, latents: np.ndarray) -> Iterator[np.ndarray]:
    """The clip of each latent, in order: float32 `[T, C]`, not clipped."""
    one = _renderer(trained.gan)
    return ahead(lambda z: np.asarray(one(trained.params, z[None]))[0], latents)


def ahead(make: Callable[[Any], np.ndarray], items: Iterable[Any]) -> Iterator[np.ndarray]:
    """What `make` gives for each item, in order; on a CPU cores make one each, and one more is waiting at most.

    Of the operations behind one clip few are large enough to be shared by cores.
    """
    most = 1 + min(os.cpu_count() or 1, _MOST_THREADS) if jax.default_backend() == "cpu" else 1
    with futures.ThreadPoolExecutor(most) as pool:
        waiting = collections.deque()
        for item in items:
            waiting.append(pool.submit(make, item))
            if len(waiting) == most:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def render_batches(gan: models.GAN, params: models.contract.Params, latents: np.ndarray, batch_size: int) -> np.ndarray:
    """`[n, T, C]`: all clips at once, faster; for pictures and metrics, where the last bit does not count."""
    many = _renderer(gan)
    padded = np.resize(latents, (-(-len(latents) // batch_size) * batch_size, latents.shape[1]))
    parts = [np.asarray(many(params, padded[i : i + batch_size])) for i in range(0, len(padded), batch_size)]
    return np.concatenate(parts)[: len(latents)]


@functools.lru_cache(maxsize=4)
def _drawer(gan: models.GAN):
    return jax.jit(jax.vmap(lambda key, index: gan.sample_latents(jax.random.fold_in(key, index), 1)[0], (None, 0)))


@functools.lru_cache(maxsize=4)
def _renderer(gan: models.GAN):
    return jax.jit(lambda params, z: gan.decode(gan.generate(params, z)))
