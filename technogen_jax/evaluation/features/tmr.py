"""The embedding `tmr-v1`: timbre, modulation and rhythm of a clip, computed without any weights.

Its three blocks react to different faults. Each is reported alone, and all three together:

    block          reacts to                                          does not react to
    T  timbre      noise, missing bands, clipping, level              the order of events
    M  modulation  16ths in a wrong order, smeared attacks, noise     the direction of time
    R  rhythm      tempo, jitter, reversal                            timbre (hardly)

Distances in it depend on level, bandwidth, codec, duration and sample rate. They do not react to
melody or key, and no listening test has calibrated them. A model can be optimised for them: do not
judge a model that was trained on a mel loss by T alone. They cannot be compared with published
figures, hence their own name: `fd_tmr-v1`, never FAD.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from technogen_jax.audio import spectral
from technogen_jax.evaluation.features import log_mel
from technogen_jax.evaluation.features.embedding import Embedding

BLOCK_TITLES = {"T": "timbre", "M": "modulation", "R": "rhythm"}

_GROUPS = 12  # of neighbouring mel bands
_MODULATION_EDGES_HZ = np.geomspace(0.5, 40, 21)
_MODULATION_SPACING_HZ = 0.05  # largest distance of two bins: the narrowest band then has two
_MODULATION_FLOOR = log_mel.FLOOR  # under the logarithm of a band's power

_FLUX_EDGES_HZ = (200.0, 2000.0)  # kick and bass | snare and notes | hi-hats
_LAGS_S = np.geomspace(0.05, 1.2, 48)
_FLUX_FLOOR = 1e-6  # a flux whose deviation is below 0.001 is rounding, not rhythm

_SIZES = {"T": 4 * log_mel.N_MELS, "M": _GROUPS * (len(_MODULATION_EDGES_HZ) - 1), "R": 3 * len(_LAGS_S)}


def embed(audio: np.ndarray, sample_rate_hz: int, *, loop: bool) -> np.ndarray:
    """Returns timbre, modulation and rhythm of each clip.

    They are computed from the mean of the channels and, for stereo, also from half their
    difference. The level of the audio is not normalised, since it is one of the properties.

    T: mean, standard deviation, standard deviation of the change from frame to frame, and distance
    from the 10th to the 90th percentile, of each of 64 log-mel bands.
    M: logarithm of the Hann-windowed power spectrum of 12 groups of these bands, averaged in 20
    logarithmic bands from 0.5 to 40 Hz; for a loop also averaged over all rotations.
    R: normalised autocorrelation at 48 logarithmic lags from 0.05 to 1.2 s, of the summed rises of
    the mel bands below 200 Hz, from there to 2 kHz, and above.

    A short clip has all dimensions. Its modulation spectrum is interpolated, so the bands slower
    than the clip contain leakage from its ends. Lags longer than a clip are 0, those longer than a
    loop continue at its start.

    Args:
        audio: floating-point `[B, T, C]` in [-1, 1], C 1 or 2. Silence has one constant vector.
        sample_rate_hz: sample rate of the audio.
        loop: whether the end of a clip continues at its start. If not, only whole frames count.

    Returns:
        float64 `[B, 640 C]`, with the columns of `TMR_V1.blocks(C)`.

    Raises:
        ValueError: audio of another shape or type, with NaN or Inf, or shorter than 0.25 s.
    """
    audio = log_mel.check_clips(audio, sample_rate_hz)
    frame_rate_hz = sample_rate_hz / log_mel.frame_sizes(sample_rate_hz)[1]
    batches = []
    for mel in log_mel.log_mel_batches(audio, sample_rate_hz, loop):
        blocks = (
            _timbre(mel, loop),
            _modulation(mel, frame_rate_hz, loop),
            _rhythm(mel, frame_rate_hz, sample_rate_hz, loop),
        )
        batches.append(np.concatenate([block.reshape(len(mel), -1) for block in blocks], axis=1))
    return np.concatenate(batches)


def _blocks(channels: int) -> dict[str, slice]:
    ends = np.cumsum([0] + [channels * size for size in _SIZES.values()])
    return {name: slice(int(a), int(b)) for name, a, b in zip(_SIZES, ends, ends[1:], strict=False)}


def _describe(sample_rate_hz: int) -> dict[str, Any]:
    n_fft, hop_length = log_mel.frame_sizes(sample_rate_hz)
    return {
        "name": "tmr-v1",
        "sample_rate_hz": sample_rate_hz,
        "n_fft": n_fft,
        "hop_length": hop_length,
        "n_mels": log_mel.N_MELS,
        "fmin_hz": log_mel.FMIN_HZ,
        "floor": log_mel.FLOOR,
    }


TMR_V1 = Embedding("tmr-v1", _blocks, embed, _describe)


def _changes(mel: np.ndarray, loop: bool) -> np.ndarray:
    """Differences of neighbouring frames `[b, S, N - 1, M]`; of a loop also from last to first."""
    return np.diff(mel, axis=2, **({"append": mel[:, :, :1]} if loop else {}))


def _timbre(mel: np.ndarray, loop: bool) -> np.ndarray:
    """Block T, `[b, S, 256]`."""
    low, high = np.percentile(mel, [10, 90], axis=2)
    statistics = [mel.mean(axis=2), mel.std(axis=2), _changes(mel, loop).std(axis=2), high - low]
    return np.concatenate(statistics, axis=2)


def _modulation(mel: np.ndarray, frame_rate_hz: float, loop: bool) -> np.ndarray:
    """Block M, `[b, S, 12, 20]`."""
    parts = np.array_split(mel, _GROUPS, axis=3)
    groups = np.stack([part.mean(axis=3) for part in parts], axis=2)  # [b, S, 12, N]
    frames = groups.shape[3]
    if loop:
        amplitudes = np.abs(np.fft.rfft(groups)[..., 1 : (frames + 1) // 2])
        bands = amplitudes**2 * (2 / frames) ** 2 @ _cosine_bands(frames, frame_rate_hz)
    else:
        bands = _hann_bands(groups - groups.mean(axis=3, keepdims=True), frame_rate_hz)
    return np.log(bands + _MODULATION_FLOOR)


def _hann_bands(series: np.ndarray, frame_rate_hz: float) -> np.ndarray:
    """Power in each modulation band, from `[..., N]` to `[..., 20]`."""
    frames = series.shape[-1]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(frames) / frames)
    bins = 1 << int(np.ceil(np.log2(max(frames, frame_rate_hz / _MODULATION_SPACING_HZ))))
    power = np.abs(np.fft.rfft(series * window, bins)) ** 2 / np.sum(window**2)
    edges = np.searchsorted(np.arange(power.shape[-1]) * frame_rate_hz / bins, _MODULATION_EDGES_HZ)
    return np.stack([power[..., a:b].mean(axis=-1) for a, b in zip(edges, edges[1:], strict=False)], axis=-1)


@functools.lru_cache(maxsize=32)
def _cosine_bands(frames: int, frame_rate_hz: float) -> np.ndarray:
    """Power in each band of a cosine with k periods in the frames, `[k, 20]`, averaged over phases.

    The squared amplitudes of a loop times this matrix are the mean of `_hann_bands` over all its
    rotations, so the result does not depend on where the loop begins.
    """
    angles = 2 * np.pi / frames * np.arange(1, (frames + 1) // 2)[:, None] * np.arange(frames)
    return (_hann_bands(np.cos(angles), frame_rate_hz) + _hann_bands(np.sin(angles), frame_rate_hz)) / 2


def _rhythm(mel: np.ndarray, frame_rate_hz: float, sample_rate_hz: int, loop: bool) -> np.ndarray:
    """Block R, `[b, S, 3, 48]`."""
    rises = np.maximum(_changes(mel, loop), 0)
    edges = np.searchsorted(_band_centres_hz(sample_rate_hz), [0, *_FLUX_EDGES_HZ, np.inf])
    flux = np.stack([rises[..., a:b].mean(axis=3) for a, b in zip(edges, edges[1:], strict=False)], axis=2)
    frames = flux.shape[3]
    flux = flux - flux.mean(axis=3, keepdims=True)
    lags = _LAGS_S * frame_rate_hz  # in frames; the cosines below interpolate between frames
    # A loop is correlated with its own continuation, another clip with zeros after its end.
    length = frames if loop else frames + int(np.ceil(lags[-1])) + 1
    power = np.abs(np.fft.rfft(flux, length)) ** 2 / (length * frames)
    power[..., 1 : (length + 1) // 2] *= 2  # the negative frequencies
    cosines = np.cos(2 * np.pi / length * np.arange(power.shape[3])[:, None] * lags)
    return power @ cosines / (power.sum(axis=3, keepdims=True) + _FLUX_FLOOR)


@functools.cache
def _band_centres_hz(sample_rate_hz: int) -> np.ndarray:
    """Centre frequencies of the 64 mel bands, `[64]`."""
    n_fft, _ = log_mel.frame_sizes(sample_rate_hz)
    filters = spectral.mel_filters(sample_rate_hz, n_fft, log_mel.N_MELS, log_mel.FMIN_HZ)
    return filters @ np.fft.rfftfreq(n_fft, 1 / sample_rate_hz) / np.maximum(filters.sum(axis=1), 1e-12)
