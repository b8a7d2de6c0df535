"""The best correlation of each clip's log-mel image with the training images, at any position."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.fft

from technogen_jax.evaluation.memorisation.fingerprints import BANDS, FRAMES, Fingerprints, count_low_bands

_COARSE = 4  # frames of an image to one of its coarse image, which has half the bands
_SPEEDS = (0.96, 0.98, 1.0, 1.02, 1.04)  # images within 1 % of speed still agree
_CANDIDATES = 16  # segments of training audio that an image is compared with at full resolution
_SEGMENTS, _QUERIES = 512, 32  # compared at a time


class BestMatches(NamedTuple):
    """The best match of each query by one detector.

    Attributes:
        score: `[n]`.
        clip: `[n]`, index of the training clip.
        shift: `[n]`, frame of it at which the query begins.
        rest: `[n]`, the score at the same position, without the low bands.
    """

    score: np.ndarray
    clip: np.ndarray
    shift: np.ndarray
    rest: np.ndarray


def match_images(queries: Fingerprints, train: Fingerprints) -> BestMatches:
    """Returns the best correlation of each query; its shift is in frames of an image.

    Coarse images choose the candidates; full images at several speeds decide.
    """
    images = queries.images.reshape(-1, FRAMES, BANDS).astype(np.float32)
    owner, start = _cut_segments(train)
    size = FRAMES if (train.frames == FRAMES).all() else 2 * FRAMES
    candidates = _choose_candidates(images, train, owner, start, size)
    low = count_low_bands(queries.sample_rate_hz) // 2
    n = len(images)
    score, clip, shift, rest = np.zeros(n), np.zeros(n, np.int64), np.zeros(n), np.zeros(n)
    for i, image in enumerate(images):
        chosen = candidates[i]
        known, valid = _gather(train, owner[chosen], start[chosen], size)
        speeds = _normalise(_change_speeds(image))
        found = _correlate(_spectra(speeds, size), _spectra(known, size), _inverse_norms(known, valid))
        offset, speed, place = np.unravel_index(np.argmax(found), found.shape)
        score[i], clip[i] = found[offset, speed, place], owner[chosen[place]]
        frames = train.frames[clip[i]]
        shift[i] = start[chosen[place]] + offset + FRAMES / 2 * (1 - _SPEEDS[speed])
        if frames == FRAMES:
            shift[i] %= FRAMES
        matched = np.take(known[place], np.arange(offset, offset + FRAMES), axis=0, mode="wrap")
        rest[i] = (_normalise(speeds[speed][None, :, low:]) * _normalise(matched[None, :, low:])).sum()
    return BestMatches(score, clip, shift, rest)


def _choose_candidates(
    images: np.ndarray, train: Fingerprints, owner: np.ndarray, start: np.ndarray, size: int
) -> np.ndarray:
    """`[n, up to _CANDIDATES]` indices of the segments whose coarse images correlate best."""
    queries = _spectra(_normalise(_coarse(images)), size // _COARSE)
    count = min(_CANDIDATES, len(owner))
    best, index = np.full((len(images), count), -2, np.float32), np.zeros((len(images), count), np.int64)
    for first in range(0, len(owner), _SEGMENTS):
        part = np.arange(first, min(first + _SEGMENTS, len(owner)))
        known, valid = _gather(train, owner[part], start[part], size)
        known = _coarse(known)
        spectra, scale = _spectra(known, size // _COARSE), _inverse_norms(known, valid[:, ::_COARSE])
        for i in range(0, len(images), _QUERIES):
            rows = slice(i, i + _QUERIES)
            peaks = _correlate(queries[:, rows], spectra, scale).max(0)
            score = np.concatenate([best[rows], peaks], 1)
            where = np.concatenate([index[rows], np.broadcast_to(part, peaks.shape)], 1)
            kept = np.argpartition(-score, count - 1, axis=1)[:, :count]
            best[rows], index[rows] = np.take_along_axis(score, kept, 1), np.take_along_axis(where, kept, 1)
    return index


def _cut_segments(train: Fingerprints) -> tuple[np.ndarray, np.ndarray]:
    """(clip, first frame) of segments of two windows that cover every position of a window."""
    starts = [np.arange(0, frames - FRAMES + 1, FRAMES) for frames in train.frames]
    return np.repeat(np.arange(len(starts)), [len(each) for each in starts]), np.concatenate(starts)


def _gather(train: Fingerprints, owner: np.ndarray, start: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """(float32 images `[b, size, BANDS]`, whether a window may begin at a frame `[b, FRAMES]`)."""
    frames = train.frames[owner, None]
    circular = frames == FRAMES
    first = np.cumsum(train.frames) - train.frames
    place = start[:, None] + np.arange(size)
    place = np.where(circular, place % FRAMES, np.minimum(place, frames - 1))
    valid = circular | (start[:, None] + np.arange(FRAMES) + FRAMES <= frames)
    return train.images[first[owner, None] + place].astype(np.float32), valid


def _coarse(images: np.ndarray) -> np.ndarray:
    """Coarse images: `[b, N, BANDS]` to `[b, N // _COARSE, BANDS // 2]`."""
    return images.reshape(len(images), -1, _COARSE, BANDS // 2, 2).mean((2, 4))


def _change_speeds(image: np.ndarray) -> np.ndarray:
    """`[FRAMES, BANDS]` to `[speeds, FRAMES, BANDS]`, about its middle; 0 beyond its ends."""
    place = FRAMES / 2 + (np.arange(FRAMES) - FRAMES / 2) / np.array(_SPEEDS)[:, None]
    before = np.clip(np.floor(place).astype(int), 0, FRAMES - 2)
    weight = np.clip(place - before, 0, 1)[..., None].astype(np.float32)
    inside = ((place >= 0) & (place <= FRAMES - 1 + 1e-9))[..., None]
    return inside * ((1 - weight) * image[before] + weight * image[before + 1])


def _normalise(images: np.ndarray) -> np.ndarray:
    """Images minus the mean of each band, scaled to norm 1; a constant image becomes 0."""
    images = images - images.mean(1, keepdims=True)
    norm = np.sqrt((images**2).sum((1, 2), keepdims=True))
    return np.divide(images, norm, out=np.zeros_like(images), where=norm > 1e-6)


def _spectra(images: np.ndarray, size: int) -> np.ndarray:
    """Spectra over time: `[b, N, M]` to complex64 `[size // 2 + 1, b, M]`."""
    return np.ascontiguousarray(scipy.fft.rfft(images.astype(np.float32, copy=False), size, axis=1).swapaxes(0, 1))


def _inverse_norms(known: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """`[N, b]`: one over the norm of each window of `[b, size, M]` minus the means of its bands.

    It is 0 where no window may begin.
    """
    frames = valid.shape[1]
    if known.shape[1] == frames:  # circular clips: one norm for all positions
        energy = (known**2).sum((1, 2)) - (known.sum(1) ** 2).sum(1) / frames
        energy = np.broadcast_to(energy[:, None], valid.shape)
    else:
        power, sums = _sliding_sums((known**2).sum(2), frames), _sliding_sums(known, frames)
        energy = power - (sums**2).sum(2) / frames
    usable = valid & (energy > 1e-3)
    return np.divide(1, np.sqrt(np.maximum(energy, 1e-3)), out=np.zeros(energy.shape), where=usable).T.astype(
        np.float32
    )


def _sliding_sums(values: np.ndarray, frames: int) -> np.ndarray:
    """Sums of `frames` values along axis 1, from each of the first `frames` positions.

    In float64, since the difference of two cumulative sums cancels digits.
    """
    total = np.cumsum(values, axis=1, dtype=np.float64)
    return total[:, frames - 1 : 2 * frames - 1] - total[:, :frames] + values[:, :frames]


def _correlate(queries: np.ndarray, known: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Correlations at each offset `[N, g, b]`, from spectra `[F, g, M]` and `[F, b, M]`."""
    product = queries.conj() @ known.swapaxes(1, 2)
    found = scipy.fft.irfft(product, 2 * (len(product) - 1), axis=0, workers=-1)[: len(scale)]
    found *= scale[:, None]
    return found
