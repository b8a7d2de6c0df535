"""Log-mel spectrograms of clips: the input of `tmr-v1` and of the small classifier."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from technogen_jax.audio import spectral

LOWEST_RATE_HZ = 5000  # below, bands of the rhythm features have no frequencies
SHORTEST_S = 0.25  # chosen: 25 frames
N_MELS = 64
FMIN_HZ = 30.0
FLOOR = 1e-5  # added to the power by `spectral.log_mel`

_BATCH_SAMPLES = 1 << 20  # of one call of the device: about 100 MB of frames


def frame_sizes(sample_rate_hz: int) -> tuple[int, int]:
    """Returns (n_fft, hop_length): the power of two nearest to 55 ms, and 10 ms."""
    return max(64, 1 << round(np.log2(0.055 * sample_rate_hz))), round(sample_rate_hz / 100)


def log_mel_images(audio: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    """Returns log-mel spectrograms of the mean of the channels: the whole frames, every 10 ms.

    Args:
        audio: floating-point `[B, T, C]` in [-1, 1], C 1 or 2.
        sample_rate_hz: sample rate of the audio.

    Returns:
        float32 `[B, N, 64]`.

    Raises:
        ValueError: audio of another shape or type, with NaN or Inf, or shorter than 0.25 s.
    """
    audio = check_clips(audio, sample_rate_hz).mean(axis=2, keepdims=True)
    batches = log_mel_batches(audio, sample_rate_hz, loop=False)
    return np.concatenate([mel[:, 0].astype(np.float32) for mel in batches])


def log_mel_batches(audio: np.ndarray, sample_rate_hz: int, loop: bool) -> Iterator[np.ndarray]:
    """Yields log-mel spectrograms of the clips in order, float64 `[b, S, N, 64]`.

    Args:
        audio: float32 `[B, T, C]` from `check_clips`.
        sample_rate_hz: sample rate of the audio.
        loop: whether the end of a clip continues at its start.

    Yields:
        One array a batch; S is 1 for mono (the signal) and 2 for stereo (mid and side).
    """
    # The batch size depends on the clip's shape alone, so that one program is compiled and a clip
    # gives the same values whatever other clips are in its batch.
    batch = max(1, min(64, _BATCH_SAMPLES // audio[0].size))
    function = _log_mel_function(sample_rate_hz, loop)

    def dispatch(start: int):
        clips = audio[start : start + batch]
        padded = np.zeros((batch, *clips.shape[1:]), np.float32)
        padded[: len(clips)] = clips
        return len(clips), function(padded)

    pending = dispatch(0)
    for start in range(batch, len(audio) + batch, batch):
        count, mel = pending
        if start < len(audio):
            pending = dispatch(start)  # the device computes while the caller works on this batch
        yield np.asarray(mel)[:count].astype(np.float64)


def check_clips(audio: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    """Returns the audio as float32.

    Raises:
        ValueError: audio that is not floating-point `[B, T, C]` with C 1 or 2, has NaN or Inf, is
            shorter than 0.25 s, or has a rate below `LOWEST_RATE_HZ`.
    """
    audio = np.asarray(audio)
    if audio.ndim != 3 or not len(audio) or audio.shape[2] not in (1, 2):
        raise ValueError(f"expected clips [B, T, C] with B at least 1 and C 1 or 2, got shape {audio.shape}")
    if not np.issubdtype(audio.dtype, np.floating):
        raise ValueError(
            f"expected floating-point audio in [-1, 1], got {audio.dtype}; audio_files.from_int16 converts 16-bit PCM"
        )
    if sample_rate_hz < LOWEST_RATE_HZ:
        raise ValueError(f"expected a sample rate of at least {LOWEST_RATE_HZ} Hz, got {sample_rate_hz}")
    shortest = max(round(SHORTEST_S * sample_rate_hz), sum(frame_sizes(sample_rate_hz)))
    if audio.shape[1] < shortest:
        raise ValueError(f"expected clips of at least {shortest} samples at {sample_rate_hz} Hz, got {audio.shape[1]}")
    bad = ~np.isfinite(audio).all(axis=(1, 2))
    if bad.any():
        raise ValueError(f"expected finite audio, got NaN or Inf in {bad.sum()} of {len(bad)} clips")
    return audio.astype(np.float32, copy=False)


@functools.cache
def _log_mel_function(sample_rate_hz: int, loop: bool) -> Callable[[np.ndarray], jax.Array]:
    n_fft, hop_length = frame_sizes(sample_rate_hz)

    @jax.jit
    def log_mel(audio):
        mid, side = (audio[..., 0] + audio[..., -1]) / 2, (audio[..., 0] - audio[..., -1]) / 2
        signals = jnp.stack([mid, side][: audio.shape[2]], axis=1)  # [B, S, T]
        if loop:
            # Frames are centred on 0, on one hop, and so on: a loop played backwards then has the
            # same frames in reverse order.
            samples = (round(audio.shape[1] / hop_length) - 1) * hop_length + n_fft
            signals = signals[..., np.arange(-n_fft // 2, samples - n_fft // 2) % audio.shape[1]]
        return spectral.log_mel(
            signals, sample_rate_hz, n_fft=n_fft, hop_length=hop_length, n_mels=N_MELS, fmin_hz=FMIN_HZ
        )

    return log_mel
