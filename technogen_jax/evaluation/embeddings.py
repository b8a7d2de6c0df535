"""The table of embeddings by the names that `--embeddings` accepts, and the label classifier."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.special

from technogen_jax.evaluation import classifier
from technogen_jax.evaluation.clip_sets import ClipSet, ClipSetError, read_examples
from technogen_jax.evaluation.features import musicnn, tmr
from technogen_jax.evaluation.features.embedding import Embedding
from technogen_jax.evaluation.features.log_mel import log_mel_images

_TAGGER_TITLES = {musicnn.BLOCK: "what decides people's tags"}


class Request(NamedTuple):
    """What an embedding may be loaded or trained from.

    Attributes:
        path: the file after "="; None without one.
        train: the real clips that the model was trained on; None where they are not known.
        seed: the seed of all random draws.
    """

    path: pathlib.Path | None
    train: ClipSet | None
    seed: int


class Entry(NamedTuple):
    """An embedding that can be selected by name.

    Attributes:
        load: request -> embedding.
        takes_file: whether its name is followed by "=FILE".
        block_titles: block -> its title in the report; others are shown by their names.
    """

    load: Callable[[Request], Embedding]
    takes_file: bool
    block_titles: dict[str, str]


def load_artefact_net(request: Request) -> Embedding:
    """Returns the artefact net in a file; trains it on the training clips if there is no file.

    Raises:
        ClipSetError: no file, and no training clips.
        ValueError: a damaged file, or clips that no net can be trained on.
    """
    path, train = request.path, request.train
    if path.exists():
        return classifier.artefact_embedding(classifier.load_net(path))
    if train is None:
        raise ClipSetError(f"--embeddings artefact={path}: no such file, and without --train DIR none can be trained")
    indices, audio = read_examples(train, request.seed)
    loud = audio.any(axis=(1, 2))
    tracks = train.tracks[indices][loud]
    net = classifier.train_artefact(audio[loud], tracks, train.sample_rate_hz, seed=request.seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    net.save(path)
    return classifier.artefact_embedding(net)


def load_tagger(model: musicnn.Model, request: Request) -> Embedding:
    """Returns the embedding of a network in the wheel of musicnn.

    Raises:
        ClipSetError: no such file.
        ValueError: another file.
    """
    if not request.path.exists():
        raise ClipSetError(f"--embeddings: no file {request.path}; pip download --no-deps musicnn writes it")
    return musicnn.load_embedding(request.path, model)


# The recipe for an embedding: add it here. The evaluation then computes all distances in it, each
# block alone, and the report shows them.
EMBEDDINGS = {
    "tmr-v1": Entry(lambda request: tmr.TMR_V1, False, tmr.BLOCK_TITLES),
    "musicnn": Entry(functools.partial(load_tagger, musicnn.MUSICNN), True, _TAGGER_TITLES),
    "musicnn-vgg": Entry(functools.partial(load_tagger, musicnn.VGG), True, _TAGGER_TITLES),
    "artefact": Entry(load_artefact_net, True, {"A": "artefacts"}),
}


def load_embeddings(names: str, train: ClipSet | None, seed: int) -> dict[str, Embedding]:
    """Returns the embeddings of a comma-separated list, by their full names.

    Args:
        names: such as "tmr-v1,artefact=net.npz".
        train: the real clips that the model was trained on; None where they are not known.
        seed: the seed of all random draws.

    Raises:
        ClipSetError: a name that is not in the table, a file name too many or too few, or an
            embedding that needs training clips where there are none.
    """
    found = {}
    for name in names.split(","):
        kind, _, path = name.partition("=")
        entry = EMBEDDINGS.get(kind)
        if entry is None or entry.takes_file != bool(path):
            known = [f"{kind}=FILE" if entry.takes_file else kind for kind, entry in EMBEDDINGS.items()]
            raise ClipSetError(f"--embeddings {name}: expected some of {', '.join(known)}")
        embedding = entry.load(Request(pathlib.Path(path) if path else None, train, seed))
        found[embedding.name] = embedding
    return found


def train_label_classifier(train: ClipSet | None, seed: int) -> Embedding:
    """Returns clips' probabilities of the dataset's labels, by a classifier trained on the clips.

    Args:
        train: the real clips that the model was trained on.
        seed: the seed of all random draws.

    Raises:
        ClipSetError: no training clips, or fewer than two labels.
    """
    names = train.origin.get("labels", []) if train else []
    if len(names) < 2:
        raise ClipSetError(
            "--labels: expected a prepared dataset with two labels or more, got "
            f"{len(names)}; the first folder below data_prep.prepare's --input is a track's label"
        )
    indices, audio = read_examples(train, seed)
    images = log_mel_images(audio, train.sample_rate_hz)
    tracks, targets = train.tracks[indices], train.labels[indices]
    net = classifier.train(images, targets, tracks, classes=names, seed=seed, what="classifier of labels")

    def embed(clips: np.ndarray, sample_rate_hz: int, *, loop: bool) -> np.ndarray:
        scores = classifier.logits(net, log_mel_images(clips, sample_rate_hz)).astype(np.float64)
        return scipy.special.softmax(scores, axis=1)

    def describe(sample_rate_hz: int) -> dict[str, Any]:
        return {"classes": list(names), "validation_accuracy": net.validation_accuracy, "sha256": net.sha256}

    return Embedding("labels", lambda channels: {"P": slice(0, len(names))}, embed, describe)


def block_titles() -> dict[str, str]:
    """Returns the titles of all blocks by name."""
    titles = {"all": "all"}
    for entry in EMBEDDINGS.values():
        titles |= entry.block_titles
    return titles
