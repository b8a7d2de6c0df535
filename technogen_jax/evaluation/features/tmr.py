"""Audio to vectors that sets of clips are compared by, and the projection in which they are compared.

`tmr-v1` needs no weights. Its three blocks see different faults, so each is reported by itself and all are together:

    T  timbre      noise, missing bands, clipping, level              not the order of anything
    M  modulation  16ths out of order, smeared attacks, noise         not the direction of time
    R  rhythm      tempo, jitter, reversal                            hardly timbre

Distances in it depend on level, bandwidth, codec, duration and rate, know nothing of melody or key, and have not been
calibrated by listeners. They can be gamed: do not judge a model that was trained on a mel loss by T alone. They compare
with nothing published, hence names of their own: `fd_tmr-v1`, never FAD.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from technogen_jax.audio import spectral
from technogen_jax.common import array_files

SHORTEST_S = 0.25
LEAST_TRACKS = 10
MOST_DIMENSIONS = 32

_N_MELS = 64
_FMIN_HZ = 30.0
_FLOOR = 1e-5  # as in `dsp.log_mel`; under the logarithm of a modulation's power too

_GROUPS = 12  # of neighbouring mel bands
_MODULATION_EDGES_HZ = np.geomspace(0.5, 40, 21)
_MODULATION_SPACING_HZ = 0.05  # of the spectrum's bins at most: two in the narrowest band

_FLUX_EDGES_HZ = (200.0, 2000.0)  # kick and bass | snare, lines | hats
_LAGS_S = np.geomspace(0.05, 1.2, 48)
_FLUX_FLOOR = 1e-6  # flux that deviates by less than 0.001 has no rhythm: rounding is not to be one

_SIZES = {"T": 4 * _N_MELS, "M": _GROUPS * (len(_MODULATION_EDGES_HZ) - 1), "R": 3 * len(_LAGS_S)}
_BATCH_SAMPLES = 1 << 20  # a dispatch: some 100 MB of frames


class Embedding(NamedTuple):
    """A way to turn clips into vectors.

    Attributes:
        name: with its version; part of every metric's name.
        blocks: channels -> {block: its columns}.
        embed: (audio `[B, T, C]`, rate in Hz, *, loop) -> float64 `[B, D]`.
        describe: rate in Hz -> what tells it from others: figures and words for the record.
    """

    name: str
    blocks: Callable[[int], dict[str, slice]]
    embed: Callable[..., np.ndarray]
    describe: Callable[[int], dict[str, Any]]


def frame_sizes(sample_rate_hz: int) -> tuple[int, int]:
    """(n_fft, hop_length) of every mel spectrogram here: the power of two nearest 55 ms, and 10 ms."""
    return max(64, 1 << round(np.log2(0.055 * sample_rate_hz))), round(sample_rate_hz / 100)


def tmr(audio: np.ndarray, sample_rate_hz: int, *, loop: bool) -> np.ndarray:
    """Timbre, modulation and rhythm of each clip, of the mean of its channels and, if stereo, of half their difference.

    Nothing is normalised: level is a property. For the loudness-matched variant match the audio's loudness first.

    T: mean, deviation, deviation of the change from frame to frame, and distance from the 10th to the 90th percentile
    of 64 log-mel bands. M: logarithm of the Hann-windowed power spectrum of 12 groups of them, averaged in 20
    logarithmic bands from 0.5 to 40 Hz, and for a loop over all rotations. R: normalised autocorrelation at 48 logarithmic lags from 0.05 to 1.2 s of the
    summed rises of the bands below 200 Hz, below 2 kHz and above.

    A short clip has all dimensions: its modulation spectrum is interpolated, so that what is slower than the clip shows
    what its end and start let through; lags beyond its end read 0, or the next round of a loop.

    Args:
        audio: floating-point `[B, T, C]` in [-1, 1], C 1 or 2. Silence is embedded as one constant vector.
        sample_rate_hz: its rate.
        loop: whether the clips go on from their end at their start; otherwise only whole frames count.

    Returns:
        float64 `[B, 640 C]`, its columns by `EMBEDDINGS["tmr-v1"].blocks(C)`.

    Raises:
        ValueError: audio of another shape or type, NaN or Inf, or clips below 0.25 s.
    """
    audio = _checked(audio, sample_rate_hz)
    frame_rate_hz = sample_rate_hz / frame_sizes(sample_rate_hz)[1]
    parts = [
        np.concatenate(
            [
                block.reshape(len(mel), -1)
                for block in (
                    _timbre(mel, loop),
                    _modulation(mel, frame_rate_hz, loop),
                    _rhythm(mel, frame_rate_hz, sample_rate_hz, loop),
                )
            ],
            axis=1,
        )
        for mel in _mels(audio, sample_rate_hz, loop)
    ]
    return np.concatenate(parts)


def log_mel_images(audio: np.ndarray, sample_rate_hz: int, *, loop: bool = False) -> np.ndarray:
    """Log-mel spectrograms of the channels' mean: float32 `[B, N, 64]`, a frame every 10 ms.

    Args:
        audio: floating-point `[B, T, C]` in [-1, 1], C 1 or 2.
        sample_rate_hz: its rate.
        loop: see `tmr`.

    Raises:
        ValueError: see `tmr`.
    """
    audio = _checked(audio, sample_rate_hz).mean(axis=2, keepdims=True)
    return np.concatenate([mel[:, 0].astype(np.float32) for mel in _mels(audio, sample_rate_hz, loop)])


def _blocks(channels: int) -> dict[str, slice]:
    ends = np.cumsum([0] + [channels * size for size in _SIZES.values()])
    return {name: slice(int(a), int(b)) for name, a, b in zip(_SIZES, ends, ends[1:], strict=False)}


def _describe(sample_rate_hz: int) -> dict[str, Any]:
    n_fft, hop_length = frame_sizes(sample_rate_hz)
    return {
        "name": "tmr-v1",
        "sample_rate_hz": sample_rate_hz,
        "n_fft": n_fft,
        "hop_length": hop_length,
        "n_mels": _N_MELS,
        "fmin_hz": _FMIN_HZ,
        "floor": _FLOOR,
    }


EMBEDDINGS = {"tmr-v1": Embedding("tmr-v1", _blocks, tmr, _describe)}


class Space(NamedTuple):
    """Where one block is compared.

    Attributes:
        columns: first and last + 1 of the embedding.
        mean: `[D]` of the fit set.
        deviation: `[D]`.
        components: `[D, d]`: standardised columns to uncorrelated coordinates of deviation 1.
    """

    columns: tuple[int, int]
    mean: np.ndarray
    deviation: np.ndarray
    components: np.ndarray


class Projection(NamedTuple):
    """What embeddings are compared in: fitted once, to training tracks, and never to what is being compared.

    Attributes:
        spaces: one a block, and "all".
        tracks: of the fit set.
    """

    spaces: dict[str, Space]
    tracks: int

    def apply(self, values: np.ndarray) -> dict[str, np.ndarray]:
        """Coordinates in each space, float64 `[n, d]`.

        Args:
            values: embeddings `[n, D]`.

        Raises:
            ValueError: another D than that of the fit set, NaN or Inf.
        """
        values = _finite(values, "Projection.apply")
        width = self.spaces["all"].columns[1]
        if values.shape[1] != width:
            raise ValueError(
                f"Projection.apply: expected embeddings [n, {width}], got {values.shape}; the projection was fitted to "
                "another embedding or another number of channels"
            )
        return {
            name: (values[:, slice(*space.columns)] - space.mean) / space.deviation @ space.components
            for name, space in self.spaces.items()
        }

    @property
    def sha256(self) -> str:
        """Of the contents, not of the file."""
        return array_files.content_hash(self._arrays())

    def save(self, path: str | os.PathLike) -> None:
        """Writes an .npz file, whole or not at all."""
        array_files.write(path, self._arrays())

    def _arrays(self) -> dict[str, np.ndarray]:
        fields = {f"{name}/{field}": getattr(space, field) for name, space in self.spaces.items() for field in _FIELDS}
        return {"tracks": self.tracks} | fields


_FIELDS = Space._fields


def fit_projection(
    values: np.ndarray, tracks: np.ndarray, blocks: dict[str, slice], dimensions: int | None = None
) -> Projection:
    """For each block and for all of them: standardisation, and whitening to the first principal components.

    A dimension that hardly varies in the fit set, below a thousandth of the block's greatest deviation, is not blown up
    to the size of the others. What varies in no fit clip is not seen in the projection.

    Args:
        values: embeddings `[n, D]` of the fit set.
        tracks: `[n]`, the track of each.
        blocks: {block: its columns}.
        dimensions: of each space, less where the set has less; a fifth of the tracks, 2 to 32, if None.

    Raises:
        ValueError: fewer than 10 tracks, values that do not fit, NaN, Inf, or a block that is the same for all clips.

    *Source*: whitening by the singular value decomposition of the standardised values.
    """
    values, count = _finite(values, "fit_projection"), len(set(tracks))
    if len(tracks) != len(values):
        raise ValueError(f"fit_projection: expected one track a clip, got {len(tracks)} for {len(values)}")
    if count < LEAST_TRACKS:
        raise ValueError(
            f"fit_projection: expected clips of at least {LEAST_TRACKS} tracks, got {count}; prepare the set from more"
        )
    dimensions = dimensions or min(MOST_DIMENSIONS, max(2, count // 5))
    spaces = {}
    for name, columns in {**blocks, "all": slice(0, values.shape[1])}.items():
        block = values[:, columns]
        deviation = block.std(axis=0)
        if not deviation.max() > 1e-9 * np.abs(block).max():
            raise ValueError(f"fit_projection: block {name} is the same for all clips; are they all silent, or copies?")
        deviation = np.maximum(deviation, 1e-3 * deviation.max())
        mean = block.mean(axis=0)
        _, strengths, axes = np.linalg.svd((block - mean) / deviation, full_matrices=False)
        kept = min(dimensions, int(np.sum(strengths > 1e-6 * strengths[0])))
        axes = axes[:kept] * np.sign(axes[range(kept), np.abs(axes[:kept]).argmax(axis=1)])[:, None]  # a sign for good
        components = axes.T / strengths[:kept] * np.sqrt(len(block) - 1)
        spaces[name] = Space((columns.start, columns.stop), mean, deviation, components)
    return Projection(spaces, count)


def load_projection(path: str | os.PathLike) -> Projection:
    """The projection that was saved.

    Raises:
        ValueError: the file is none, or is damaged.
    """
    found = array_files.read(path)
    try:
        spaces = {
            name: Space(tuple(map(int, found[f"{name}/columns"])), *(found[f"{name}/{f}"] for f in _FIELDS[1:]))
            for name in [key.removesuffix("/columns") for key in found if key.endswith("/columns")]
        }
        return Projection(spaces, int(found["tracks"]))
    except KeyError as error:
        raise ValueError(f"{path}: no projection ({error} is missing)") from None


def _finite(values: np.ndarray, who: str) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if values.ndim != 2 or not len(values):
        raise ValueError(f"{who}: expected embeddings [n, D] with n at least 1, got shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"{who}: the embeddings hold NaN or Inf")
    return values


def _checked(audio: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    """The audio as float32."""
    audio = np.asarray(audio)
    if audio.ndim != 3 or not len(audio) or audio.shape[2] not in (1, 2):
        raise ValueError(f"expected clips [B, T, C] with B at least 1 and C 1 or 2, got shape {audio.shape}")
    if not np.issubdtype(audio.dtype, np.floating):
        raise ValueError(f"expected floating-point audio in [-1, 1], got {audio.dtype}; see `audio.from_int16`")
    shortest = max(round(SHORTEST_S * sample_rate_hz), sum(frame_sizes(sample_rate_hz)))
    if audio.shape[1] < shortest:
        raise ValueError(f"expected clips of at least {shortest} samples at {sample_rate_hz} Hz, got {audio.shape[1]}")
    bad = ~np.isfinite(audio).all(axis=(1, 2))
    if bad.any():
        raise ValueError(f"expected finite audio, got NaN or Inf in {bad.sum()} of {len(bad)} clips")
    return audio.astype(np.float32, copy=False)


def _mels(audio, sample_rate_hz, loop):
    """Yields float64 `[b, S, N, 64]` for the clips in turn, S: mid and, if stereo, side."""
    # The batch follows from the clip's shape alone: one compilation, and the same sum whatever else is in the batch.
    batch = max(1, min(64, _BATCH_SAMPLES // audio[0].size))
    function = _mel_function(sample_rate_hz, loop)

    def dispatch(start):
        clips = audio[start : start + batch]
        padded = np.zeros((batch, *clips.shape[1:]), np.float32)
        padded[: len(clips)] = clips
        return len(clips), function(padded)

    ahead = dispatch(0)
    for start in range(batch, len(audio) + batch, batch):
        count, mel = ahead
        if start < len(audio):
            ahead = dispatch(start)  # the device works while the host counts
        yield np.asarray(mel)[:count].astype(np.float64)


@functools.cache
def _mel_function(sample_rate_hz: int, loop: bool):
    n_fft, hop_length = frame_sizes(sample_rate_hz)

    @jax.jit
    def mels(audio):
        mid, side = (audio[..., 0] + audio[..., -1]) / 2, (audio[..., 0] - audio[..., -1]) / 2
        signals = jnp.stack([mid, side][: audio.shape[2]], axis=1)  # [B, S, T]
        if loop:
            # Frames centred on 0, on a hop ...: then the loop backwards has the same frames, backwards.
            samples = (round(audio.shape[1] / hop_length) - 1) * hop_length + n_fft
            signals = signals[..., np.arange(-n_fft // 2, samples - n_fft // 2) % audio.shape[1]]
        return spectral.log_mel(
            signals, sample_rate_hz, n_fft=n_fft, hop_length=hop_length, n_mels=_N_MELS, fmin_hz=_FMIN_HZ
        )

    return mels


def _change(mel, loop):
    """From each frame to the next, `[b, S, N - 1, M]`; in a loop also from the last to the first."""
    return np.diff(mel, axis=2, **({"append": mel[:, :, :1]} if loop else {}))


def _timbre(mel, loop):
    """[b, S, 256]."""
    low, high = np.percentile(mel, [10, 90], axis=2)
    statistics = [mel.mean(axis=2), mel.std(axis=2), _change(mel, loop).std(axis=2), high - low]
    return np.concatenate(statistics, axis=2)


def _modulation(mel, frame_rate_hz, loop):
    """[b, S, 12, 20]."""
    groups = np.stack([part.mean(axis=3) for part in np.array_split(mel, _GROUPS, axis=3)], axis=2)  # [b, S, 12, N]
    frames = groups.shape[3]
    if loop:
        squared = np.abs(np.fft.rfft(groups)[..., 1 : (frames + 1) // 2]) ** 2 * (2 / frames) ** 2  # amplitudes
        bands = squared @ _cosine_bands(frames, frame_rate_hz)
    else:
        bands = _hann_bands(groups - groups.mean(axis=3, keepdims=True), frame_rate_hz)
    return np.log(bands + _FLOOR)


def _hann_bands(series, frame_rate_hz):
    """Power of each band, `[..., N]` to `[..., 20]`."""
    frames = series.shape[-1]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(frames) / frames)
    bins = 1 << int(np.ceil(np.log2(max(frames, frame_rate_hz / _MODULATION_SPACING_HZ))))
    power = np.abs(np.fft.rfft(series * window, bins)) ** 2 / np.sum(window**2)
    edges = np.searchsorted(np.arange(power.shape[-1]) * frame_rate_hz / bins, _MODULATION_EDGES_HZ)
    return np.stack([power[..., a:b].mean(axis=-1) for a, b in zip(edges, edges[1:], strict=False)], axis=-1)


@functools.lru_cache(maxsize=32)
def _cosine_bands(frames, frame_rate_hz):
    """Power in the bands of a cosine that fits k times into the frames, `[k, 20]`, its phase averaged out.

    Where in the window a loop begins is then all the same: the squared amplitudes times these are the mean of
    `_hann_bands` over all rotations of it.
    """
    angles = 2 * np.pi / frames * np.arange(1, (frames + 1) // 2)[:, None] * np.arange(frames)
    return (_hann_bands(np.cos(angles), frame_rate_hz) + _hann_bands(np.sin(angles), frame_rate_hz)) / 2


def _rhythm(mel, frame_rate_hz, sample_rate_hz, loop):
    """[b, S, 3, 48]."""
    rises = np.maximum(_change(mel, loop), 0)
    edges = np.searchsorted(_centres_hz(sample_rate_hz), [0, *_FLUX_EDGES_HZ, np.inf])
    flux = np.stack([rises[..., a:b].mean(axis=3) for a, b in zip(edges, edges[1:], strict=False)], axis=2)
    frames = flux.shape[3]
    flux = flux - flux.mean(axis=3, keepdims=True)
    lags = _LAGS_S * frame_rate_hz  # in frames, between which the cosines interpolate
    length = frames if loop else frames + int(np.ceil(lags[-1])) + 1  # a loop meets itself; a clip meets silence
    power = np.abs(np.fft.rfft(flux, length)) ** 2 / (length * frames)
    power[..., 1 : (length + 1) // 2] *= 2  # the mirrored half
    cosines = np.cos(2 * np.pi / length * np.arange(power.shape[3])[:, None] * lags)
    return power @ cosines / (power.sum(axis=3, keepdims=True) + _FLUX_FLOOR)


@functools.cache
def _centres_hz(sample_rate_hz):
    """Of the 64 mel bands."""
    n_fft, _ = frame_sizes(sample_rate_hz)
    filters = spectral.mel_filters(sample_rate_hz, n_fft, _N_MELS, _FMIN_HZ)
    return filters @ np.fft.rfftfreq(n_fft, 1 / sample_rate_hz) / np.maximum(filters.sum(axis=1), 1e-12)
