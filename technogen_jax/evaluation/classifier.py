"""A small convolutional network on log-mel images that trains in seconds on the user's own clips.

It has two uses. The artefact net classifies which fault was added to a real clip; its features are
an embedding, a second opinion beside `tmr-v1`. A classifier of the dataset's labels gives the
inception score.

The artefact net is far more sensitive than `tmr-v1` to the faults that it was trained on, and does
not react to others, such as a wrong tempo. Train it once, and compare only figures of one net (one
hash).
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from technogen_jax.audio.corruptions import CORRUPTIONS, gain
from technogen_jax.common import array_files, progress
from technogen_jax.evaluation.features.embedding import Embedding
from technogen_jax.evaluation.features.log_mel import log_mel_images

FEATURES = 64
CLEAN = "clean"

_CHANNELS = (1, 16, 32, 64)
_BATCH = 32
_LEARNING_RATE = 1e-3
_HELD_OUT = 0.2  # of the tracks
_GAIN_DB = 6  # random gain of the artefact net's examples, up or down: level is no artefact
_EXAMPLES = 1280  # training clips of the artefact net, of all kinds together


class Net(NamedTuple):
    """A trained network.

    Attributes:
        params: its arrays.
        classes: names of the logits, in order.
        validation_accuracy: on held-out tracks, the mean over the classes.
        sample_rate_hz: the sample rate of the audio; None if it was trained on images.
    """

    params: dict[str, np.ndarray]
    classes: tuple[str, ...]
    validation_accuracy: float
    sample_rate_hz: int | None = None

    @property
    def sha256(self) -> str:
        """The SHA-256 of the arrays."""
        return array_files.content_hash(self._arrays())

    def save(self, path: str | os.PathLike) -> None:
        """Writes an .npz file; it appears complete or not at all."""
        array_files.write(path, self._arrays())

    def _arrays(self) -> dict[str, Any]:
        return {f"params/{name}": array for name, array in self.params.items()} | {
            "classes": np.array(self.classes),
            "validation_accuracy": np.float64(self.validation_accuracy),
            "sample_rate_hz": np.int64(self.sample_rate_hz or 0),
        }


def load_net(path: str | os.PathLike) -> Net:
    """Returns the network in a file.

    Raises:
        ValueError: a damaged file, or one without a network.
    """
    found = array_files.read(path)
    try:
        return Net(
            {name.removeprefix("params/"): array for name, array in found.items() if name.startswith("params/")},
            tuple(map(str, found["classes"])),
            float(found["validation_accuracy"]),
            int(found["sample_rate_hz"]) or None,
        )
    except KeyError as error:
        raise ValueError(f"{path}: no net ({error} is missing)") from None


def train(
    images: np.ndarray,
    targets: np.ndarray,
    tracks: np.ndarray,
    *,
    classes: Sequence[str],
    steps: int = 300,
    seed: int = 0,
    what: str = "classifier",
) -> Net:
    """Returns a network that classifies images, with its accuracy on held-out tracks.

    A fifth of the tracks of each class is held out. All classes are equally likely in a batch.

    Args:
        images: `[n, N, M]`, from `log_mel_images`.
        targets: `[n]`, indices into `classes`.
        tracks: `[n]`, the track of each.
        classes: names.
        steps: batches of 32.
        seed: the seed of the split, the initial parameters and the batches.
        what: text of the progress bar.

    Raises:
        ValueError: arrays that do not fit, fewer than two classes, or a class without two tracks.
    """
    images, targets, tracks = np.asarray(images, np.float32), np.asarray(targets), np.asarray(tracks)
    if images.ndim != 3 or not len(images) == len(targets) == len(tracks):
        raise ValueError(
            f"train: expected images [n, N, M] and one target and one track each, got {images.shape}, {targets.shape} "
            f"and {tracks.shape}"
        )
    if not np.isfinite(images).all():
        raise ValueError("train: the images have NaN or Inf")
    if len(classes) < 2:
        raise ValueError(f"train: expected at least 2 classes, got {len(classes)}")
    random = np.random.default_rng(seed)
    held = _held_out(targets, tracks, classes, random)
    images_in, targets_in = images[~held], targets[~held]
    params = _initial(random, images.shape[2], len(classes))
    params["mean"], params["deviation"] = images_in.mean(), images_in.std() + np.float32(1e-6)

    optimizer = optax.adam(optax.cosine_decay_schedule(_LEARNING_RATE, steps))
    state = optimizer.init(params)
    shares = 1 / np.bincount(targets_in, minlength=len(classes))[targets_in] / len(classes)
    with progress.bar(what, steps, "step") as bar:
        for _ in range(steps):  # no lax.scan: in a loop XLA's gradients of convolutions are slow on a CPU
            chosen = random.choice(len(images_in), _BATCH, p=shares)
            params, state = _step(params, state, images_in[chosen], targets_in[chosen], optimizer.update)
            bar.update(1)
    net = Net(jax.tree.map(np.asarray, params), tuple(classes), 0.0)
    right = logits(net, images[held]).argmax(axis=1) == targets[held]
    accuracy = np.mean([right[targets[held] == target].mean() for target in np.unique(targets[held])])
    return net._replace(validation_accuracy=float(accuracy))


def logits(net: Net, images: np.ndarray) -> np.ndarray:
    """Returns one value a class, float32 `[n, K]`, for images `[n, N, M]`."""
    return _evaluate(net, images)[1]


def features(net: Net, images: np.ndarray) -> np.ndarray:
    """Returns the layer before the logits, float32 `[n, 64]`, for images `[n, N, M]`."""
    return _evaluate(net, images)[0]


def train_artefact(
    audio: np.ndarray, tracks: np.ndarray, sample_rate_hz: int, *, steps: int = 300, seed: int = 0
) -> Net:
    """Returns a network that classifies what was done to a real clip.

    The classes are "clean" and those of `corruptions.CORRUPTIONS`.

    Args:
        audio: real clips, floating-point `[n, T, C]` in [-1, 1]; the mean of the channels is used.
        tracks: `[n]`, the track of each.
        sample_rate_hz: the audio's rate.
        steps: the number of steps of training.
        seed: for all random numbers.

    Raises:
        ValueError: silent clips; clips that `train` or `log_mel_images` refuses.
    """
    silent = ~np.any(audio, axis=(1, 2))
    if silent.any():
        raise ValueError(f"train_artefact: expected clips with sound, {silent.sum()} of {len(audio)} are silent")
    random, kinds = np.random.default_rng(seed), (CLEAN, *CORRUPTIONS)
    chosen = np.resize(random.permutation(len(audio)), _EXAMPLES)
    targets = random.permutation(np.resize(np.arange(len(kinds)), _EXAMPLES))
    images = []
    with progress.bar("artefact net: clips", _EXAMPLES, "clip") as bar:
        for start in range(0, _EXAMPLES, _BATCH):
            changed = []
            for clip, target in zip(chosen[start : start + _BATCH], targets[start : start + _BATCH], strict=True):
                mono = audio[clip].mean(axis=1, keepdims=True, dtype=np.float64)
                mono = gain(mono, random.uniform(-_GAIN_DB, _GAIN_DB))
                kind = kinds[target]
                changed.append(mono if kind == CLEAN else CORRUPTIONS[kind](mono, sample_rate_hz, random))
            images.append(log_mel_images(np.stack(changed), sample_rate_hz))
            bar.update(len(changed))
    what = "artefact net: training"
    net = train(
        np.concatenate(images), targets, np.asarray(tracks)[chosen], classes=kinds, steps=steps, seed=seed, what=what
    )
    return net._replace(sample_rate_hz=sample_rate_hz)


def artefact_embedding(net: Net) -> Embedding:
    """Returns the features of an artefact net as an embedding with one block, "A".

    Its name contains the hash of the net. Its `embed` accepts only the sample rate that the net was
    trained at, and ignores `loop`: it uses whole frames only.
    """
    name = f"artefact-{net.sha256[:8]}"

    def embed(audio: np.ndarray, sample_rate_hz: int, *, loop: bool) -> np.ndarray:
        if sample_rate_hz != net.sample_rate_hz:
            raise ValueError(f"{name}: expected audio at {net.sample_rate_hz} Hz, got {sample_rate_hz} Hz; train a net")
        return features(net, log_mel_images(audio, sample_rate_hz)).astype(np.float64)

    def describe(sample_rate_hz: int) -> dict[str, Any]:
        return {
            "name": name,
            "sample_rate_hz": sample_rate_hz,
            "sha256": net.sha256,
            "classes": list(net.classes),
            "validation_accuracy": net.validation_accuracy,
        }

    return Embedding(name, lambda channels: {"A": slice(0, FEATURES)}, embed, describe)


def _held_out(
    targets: np.ndarray, tracks: np.ndarray, classes: Sequence[str], random: np.random.Generator
) -> np.ndarray:
    """`[n]` bool: the clips of held-out tracks, some of each class."""
    held = set()
    for target, name in enumerate(classes):
        its = np.unique(tracks[targets == target])
        if len(its) < 2:
            raise ValueError(f"train: expected clips of at least 2 tracks in each class, {name!r} has {len(its)}")
        count = max(1, round(_HELD_OUT * len(its))) - sum(track in held for track in its)
        free = [track for track in its if track not in held]
        held.update(random.permutation(free)[: max(0, count)])
    mask = np.isin(tracks, list(held))
    if missing := set(range(len(classes))) - set(targets[~mask]):
        raise ValueError(f"train: too few tracks: no clip of {classes[min(missing)]!r} is left to train on")
    return mask


def _initial(random: np.random.Generator, n_mels: int, count: int) -> dict[str, np.ndarray]:
    """Initial parameters: He-normal kernels, zero biases."""
    layers = zip(_CHANNELS, _CHANNELS[1:], strict=False)
    shapes = {f"conv{layer}": (3, 3, c_in, c_out) for layer, (c_in, c_out) in enumerate(layers)}
    bands = -(-n_mels // 2 ** len(shapes))
    shapes |= {"hidden": (2 * bands * _CHANNELS[-1], FEATURES), "out": (FEATURES, count)}
    params = {}
    for name, shape in shapes.items():
        scale = np.sqrt(2 / np.prod(shape[:-1]))
        params[f"{name}/kernel"] = np.float32(scale * random.standard_normal(shape))
        params[f"{name}/bias"] = np.zeros(shape[-1], np.float32)
    return params


def _forward(params, images):
    """(features `[B, 64]`, logits `[B, K]`) of images `[B, N, M]`."""
    x = ((images - jax.lax.stop_gradient(params["mean"])) / jax.lax.stop_gradient(params["deviation"]))[..., None]
    for layer in range(len(_CHANNELS) - 1):
        x = jax.lax.conv_general_dilated(
            x, params[f"conv{layer}/kernel"], (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = jax.nn.relu(x + params[f"conv{layer}/bias"])  # [B, N, M, C] -> [B, N/2, M/2, C']
    x = jnp.concatenate([x.mean(axis=1), x.max(axis=1)], axis=-1)  # [B, M/8, 2 C]
    x = x.reshape(len(x), -1)
    hidden = jax.nn.relu(x @ params["hidden/kernel"] + params["hidden/bias"])
    return hidden, hidden @ params["out/kernel"] + params["out/bias"]


@functools.partial(jax.jit, static_argnums=4)
def _step(params, state, images, targets, update):
    def loss(params):
        scores = _forward(params, images)[1]
        return optax.softmax_cross_entropy_with_integer_labels(scores, targets).mean()

    updates, state = update(jax.grad(loss)(params), state)
    return optax.apply_updates(params, updates), state


_jitted_forward = jax.jit(_forward)


def _evaluate(net, images):
    images = np.asarray(images, np.float32)
    padded = np.zeros((-(-len(images) // _BATCH) * _BATCH, *images.shape[1:]), np.float32)  # one compilation
    padded[: len(images)] = images
    parts = [_jitted_forward(net.params, padded[i : i + _BATCH]) for i in range(0, len(padded), _BATCH)]
    return tuple(np.concatenate([np.asarray(part[side]) for part in parts])[: len(images)] for side in range(2))
