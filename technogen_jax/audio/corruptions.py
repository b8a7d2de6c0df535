"""Known faults that are added to audio: for controls, the artefact net, and the listening test.

All functions take audio `[T, C]` in [-1, 1] as a loop: sound beyond its end continues at its start.
They return float64 of the same shape, drawn from `seed` alone. Levels may exceed [-1, 1].
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import signal

_FADE_S = 0.005  # a cut without a fade would click, which is another fault
_PHASE_FRAME_S = 0.064
_FILTER_ORDER = 8
_PIECE_S = 60 / 130 / 4  # about a sixteenth note of techno


def add_noise(audio: np.ndarray, snr_db: float, seed: int) -> np.ndarray:
    """Returns the audio with white noise `snr_db` below its power, independent between channels.

    Raises:
        ValueError: the audio is silent.
    """
    power = np.mean(np.square(audio, dtype=np.float64))
    if not power:
        raise ValueError(f"add_noise: expected audio with a signal for noise at {snr_db} dB, got silence; leave it out")
    noise = np.random.default_rng(seed).standard_normal(audio.shape)
    return audio + noise * np.sqrt(power / 10 ** (snr_db / 10))


def low_pass(audio: np.ndarray, rate_hz: int, cutoff_hz: float) -> np.ndarray:
    """Returns the loop after a Butterworth low-pass filter of order 8, in the steady state.

    Raises:
        ValueError: the cut-off is not between 0 and half the rate.
    """
    if not 0 < cutoff_hz < rate_hz / 2:
        raise ValueError(f"low_pass: expected a cut-off between 0 and {rate_hz / 2:g} Hz, got {cutoff_hz:g} Hz")
    sections = signal.butter(_FILTER_ORDER, cutoff_hz, fs=rate_hz, output="sos")
    _, response = signal.sosfreqz(sections, np.fft.rfftfreq(len(audio), 1 / rate_hz), fs=rate_hz)
    spectrum = np.fft.rfft(audio, axis=0) * response[:, None]
    return np.fft.irfft(spectrum, len(audio), axis=0)


def shuffle(audio: np.ndarray, rate_hz: int, pieces: int, seed: int, crossfade_s: float = _FADE_S) -> np.ndarray:
    """Returns the loop's equal pieces in random order.

    The cross-fade ends before each cut, so that attacks on the grid are kept.
    """
    order = np.random.default_rng(seed).permutation(pieces)
    edges = _cut_evenly(len(audio), pieces)
    lengths = np.diff(edges)[order]
    return _place(audio, edges[order], lengths, np.cumsum(lengths) - lengths, crossfade_s * rate_hz)


def jitter(audio: np.ndarray, rate_hz: int, beats: int, deviation_s: float, seed: int) -> np.ndarray:
    """Returns the loop with each beat moved by a random time with deviation `deviation_s`.

    Neighbouring beats then overlap or have a gap between them.
    """
    edges = _cut_evenly(len(audio), beats)
    moves = np.random.default_rng(seed).normal(0, deviation_s * rate_hz, beats)
    return _place(audio, edges[:-1], np.diff(edges), edges[:-1] + np.rint(moves).astype(int), _FADE_S * rate_hz)


def reverse(audio: np.ndarray) -> np.ndarray:
    """Returns the audio backwards."""
    return np.asarray(audio, np.float64)[::-1]


def randomise_phase(audio: np.ndarray, rate_hz: int, amount: float, seed: int) -> np.ndarray:
    """Returns the audio with random phases added to its short-time spectrum, equal in all channels.

    Args:
        audio: `[T, C]`.
        rate_hz: its sample rate; a frame lasts about 64 ms.
        amount: largest angle in half circles: 0 changes nothing, 1 randomises the phases completely.
        seed: the seed of the angles.
    """
    n_fft = 1 << round(np.log2(_PHASE_FRAME_S * rate_hz))
    frames = -(-len(audio) // (n_fft // 4))
    window = np.sqrt(signal.get_window("hann", n_fft))[:, None]
    where = (_cut_evenly(len(audio), frames)[:-1, None] + np.arange(n_fft)) % len(audio)  # [N, n_fft]
    spectrum = np.fft.rfft(audio[where] * window, axis=1)  # [N, F, C]
    angles = np.random.default_rng(seed).uniform(-np.pi, np.pi, spectrum.shape[:2])
    changed = np.fft.irfft(spectrum * np.exp(1j * amount * angles)[..., None], n_fft, axis=1) * window
    weights = np.broadcast_to(window**2, (frames, n_fft, 1))
    totals = [np.bincount(where.ravel(), part.ravel(), len(audio)) for part in (*np.moveaxis(changed, 2, 0), weights)]
    return np.stack(totals[:-1], axis=1) / totals[-1][:, None]


def clip(audio: np.ndarray, drive_db: float) -> np.ndarray:
    """Returns the audio clipped at `drive_db` below its peak."""
    limit = np.max(np.abs(audio)) / 10 ** (drive_db / 20)
    return np.clip(np.asarray(audio, np.float64), -limit, limit)


def gain(audio: np.ndarray, gain_db: float) -> np.ndarray:
    """Returns the audio, louder by `gain_db`."""
    return np.asarray(audio, np.float64) * 10 ** (gain_db / 20)


def _random_noise(audio: np.ndarray, rate_hz: int, random: np.random.Generator) -> np.ndarray:
    return add_noise(audio, random.uniform(20, 50), _draw_seed(random))


def _random_low_pass(audio: np.ndarray, rate_hz: int, random: np.random.Generator) -> np.ndarray:
    return low_pass(audio, rate_hz, rate_hz / 2 * random.uniform(0.4, 0.9))


def _random_shuffle(audio: np.ndarray, rate_hz: int, random: np.random.Generator) -> np.ndarray:
    return shuffle(audio, rate_hz, _count_pieces(audio, rate_hz), _draw_seed(random))


def _random_phase(audio: np.ndarray, rate_hz: int, random: np.random.Generator) -> np.ndarray:
    return randomise_phase(audio, rate_hz, random.uniform(0.1, 1), _draw_seed(random))


def _random_clip(audio: np.ndarray, rate_hz: int, random: np.random.Generator) -> np.ndarray:
    return clip(audio, random.uniform(3, 12))


def _random_jitter(audio: np.ndarray, rate_hz: int, random: np.random.Generator) -> np.ndarray:
    deviation_s = random.uniform(0.002, 0.04)
    return jitter(audio, rate_hz, _count_pieces(audio, rate_hz), deviation_s, _draw_seed(random))


# The classes of the artefact net: (audio, rate_hz, numpy Generator) -> audio. The strength of each
# fault is random as well.
CORRUPTIONS: dict[str, Callable[[np.ndarray, int, np.random.Generator], np.ndarray]] = {
    "noise": _random_noise,
    "low-pass": _random_low_pass,
    "shuffle": _random_shuffle,
    "phase": _random_phase,
    "clip": _random_clip,
    "jitter": _random_jitter,
    "reverse": lambda audio, rate_hz, random: reverse(audio),
}


def _draw_seed(random: np.random.Generator) -> int:
    return int(random.integers(2**31))


def _count_pieces(audio: np.ndarray, rate_hz: int) -> int:
    return max(4, round(len(audio) / rate_hz / _PIECE_S))


def _cut_evenly(samples: int, pieces: int) -> np.ndarray:
    """The `pieces + 1` edges of equal pieces, to the nearest sample."""
    if not 1 <= pieces <= samples:
        raise ValueError(f"expected 1 to {samples} pieces of {samples} samples, got {pieces}")
    return np.rint(np.linspace(0, samples, pieces + 1)).astype(int)


def _place(
    audio: np.ndarray, starts: np.ndarray, lengths: np.ndarray, targets: np.ndarray, fade_samples: float
) -> np.ndarray:
    """The sum of the pieces at their targets.

    Each piece fades in before its start and fades out before its end, so that the gains of two
    neighbours add up to 1.
    """
    fade = min(round(fade_samples), int(lengths.min()))
    rise = 0.5 - 0.5 * np.cos(np.pi * (np.arange(fade) + 0.5) / max(fade, 1))
    result = np.zeros(audio.shape)
    for start, length, target in zip(starts, lengths, targets, strict=True):
        window = np.ones(length + fade)
        window[:fade] *= rise
        window[length:] *= rise[::-1]
        offsets = np.arange(-fade, length)
        # A piece as long as the loop overlaps itself: `np.add.at` adds at repeated indices.
        np.add.at(result, (target + offsets) % len(audio), audio[(start + offsets) % len(audio)] * window[:, None])
    return result
