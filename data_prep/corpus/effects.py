"""Reverb, echo, mixing and mastering of the built-in corpus, and sounds made of noise.

Audio is float32, mono `[T]` or stereo `[2, T]`: channel by channel, since filters and sums are fast then.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import fft, signal

from data_prep.corpus.filters import HIGHEST, SETTLED, compiled, high_pass, low_pass, rms, time_axis, white_noise
from data_prep.corpus.synthesizer import saturate


@compiled
def _network(send, lengths, gains, damping, low_cut):
    """A feedback delay network: `[T]` to `[2, T]`; see `reverb`."""
    out = np.empty((2, len(send)), np.float32)
    count = len(lengths)
    lines = np.zeros((count, lengths.max()), np.float32)
    places = np.zeros(count, np.int64)
    smooth = np.zeros(count, np.float32)
    slow = slower = np.float32(0)
    for n in range(len(send)):
        x = send[n] + np.float32(SETTLED)
        slow += low_cut * (x - slow)
        x -= slow
        slower += low_cut * (x - slower)
        x -= slower
        total = left = right = np.float32(0)
        for i in range(count):
            value = lines[i, places[i]] * gains[i]
            smooth[i] = value + damping * (smooth[i] - value)
            total += smooth[i]
            # Half of each side's lines are turned over: the sides differ in the low end too.
            signed = smooth[i] if i % 4 < 2 else -smooth[i]
            if i % 2:
                right += signed
            else:
                left += signed
        out[0, n], out[1, n] = left, right
        # Householder's reflection mixes all lines into all and keeps the energy.
        fed = x - total * np.float32(2 / count)
        for i in range(count):
            lines[i, places[i]] = smooth[i] + fed
            places[i] += 1
            if places[i] == lengths[i]:
                places[i] = 0
    return out


def reverb(
    send: np.ndarray, rate_hz: int, *, size_s: float, decay_s: float, damping_hz: float, low_cut_hz: float = 300.0
) -> np.ndarray:
    """The room's answer `[2, T]` to `send` `[T]`, without the sound itself.

    Args:
        send: what is sent into the room.
        rate_hz: sampling rate.
        size_s: longest of the eight delays.
        decay_s: until it has fallen by 60 dB.
        damping_hz: above it the decay is faster.
        low_cut_hz: what is below does not enter: the low end stays in the middle.

    Reference: Jot and Chaigne, "Digital delay networks for designing artificial reverberators", AES 90, 1991.
    """
    # Lengths a constant ratio apart, made odd: no two share an echo for long.
    lengths = np.maximum(3, np.round(size_s * rate_hz * 0.83 ** np.arange(8)).astype(np.int64) | 1)
    gains = (10 ** (-3 * lengths / (decay_s * rate_hz))).astype(np.float32)
    damping = np.float32(1 - _smoothing(damping_hz, rate_hz))
    return _network(send, lengths, gains, damping, np.float32(_smoothing(low_cut_hz, rate_hz)))


@compiled
def _bounces(send, delay_samples, feedback, high_cut, low_cut):
    """Two delays that feed each other: `[T]` to `[2, T]`; see `ping_pong`."""
    out = np.empty((2, len(send)), np.float32)
    lines = np.zeros((2, delay_samples), np.float32)
    slow = slower = dark = np.float32(0)
    place = 0
    for n in range(len(send)):
        x = send[n] + np.float32(SETTLED)
        slow += low_cut * (x - slow)
        x -= slow
        slower += low_cut * (x - slower)
        x -= slower
        left, right = lines[0, place], lines[1, place]
        dark += high_cut * (x + feedback * right - dark)
        lines[0, place], lines[1, place] = dark, feedback * left
        out[0, n], out[1, n] = left, right
        place += 1
        if place == delay_samples:
            place = 0
    return out


def ping_pong(
    send: np.ndarray,
    rate_hz: int,
    *,
    delay_samples: int,
    feedback: float,
    high_cut_hz: float = 6000.0,
    low_cut_hz: float = 300.0,
) -> np.ndarray:
    """Repetitions of `send` `[T]`, first on the left and then from side to side, `[2, T]`.

    Args:
        send: what is repeated.
        rate_hz: sampling rate.
        delay_samples: from one repetition to the next.
        feedback: level of each, relative to the one before.
        high_cut_hz: what is above gets lost, with every return to the left a little more.
        low_cut_hz: what is below does not enter.
    """
    cuts = np.float32(_smoothing(high_cut_hz, rate_hz)), np.float32(_smoothing(low_cut_hz, rate_hz))
    return _bounces(send, delay_samples, np.float32(feedback), *cuts)


def _smoothing(cutoff_hz: float, rate_hz: int) -> float:
    """Coefficient of a one-pole low-pass."""
    return 1 - math.exp(-2 * math.pi * min(cutoff_hz, HIGHEST * rate_hz) / rate_hz)


@compiled
def add(bus, sound, start, level):
    """Adds a sound to a bus, both `[C, T]`, from `start` on, as far as the bus goes."""
    count = max(0, min(sound.shape[1], bus.shape[1] - start))
    for c in range(bus.shape[0]):
        # Views that start at 0 let the compiler see that no index is negative, and so do many at a time.
        room, piece = bus[c, start : start + count], sound[c, :count]
        for n in range(count):
            room[n] += level * piece[n]


@compiled
def limit(audio, gain, block):
    """Multiplies `[C, T]` in place, bends it smoothly towards 1, x / (1 + x^4)^(1/4), and takes out DC.

    DC comes from what is bent and not symmetric, as bass drums are.

    Args:
        audio: float32.
        gain: float32, before the bending.
        block: float32, pole of the DC blocker, just below 1.

    Returns:
        The largest magnitude; the DC blocker may bring it over 1.
    """
    peak = np.float32(0)
    for c in range(audio.shape[0]):
        before = out = np.float32(0)
        for n in range(audio.shape[1]):
            x = audio[c, n] * gain
            square = x * x
            x /= np.sqrt(np.sqrt(np.float32(1) + square * square))
            out = x - before + block * out
            before = x
            audio[c, n] = out
            peak = max(peak, abs(out))
    return peak


def rumble(
    kick_sound: np.ndarray,
    hits: Sequence[tuple[int, float]],
    samples: int,
    rate_hz: int,
    draw: np.random.Generator,
    *,
    decay_s: float,
    cut_hz: float,
    drive: float,
) -> np.ndarray:
    """The bass drum's reverb, dark and distorted, as a loop `[samples]` that joins on to itself; RMS 1.

    Args:
        kick_sound: one bass drum, `[T]`.
        hits: (sample, level) of the loop's drums.
        samples: length of the loop, a bar or a few.
        rate_hz: sampling rate.
        draw: where the room's noise comes from.
        decay_s: time constant of the room.
        cut_hz: low-pass.
        drive: into the distortion.
    """
    t = time_axis(5 * decay_s, rate_hz)
    wet = signal.oaconvolve(kick_sound, white_noise(draw, len(t)) * np.exp(-t / decay_s)).astype(np.float32)
    wet = low_pass(high_pass(wet, 35, rate_hz), cut_hz, rate_hz)
    loop = np.zeros(samples, np.float32)
    for start, level in hits:
        _add_around(loop, wet, start, level)
    # Twice around: the second time the filter has forgotten that there was a start.
    twice = np.tile(saturate(loop / rms(loop), drive), 2)
    loop = high_pass(low_pass(twice, 2.5 * cut_hz, rate_hz), 24, rate_hz)[samples:]
    return loop / rms(loop)


def texture(draw: np.random.Generator, rate_hz: int, *, centre_hz: float, tilt: float) -> np.ndarray:
    """About four seconds of coloured noise `[2, T]` that join on to themselves; RMS 1.

    Args:
        draw: where the noise comes from.
        rate_hz: sampling rate.
        centre_hz: where it is loudest.
        tilt: how fast it falls on both sides; 1 is 6 dB an octave.
    """
    samples = fft.next_fast_len(4 * rate_hz, real=True)
    hz = np.fft.rfftfreq(samples, 1 / rate_hz)[1:].astype(np.float32)
    centre_hz = min(centre_hz, HIGHEST * rate_hz)
    shape = np.zeros(len(hz) + 1, np.float32)
    shape[1:] = np.minimum(hz / centre_hz, centre_hz / hz) ** tilt * (hz > 200)
    out = fft.irfft(fft.rfft(white_noise(draw, samples, 2)) * shape, samples)
    return out / rms(out)


def echoes(send: np.ndarray, delay_samples: int, feedback: float) -> np.ndarray:
    """The repetitions of `send` `[T]`, without itself: each `delay_samples` after the last and `feedback` as loud."""
    out = np.zeros_like(send)
    for start in range(delay_samples, len(send), delay_samples):
        now = slice(start, min(start + delay_samples, len(send)))
        before = slice(start - delay_samples, now.stop - delay_samples)
        out[now] = np.float32(feedback) * out[before] + send[before]
    return out


def _add_around(loop: np.ndarray, sound: np.ndarray, start: int, level: float) -> None:
    """Adds a sound to a loop, at whose end it goes on at the start."""
    for place in range(0, len(sound), len(loop)):
        piece = sound[place : place + len(loop)] * np.float32(level)
        first = piece[: len(loop) - start]
        loop[start : start + len(first)] += first
        loop[: len(piece) - len(first)] += piece[len(first) :]
