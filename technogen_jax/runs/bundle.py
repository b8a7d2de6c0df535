"""A trained generator as one file: what makes sound, without what only training needs.

A .npz of `arrays` (no pickle, a hash over all of it) with

    config             JSON; without the paths of the machine it was trained on
    card               JSON: licence, data, step, weights (of the run; see `generate.Trained`), parameters, format
    params/NAME        of the averaged generator, calibrated; NAME is the path in its tree
    statistics/NAME    what the model measured of its training set, where it has such

Large arrays are stored as float16: half the size, at a rounding of -77 dB of each number. So a file is a generator of its
own, with a fingerprint of its own: its sound is near the run's, not the same bits.
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
from technogen_jax.common import array_files, config_fields
from technogen_jax.runs.workdir import WorkdirError

SUFFIX = ".npz"
_FORMAT = 1
_LARGE = 10_000  # numbers in an array; smaller ones are no weight in a file
_LARGEST_LOSS = 2.0**-11  # of float16: half of its last bit. More is lost only of numbers that lie outside its range.
_PATHS = {"data": "dir", "train": "init_from"}


class Packed(NamedTuple):
    """What is in a file.

    Attributes:
        gan: the model.
        params: of the generator, float32.
        statistics: of the training set; empty where the model has none.
        config: of the run.
        card: licence, data, step, weights, parameters, format.
    """

    gan: models.GAN
    params: models.contract.Params
    statistics: models.Statistics
    config: ConfigDict
    card: dict[str, Any]


def write(
    path: str | os.PathLike,
    *,
    config: ConfigDict,
    params: models.contract.Params,
    statistics: models.Statistics,
    card: dict[str, Any],
) -> None:
    """Writes a generator, whole or not at all; from the same input always the same bytes.

    Args:
        path: a file that ends in `SUFFIX`.
        config: of the run.
        params: calibrated generator parameters.
        statistics: of the training set; empty where the model has none.
        card: see `Packed`, but for its parameters and format.

    Raises:
        ValueError: another ending.
    """
    if pathlib.Path(path).suffix != SUFFIX:
        raise ValueError(f"{path}: expected a name that ends in {SUFFIX}")
    plain = json.loads(json.dumps(config.to_dict()))
    for section, field in _PATHS.items():
        plain[section][field] = ""
    card = {**card, "parameters": models.count_parameters(params), "format": _FORMAT}
    content = {"config": json.dumps(plain, indent=1), "card": json.dumps(card, indent=1)}
    content |= {f"params/{name}": stored(leaf) for name, leaf in _named(params).items()}
    content |= {f"statistics/{name}": stored(value) for name, value in statistics.items()}
    array_files.write(path, content)


def read(path: str | os.PathLike, step: int | str = "latest") -> Packed:
    """The generator of a file.

    Args:
        path: the file.
        step: its own step, or "latest" or "best": there is only one.

    Raises:
        WorkdirError: no such file; a damaged one; one of another model than its config describes; another step.
    """
    try:
        content = array_files.read(path)
        config, card = (json.loads(str(content.pop(name))) for name in ("config", "card"))
        config = ConfigDict(config_fields.rename_old_fields(config)).lock()
        if card["format"] != _FORMAT or not isinstance(card["step"], int):
            raise KeyError("format")
    except FileNotFoundError:
        raise WorkdirError(f"{path}: not found; expected what technogen_jax.export wrote") from None
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise WorkdirError(
            f"{path}: not what this version of technogen_jax.export writes; export the run again"
        ) from error
    except (ValueError, OSError) as error:
        raise WorkdirError(str(error)) from error
    if step not in ("latest", "best", card["step"]):
        raise WorkdirError(f"{path}: has no step {step}, only {card['step']}")
    params, statistics = {}, {}
    for name, value in content.items():
        folder, _, rest = name.partition("/")
        if folder not in ("params", "statistics"):
            raise WorkdirError(f"{path}: holds {name}, which this version of TechnoGen does not know")
        into = params if folder == "params" else statistics
        into[rest] = value.astype(np.float32) if value.dtype == np.float16 else value
    return _packed(path, config, params, statistics, card)


def _packed(path, config, flat, statistics, card) -> Packed:
    """Raises if the arrays are not those of the config's model."""
    key = jax.random.key(0)
    try:
        gan = models.build(config, statistics or None)
        shapes = jax.eval_shape(lambda key: gan.calibrate(gan.init_g(key), key), key)
        expected = {name: leaf.shape for name, leaf in _named(shapes).items()}
        for name in sorted(expected.keys() | flat.keys()):
            found = flat[name].shape if name in flat else "nothing"
            if expected.get(name) != found:
                raise ValueError(f"{name}: expected {expected.get(name, 'nothing')}, found {found}")
        jax.eval_shape(lambda params: gan.decode(gan.generate(params, gan.sample_latents(key, 1))), shapes)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        text = " ".join(str(error).split())[:300]
        raise WorkdirError(
            f"{path}: does not fit the model that its config describes ({text}); use the version of TechnoGen that wrote "
            "it, or export the run again"
        ) from error
    params = jax.tree_util.tree_map_with_path(lambda at, _: flat[_name(at)], shapes)
    return Packed(gan, params, statistics, config, card)


def stored(value: Any) -> np.ndarray:
    """As float16 where that saves much and rounds only."""
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
