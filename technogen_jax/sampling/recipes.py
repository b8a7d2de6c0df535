"""The recipe of a sound: a JSON file beside it with all that is needed to make the same file again, to the bit."""

from __future__ import annotations

import base64
import json
import os
import pathlib
import platform
from collections.abc import Mapping
from typing import Any

import jax
import jaxlib
import numpy as np

from technogen_jax import models
from technogen_jax.common import atomic_files, json_files
from technogen_jax.common.command_line import MOST_BARS
from technogen_jax.sampling import arrangement, generator

_VERSION = 2
_READABLE = (1, _VERSION)  # version 1 lists all latents as numbers


class RecipeError(ValueError):
    """A file that is no recipe."""


def write(
    trained: generator.Trained, path: pathlib.Path, origin: Mapping[str, Any], shape: tuple[int, int], pcm_sha256: str
) -> None:
    """Writes the recipe of a sound file: the same name, with the suffix .json.

    Args:
        trained: the generator.
        path: the sound file.
        origin: of a clip `seed` and `index`, or `latents` (base64, see `encode_latents`); of a track `sections`, `hold` and
            `truncation`; and where these come from.
        shape: samples and channels of the sound.
        pcm_sha256: SHA-256 of its 16-bit samples, in hexadecimal.
    """
    rate_hz, bpm = trained.config.audio.sample_rate_hz, generator.tempo_bpm(trained)
    bars = {"bpm": bpm, "bars": round(shape[0] * bpm / 240 / rate_hz)} if bpm else {}
    content = {
        "version": _VERSION,
        "model": generator.model_name(trained),
        "workdir": trained.workdir,
        "step": trained.step,
        "weights": trained.weights,
        **origin,
        **bars,
        "sample_rate_hz": rate_hz,
        "channels": shape[1],
        "samples": shape[0],
        "pcm_sha256": pcm_sha256,
        "made_with": describe_machine(),
    }
    atomic_files.write_text(path.with_suffix(".json"), json.dumps(content, indent=1) + "\n")


def describe_machine() -> dict[str, Any]:
    """Returns all that the bits of a sound depend on, besides its recipe: XLA divides work by the number of processors."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        "device": jax.devices()[0].device_kind,
        "processor": platform.machine(),
        "processors": processors,
    }


def read(path: pathlib.Path) -> dict[str, Any]:
    """Returns the recipe of a clip (with `seed` or `latents`) or of a track (with `sections`).

    Raises:
        RecipeError: the file cannot be read or is no recipe.
    """
    try:
        recipe = json_files.read(path)
        if "sections" in recipe:
            recipe["sections"] = [arrangement.section(fields, str(path)) for fields in recipe["sections"]]
            valid = type(recipe["hold"]) is int and 1 <= recipe["hold"] <= MOST_BARS and 0 < recipe["truncation"] <= 1
        elif "latents" in recipe:
            recipe["latents"] = _decode_latents(recipe["latents"])
            valid = recipe["latents"].ndim == 1
        else:
            valid = all(type(recipe[name]) is int and 0 <= recipe[name] < 2**32 for name in ("seed", "index"))
            valid = valid and 0 < recipe["truncation"] <= 1 and isinstance(recipe.get("label", {}), dict)
            valid = valid and all(type(weight) in (int, float) for weight in recipe.get("label", {}).values())
        valid = valid and recipe["version"] in _READABLE and isinstance(recipe["step"], int)
        valid = valid and all(isinstance(recipe[name], str) for name in ("weights", "workdir", "pcm_sha256"))
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError):
        valid = False
    if not valid:
        raise RecipeError(f"{path}: expected the JSON that technogen_jax.sample writes beside a sound")
    return recipe


def latents_of(gan: models.GAN, recipe: Mapping[str, Any]) -> np.ndarray:
    """Returns the latents of a clip's recipe, `[Z]`: those in it, or drawn from its seed.

    Raises:
        ValueError: the model does not have its label.
    """
    if "latents" in recipe:
        return recipe["latents"]
    return generator.draw_latents(
        gan, recipe["seed"], [recipe["index"]], recipe["truncation"], recipe.get("label") or None
    )[0]


def encode_latents(latents: np.ndarray) -> str:
    """Returns latents `[Z]` as base64 of little-endian float32."""
    return base64.b64encode(np.asarray(latents, "<f4").tobytes()).decode()


def _decode_latents(value: str | list[float]) -> np.ndarray:
    """Returns latents `[Z]` from base64, or from the numbers of version 1; raises ValueError for anything else."""
    if isinstance(value, str):
        return np.frombuffer(base64.b64decode(value, validate=True), "<f4").astype(np.float32)
    return np.asarray(value, np.float32)
