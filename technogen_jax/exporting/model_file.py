"""Writes a trained generator as one file, in one of several formats."""

from __future__ import annotations

import argparse
import json
import pathlib
from typing import Any

from technogen_jax import models
from technogen_jax.exporting import standalone
from technogen_jax.runs import bundle
from technogen_jax.runs.workdir import DATA_FILE, read_statistics
from technogen_jax.sampling import generator

SUFFIXES = {"npz": bundle.SUFFIX, **standalone.SUFFIXES}


def export(options: argparse.Namespace) -> pathlib.Path:
    """Writes the file that the options of the command ask for and returns its path."""
    trained = generator.load(options.workdir, int(options.step) if options.step.isdigit() else options.step)
    path = pathlib.Path(options.output or _default_output(options.workdir, trained.step, options.format))
    path.parent.mkdir(parents=True, exist_ok=True)
    words = _words(options)
    if options.format == "npz":
        statistics = read_statistics(options.workdir) if models.find(trained.config).measure else {}
        card = dict(**words, step=trained.step, weights=trained.weights)
        bundle.write(path, config=trained.config, params=trained.params, statistics=statistics, card=card)
        card = bundle.read(path).card  # reading it back checks the file
    else:
        card = standalone.write(path, trained, words)
    print(
        f"{path}: {path.stat().st_size / 1e6:.1f} MB, step {card['step']}, {card['parameters'] / 1e6:.2f} M parameters"
    )
    return path


def _default_output(workdir: str, step: int, kind: str) -> pathlib.Path:
    if pathlib.Path(workdir).suffix == bundle.SUFFIX:
        return pathlib.Path(
            pathlib.Path(workdir).with_suffix(SUFFIXES[kind]).name
        )  # without a workdir: into the current folder
    return pathlib.Path(workdir) / f"step{step}{SUFFIXES[kind]}"


def _words(options: argparse.Namespace) -> dict[str, Any]:
    """Returns licence, data and the fingerprint of the training dataset, from the options or from the given file."""
    if pathlib.Path(options.workdir).suffix == bundle.SUFFIX:
        card = bundle.read(options.workdir).card
        words = {name: card[name] for name in ("licence", "data", "fingerprint") if name in card}
    else:
        data = json.loads((pathlib.Path(options.workdir) / DATA_FILE).read_text(encoding="utf-8"))
        words = {"fingerprint": data["fingerprint"]}
    return words | {name: getattr(options, name) for name in ("licence", "data") if getattr(options, name)}
