"""The recipe of a sound: a JSON file beside it with all that is needed to make the same file again, to the bit."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jaxlib
import numpy as np

from technogen_jax.common import atomic_files
from technogen_jax.sampling import arrangement, generator

_VERSION = 1


class RecipeError(ValueError):
    """A file that is no recipe."""


def write(
    trained: generator.Trained, path: pathlib.Path, origin: Mapping[str, Any], shape: tuple[int, int], pcm_sha256: str
) -> None:
    """Writes the recipe of a sound file: the same name, with the suffix .json.

    Args:
        trained: the generator.
        path: the sound file.
        origin: `latents` of a clip or `sections`, `hold` and `truncation` of a track, and where these come from.
        shape: samples and channels of the sound.
        pcm_sha256: SHA-256 of its 16-bit samples, in hexadecimal.
    """
    content = {
        "version": _VERSION,
        "workdir": trained.workdir,
        "step": trained.step,
        "weights": trained.weights,
        **origin,
        "sample_rate_hz": trained.config.audio.sample_rate_hz,
        "channels": shape[1],
        "samples": shape[0],
        "pcm_sha256": pcm_sha256,
        "made_with": {
            "jax": jax.__version__,
            "jaxlib": jaxlib.__version__,
            "device": jax.devices()[0].device_kind,
        },
    }
    atomic_files.write_text(path.with_suffix(".json"), json.dumps(content, indent=1) + "\n")


def read(path: pathlib.Path) -> dict[str, Any]:
    """Returns the recipe of a clip (with `latents`) or of a track (with `sections`).

    Raises:
        RecipeError: the file cannot be read or is no recipe.
    """
    try:
        recipe = json.loads(path.read_text(encoding="utf-8"))
        if "sections" in recipe:
            recipe["sections"] = [arrangement.section(fields, str(path)) for fields in recipe["sections"]]
            valid = all(isinstance(recipe[name], (int, float)) for name in ("hold", "truncation"))
        else:
            valid = np.asarray(recipe["latents"], np.float32).ndim == 1
        valid = valid and recipe["version"] == _VERSION and isinstance(recipe["step"], int)
        valid = valid and all(isinstance(recipe[name], str) for name in ("weights", "workdir", "pcm_sha256"))
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError):
        valid = False
    if not valid:
        raise RecipeError(f"{path}: expected the JSON that technogen_jax.sample writes beside a sound")
    return recipe
