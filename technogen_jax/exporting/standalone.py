"""A trained generator for programs that have no TechnoGen: StableHLO or ONNX, latents in, audio out, and a card beside it.

What `models` build is traced as it is, so that a file makes the same sound as `generate.render`. StableHLO does so to the bit's
neighbourhood, noise included. The noise of a sound follows from the bits of its sequence, and no two runtimes agree on last bits;
therefore a graph in ONNX is given its noise as a second input. Then it is TechnoGAN's sound within 1e-4, but for a few samples of
some sounds, 2e-4: two Fourier transforms agree to 1e-7 of the peak, and bands 80 dB below it are brought to its power.
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
from technogen_jax.models.technogan.codec import excitations
from technogen_jax.sampling import generator

SUFFIXES = {"stablehlo": ".stablehlo", "onnx": ".onnx"}
_PLATFORMS = ("cpu", "cuda", "tpu")
_DRAWN = 1000  # latents that tell how they are drawn


def write(path: str | os.PathLike, trained: generator.Trained, words: dict[str, Any]) -> dict[str, Any]:
    """Writes the file and, beside it, its card, FILE.json; returns the card.

    Args:
        path: ends in one of `SUFFIXES`, which says what it becomes.
        trained: the generator.
        words: what the card says besides: licence, data, fingerprint of the training set.

    Raises:
        ValueError: the model does something that ONNX, or we, cannot write down; names it.
    """
    path = pathlib.Path(path)
    card = {**words, **describe(trained)}
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
    """Where the card of a file lies."""
    return pathlib.Path(f"{path}.json")


def describe(trained: generator.Trained) -> dict[str, Any]:
    """What one has to know to play the generator: rate, length, tempo, and what latents are made of, in order."""
    gan, shape = trained.gan, trained.config.audio
    drawn = np.asarray(gan.sample_latents(jax.random.key(0), _DRAWN))
    numbers = drawn.shape[1] - len(gan.classes)
    if gan.endless:
        style = gan.endless.style_size
        parts = [("style", style), *[("anchor of a bar", gan.endless.anchor_size)] * gan.endless.bars]
    else:
        parts = [("latent", numbers)]
    law = "uniform from -1 to 1" if np.abs(drawn[:, :numbers]).max() <= 1 else "normal"
    latents = [{"name": name, "size": size, "draw": law} for name, size in parts]
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
    """What `jax.export.deserialize` reads: latents `[B, Z]` to audio `[B, T, C]`, for any B, on a CPU, a GPU or a TPU."""
    (batch,) = jax.export.symbolic_shape("batch")
    latents = jax.ShapeDtypeStruct((batch, _latent_size(trained)), np.float32)
    sound = _sound(trained)
    each = jax.jit(lambda z: jax.lax.map(lambda one: sound(one[None])[0], z))  # clip by clip, as `generate.render` does
    return jax.export.export(each, platforms=_PLATFORMS)(latents).serialize()


def onnx(trained: generator.Trained) -> tuple[bytes, dict[str, Any] | None]:
    """(the model, how its noise is drawn): latents `[1, Z]`, and noise where the model has some, to audio `[1, T, C]`.

    Raises:
        ValueError: an operation that cannot be written down; names it.
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
    law = "uniform from -sqrt(3) to sqrt(3), apart for each clip"
    return model.SerializeToString(), {"shape": list(shape), "draw": law} if shape else None


def with_noise(trained: generator.Trained) -> Callable[..., jax.Array]:
    """The sound of latents `[1, Z]` when its noise, `[1, C, samples]`, is given: a function to be traced."""

    def sound(latents, noise=None):
        return _with_white_noise(lambda x, channels, step_samples: noise, _sound(trained), latents)

    return sound


def _sound(trained):
    return lambda latents: trained.gan.decode(trained.gan.generate(trained.params, latents))


def _latent_size(trained) -> int:
    return jax.eval_shape(lambda: trained.gan.sample_latents(jax.random.key(0), 1)).shape[1]


def _noise_shape(trained) -> tuple[int, ...] | None:
    """Of the noise that the model asks for; None if it does not."""
    asked = []
    white_noise = excitations.white_noise

    def seen(x, channels, step_samples):
        asked.append((1, channels, x.shape[1] * step_samples))
        return white_noise(x, channels, step_samples)

    latents = jax.ShapeDtypeStruct((1, _latent_size(trained)), np.float32)
    jax.eval_shape(lambda z: _with_white_noise(seen, _sound(trained), z), latents)
    return asked[0] if asked else None


def _with_white_noise(source: Callable, function: Callable, latents: jax.Array) -> jax.Array:
    """The function with another source of noise while it is traced: the one thing in it that a graph cannot hold."""
    white_noise = excitations.white_noise
    excitations.white_noise = source
    try:
        return function(latents)
    finally:
        excitations.white_noise = white_noise
