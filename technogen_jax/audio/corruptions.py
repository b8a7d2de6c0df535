"""Known faults put into audio: what metrics must notice, what the artefact net learns, anchors for listeners.

All take audio `[T, C]` in [-1, 1] as a loop (what runs out of the end comes in at the start) and return float64 of the
same shape, unless they say otherwise. What is random is drawn from `seed` alone. Levels may leave [-1, 1].
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import signal

_FADE_S = 0.005  # a bare cut clicks, and a click is a fault of its own
_PHASE_FRAME_S = 0.064
_FILTER_ORDER = 8
_PIECE_S = 60 / 130 / 4  # about a sixteenth note of techno


def add_noise(audio: np.ndarray, snr_db: float, seed: int) -> np.ndarray:
    """The audio and white noise, `snr_db` below its power and independent between channels.

    Raises:
        ValueError: the audio is silent.
    """
    power = np.mean(np.square(audio, dtype=np.float64))
    if not power:
        raise ValueError(f"add_noise: expected a signal to set {snr_db} dB of noise against, got silence; leave it out")
    noise = np.random.default_rng(seed).standard_normal(audio.shape)
    return audio + noise * np.sqrt(power / 10 ** (snr_db / 10))


def low_pass(audio: np.ndarray, rate_hz: int, cutoff_hz: float) -> np.ndarray:
    """The steady state of the loop in a Butterworth low-pass filter of order 8.

    Raises:
        ValueError: the cut-off is not between 0 and half the rate.
    """
    if not 0 < cutoff_hz < rate_hz / 2:
        raise ValueError(f"low_pass: expected a cut-off between 0 and {rate_hz / 2:g} Hz, got {cutoff_hz:g} Hz")
    sections = signal.butter(_FILTER_ORDER, cutoff_hz, fs=rate_hz, output="sos")
    _, response = signal.sosfreqz(sections, np.fft.rfftfreq(len(audio), 1 / rate_hz), fs=rate_hz)
    spectrum = np.fft.rfft(audio, axis=0) * response[:, None]
    return np.fft.irfft(spectrum, len(audio), axis=0)


def change_speed(audio: np.ndarray, factor: float) -> np.ndarray:
    """The whole loop played `factor` times as fast, tempo and pitch alike: `[round(T / factor), C]`.

    `np.resize(changed, audio.shape)` tiles or cuts it to the old length.

    Raises:
        ValueError: the factor is not positive.
    """
    if factor <= 0:
        raise ValueError(f"change_speed: expected a factor above 0, got {factor}")
    return signal.resample(np.asarray(audio, np.float64), round(len(audio) / factor), axis=0)


def shuffle(audio: np.ndarray, rate_hz: int, pieces: int, seed: int, crossfade_s: float = _FADE_S) -> np.ndarray:
    """The loop cut into equal pieces in random order, cross-faded before each cut so that attacks on the grid stay."""
    order = np.random.default_rng(seed).permutation(pieces)
    edges = _grid(len(audio), pieces)
    lengths = np.diff(edges)[order]
    return _place(audio, edges[order], lengths, np.cumsum(lengths) - lengths, crossfade_s * rate_hz)


def jitter(
    audio: np.ndarray, rate_hz: int, beats: int, deviation_s: float, seed: int, crossfade_s: float = _FADE_S
) -> np.ndarray:
    """The loop's beats, each moved by a normal deviate of `deviation_s`; neighbours overlap or leave a gap."""
    edges = _grid(len(audio), beats)
    moves = np.random.default_rng(seed).normal(0, deviation_s * rate_hz, beats)
    return _place(audio, edges[:-1], np.diff(edges), edges[:-1] + np.rint(moves).astype(int), crossfade_s * rate_hz)


def reverse(audio: np.ndarray) -> np.ndarray:
    """The audio backwards."""
    return np.asarray(audio, np.float64)[::-1]


def randomise_phase(audio: np.ndarray, rate_hz: int, amount: float, seed: int) -> np.ndarray:
    """The audio with the phases of its short-time spectrum turned by up to `amount` half circles, all channels alike.

    Args:
        audio: `[T, C]`.
        rate_hz: its rate; frames last about 64 ms.
        amount: 0 changes nothing, 1 leaves nothing of the phases.
        seed: of the angles.
    """
    n_fft = 1 << round(np.log2(_PHASE_FRAME_S * rate_hz))
    frames = -(-len(audio) // (n_fft // 4))
    window = np.sqrt(signal.get_window("hann", n_fft))[:, None]
    where = (_grid(len(audio), frames)[:-1, None] + np.arange(n_fft)) % len(audio)  # [N, n_fft]
    spectrum = np.fft.rfft(audio[where] * window, axis=1)  # [N, F, C]
    angles = np.random.default_rng(seed).uniform(-np.pi, np.pi, spectrum.shape[:2])
    changed = np.fft.irfft(spectrum * np.exp(1j * amount * angles)[..., None], n_fft, axis=1) * window
    weights = np.broadcast_to(window**2, (frames, n_fft, 1))
    totals = [np.bincount(where.ravel(), part.ravel(), len(audio)) for part in (*np.moveaxis(changed, 2, 0), weights)]
    return np.stack(totals[:-1], axis=1) / totals[-1][:, None]


def clip(audio: np.ndarray, drive_db: float) -> np.ndarray:
    """The audio cut off at `drive_db` below its peak: driven into a limiter and turned down again."""
    limit = np.max(np.abs(audio)) / 10 ** (drive_db / 20)
    return np.clip(np.asarray(audio, np.float64), -limit, limit)


def gain(audio: np.ndarray, gain_db: float) -> np.ndarray:
    """The audio, louder by `gain_db`."""
    return np.asarray(audio, np.float64) * 10 ** (gain_db / 20)


def rotate(audio: np.ndarray, samples: int) -> np.ndarray:
    """The loop begun `samples` earlier."""
    return np.roll(np.asarray(audio, np.float64), samples, axis=0)


def _noise(audio, rate_hz, random):
    return add_noise(audio, random.uniform(20, 50), _seed(random))


def _dull(audio, rate_hz, random):
    return low_pass(audio, rate_hz, rate_hz / 2 * random.uniform(0.4, 0.9))


def _shuffled(audio, rate_hz, random):
    return shuffle(audio, rate_hz, _pieces(audio, rate_hz), _seed(random))


def _phase(audio, rate_hz, random):
    return randomise_phase(audio, rate_hz, random.uniform(0.1, 1), _seed(random))


def _clipped(audio, rate_hz, random):
    return clip(audio, random.uniform(3, 12))


def _jittered(audio, rate_hz, random):
    return jitter(audio, rate_hz, _pieces(audio, rate_hz), random.uniform(0.002, 0.04), _seed(random))


# What the artefact net learns to tell apart: (audio, rate_hz, numpy Generator) -> audio, the strength drawn as well.
CORRUPTIONS: dict[str, Callable[[np.ndarray, int, np.random.Generator], np.ndarray]] = {
    "noise": _noise,
    "low-pass": _dull,
    "shuffle": _shuffled,
    "phase": _phase,
    "clip": _clipped,
    "jitter": _jittered,
    "reverse": lambda audio, rate_hz, random: reverse(audio),
}


def _seed(random):
    return int(random.integers(2**31))


def _pieces(audio, rate_hz):
    return max(4, round(len(audio) / rate_hz / _PIECE_S))


def _grid(samples, pieces):
    """The `pieces + 1` edges of equal pieces, to the nearest sample."""
    if not 1 <= pieces <= samples:
        raise ValueError(f"expected 1 to {samples} pieces of {samples} samples, got {pieces}")
    return np.rint(np.linspace(0, samples, pieces + 1)).astype(int)


def _place(audio, starts, lengths, targets, fade_samples):
    """The pieces added up at their targets; each fades in before its start and out before its end, to a sum of 1."""
    fade = min(round(fade_samples), int(lengths.min()))
    rise = 0.5 - 0.5 * np.cos(np.pi * (np.arange(fade) + 0.5) / max(fade, 1))
    result = np.zeros(audio.shape)
    for start, length, target in zip(starts, lengths, targets, strict=True):
        window = np.ones(length + fade)
        window[:fade] *= rise
        window[length:] *= rise[::-1]
        offsets = np.arange(-fade, length)
        # A piece as long as the loop meets itself: `np.add.at` adds where an index comes twice.
        np.add.at(result, (target + offsets) % len(audio), audio[(start + offsets) % len(audio)] * window[:, None])
    return result
