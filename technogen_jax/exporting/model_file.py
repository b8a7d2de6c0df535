"""Writes a trained generator as one file, in one of several formats."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping
from typing import Any

from technogen_jax import models
from technogen_jax.exporting import standalone
from technogen_jax.runs import bundle
from technogen_jax.runs.workdir import read_statistics
from technogen_jax.sampling import generator
from technogen_jax.training import initial_model

SUFFIXES = {"npz": bundle.SUFFIX, **standalone.SUFFIXES}


def write(
    workdir: str | os.PathLike,
    step: int | str,
    kind: str,
    output: str | os.PathLike | None,
    words: Mapping[str, str],
    discriminator: bool = False,
) -> tuple[pathlib.Path, dict[str, Any]]:
    """Writes the generator of a run; returns the file and its card, which describes it.

    Args:
        workdir: the run's folder, or a .npz that this function wrote.
        step: "latest", "best" or a step that has a checkpoint.
        kind: one of `SUFFIXES`.
        output: the file; None: WORKDIR/stepN, or of a .npz its name in the current folder, with the suffix of the kind.
        words: licence and data, for the card; those missing are taken from the .npz.
        discriminator: whether a .npz also has the discriminator, so that a run can start from it.

    Raises:
        ValueError: there is no such run, step or file.
        OSError: the file cannot be written.
        ImportError: packages of requirements-export.txt are missing.
    """
    trained = generator.load(workdir, step)
    path = pathlib.Path(output or _default_output(workdir, trained.step, kind))
    path.parent.mkdir(parents=True, exist_ok=True)
    words = _known_words(workdir) | dict(words)
    if kind == "npz":
        statistics = read_statistics(workdir) if models.find(trained.config).measure else {}
        bundle.write(
            path,
            config=trained.config,
            params=trained.params,
            statistics=statistics,
            card=dict(**words, step=trained.step, weights=trained.weights),
            discriminator=initial_model.read(str(workdir), trained.step).params.d if discriminator else None,
        )
        card = bundle.read(path).card  # reading it back checks the file
    else:
        card = standalone.write(path, trained, words)
    return path, card


def _default_output(workdir: str | os.PathLike, step: int, kind: str) -> pathlib.Path:
    if pathlib.Path(workdir).suffix == bundle.SUFFIX:
        return pathlib.Path(pathlib.Path(workdir).with_suffix(SUFFIXES[kind]).name)
    return pathlib.Path(workdir) / f"step{step}{SUFFIXES[kind]}"


def _known_words(workdir: str | os.PathLike) -> dict[str, str]:
    """Returns what a run or a .npz says of licence, data, and the fingerprint of the dataset."""
    if pathlib.Path(workdir).suffix == bundle.SUFFIX:
        card = bundle.read(workdir).card
        return {name: card[name] for name in ("licence", "data", "fingerprint") if name in card}
    fingerprint = generator.dataset_fingerprint(workdir)
    return {"fingerprint": fingerprint} if isinstance(fingerprint, str) else {}
