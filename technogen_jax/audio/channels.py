"""Converts any channel layout to mono or stereo."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

# The order in wav and flac files, where a file names no layout.
_USUAL_ORDER = {
    3: ("FL", "FR", "FC"),
    4: ("FL", "FR", "BL", "BR"),
    5: ("FL", "FR", "FC", "BL", "BR"),
    6: ("FL", "FR", "FC", "LFE", "BL", "BR"),
    7: ("FL", "FR", "FC", "LFE", "BC", "SL", "SR"),
    8: ("FL", "FR", "FC", "LFE", "BL", "BR", "SL", "SR"),
}
_HALF_POWER = 0.5**0.5
_FRONT = {"FL": (1.0, 0.0), "FR": (0.0, 1.0), "DL": (1.0, 0.0), "DR": (0.0, 1.0), "BC": (0.5, 0.5)}


def remix(audio: np.ndarray, channels: int, names: Sequence[str] | None = None) -> np.ndarray:
    """Returns `[T, C]` with another channel count.

    One channel is the mean of left and right. Two channels are the mono channel twice. More than two
    are mixed to left and right first, see `stereo_gains`.

    Args:
        audio: `[T, C]`.
        channels: 1 or 2, or the audio's.
        names: of the audio's channels, as FFmpeg names them ("FL", "FC", "LFE", ...); None: the usual
            order of wav and flac files.

    Raises:
        ValueError: channels is neither 1 nor 2 and differs from the audio's.
    """
    if audio.shape[1] == channels:
        return audio
    if channels not in (1, 2):
        raise ValueError(f"channels: expected 1 or 2, got {channels}")
    if audio.shape[1] > 2:
        audio = audio @ stereo_gains(audio.shape[1], tuple(names) if names else None)
    if channels == 1:
        # A matrix product is twenty times faster than numpy's mean over a short axis (measured).
        return audio @ np.full((audio.shape[1], 1), 1 / audio.shape[1], np.float32)
    return np.repeat(audio, 2, axis=1) if audio.shape[1] == 1 else audio


@functools.cache
def stereo_gains(count: int, names: tuple[str, ...] | None = None) -> np.ndarray:
    """Returns the gains with which channels are mixed to left and right, float32 `[count, 2]`.

    Centre and surrounds are 3 dB softer than the fronts; the low-frequency effects are left out. The
    gains of a side sum to 1 at most, so that the mix clips only where a channel does.

    Reference: ITU-R BS.775-4, annex 4.
    """
    names = names or _USUAL_ORDER.get(count) or ("",) * count
    if len(names) != count:
        raise ValueError(f"expected the names of {count} channels, got {names}")
    gains = np.array([_gains(name) for name in names])
    if not gains.any():  # nothing but low-frequency effects, or channels without a meaning
        gains = np.ones((count, 2))
    return (gains / gains.sum(axis=0).max()).astype(np.float32)


def _gains(name: str) -> tuple[float, float]:
    """Gains of a channel to left and right."""
    if name in _FRONT:
        return _FRONT[name]
    if name.startswith("LFE"):
        return 0.0, 0.0
    if name.endswith("L"):
        return _HALF_POWER, 0.0
    if name.endswith("R"):
        return 0.0, _HALF_POWER
    return (_HALF_POWER, _HALF_POWER) if name else (1.0, 1.0)
