"""Published embeddings from local weight files: VGGish, PANNs' CNN14, CLAP and EnCodec's encoder.

`load(name, path)` gives an `Embedding` that is used like our own. Nothing is downloaded and no code comes with the
weights: files are read from a path with unpickling limited to numbers, and networks are those written out here or in
transformers. MERT is not offered, since its weights run only with code from their repository (trust_remote_code).

What a network sees: the clip resampled to its rate (soxr HQ) and remixed to its channels, so all but EnCodec at 48 kHz
are deaf to stereo; a clip shorter than the network's window is repeated until it fills one; a longer one is cut into
windows whose vectors are averaged, so a clip is one vector. No level is changed and nothing is rounded to 16 bits.
torch runs on the CPU; torch and transformers are imported when an embedding is loaded, from requirements-embeddings.txt.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import json
import math
import os
import pathlib
import pickle
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from technogen_jax.audio.audio_files import Stream, resample_blocks
from technogen_jax.common import atomic_files
from technogen_jax.evaluation.features.embeddings import SHORTEST_S, Embedding

_VERSION = 1  # raise it when the same file and audio give other values: caches and records then know
_BATCH = 16  # clips read and windows computed at once: bounds the memory


class Network(NamedTuple):
    """What one published network needs and gives."""

    name: str  # what the embedding is called
    sample_rate_hz: int  # of what it takes
    channels: int
    size: int  # D
    window_samples: int  # what it takes at once, and the least it takes
    hop_samples: int  # the most that windows lie apart; 0: a clip from one window on is taken whole
    spread: bool  # windows lie evenly from beginning to end; else one hop apart, and the rest is dropped
    forward: Callable[[np.ndarray], np.ndarray]  # float32 [B, T, C] -> [B, D]
    sha256: dict[str, str]  # of the files that decide the values, by their role
    details: str  # what else decides them


def load(name: str, path: str | os.PathLike, cache_dir: str | os.PathLike | None = None) -> Embedding:
    """The published embedding in a weight file or folder.

    Args:
        name: one of `PUBLISHED`. The embedding's own name says more where there are several of a kind.
        path: of vggish and panns-cnn14 the .pth file; of clap and encodec the folder with config.json.
        cache_dir: where vectors are kept; see `cached`.

    Raises:
        ValueError: an unknown name, or a file with other contents than expected.
        FileNotFoundError: no such file or folder, or one without the files that are needed.
        ImportError: torch or transformers is not installed.
    """
    if name not in PUBLISHED:
        raise ValueError(f"published embedding {name!r}: expected one of {', '.join(PUBLISHED)}")
    embedding = make_embedding(PUBLISHED[name](pathlib.Path(path)))
    return embedding if cache_dir is None else cached(embedding, cache_dir)


def make_embedding(network: Network) -> Embedding:
    """The embedding that a network makes: one vector a clip, one block "E".

    Its `embed` raises ValueError for audio that is not `[B, T, C]`, shorter than 0.25 s or holds NaN or Inf, and where
    the network gives NaN or Inf. `loop` has no effect: the vectors are of the clip as it is.
    """

    def embed(audio: np.ndarray, sample_rate_hz: int, *, loop: bool) -> np.ndarray:
        audio, shortest = np.asarray(audio), int(np.ceil(SHORTEST_S * sample_rate_hz))
        fits = audio.ndim == 3 and len(audio) and audio.shape[1] >= shortest and audio.shape[2] in (1, 2)
        if not fits or not np.issubdtype(audio.dtype, np.floating):
            raise ValueError(
                f"{network.name}: expected floating-point clips [B, T, C] with B at least 1, T at least {shortest} "
                f"({SHORTEST_S} s) and C 1 or 2, got {audio.dtype} {audio.shape}"
            )
        if not np.isfinite(audio).all():
            raise ValueError(f"{network.name}: the audio holds NaN or Inf; leave out those clips")
        batches = (audio[start : start + _BATCH] for start in range(0, len(audio), _BATCH))
        vectors = np.concatenate([_embed_batch(network, clips.astype(np.float32), sample_rate_hz) for clips in batches])
        if not np.isfinite(vectors).all():
            raise ValueError(f"{network.name}: the network gives NaN or Inf; its weights may be damaged")
        return vectors

    def describe(sample_rate_hz: int) -> dict[str, Any]:
        how = {"version": _VERSION, "resampler": "soxr HQ", "windows": "short clips repeated, vectors averaged"}
        rates = {"sample_rate_hz": sample_rate_hz, "network_sample_rate_hz": network.sample_rate_hz}
        return {name: value for name, value in network._asdict().items() if name != "forward"} | how | rates

    return Embedding(network.name, lambda channels: {"E": slice(0, network.size)}, embed, describe)


def resample(audio: np.ndarray, sample_rate_hz: int, to_sample_rate_hz: int, channels: int) -> np.ndarray:
    """`[B, T, C]` at another rate and channel count, each clip by itself."""
    streams = (Stream(sample_rate_hz, clip.shape[1], iter([clip])) for clip in audio)
    return np.stack([np.concatenate(list(resample_blocks(one, to_sample_rate_hz, channels))) for one in streams])


def cut_windows(audio: np.ndarray, window_samples: int, hop_samples: int, *, spread: bool) -> np.ndarray:
    """`[B, T, C]` -> `[B, W, window_samples, C]`, or `[B, 1, T, C]` for hop_samples = 0; see `Network`."""
    samples = audio.shape[1]
    if samples < window_samples:
        audio, samples = audio[:, np.arange(window_samples) % samples], window_samples
    if not hop_samples:
        return audio[:, None]
    room = samples - window_samples
    even = np.linspace(0, room, 1 + math.ceil(room / hop_samples), dtype=int)
    starts = even if spread else range(0, room + 1, hop_samples)
    return np.stack([audio[:, start : start + window_samples] for start in starts], axis=1)


def _embed_batch(network: Network, clips: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    clips = resample(clips, sample_rate_hz, network.sample_rate_hz, network.channels)
    windows = cut_windows(clips, network.window_samples, network.hop_samples, spread=network.spread)
    flat = windows.reshape(-1, *windows.shape[2:])
    vectors = np.concatenate([network.forward(flat[i : i + _BATCH]) for i in range(0, len(flat), _BATCH)])
    return vectors.reshape(*windows.shape[:2], network.size).mean(axis=1, dtype=np.float64)


def cached(embedding: Embedding, folder: str | os.PathLike) -> Embedding:
    """The same embedding, which keeps each clip's vector in a folder and computes it once.

    The key is a hash of the clip's samples, type and shape and of `describe`, which holds rate, version and the weights'
    hash: names and dates of files do not count. What cannot be read is computed anew.
    """
    folder = pathlib.Path(folder) / embedding.name
    folder.mkdir(parents=True, exist_ok=True)

    def embed(audio: np.ndarray, sample_rate_hz: int, *, loop: bool) -> np.ndarray:
        audio = np.asarray(audio)
        rest = [embedding.describe(sample_rate_hz), audio.dtype.str, audio.shape[1:], loop]
        context = json.dumps(rest, sort_keys=True).encode()
        paths = [folder / f"{hashlib.sha256(context + clip.tobytes()).hexdigest()}.npy" for clip in audio]
        vectors = [_read_vector(path) for path in paths]
        missing = [index for index, vector in enumerate(vectors) if vector is None]
        if missing or not paths:
            computed = embedding.embed(audio[missing], sample_rate_hz, loop=loop)
            for index, vector in zip(missing, computed, strict=True):
                vectors[index] = vector
                with (
                    atomic_files.replacing(paths[index], shared=True, synced=False) as temporary,
                    open(temporary, "wb") as file,
                ):
                    np.save(file, vector)
        return np.stack(vectors)

    return embedding._replace(embed=embed)


def _read_vector(file: pathlib.Path) -> np.ndarray | None:
    try:
        return np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None


def _vggish(path: pathlib.Path) -> Network:
    """VGGish with the weights of torchvggish (vggish-10086976.pth): the last layer without its ReLU, no PCA, no 8 bits.

    So do the Fréchet audio distances of fadtk and of frechet_audio_distance. They take each window for a sample, where
    ours averages the windows of a clip: the same for clips under 1.935 s. To a clip shorter than a window they give
    nothing, or zeros after it.

    Source: Hershey et al., CNN Architectures for Large-Scale Audio Classification, ICASSP 2017; front-end and layers as
    in github.com/harritaylor/torchvggish.
    """
    torch = _need("torch")
    layers = [f"features.{i}" for i in (0, 3, 6, 8, 11, 13)] + [f"embeddings.{i}" for i in (0, 2, 4)]
    weights = _read_weights(path, (f"{layer}.{part}" for layer in layers for part in ("weight", "bias")))
    pooled = {"features.0", "features.3", "features.8", "features.13"}
    functional = torch.nn.functional

    @torch.inference_mode()
    def forward(windows: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(vggish_log_mel(windows[..., 0]))[:, None]  # [B, 1, 96, 64]
        for layer in layers[:6]:
            x = functional.conv2d(x, weights[f"{layer}.weight"], weights[f"{layer}.bias"], padding=1).relu()
            x = functional.max_pool2d(x, 2) if layer in pooled else x
        x = x.permute(0, 2, 3, 1).flatten(1)  # [B, 512, 6, 4] -> [B, 12288]: channels last, as in TensorFlow
        for layer in layers[6:]:
            x = functional.linear(x, weights[f"{layer}.weight"], weights[f"{layer}.bias"])
            x = x if layer == layers[-1] else x.relu()
        return x.numpy()

    return Network(
        name="vggish",
        sample_rate_hz=16_000,
        channels=1,
        size=len(weights["embeddings.4.bias"]),
        window_samples=15_600,  # 96 frames of 400 samples, 160 apart
        hop_samples=15_360,
        spread=False,
        forward=forward,
        sha256={"weights": _sha256(path)},
        details="last layer without ReLU, no PCA",
    )


def vggish_log_mel(audio: np.ndarray) -> np.ndarray:
    """VGGish's input: `[B, T]` at 16 kHz -> float32 `[B, N, 64]`, log(magnitudes in 64 mel bands + 0.01).

    Frames of 25 ms every 10 ms; bands from 125 to 7500 Hz, triangles on HTK's mel scale itself (librosa's are on hertz).
    """
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    frames = np.lib.stride_tricks.sliding_window_view(audio, 400, axis=-1)[..., ::160, :]
    return np.log(np.abs(np.fft.rfft(frames * window, 512)) @ _vggish_filters() + 0.01).astype(np.float32)


@functools.cache
def _vggish_filters() -> np.ndarray:
    """`[257, 64]`."""
    bins = 1127 * np.log1p(np.linspace(0, 8000, 257) / 700)
    edges = np.linspace(*(1127 * np.log1p(np.array([125, 7500]) / 700)), 66)
    return np.stack([np.interp(bins, edges[i : i + 3], [0, 1, 0]) for i in range(64)], axis=1)


def _cnn14(path: pathlib.Path) -> Network:
    """PANNs' CNN14, its penultimate layer; the file says which: 32 kHz (Cnn14_mAP=0.431.pth), 16 kHz or 8 kHz.

    Source: Kong et al., PANNs: Large-Scale Pretrained Audio Neural Networks for Audio Pattern Recognition, 2020, Table 1;
    github.com/qiuqiangkong/audioset_tagging_cnn.
    """
    torch = _need("torch")
    stft = [f"spectrogram_extractor.stft.conv_{part}.weight" for part in ("real", "imag")]
    norm = ("weight", "bias", "running_mean", "running_var")  # in the order that `normalised` takes them
    names = [*stft, "logmel_extractor.melW", "fc1.weight", "fc1.bias", *(f"bn0.{part}" for part in norm)]
    for block in range(1, 7):
        for i in (1, 2):
            names += [f"conv_block{block}.conv{i}.weight", *(f"conv_block{block}.bn{i}.{part}" for part in norm)]
    weights = _read_weights(path, names, inside="model")
    n_fft = weights[stft[0]].shape[-1]
    if n_fft not in (256, 512, 1024):
        raise ValueError(f"{path.name}: expected CNN14 with frames of 256, 512 or 1024 samples, got {n_fft}")
    sample_rate_hz = {256: 8_000, 512: 16_000, 1024: 32_000}[n_fft]
    functional = torch.nn.functional

    def normalised(x, layer: str):
        weight, bias, mean, variance = (weights[f"{layer}.{part}"] for part in norm)
        return functional.batch_norm(x, mean, variance, weight, bias)

    @torch.inference_mode()
    def forward(windows: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(np.ascontiguousarray(windows[..., 0]))[:, None]
        x = functional.pad(x, (n_fft // 2, n_fft // 2), mode="reflect")
        power = sum(functional.conv1d(x, weights[part], stride=sample_rate_hz // 100) ** 2 for part in stft)
        mel = power.transpose(1, 2) @ weights["logmel_extractor.melW"]  # [B, N, 64]
        x = normalised(10 * mel.clamp(min=1e-10).log10().transpose(1, 2), "bn0").transpose(1, 2)[:, None]
        for block in range(1, 7):
            for i in (1, 2):
                x = functional.conv2d(x, weights[f"conv_block{block}.conv{i}.weight"], padding=1)
                x = normalised(x, f"conv_block{block}.bn{i}").relu()
            x = functional.avg_pool2d(x, 2) if block < 6 else x
        x = x.mean(3)  # [B, 2048, N // 32, 2] -> [B, 2048, N // 32]
        return functional.linear(x.amax(2) + x.mean(2), weights["fc1.weight"], weights["fc1.bias"]).relu().numpy()

    return Network(
        name="panns-cnn14" + ("" if n_fft == 1024 else f"-{sample_rate_hz // 1000}k"),
        sample_rate_hz=sample_rate_hz,
        channels=1,
        size=len(weights["fc1.bias"]),
        window_samples=31 * sample_rate_hz // 100,  # 32 frames: what five halvings leave something of
        hop_samples=0,
        spread=False,
        forward=forward,
        sha256={"weights": _sha256(path)},
        details="penultimate layer, with ReLU",
    )


def _clap(path: pathlib.Path) -> Network:
    """CLAP's audio half, projected and brought to length 1, from a folder such as laion/larger_clap_music.

    Every window is exactly as long as the extractor's, so that it neither crops nor fuses at random. A short clip is
    repeated to the window's end; transformers' own processor repeats it whole and fills the rest with zeros. The
    folder's name is part of the embedding's.

    Source: Wu et al., Large-scale Contrastive Language-Audio Pretraining, ICASSP 2023.
    """
    torch, transformers = _need("torch"), _need("transformers")
    model, sha256 = _read_model(transformers.ClapModel, path, ("audio_model.", "audio_projection."))
    sha256["extractor"] = _sha256(path / "preprocessor_config.json")
    extractor = transformers.ClapFeatureExtractor.from_pretrained(path, local_files_only=True)

    @torch.inference_mode()
    def forward(windows: np.ndarray) -> np.ndarray:
        features = extractor(list(windows[..., 0]), sampling_rate=extractor.sampling_rate)["input_features"]
        none_longer = torch.zeros(len(windows), 1, dtype=torch.bool)  # the extractor marks one clip at random
        images = torch.from_numpy(np.stack(features).astype(np.float32))
        return model.get_audio_features(input_features=images, is_longer=none_longer).pooler_output.numpy()

    return Network(
        name=f"clap-{os.path.basename(os.path.abspath(path))}",
        sample_rate_hz=extractor.sampling_rate,
        channels=1,
        size=model.config.projection_dim,
        window_samples=extractor.nb_max_samples,
        hop_samples=extractor.nb_max_samples,
        spread=True,
        forward=forward,
        sha256=sha256,
        details="audio projection, of length 1",
    )


def _encodec(path: pathlib.Path) -> Network:
    """EnCodec's encoder before quantisation, averaged over its frames, at 24 kHz (mono) or 48 kHz (stereo).

    At 48 kHz in windows of 1 s, each divided by its own level, as the codec itself does: level is not heard there.

    Source: Défossez et al., High Fidelity Neural Audio Compression, 2022, section 3.
    """
    torch, transformers = _need("torch"), _need("transformers")
    model, sha256 = _read_model(transformers.EncodecModel, path, ("encoder.",))
    config = model.config

    @torch.inference_mode()
    def forward(windows: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(np.ascontiguousarray(windows.swapaxes(1, 2)))  # [B, C, T]
        if config.normalize:
            x = x / (x.mean(1, keepdim=True).square().mean(2, keepdim=True).sqrt() + 1e-8)  # silence stays silence
        return model.encoder(x).mean(2).numpy()

    return Network(
        name=f"encodec{config.sampling_rate // 1000}",
        sample_rate_hz=config.sampling_rate,
        channels=config.audio_channels,
        size=config.hidden_size,
        window_samples=config.chunk_length or 1,
        hop_samples=config.chunk_stride or 0,
        spread=True,
        forward=forward,
        sha256=sha256,
        details="before quantisation, mean of frames" + (", windows brought to one level" if config.normalize else ""),
    )


PUBLISHED: dict[str, Callable[[pathlib.Path], Network]] = {
    "vggish": _vggish,
    "panns-cnn14": _cnn14,
    "clap": _clap,
    "encodec": _encodec,
}


def _need(module: str):
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"{module} is needed ({error}): pip install -r requirements-embeddings.txt") from error


def _sha256(path: pathlib.Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_weights(path: pathlib.Path, names: Iterable[str], inside: str = "") -> dict[str, Any]:
    """The named tensors of a .pth file; `inside` is the entry they lie under."""
    torch = _need("torch")
    # CNN14's files also hold the order of their training data, as arrays under numpy 1's names.
    arrays = np._core.multiarray
    numbers = [np.ndarray, np.dtype, *(type(np.dtype(kind)) for kind in (bool, int, float, np.int32, np.float32))]
    for function in (arrays._reconstruct, arrays.scalar):
        numbers += [function, (function, f"numpy.core.multiarray.{function.__name__}")]
    try:
        with torch.serialization.safe_globals(numbers):
            found = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path.name}: expected weights saved by torch and nothing else in it ({reason})") from error
    if isinstance(found, dict):
        found = found.get(inside, found)
    entries = found if isinstance(found, dict) else {}
    names = list(names)
    missing = next((name for name in names if not isinstance(entries.get(name), torch.Tensor)), None)
    if missing:
        raise ValueError(f"{path.name}: no {missing!r} among its {len(entries)} entries; is it another network's file?")
    return {name: entries[name].float() for name in names}


def _read_model(model_class: Any, path: pathlib.Path, needed: tuple[str, ...]) -> tuple[Any, dict[str, str]]:
    """A transformers model from a folder, and the hashes of its files; no weight under `needed` may be missing."""
    paths = [
        path / name for name in ("model.safetensors", "pytorch_model.bin", "config.json") if (path / name).is_file()
    ]
    if len(paths) < 2 or paths[-1].name != "config.json":
        raise FileNotFoundError(
            f"{path}: expected a folder with config.json and model.safetensors or pytorch_model.bin"
        )
    weights = paths[0]
    options = {"local_files_only": True, "weights_only": True, "use_safetensors": weights.suffix == ".safetensors"}
    model, report = model_class.from_pretrained(path, **options, output_loading_info=True)
    computed = ("relative_position_index", "num_batches_tracked")  # absent from some versions' files
    missing = sorted(name for name in report["missing_keys"] if name.startswith(needed) and not name.endswith(computed))
    if missing:  # transformers draws them at random and goes on
        raise ValueError(f"{weights}: no {missing[0]!r} (and {len(missing) - 1} more); is it another network's file?")
    return model.eval().float(), {"weights": _sha256(weights), "config": _sha256(path / "config.json")}
