"""Reverb, echo, mixing and limiting for the built-in corpus, and its sounds made from noise.

Audio is float32, mono `[T]` or stereo `[2, T]`. Channels come first, which makes filters and sums
fast.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import fft, signal

from data_prep.corpus.filters import HIGHEST, SETTLED, compiled, high_pass, low_pass, rms, time_axis, white_noise
from data_prep.corpus.synthesizer import saturate


@compiled
def _feedback_delay_network(send, lengths, gains, damping, low_cut):
    """Returns the output `[2, T]` of a feedback delay network for the input `send` `[T]`.

    Args:
        send: float32 `[T]`.
        lengths: int64 `[delay lines]`, in samples.
        gains: float32 `[delay lines]`.
        damping: float32, coefficient of the low-pass in each delay line.
        low_cut: float32, coefficient of the high-pass at the input.
    """
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
            # Half of each channel's delay lines are inverted: the channels differ in the bass too.
            signed = smooth[i] if i % 4 < 2 else -smooth[i]
            if i % 2:
                right += signed
            else:
                left += signed
        out[0, n], out[1, n] = left, right
        # A Householder reflection feeds each delay line from all others and preserves the energy.
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
    """Returns the reverberation `[2, T]` of `send` `[T]`, without the direct sound.

    Args:
        send: input.
        rate_hz: sampling rate.
        size_s: longest of the eight delays.
        decay_s: time until the level has fallen by 60 dB.
        damping_hz: higher frequencies decay faster.
        low_cut_hz: lower frequencies are removed from the input, so that the bass stays mono.

    Reference: Jot and Chaigne, "Digital delay networks for designing artificial reverberators",
    AES 90, 1991.
    """
    # The lengths have a constant ratio and are odd, so that the echoes of two seldom coincide.
    lengths = np.maximum(3, np.round(size_s * rate_hz * 0.83 ** np.arange(8)).astype(np.int64) | 1)
    gains = (10 ** (-3 * lengths / (decay_s * rate_hz))).astype(np.float32)
    damping = np.float32(1 - _smoothing(damping_hz, rate_hz))
    return _feedback_delay_network(send, lengths, gains, damping, np.float32(_smoothing(low_cut_hz, rate_hz)))


@compiled
def _crossed_delays(send, delay_samples, feedback, high_cut, low_cut):
    """Returns the output `[2, T]` of two delays that feed each other, for the input `send` `[T]`.

    Args:
        send: float32 `[T]`.
        delay_samples: length of both delays.
        feedback: float32, gain of each repetition.
        high_cut: float32, coefficient of the low-pass before the left delay.
        low_cut: float32, coefficient of the high-pass at the input.
    """
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
    """Returns echoes `[2, T]` of `send` `[T]` that alternate between left and right, left first.

    Args:
        send: input.
        rate_hz: sampling rate.
        delay_samples: time from one echo to the next.
        feedback: level of each echo relative to the previous one.
        high_cut_hz: cutoff of the low-pass that each echo on the left passes once more.
        low_cut_hz: lower frequencies are removed from the input.
    """
    cuts = np.float32(_smoothing(high_cut_hz, rate_hz)), np.float32(_smoothing(low_cut_hz, rate_hz))
    return _crossed_delays(send, delay_samples, np.float32(feedback), *cuts)


def _smoothing(cutoff_hz: float, rate_hz: int) -> float:
    """Returns the coefficient of a one-pole low-pass."""
    return 1 - math.exp(-2 * math.pi * min(cutoff_hz, HIGHEST * rate_hz) / rate_hz)


@compiled
def add(bus, sound, start, level):
    """Adds a sound to a bus from sample `start` on, both `[C, T]`, up to the end of the bus."""
    count = max(0, min(sound.shape[1], bus.shape[1] - start))
    for c in range(bus.shape[0]):
        # In views that start at 0 no index can be negative, so the compiler can vectorize the loop.
        target, source = bus[c, start : start + count], sound[c, :count]
        for n in range(count):
            target[n] += level * source[n]


@compiled
def limit(audio, gain, block):
    """Amplifies audio in place, limits it softly by x / (1 + x^4)^(1/4), and removes the DC offset.

    Limiting an asymmetric wave, such as a bass drum, causes a DC offset.

    Args:
        audio: float32 `[C, T]`.
        gain: float32, applied before limiting.
        block: float32, pole of the DC blocker, just below 1.

    Returns:
        The largest magnitude of the result; the DC blocker may raise it above 1.
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
    """Returns the bass drum's reverb, low-passed and distorted, as a seamless loop `[samples]`; RMS 1.

    Args:
        kick_sound: one bass drum, `[T]`.
        hits: (sample, level) of each bass drum in the loop.
        samples: length of the loop, one or a few bars.
        rate_hz: sampling rate.
        draw: generator of the noise that is the reverb's impulse response.
        decay_s: time constant of the reverb.
        cut_hz: cutoff of the low-pass.
        drive: gain into the distortion.
    """
    t = time_axis(5 * decay_s, rate_hz)
    wet = signal.oaconvolve(kick_sound, white_noise(draw, len(t)) * np.exp(-t / decay_s)).astype(np.float32)
    wet = low_pass(high_pass(wet, 35, rate_hz), cut_hz, rate_hz)
    loop = np.zeros(samples, np.float32)
    for start, level in hits:
        _add_circularly(loop, wet, start, level)
    # The loop is filtered twice in a row: in the second pass the filters are in their steady state.
    twice = np.tile(saturate(loop / rms(loop), drive), 2)
    loop = high_pass(low_pass(twice, 2.5 * cut_hz, rate_hz), 24, rate_hz)[samples:]
    return loop / rms(loop)


def texture(draw: np.random.Generator, rate_hz: int, *, centre_hz: float, tilt: float) -> np.ndarray:
    """Returns a seamless loop `[2, T]` of about four seconds of coloured noise; RMS 1.

    Args:
        draw: generator of the noise.
        rate_hz: sampling rate.
        centre_hz: frequency where the noise is loudest.
        tilt: slope of the spectrum on both sides; 1 is 6 dB per octave.
    """
    samples = fft.next_fast_len(4 * rate_hz, real=True)
    hz = np.fft.rfftfreq(samples, 1 / rate_hz)[1:].astype(np.float32)
    centre_hz = min(centre_hz, HIGHEST * rate_hz)
    shape = np.zeros(len(hz) + 1, np.float32)
    shape[1:] = np.minimum(hz / centre_hz, centre_hz / hz) ** tilt * (hz > 200)
    out = fft.irfft(fft.rfft(white_noise(draw, samples, 2)) * shape, samples)
    return out / rms(out)


def echoes(send: np.ndarray, delay_samples: int, feedback: float) -> np.ndarray:
    """Returns the echoes `[T]` of `send` `[T]`, without the direct sound.

    Args:
        send: input.
        delay_samples: time from one echo to the next.
        feedback: level of each echo after the first relative to the previous one.
    """
    out = np.zeros_like(send)
    for start in range(delay_samples, len(send), delay_samples):
        now = slice(start, min(start + delay_samples, len(send)))
        before = slice(start - delay_samples, now.stop - delay_samples)
        out[now] = np.float32(feedback) * out[before] + send[before]
    return out


def _add_circularly(loop: np.ndarray, sound: np.ndarray, start: int, level: float) -> None:
    """Adds a sound to a loop; past the end of the loop it continues at the start."""
    for place in range(0, len(sound), len(loop)):
        piece = sound[place : place + len(loop)] * np.float32(level)
        first = piece[: len(loop) - start]
        loop[start : start + len(first)] += first
        loop[: len(piece) - len(first)] += piece[len(first) :]
