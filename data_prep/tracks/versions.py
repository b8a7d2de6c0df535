"""Finds tracks that are the same recording: another format, level or start.

Two steps. The loudness contours of all pairs of tracks are correlated, which gives each track a few
candidates and the shift between them. Then short excerpts of the decoded audio are compared sample by
sample: versions of one recording agree in all of them, at one shift; two tracks with the same drums do
not. Measured: experiments/log/2026-12-01-versions-of-a-track.md.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from technogen_jax.audio import loudness

_CONTOUR = 1024  # sub-blocks of about 0.1 s that are compared, from the start of a track
_SHORTEST = 20  # sub-blocks
_LARGEST_SHIFT = 300  # sub-blocks
_FLOOR_DB = -70.0
_CANDIDATES = 3  # of each track
_MIN_CONTOUR = 0.5  # correlation of the contours of a candidate
_EXCERPTS, _EXCERPT_S, _MARGIN_S = 7, 0.5, 0.15
_HIGHEST_HZ = 5000  # lossy codecs change what lies above
_MIN_AGREEMENT = 0.5  # median correlation of the excerpts
_SHIFT_TOLERANCE_S = 0.003  # between the excerpts


class Recording(NamedTuple):
    """A decoded track."""

    path: str  # of raw int16 `[T, channels]`
    contour: str  # from `encode_contour`
    content: str  # hash of its audio
    rate_hz: int
    channels: int


def encode_contour(energies: np.ndarray) -> str:
    """Returns the start of a track's loudness contour as text.

    Args:
        energies: of sub-blocks, from `loudness.LoudnessMeter`.
    """
    level = 10 * np.log10(np.maximum(energies[:_CONTOUR], 10 ** (_FLOOR_DB / 10)))
    return base64.b64encode(np.rint(100 * level).clip(-32768, 32767).astype("<i2").tobytes()).decode()


def find_versions(recordings: Sequence[Recording]) -> list[int]:
    """Returns for each track the index of the first track that is the same recording, or its own."""
    groups = list(range(len(recordings)))

    def root(index: int) -> int:
        while groups[index] != index:
            index = groups[index]
        return index

    first = {}
    for index, recording in enumerate(recordings):
        groups[index] = first.setdefault(recording.content, index)
    for one, other, shift in _find_candidates(recordings):
        a, b = sorted((root(one), root(other)))
        if a != b and _agree(recordings[one], recordings[other], shift):
            groups[b] = a
    return [root(index) for index in range(len(recordings))]


def _find_candidates(recordings: Sequence[Recording]) -> list[tuple[int, int, int]]:
    """Returns pairs of tracks with similar contours, and by how many sub-blocks the first is later."""
    contours = [np.frombuffer(base64.b64decode(each.contour), "<i2").astype(np.float32) for each in recordings]
    chosen = [index for index, contour in enumerate(contours) if len(contour) >= _SHORTEST and contour.std() > 0]
    centred = np.zeros((len(chosen), _CONTOUR), np.float32)
    for row, index in enumerate(chosen):
        contour = contours[index] - contours[index].mean()
        centred[row, : len(contour)] = contour / np.linalg.norm(contour)
    spectra = np.fft.rfft(centred, 2 * _CONTOUR).astype(np.complex64)
    shifts = np.r_[0 : _LARGEST_SHIFT + 1, -_LARGEST_SHIFT:0]
    pairs = []
    for row in range(len(chosen) - 1):
        correlation = np.fft.irfft(spectra[row] * spectra[row + 1 :].conj(), 2 * _CONTOUR)[:, shifts]
        best = correlation.max(axis=1)
        for other in np.argsort(-best, kind="stable")[:_CANDIDATES]:
            if best[other] > _MIN_CONTOUR:
                shift = int(shifts[correlation[other].argmax()])
                pairs.append((chosen[row], chosen[row + 1 + int(other)], shift))
    return pairs


def _agree(one: Recording, other: Recording, shift: int) -> bool:
    """Returns whether excerpts of two tracks are the same sound at one shift."""
    rate = one.rate_hz
    a, b = (_open(each) for each in (one, other))
    shift *= loudness.sub_block_samples(rate)
    length, margin = round(_EXCERPT_S * rate), round(_MARGIN_S * rate)
    start, stop = max(margin, shift + margin), min(len(a), len(b) + shift) - length - margin
    if stop < start:
        return False
    found, different = [], 0
    for position in np.linspace(start, stop, _EXCERPTS).astype(int).tolist():
        excerpt = a[position : position + length]
        around = b[position - shift - margin : position - shift + length + margin]
        if (match := _best_match(_mono(excerpt), _mono(around), rate)) is not None:
            found.append(match)
            different += match[0] < _MIN_AGREEMENT
        if different > _EXCERPTS // 2:
            return False
    if len(found) <= _EXCERPTS // 2:
        return False
    correlation, at = np.array(found).T
    steady = np.abs(at - np.median(at)) <= _SHIFT_TOLERANCE_S * rate
    return bool(np.median(np.where(steady, correlation, 0)) >= _MIN_AGREEMENT)


def _best_match(excerpt: np.ndarray, around: np.ndarray, rate: int) -> tuple[float, int] | None:
    """Returns the largest correlation of an excerpt within a longer one, and where; None for silence.

    Both are limited to `_HIGHEST_HZ` and differentiated: the bass, which tracks share, would decide.
    """
    size = 1 << (len(around) + len(excerpt)).bit_length()
    keep = np.fft.rfftfreq(size, 1 / rate)
    weight = np.where(keep < _HIGHEST_HZ, keep, 0)
    spectrum, wider = np.fft.rfft(excerpt, size) * weight, np.fft.rfft(around, size) * weight
    positions = len(around) - len(excerpt) + 1
    products = np.fft.irfft(wider * spectrum.conj(), size)[:positions]
    energies = np.concatenate([[0.0], np.cumsum(np.fft.irfft(wider, size)[: len(around)] ** 2)])
    energies = energies[len(excerpt) :] - energies[:positions]
    own = float(np.sum(np.fft.irfft(spectrum, size)[: len(excerpt)] ** 2))
    if own <= 0 or energies.max() <= 1e-9 * own:
        return None
    correlation = np.abs(products) / np.sqrt(own * np.maximum(energies, 1e-6 * energies.max()))
    best = int(correlation.argmax())
    return float(correlation[best]), best


def _open(recording: Recording) -> np.ndarray:
    """Returns the PCM `[T, channels]`, read when it is used."""
    samples = os.path.getsize(recording.path) // (2 * recording.channels)
    return np.memmap(recording.path, np.int16, "r", shape=(samples, recording.channels))


def _mono(pcm: np.ndarray) -> np.ndarray:
    return np.asarray(pcm, np.float64).mean(axis=1)
