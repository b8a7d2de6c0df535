"""A trained generator for programs without TechnoGen: StableHLO or ONNX, latents in, audio out, and a card beside it.

The model's own functions are traced, so a file makes the same sound as `generator.render`. StableHLO does so
up to rounding, noise included. The noise of a sound is computed from the bits of its code, and no two
runtimes agree in the last bits; so an ONNX graph takes its noise as a second input. Its sound is then
TechnoGAN's within 1e-4, for a few samples of some sounds within 2e-4: two Fourier transforms agree to
1e-7 of the peak, and the decoder amplifies bands that are 80 dB below the peak.
"""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.export
import numpy as np

from technogen_jax import models
from technogen_jax.common import atomic_files
from technogen_jax.exporting import real_arithmetic
from technogen_jax.sampling import generator

SUFFIXES = {"stablehlo": ".stablehlo", "onnx": ".onnx"}
_PLATFORMS = ("cpu", "cuda", "tpu")
_DRAWN = 1000  # latents from which their distribution is recognized


def write(path: str | os.PathLike, trained: generator.Trained, facts: dict[str, Any]) -> dict[str, Any]:
    """Writes the file and its card, FILE.json, and returns the card.

    Args:
        path: its suffix, one of `SUFFIXES`, decides the format.
        trained: the generator.
        facts: more entries of the card: licence, data, fingerprint of the training dataset.

    Raises:
        ValueError: the model has an operation that cannot be written; names it.
    """
    path = pathlib.Path(path)
    card = {**facts, **describe(trained)}
    if path.suffix == SUFFIXES["stablehlo"]:
        content = stablehlo(trained)
        card["needs"] = f"jax {jax.__version__} or newer: an older one cannot read the file"
    else:
        content, card["noise"] = onnx(trained)
        card["needs"] = "a runtime of ONNX operators, set 18; tested with onnxruntime"
    for name, data in ((path, content), (card_path(path), json.dumps(card, indent=1).encode())):
        with atomic_files.replacing(name) as temporary:
            temporary.write_bytes(data)
    return card


def card_path(path: str | os.PathLike) -> pathlib.Path:
    """Returns the path of a file's card."""
    return pathlib.Path(f"{path}.json")


def describe(trained: generator.Trained) -> dict[str, Any]:
    """Returns what a program needs to play the generator: rate, length, tempo, and the parts of a latent in order."""
    gan, shape = trained.gan, trained.config.audio
    drawn = np.asarray(gan.sample_latents(jax.random.key(0), _DRAWN))
    size = drawn.shape[1] - len(gan.classes)
    if gan.endless:
        style = gan.endless.style_size
        parts = [("style", style), *[("anchor of a bar", gan.endless.anchor_size)] * gan.endless.bars]
    else:
        parts = [("latent", size)]
    law = "uniform from -1 to 1" if np.abs(drawn[:, :size]).max() <= 1 else "normal"
    latents = [{"name": name, "size": count, "draw": law} for name, count in parts]
    if gan.classes:
        latents.append({"name": "labels", "size": len(gan.classes), "draw": "weights that sum to 1"})
    tempo = {}
    if gan.endless:
        tempo = dict(bars=gan.endless.bars, bpm=generator.tempo_bpm(trained))
    return {
        "model": trained.config.model.name,
        "step": trained.step,
        "weights": trained.weights,
        "parameters": models.count_parameters(trained.params),
        "sample_rate_hz": shape.sample_rate_hz,
        "channels": shape.channels,
        "clip_samples": shape.clip_samples,
        **tempo,
        "latents": latents,
        "labels": list(gan.classes),
        "jax": jax.__version__,
    }


def stablehlo(trained: generator.Trained) -> bytes:
    """Returns bytes for `jax.export.deserialize`: latents `[B, Z]` to audio `[B, T, C]`, for any B, on CPU, GPU or TPU."""
    (batch,) = jax.export.symbolic_shape("batch")
    latents = jax.ShapeDtypeStruct((batch, _latent_size(trained)), np.float32)
    sound = _sound(trained)
    # Clip by clip, as `generator.render` does.
    each = jax.jit(lambda z: jax.lax.map(lambda one: sound(one[None])[0], z))
    return jax.export.export(each, platforms=_PLATFORMS)(latents).serialize()


def onnx(trained: generator.Trained) -> tuple[bytes, dict[str, Any] | None]:
    """Returns (the model file, a description of its noise or None).

    The graph maps latents `[1, Z]`, and noise if the model needs it, to audio `[1, T, C]`.

    Raises:
        ValueError: an operation that cannot be written; names it.
    """
    from technogen_jax.exporting import onnx_graph

    inputs = {"latents": (1, _latent_size(trained))}
    shape = _noise_shape(trained)
    if shape:
        inputs["noise"] = shape
    try:
        model = onnx_graph.convert(real_arithmetic.real_form(with_noise(trained)), inputs, "audio")
    except NotImplementedError as error:
        raise ValueError(f"{error}; --format stablehlo has no such limits") from error
    law = "uniform from -sqrt(3) to sqrt(3), new for each clip"
    return model.SerializeToString(), {"shape": list(shape), "draw": law} if shape else None


def with_noise(trained: generator.Trained) -> Callable[..., jax.Array]:
    """Returns the function from latents `[1, Z]`, and noise `[1, C, T]` if the decoder needs it, to audio."""

    def sound(latents, noise=None):
        x = trained.gan.generate(trained.params, latents)
        return trained.gan.decode(x) if noise is None else trained.gan.decode(x, noise)

    return sound


def _sound(trained):
    return lambda latents: trained.gan.decode(trained.gan.generate(trained.params, latents))


def _latent_size(trained) -> int:
    return jax.eval_shape(lambda: trained.gan.sample_latents(jax.random.key(0), 1)).shape[1]


def _noise_shape(trained) -> tuple[int, ...] | None:
    """Returns the shape of the noise that the decoder needs for one clip; None if it needs none."""
    if trained.gan.decode_noise is None:
        return None
    latents = jax.ShapeDtypeStruct((1, _latent_size(trained)), np.float32)
    return jax.eval_shape(lambda z: trained.gan.decode_noise(trained.gan.generate(trained.params, z)), latents).shape
