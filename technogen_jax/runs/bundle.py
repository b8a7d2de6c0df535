"""A bundle: a trained generator as one file, without what only training needs.

A bundle is a .npz without pickle, with a hash of its contents (see `common.array_files`) and the
entries

    config             JSON, without the paths of the machine that it was trained on
    card               JSON: licence, data, step, weights (a hash, see `sampling.generator`), parameters, format
    params/NAME        of the averaged generator, calibrated; NAME is the path in its tree of parameters
    discriminator/NAME of the discriminator, if the file is meant to be trained on from
    statistics/NAME    of the training dataset, for a model that has statistics

Large arrays are stored as float16: half the size, with a rounding error of -77 dB. So a bundle has
a fingerprint of its own, and its sound is close to the run's, but not the same bits.
"""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from technogen_jax import models
from technogen_jax.common import array_files, config_fields, json_files
from technogen_jax.runs.workdir import WorkdirError

SUFFIX = ".npz"
_FORMAT = 1
_LARGE = 10_000  # chosen: arrays with more elements are stored as float16; smaller ones take little space
_LARGEST_LOSS = 2.0**-11  # relative rounding error of float16; it is larger only for values out of its range
_PATHS = {"data": "dir", "train": "init_from"}


class Bundle(NamedTuple):
    """The contents of a bundle.

    Attributes:
        gan: the model.
        params: the parameters of the generator, float32.
        statistics: the statistics of the training dataset; empty if the model has none.
        config: the config of the run.
        card: licence, data, step, weights, parameters, format.
        discriminator: the parameters of the discriminator, float32; None if the file does not have them.
    """

    gan: models.GAN
    params: models.contract.Params
    statistics: models.Statistics
    config: ConfigDict
    card: dict[str, Any]
    discriminator: models.contract.Params | None = None


def write(
    path: str | os.PathLike,
    *,
    config: ConfigDict,
    params: models.contract.Params,
    statistics: models.Statistics,
    card: dict[str, Any],
    discriminator: models.contract.Params | None = None,
) -> None:
    """Writes a bundle, whole or not at all; the same input gives the same bytes.

    Args:
        path: the path of the file; it must end in `SUFFIX`.
        config: the config of the run.
        params: calibrated generator parameters.
        statistics: the statistics of the training dataset; empty if the model has none.
        card: see the module; its entries `parameters` and `format` are added here.
        discriminator: the parameters of the discriminator; None: the file does not have them.

    Raises:
        ValueError: the path has another suffix.
    """
    if pathlib.Path(path).suffix != SUFFIX:
        raise ValueError(f"{path}: expected a name that ends in {SUFFIX}")
    plain = json.loads(json.dumps(config.to_dict()))
    for section, field in _PATHS.items():
        plain[section][field] = ""
    card = {**card, "parameters": models.count_parameters(params), "format": _FORMAT}
    content = {"config": json.dumps(plain, indent=1), "card": json.dumps(card, indent=1)}
    content |= {f"params/{name}": _compress(leaf) for name, leaf in _named(params).items()}
    content |= {f"discriminator/{name}": _compress(leaf) for name, leaf in _named(discriminator or {}).items()}
    content |= {f"statistics/{name}": _compress(value) for name, value in statistics.items()}
    array_files.write(path, content)


def read(path: str | os.PathLike, step: int | str = "latest") -> Bundle:
    """Reads a bundle.

    Args:
        path: the path of the file.
        step: "latest", "best", or the step of the bundle: it has only one.

    Raises:
        WorkdirError: the file is missing or damaged, has another step, or does not fit the model of
            its config.
    """
    try:
        content = array_files.read(path)
    except FileNotFoundError:
        raise WorkdirError(f"{path}: not found; expected what technogen_jax.export wrote") from None
    except (ValueError, OSError) as error:
        raise WorkdirError(str(error)) from error
    try:
        config, card = (json_files.parse(str(content.pop(name))) for name in ("config", "card"))
        config = config_fields.rename_old_fields(config)
        for section, field in _PATHS.items():
            config[section][field] = ""  # a path of another machine
        config = ConfigDict(config).lock()
        if card["format"] != _FORMAT or not isinstance(card["step"], int):
            raise KeyError("format")
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise WorkdirError(
            f"{path}: not what this version of technogen_jax.export writes; export the run again"
        ) from error
    if step not in ("latest", "best", card["step"]):
        raise WorkdirError(f"{path}: has no step {step}, only {card['step']}")
    parts = {"params": {}, "discriminator": {}, "statistics": {}}
    for name, value in content.items():
        folder, _, rest = name.partition("/")
        if folder not in parts:
            raise WorkdirError(f"{path}: contains {name}, which this version of TechnoGen does not know")
        parts[folder][rest] = value.astype(np.float32) if value.dtype == np.float16 else value
    return _build_bundle(path, config, card, **parts)


def _build_bundle(path, config, card, params, discriminator, statistics) -> Bundle:
    """Builds the model; raises a WorkdirError if the arrays do not fit it."""
    key = jax.random.key(0)
    try:
        gan = models.build(config, statistics or None)
        params = _as_tree(params, jax.eval_shape(lambda key: gan.calibrate(gan.init_g(key), key), key))
        discriminator = _as_tree(discriminator, jax.eval_shape(gan.init_d, key)) if discriminator else None
        jax.eval_shape(lambda params: gan.decode(gan.generate(params, gan.sample_latents(key, 1))), params)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        text = " ".join(str(error).split())[:300]
        raise WorkdirError(
            f"{path}: does not fit the model that its config describes ({text}); use the version of TechnoGen that wrote "
            "it, or export the run again"
        ) from error
    return Bundle(gan, params, statistics, config, card, discriminator)


def _as_tree(flat: dict[str, np.ndarray], shapes: Any) -> Any:
    """Returns named arrays in a tree; raises ValueError if names or shapes differ."""
    expected = {name: leaf.shape for name, leaf in _named(shapes).items()}
    for name in sorted(expected.keys() | flat.keys()):
        found = flat[name].shape if name in flat else "nothing"
        if expected.get(name) != found:
            raise ValueError(f"{name}: expected {expected.get(name, 'nothing')}, found {found}")
    return jax.tree_util.tree_map_with_path(lambda at, _: flat[_name(at)], shapes)


def _compress(value: Any) -> np.ndarray:
    """Returns a large array of floats as float16, unless values are out of its range.

    Others as they are.
    """
    value = np.asarray(value)
    if value.size <= _LARGE or value.dtype not in (np.float32, np.float64):
        return value
    with np.errstate(over="ignore"):
        half = value.astype(np.float16)
    loss = np.linalg.norm((half.astype(np.float64) - value).ravel())
    return half if loss <= _LARGEST_LOSS * np.linalg.norm(value.ravel()) else value.astype(np.float32)


def _named(tree: Any) -> dict[str, Any]:
    return {_name(at): leaf for at, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def _name(at) -> str:
    return jax.tree_util.keystr(at, simple=True, separator="/")
