"""Fingerprints of clips: a small log-mel image and pairs of spectral peaks, for comparison.

About 13 kB for each window of audio. A window is as long as a generated clip.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import scipy.fft
import scipy.ndimage

from technogen_jax.audio import spectral

FRAMES, BANDS = 256, 32  # of the image of a window
PEAK_BANDS = 2 * BANDS
LOW_HZ = 150.0  # about the upper end of a kick drum

_FMIN_HZ = 30.0
_FRAME_S = 0.032
_PEAKS, _PEAKS_PER_S = 90, 26  # of a window; the second for windows above 3.5 s
_PARTNERS, _REACH_S = 6, 0.6  # a peak is paired with at most 6 later peaks, at most 0.6 s away
_SMOOTH_S = 0.04  # of images: with lost phases the power of single frames is random
_PEAK_SIZE = (5, 3)  # frames, bands: a peak is the maximum of this rectangle
_FLOOR_DB = -40.0  # relative to the loudest band, so that noise in gaps does not count


class Fingerprints(NamedTuple):
    """The data of clips that comparisons need.

    Attributes:
        images: int8 `[sum of frames, BANDS]`, log-mel without each band's mean, clip after clip.
        frames: `[n]`, frames of each clip. A clip as long as the window has FRAMES and is circular.
        hashes: uint32, one a pair of peaks, clip after clip: both bands and the frames between.
        times: int32, the frame of each pair's first peak.
        counts: `[n]`, pairs of each clip; 0 for a clip without peaks, such as silence.
        tracks: `[n]`, the track of each clip.
        ids: `[n]`, the name of each clip.
        sample_rate_hz: sample rate of the audio.
        seconds: length of the window.
    """

    images: np.ndarray
    frames: np.ndarray
    hashes: np.ndarray
    times: np.ndarray
    counts: np.ndarray
    tracks: np.ndarray
    ids: np.ndarray
    sample_rate_hz: int
    seconds: float


def make_fingerprints(
    clips: Iterable[np.ndarray], tracks: Iterable[str], ids: Iterable[str], sample_rate_hz: int, *, seconds: float
) -> Fingerprints:
    """Returns the fingerprints of clips, which are read one at a time.

    Args:
        clips: `[T, C]` in [-1, 1]. Training audio may be longer than the window, up to whole
            tracks: a copy is then found at any position, also across the ends of records.
        tracks: the track of each clip; for generated clips any name that groups them.
        ids: the name of each clip.
        sample_rate_hz: 8000 to 48000.
        seconds: the window: the length of a generated clip.

    Raises:
        ValueError: no clips, clips shorter than the window, NaN or Inf, or not one track and one id
            a clip.
    """
    window = round(seconds * sample_rate_hz)
    images, hashes, times, names, groups = [], [], [], [], []
    for clip, track, name in zip(clips, tracks, ids, strict=True):
        clip = np.asarray(clip, np.float32)
        if clip.ndim != 2 or len(clip) < window:
            raise ValueError(
                f"fingerprints: {name}: expected [T, C], T at least {window} ({seconds:g} s), got {clip.shape}"
            )
        if not np.isfinite(clip).all():
            raise ValueError(f"fingerprints: {name}: has NaN or Inf")
        power = mel_power(clip, sample_rate_hz, window)
        hashed, time = _hash_peak_pairs(power, seconds)
        images.append(_image(power, seconds))
        hashes.append(hashed)
        times.append(time)
        groups.append(str(track))
        names.append(str(name))
    if not names:
        raise ValueError("fingerprints: expected at least one clip, got none")
    return Fingerprints(
        images=np.concatenate(images),
        frames=np.array([len(image) for image in images]),
        hashes=np.concatenate(hashes),
        times=np.concatenate(times),
        counts=np.array([len(hashed) for hashed in hashes]),
        tracks=np.array(groups),
        ids=np.array(names),
        sample_rate_hz=sample_rate_hz,
        seconds=seconds,
    )


def peak_frames(seconds: float) -> int:
    """Returns the frames of the peaks in a window: a power of two, of 4 to 8 ms each.

    A power of two, so that they are a multiple or a divisor of the frames of an image.
    """
    return 1 << int(np.ceil(np.log2(seconds / 0.008)))


@functools.cache
def count_low_bands(sample_rate_hz: int) -> int:
    """Returns how many of the peak bands have their centre below `LOW_HZ`.

    An even number, since an image has half the bands.
    """
    import librosa  # takes a second to import

    centres = librosa.mel_frequencies(PEAK_BANDS + 2, fmin=_FMIN_HZ, fmax=sample_rate_hz / 2)[1:-1]
    return max(2, int((centres < LOW_HZ).sum()) // 2 * 2)


def mel_power(clip: np.ndarray, sample_rate_hz: int, window: int) -> np.ndarray:
    """Returns the mel power `[N, PEAK_BANDS]` at the finer of the two frame rates.

    It is the mean of the channels' power, so that opposite phases do not cancel.

    Args:
        clip: float32 `[T, C]`.
        sample_rate_hz: its sample rate.
        window: samples of the window.
    """
    hann, filters = _filters(sample_rate_hz)
    n_fft = len(hann)
    in_window = max(FRAMES, peak_frames(window / sample_rate_hz))
    coarser = in_window // min(FRAMES, peak_frames(window / sample_rate_hz))
    count = in_window * len(clip) // window // coarser * coarser
    starts = np.arange(count) * window // in_window
    ends = ((n_fft // 2, n_fft // 2), (0, 0))
    padded = np.pad(clip, ends, mode="wrap" if count == in_window else "constant").T
    power = np.empty((count, PEAK_BANDS), np.float32)
    for i in range(0, count, 512):
        framed = padded[:, starts[i : i + 512, None] + np.arange(n_fft)] * hann  # [C, N, n_fft]
        spectrum = scipy.fft.rfft(framed)
        power[i : i + 512] = (spectrum.real**2 + spectrum.imag**2).mean(0) @ filters
    return power


def log_power(power: np.ndarray, in_window: int) -> np.ndarray:
    """Returns the natural logarithm of the power, limited to 40 dB below the loudest band nearby.

    The level of a clip, or of a part of it, then does not matter.

    Args:
        power: `[N, M]`.
        in_window: frames of the window, within which the loudest band is looked for.
    """
    mode = "wrap" if len(power) == in_window else "nearest"
    loudest = scipy.ndimage.maximum_filter1d(power.max(1), in_window, mode=mode)[:, None]
    return np.log(np.maximum(power, 10 ** (_FLOOR_DB / 10) * loudest + 1e-20))


@functools.cache
def _filters(sample_rate_hz: int) -> tuple[np.ndarray, np.ndarray]:
    """(window `[n_fft]`, mel filters `[n_fft // 2 + 1, PEAK_BANDS]`)."""
    n_fft = 1 << round(np.log2(_FRAME_S * sample_rate_hz))
    window = np.hanning(n_fft + 1)[:-1].astype(np.float32)
    mel = spectral.mel_filters(sample_rate_hz, n_fft, PEAK_BANDS, _FMIN_HZ)
    return window / window.sum(), np.ascontiguousarray(mel.T)


def _average_frames(power: np.ndarray, frames: int, of: int) -> np.ndarray:
    """The mean of each `of // frames` frames."""
    return power.reshape(-1, max(1, of // frames), power.shape[1]).mean(1)


def _image(power: np.ndarray, seconds: float) -> np.ndarray:
    """int8 `[N, BANDS]`; its scale does not matter to a correlation."""
    in_window = max(FRAMES, peak_frames(seconds))
    width = max(1, round(_SMOOTH_S * in_window / seconds))
    smooth = scipy.ndimage.uniform_filter1d(power, width, axis=0, mode="wrap" if len(power) == in_window else "nearest")
    averaged = _average_frames(smooth, FRAMES, in_window)
    image = log_power(averaged.reshape(len(averaged), BANDS, 2).mean(2), FRAMES)
    image -= image.mean(0)
    peak = np.abs(image).max()
    return np.round(image * (127 / peak) if peak > 1e-3 else 0 * image).astype(np.int8)


def _hash_peak_pairs(power: np.ndarray, seconds: float) -> tuple[np.ndarray, np.ndarray]:
    """(hashes, times) of a clip's pairs of peaks.

    Reference: Wang, "An Industrial-Strength Audio Search Algorithm", ISMIR 2003.
    """
    frames = peak_frames(seconds)
    log = log_power(_average_frames(power, frames, max(FRAMES, frames)), frames)
    count = len(log)
    circular = count == frames
    most = max(_PEAKS, round(_PEAKS_PER_S * seconds))
    time, band = _find_peaks(log, frames, circular, most)
    # Peaks are in order of time, so the partners of a peak are the next ones; of a circular clip
    # they continue at its start.
    after = np.arange(len(time))[:, None] + np.arange(1, min(len(time), most))
    around, after = after >= len(time), after % max(1, len(time))
    apart = time[after] - time[:, None] + np.where(around, count if circular else count + frames, 0)
    partner = (apart > 0) & (apart <= min(_REACH_S / seconds, 0.5) * frames)
    partner &= np.cumsum(partner, axis=1) <= _PARTNERS
    hashes = ((band[:, None] * PEAK_BANDS + band[after]) * frames + apart)[partner]
    return hashes.astype(np.uint32), np.broadcast_to(time[:, None], partner.shape)[partner].astype(np.int32)


def _find_peaks(log: np.ndarray, frames: int, circular: bool, most: int) -> tuple[np.ndarray, np.ndarray]:
    """(frames, bands) of the strongest peaks of each window, in order of time.

    The limit is one a window, so that the loud parts of a long clip do not get all peaks.
    """
    height = log - scipy.ndimage.uniform_filter1d(log, frames, axis=0, mode="wrap" if circular else "nearest")
    edges = ("wrap" if circular else "constant", "constant")
    highest = scipy.ndimage.maximum_filter(height, _PEAK_SIZE, mode=edges, cval=-np.inf)
    height = np.where((height == highest) & (height > 1e-3), height, 0)
    time, band = [], []
    for start in range(0, len(log), frames):
        part = height[start : start + frames]
        order = np.argsort(-part, axis=None, kind="stable")[: most * len(part) // frames]
        order = np.sort(order[part.ravel()[order] > 0])
        time.append(start + order // PEAK_BANDS)
        band.append(order % PEAK_BANDS)
    return np.concatenate(time), np.concatenate(band)
