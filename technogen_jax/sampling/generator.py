"""Loads a trained generator, draws and interpolates latents, renders clips.

Clip i of a seed depends on the weights, the seed and i alone, not on the number of clips. Clips are rendered one by one, so
that each has the same bits in any order.
"""

from __future__ import annotations

import collections
import functools
import hashlib
import os
import pathlib
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent import futures
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from technogen_jax import models
from technogen_jax.runs import bundle
from technogen_jax.runs.checkpoints import Checkpoints, DeletedError
from technogen_jax.runs.workdir import DATA_FILE, WorkdirError, read_config, read_json_or_none, read_statistics

PURPOSES = ("init", "train", "preview", "evaluate")  # for which a run draws random keys; their order decides the keys
_MOST_THREADS = 8  # that render clips; each takes memory (chosen)
_LOAD_ATTEMPTS = 5  # a training may delete the checkpoint that is being read
_CALIBRATION_SEED = 0  # of the latents from which batch statistics are computed


class Trained(NamedTuple):
    """A generator that is ready to render sound.

    Attributes:
        gan: the model.
        params: averaged generator parameters, with batch statistics if the model has them.
        config: the config of the run.
        workdir: the run's folder, or the file that it was exported to, absolute.
        step: generator updates done when the parameters were saved.
        weights: SHA-256 of the parameters and, if the model has them, of the dataset's statistics, in hexadecimal.
    """

    gan: models.GAN
    params: models.contract.Params
    config: ConfigDict
    workdir: str
    step: int
    weights: str


def load(workdir: str | os.PathLike, step: int | str = "latest") -> Trained:
    """Returns the generator of a run, with the averaged weights of a checkpoint.

    Args:
        workdir: the folder given to `train`, or a file that `technogen_jax.export` wrote.
        step: "latest", "best" (the smallest evaluation metric) or a step that has a checkpoint.

    Raises:
        WorkdirError: the run has no config, no statistics that the model needs, or no such checkpoint.
    """
    if pathlib.Path(workdir).suffix == bundle.SUFFIX:
        found = bundle.read(workdir, step)
        weights = fingerprint(found.params | found.statistics)
        return Trained(found.gan, found.params, found.config, os.path.abspath(workdir), found.card["step"], weights)
    config = read_config(workdir)
    statistics = read_statistics(workdir) if models.find(config).measure else None
    gan = models.build(config, statistics)
    shapes = jax.eval_shape(gan.init_g, jax.random.key(0))
    for attempt in range(_LOAD_ATTEMPTS):
        try:
            step, ema = _restore_ema(workdir, step, shapes, config.train.save_every)
            break
        except DeletedError:  # by the training that goes on; a newer one is there
            if isinstance(step, int) or attempt == _LOAD_ATTEMPTS - 1:
                raise
    params = calibrated(gan, ema)
    return Trained(gan, params, config, os.path.abspath(workdir), step, fingerprint(ema | (statistics or {})))


def _restore_ema(
    workdir: str | os.PathLike, step: int | str, shapes: models.contract.Params, save_every: int
) -> tuple[int, models.contract.Params]:
    """Returns the step of a checkpoint, which may be given as "latest" or "best", and its averaged parameters."""
    with Checkpoints(workdir, read_only=True) as checkpoints:
        steps = checkpoints.steps()
        if not steps:
            raise WorkdirError(f"{workdir}: no checkpoint yet; the first comes after {save_every} steps")
        if step == "latest":
            step = steps[-1]
        elif step == "best":
            step = checkpoints.best_step()
            if step is None:
                raise WorkdirError(f"{workdir}: no checkpoint was evaluated; use the latest")
        return step, checkpoints.restore_ema(step, shapes)


def dataset_fingerprint(workdir: str | os.PathLike) -> str | None:
    """Returns the fingerprint of the dataset that a run or an exported file was trained on; None if it does not say."""
    if pathlib.Path(workdir).suffix == bundle.SUFFIX:
        return bundle.read(workdir).card.get("fingerprint")
    identity = read_json_or_none(pathlib.Path(workdir) / DATA_FILE)
    return identity.get("fingerprint") if isinstance(identity, dict) else None


def folder_for(workdir: str | os.PathLike) -> pathlib.Path:
    """Returns the default folder for output: the run's folder; the current folder if the generator is one file."""
    return pathlib.Path() if os.path.isfile(workdir) else pathlib.Path(workdir)


def model_name(trained: Trained) -> str:
    """Returns a name for file names: that of an exported file, else that of the model, such as technogan."""
    path = pathlib.Path(trained.workdir)
    return path.stem if path.suffix == bundle.SUFFIX else trained.config.model.name


def tempo_bpm(trained: Trained) -> float | None:
    """Returns the tempo of the clips if they are whole bars of four beats, else None."""
    endless, audio = trained.gan.endless, trained.config.audio
    return 240 * endless.bars * audio.sample_rate_hz / audio.clip_samples if endless else None


def run_key(seed: int, purpose: str) -> jax.Array:
    """Returns the PRNG key of a run for one of `PURPOSES`; each purpose has another key."""
    return jax.random.fold_in(jax.random.key(seed), PURPOSES.index(purpose))


def calibrated(gan: models.GAN, params: models.contract.Params) -> models.contract.Params:
    """Returns the parameters with batch statistics computed from fixed latents; unchanged if the model has none."""
    return jax.jit(gan.calibrate)(params, jax.random.key(_CALIBRATION_SEED))


def fingerprint(params: models.contract.Params) -> str:
    """Returns SHA-256 of names, shapes and bytes of all parameters, in hexadecimal."""
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
    """Returns `[n, Z]`: latent i of a seed for each index i, scaled by `truncation`.

    Args:
        gan: the model.
        seed: another seed gives other sounds.
        indices: which of the seed's latents.
        truncation: in (0, 1]: a smaller value keeps latents near the middle of the latent space, where sounds are more
            typical and more alike.
        label: a class, or weights of some; None: each latent draws a class, if the model has classes.

    Raises:
        ValueError: the model does not have this label.
    """
    latents = np.array(_drawer(gan)(jax.random.key(seed), jnp.asarray(indices, jnp.uint32)))
    weights = slice(latents.shape[1] - len(gan.classes), None)
    latents[:, : weights.start] *= np.float32(truncation)
    if label is not None:
        latents[:, weights] = label_weights(gan, label)
    return latents


def label_weights(gan: models.GAN, label: str | Mapping[str, float]) -> np.ndarray:
    """Returns `[L]` float32 that sum to 1: the weight of each of the model's classes.

    Args:
        gan: the model.
        label: a class, or weights of some.

    Raises:
        ValueError: a class that the model does not have, or invalid weights; the message lists the classes.
    """
    given = {label: 1.0} if isinstance(label, str) else label
    # A keyboard and a folder of macOS spell an accent differently.
    spelled = {unicodedata.normalize("NFC", name): name for name in gan.classes}
    given = {spelled.get(unicodedata.normalize("NFC", name), name): weight for name, weight in given.items()}
    if not gan.classes:
        raise ValueError(f"label {', '.join(given)}: the model has none; train one with config.model.classes")
    if unknown := [name for name in given if name not in gan.classes]:
        raise ValueError(f"label {unknown[0]!r}: the model has {', '.join(gan.classes)}")
    weights = np.array([given.get(name, 0.0) for name in gan.classes], np.float64)
    if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.sum()):
        raise ValueError(f"label: expected weights of 0 and more, one of them more, got {dict(given)}")
    return np.float32(weights / weights.sum())


def drawn_label(gan: models.GAN, latents: np.ndarray) -> dict[str, float] | None:
    """Returns the weights above 0 of the labels in latents `[Z]`; None if the model has no labels."""
    weights = latents[len(latents) - len(gan.classes) :]
    return {name: float(weight) for name, weight in zip(gan.classes, weights, strict=True) if weight > 0} or None


def interpolate(start: np.ndarray, end: np.ndarray, count: int) -> np.ndarray:
    """Returns `[count, Z]` on the straight line from one latent `[Z]` to another, both included.

    The line stays inside the cube from which uniform latents are drawn.
    """
    share = np.linspace(0, 1, count, dtype=np.float32)[:, None]
    return start * (1 - share) + end * share


def render(trained: Trained, latents: np.ndarray) -> Iterator[np.ndarray]:
    """Yields the clip of each latent, in order: float32 `[T, C]`, not clipped."""
    one = _renderer(trained.gan)
    return compute_ahead(lambda z: np.asarray(one(trained.params, z[None]))[0], latents)


def compute_ahead(function: Callable[[Any], np.ndarray], items: Iterable[Any]) -> Iterator[np.ndarray]:
    """Yields function(item) for each item, in order; on a CPU one item for each core is computed at a time.

    Most operations of one clip are too small to be divided among cores. At most one result more than there are cores is kept.
    """
    most = 1 + min(os.cpu_count() or 1, _MOST_THREADS) if jax.default_backend() == "cpu" else 1
    with futures.ThreadPoolExecutor(most) as pool:
        waiting = collections.deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) == most:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def render_batches(gan: models.GAN, params: models.contract.Params, latents: np.ndarray, batch_size: int) -> np.ndarray:
    """Returns `[n, T, C]`, rendered in batches: faster, but equal to `render` only up to rounding."""
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
