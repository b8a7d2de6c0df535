"""Audio to embeddings for the metrics: one function a choice, and a dict of them."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from technogen_jax import dsp

N_MELS = 64
_FMIN_HZ = 30.0
_BATCH = 32  # clips a dispatch: what a laptop's memory takes at eight seconds of 44.1 kHz


def timbre(audio: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    """How a clip sounds, without regard to order: statistics over time of 64 log-mel bands of the channels' mean.

    Args:
        audio: `[B, T, C]` in [-1, 1].
        sample_rate_hz: its rate.

    Returns:
        float64 `[B, 256]`: each band's mean, deviation, deviation of the change from frame to frame, and distance from
        the 10th to the 90th percentile.

    Raises:
        ValueError: clips shorter than two frames.
    """
    n_fft, hop_length = frame_sizes(sample_rate_hz)
    if audio.shape[1] < n_fft + hop_length:
        raise ValueError(
            f"timbre: expected clips of at least {n_fft + hop_length} samples at {sample_rate_hz} Hz, got {audio.shape[1]}"
        )
    statistics = _timbre(sample_rate_hz)
    padded = np.zeros((-(-len(audio) // _BATCH) * _BATCH, *audio.shape[1:]), np.float32)  # one shape, one compilation
    padded[: len(audio)] = audio
    parts = [np.asarray(statistics(padded[i : i + _BATCH])) for i in range(0, len(padded), _BATCH)]
    return np.concatenate(parts)[: len(audio)].astype(np.float64)


EMBEDDINGS = {"timbre": timbre}


def frame_sizes(sample_rate_hz: int) -> tuple[int, int]:
    """(n_fft, hop_length) of `timbre`: about 50 ms and 10 ms."""
    return max(64, 1 << round(np.log2(0.055 * sample_rate_hz))), round(sample_rate_hz / 100)


@functools.cache
def _timbre(sample_rate_hz: int):
    n_fft, hop_length = frame_sizes(sample_rate_hz)

    @jax.jit
    def statistics(audio):
        mel = dsp.log_mel(
            jnp.mean(audio, axis=2),
            sample_rate_hz,
            n_fft=n_fft,
            hop_length=hop_length,
            n_mels=N_MELS,
            fmin_hz=_FMIN_HZ,
        )  # [B, N, M]
        low, high = jnp.percentile(mel, jnp.array([10.0, 90.0]), axis=1)
        change = jnp.std(jnp.diff(mel, axis=1), axis=1)
        return jnp.concatenate([jnp.mean(mel, 1), jnp.std(mel, 1), change, high - low], axis=1)

    return statistics
