"""Embeddings by networks that learned people's tags of music: MTT_musicnn and MTT_vgg.

They were trained by others, on the tags of MagnaTagATune, so nothing here was tuned to them. One of
the tags is "techno". Their weights are in the wheel of the package musicnn, under the ISC licence:

    pip download --no-deps musicnn

The wheel is read directly: neither the package, whose requirements do not fit ours, nor TensorFlow is
needed. Here are the networks in JAX; a test compares them with the original graphs.

Reference: Pons and Serra, "musicnn: Pre-trained convolutional neural networks for music audio
tagging" (arXiv 1909.06654); Pons et al., "End-to-end learning for music audio tagging at scale"
(arXiv 1711.02520).
"""

from __future__ import annotations

import functools
import os
import zipfile
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special

from technogen_jax.audio import audio_files, spectral
from technogen_jax.common import array_files
from technogen_jax.evaluation.features import log_mel
from technogen_jax.evaluation.features.embedding import Embedding, Tagger
from technogen_jax.evaluation.features.tf_checkpoint import read_arrays

RATE_HZ = 16_000
N_FFT = 512
HOP_LENGTH = 256
N_MELS = 96
FRAMES = 187  # 3 s, the length that the networks were trained on
BLOCK = "tags"  # the only block

_EPSILON = 1e-3  # of TensorFlow's batch normalisation
_BATCH = 8  # windows of one call: about 200 MB
_POOLS = (((4, 1), 2), ((2, 2), 2), ((2, 2), 2), ((2, 2), 2), ((4, 4), 4))  # sizes and strides of MTT_vgg

# In the order of the networks' outputs.
TAGS = (
    "guitar|classical|slow|techno|strings|drums|electronic|rock|fast|piano|ambient|beat|violin|vocal|synth|female|indian|opera|"
    "male|singing|vocals|no vocals|harpsichord|loud|quiet|flute|woman|male vocal|no vocal|pop|soft|sitar|solo|man|classic|"
    "choir|voice|new age|dance|male voice|female vocal|beats|harp|cello|no voice|weird|country|metal|female voice|choral"
).split("|")

Params = dict[str, np.ndarray]


class Model(NamedTuple):
    """A network in the wheel.

    Attributes:
        name: its folder in the wheel.
        layer: (params, frames `[B, 187, 96]`) -> the layer before the tags `[B, size]`.
        size: of that layer.
        output: TensorFlow's name of the layer of tags.
    """

    name: str
    layer: Callable[[Params, jax.Array], jax.Array]
    size: int
    output: str


def load_embedding(path: str | os.PathLike, model: Model) -> Embedding:
    """Returns the layer before the tags of a network in musicnn's wheel as an embedding, with its tags.

    A clip is seen through windows of three seconds, spread evenly so that they cover it; a shorter clip
    is repeated. The embedding is the mean over the windows. It ignores `loop`.

    Args:
        path: the wheel.
        model: `MUSICNN` or `VGG`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: another file.
    """
    params = read_wheel(path, model.name)
    layer = jax.jit(functools.partial(model.layer, params))

    def embed(audio: np.ndarray, sample_rate_hz: int, *, loop: bool) -> np.ndarray:
        frames = log_mel_frames(log_mel.check_clips(audio, sample_rate_hz), sample_rate_hz)
        windows = cut_windows(frames)  # [B, W, 187, 96]
        flat = windows.reshape(-1, FRAMES, N_MELS)
        padded = np.zeros((-(-len(flat) // _BATCH) * _BATCH, FRAMES, N_MELS), np.float32)  # one compilation
        padded[: len(flat)] = flat
        parts = [np.asarray(layer(padded[start : start + _BATCH])) for start in range(0, len(padded), _BATCH)]
        found = np.concatenate(parts)[: len(flat)].astype(np.float64)
        return found.reshape(*windows.shape[:2], model.size).mean(axis=1)

    def describe(sample_rate_hz: int) -> dict[str, Any]:
        return {"name": model.name, "sample_rate_hz": sample_rate_hz, "sha256": array_files.content_hash(params)}

    def tag(values: np.ndarray) -> np.ndarray:
        kernel, bias = (params[f"{model.output}/{part}"].astype(np.float64) for part in ("kernel", "bias"))
        return scipy.special.expit(values @ kernel + bias)

    return Embedding(
        model.name,
        lambda channels: {BLOCK: slice(0, model.size)},
        embed,
        describe,
        whiten=False,
        tagger=Tagger(TAGS, tag),
    )


def cut_windows(frames: np.ndarray) -> np.ndarray:
    """Returns the windows of 187 frames that cover clips, `[B, W, 187, 96]`, for frames `[B, N, 96]`."""
    if frames.shape[1] < FRAMES:
        frames = np.take(frames, np.arange(FRAMES) % frames.shape[1], axis=1)
    count = -(-frames.shape[1] // FRAMES)
    starts = np.rint(np.linspace(0, frames.shape[1] - FRAMES, count)).astype(int)
    return np.stack([frames[:, start : start + FRAMES] for start in starts], axis=1)


def read_wheel(path: str | os.PathLike, model: str) -> Params:
    """Returns the arrays of a network in musicnn's wheel, by TensorFlow's names.

    Args:
        path: the wheel.
        model: "MTT_musicnn" or "MTT_vgg".

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: another file.
    """
    try:
        with zipfile.ZipFile(path) as wheel:
            index, data = (wheel.read(f"musicnn/{model}/{name}") for name in (".index", ".data-00000-of-00001"))
        arrays = read_arrays(index, data)
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise ValueError(
            f"{path}: expected the wheel that pip download --no-deps musicnn writes; {model} cannot be read from it ({error})"
        ) from None
    return {name: array for name, array in arrays.items() if "Adam" not in name and "power" not in name}


def log_mel_frames(audio: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    """Returns the networks' input: log-mel spectra every 16 ms, of the mean of the channels.

    As musicnn computes them by librosa: resampled to 16 kHz, frames centred on multiples of the hop,
    the power rounded to half precision, and its logarithm in single precision. (With numpy 2 the
    package's own logarithm is of half precision, and infinite in loud bands.)

    Args:
        audio: float32 `[B, T, C]` in [-1, 1].
        sample_rate_hz: its rate.

    Returns:
        float32 `[B, 1 + T' // 256, 96]`, T' the samples at 16 kHz.
    """
    mono = np.stack([audio_files.resample(audio_files.remix(clip, 1), sample_rate_hz, RATE_HZ)[:, 0] for clip in audio])
    return np.asarray(_log_mel(mono))


@jax.jit
def _log_mel(mono: jax.Array) -> jax.Array:
    padded = jnp.pad(mono, [(0, 0), (N_FFT // 2, N_FFT // 2)])
    power = jnp.abs(spectral.stft(padded, N_FFT, HOP_LENGTH)) ** 2
    mel = jnp.matmul(power, spectral.mel_filters(RATE_HZ, N_FFT, N_MELS, 0.0).T, precision="highest")
    return jnp.log10(10_000 * mel.astype(jnp.float16).astype(jnp.float32) + 1)


def musicnn(params: Params, frames: jax.Array) -> jax.Array:
    """Returns the layer before the tags of MTT_musicnn, `[B, 200]`.

    Args:
        params: from `read_wheel`.
        frames: `[B, N, 96]` from `log_mel_frames`.
    """
    x = _normalize(params, 0, frames[..., None])  # [B, N, F, 1]
    front = []
    for number in range(5):  # kernels of 7 frames and 38 or 67 bands, then of 128, 64 and 32 frames and one band
        padding = [(3, 3), (0, 0)] if number < 2 else "SAME"
        y = _convolve(params, _name("conv2d", number), x, padding)
        front.append(_normalize(params, number + 1, y).max(axis=2))  # [B, N, channels]
    layers = [jnp.concatenate(front, axis=-1)]
    for number in (5, 6, 7):
        name = _name("conv2d", number)
        kernel = params[name + "/kernel"][:, :, 0]  # [7, channels, 64]
        y = jax.lax.conv_general_dilated(layers[-1], kernel, (1,), [(3, 3)], dimension_numbers=("NWC", "WIO", "NWC"))
        y = _normalize(params, number + 1, jax.nn.relu(y + params[name + "/bias"]))
        layers.append(y + layers[-1] if number > 5 else y)
    x = jnp.concatenate(layers, axis=-1)  # [B, N, 753]
    x = jnp.stack([x.max(axis=1), x.mean(axis=1)], axis=-1).reshape(len(x), -1)
    x = _normalize(params, 9, x) @ params["dense/kernel"] + params["dense/bias"]
    return _normalize(params, 10, jax.nn.relu(x))


def vgg(params: Params, frames: jax.Array) -> jax.Array:
    """Returns the layer before the tags of MTT_vgg, `[B, 256]`.

    Args:
        params: from `read_wheel`.
        frames: `[B, 187, 96]` from `log_mel_frames`.
    """
    x = _normalize(params, 0, frames[..., None])
    for number, (size, stride) in enumerate(_POOLS, 1):
        x = _normalize(params, number, _convolve(params, f"{number}CNN", x, "SAME"))
        x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, *size, 1), (1, stride, stride, 1), "VALID")
    return x.reshape(len(x), -1)


def _name(layer: str, number: int) -> str:
    """TensorFlow's name of the layer of a kind with this number."""
    return f"{layer}_{number}" if number else layer


def _convolve(params: Params, name: str, x: jax.Array, padding: Any) -> jax.Array:
    kernel, bias = params[f"{name}/kernel"], params[f"{name}/bias"]
    y = jax.lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return jax.nn.relu(y + bias)


def _normalize(params: Params, number: int, x: jax.Array) -> jax.Array:
    gamma, beta, mean, variance = (
        params[f"{_name('batch_normalization', number)}/{part}"]
        for part in ("gamma", "beta", "moving_mean", "moving_variance")
    )
    return (x - mean) * (gamma / jnp.sqrt(variance + _EPSILON)) + beta


MUSICNN = Model("MTT_musicnn", musicnn, 200, "dense_1")
VGG = Model("MTT_vgg", vgg, 256, "dense")
