"""Synthesizer of the built-in corpus: an oscillator, two resonant filters, and distortion.

Numba compiles the loops over samples. Cutoff and resonance are given at one value per
`CONTROL_SAMPLES` samples, and the loops interpolate linearly between them.
"""

from __future__ import annotations

import math

import numpy as np

from data_prep.corpus.filters import CONTROL_SAMPLES, HIGHEST, SETTLED, compiled


@compiled
def _saw(phase, width):
    """Returns a saw wave's value at a phase in [0, 1).

    The wave's step is smoothed over one sample on both sides; `width` is the phase of one sample.
    """
    saw = 2 * phase - 1
    if phase < width:
        x = phase / width
        saw -= x + x - x * x - 1
    elif phase > 1 - width:
        x = (phase - 1) / width
        saw -= x * x + x + x + 1
    return saw


@compiled
def oscillator(starts, hz, slides, glide_s, shape, rate_hz):
    """Returns a saw or square wave with little aliasing that plays one note in each step.

    Args:
        starts: int64 `[S + 1]`, the first sample of each step, and the end of the last.
        hz: float64 `[S]`, frequency of each note.
        slides: bool `[S]`: whether the pitch glides from the previous step's note to this one.
        glide_s: time constant of the glide.
        shape: 0 is a saw wave, 1 a square wave; values between mix the two.
        rate_hz: sampling rate.

    Returns:
        float32 `[starts[-1] - starts[0]]`.

    Reference: polyBLEP smooths the steps of the wave (the two-point case in Välimäki, Pekonen and Nam,
    "Perceptually informed synthesis of bandlimited classical waveforms using integrated polynomial
    interpolation", JASA 131, 2012).
    """
    out = np.empty(starts[-1] - starts[0], np.float32)
    glide = 1 - math.exp(-1 / (glide_s * rate_hz))
    phase, step_hz = 0.0, hz[0]
    for step in range(len(hz)):
        target = min(hz[step], 0.25 * rate_hz)
        if not slides[step]:
            step_hz = target
        for n in range(starts[step] - starts[0], starts[step + 1] - starts[0]):
            step_hz += glide * (target - step_hz)
            width = step_hz / rate_hz
            phase += width
            if phase >= 1:
                phase -= 1
            saw = _saw(phase, width)
            shifted_phase = phase + 0.5
            if shifted_phase >= 1:
                shifted_phase -= 1
            shifted = _saw(shifted_phase, width)
            # The difference of two saw waves half a period apart is a square wave.
            out[n] = (1 - shape) * saw + shape * (saw - shifted)
    return out


@compiled
def ladder(audio, cutoff_hz, resonance, rate_hz):
    """Returns audio through a ladder filter: four one-pole low-passes in series with feedback, `[T]`.

    The input, less the feedback, saturates. For small signals the transfer function is
    1 / ((1 + s / c)^4 + k), where c is the cutoff and k the resonance. It is discretized by the
    bilinear transform, with the cutoff kept in place. At k = 4 the filter oscillates.

    Args:
        audio: float32 `[T]`.
        cutoff_hz: float `[T // CONTROL_SAMPLES + 2]`.
        resonance: float `[T // CONTROL_SAMPLES + 2]`: k, from 0 to below 4.
        rate_hz: sampling rate.

    Reference: feedback without delay as in Zavalishin, "The Art of VA Filter Design", 2.1.2 and
    chapter 5.
    """
    out = np.empty_like(audio)
    a = b = c = d = 0.0
    pole = _pole(cutoff_hz[0], rate_hz)
    for frame in range(-(-len(audio) // CONTROL_SAMPLES)):
        next_pole = _pole(cutoff_hz[frame + 1], rate_hz)
        pole_step = (next_pole - pole) / CONTROL_SAMPLES
        k = resonance[frame]
        k_step = (resonance[frame + 1] - k) / CONTROL_SAMPLES
        for n in range(frame * CONTROL_SAMPLES, min(len(audio), (frame + 1) * CONTROL_SAMPLES)):
            g, rest = pole, 1 - pole
            x = audio[n] + SETTLED
            state = rest * (d + g * (c + g * (b + g * a)))
            g4 = g * g * g * g
            x -= k * (g4 * x + state) / (1 + k * g4)
            # A rational approximation of tanh, exact to the fifth order and constant above 3.
            x = min(max(x, -3.0), 3.0)
            x *= (27 + x * x) / (27 + 9 * x * x)
            v = g * (x - a)
            x = v + a
            a = x + v
            v = g * (x - b)
            x = v + b
            b = x + v
            v = g * (x - c)
            x = v + c
            c = x + v
            v = g * (x - d)
            x = v + d
            d = x + v
            out[n] = x
            pole += pole_step
            k += k_step
        pole = next_pole
    return out


@compiled
def _pole(cutoff_hz, rate_hz):
    """Returns the gain of one trapezoidal integrator with feedback at this cutoff."""
    g = math.tan(math.pi * min(max(cutoff_hz, 10.0), HIGHEST * rate_hz) / rate_hz)
    return g / (1 + g)


@compiled
def sweep(audio, cutoff_hz, q, low, band, high, rate_hz):
    """Returns audio through a two-pole filter with a variable cutoff, `[T]`.

    Args:
        audio: float32 `[T]`.
        cutoff_hz: float `[T // CONTROL_SAMPLES + 2]`.
        q: quality factor; at 0.71 the response has no peak.
        low: gain of the low-pass output.
        band: gain of the band-pass output.
        high: gain of the high-pass output.
        rate_hz: sampling rate.

    Reference: the trapezoidal state-variable filter in Zavalishin, "The Art of VA Filter Design",
    chapter 4.
    """
    out = np.empty_like(audio)
    first = second = 0.0
    damping = 1 / q
    g = math.tan(math.pi * min(max(cutoff_hz[0], 10.0), HIGHEST * rate_hz) / rate_hz)
    for frame in range(-(-len(audio) // CONTROL_SAMPLES)):
        next_g = math.tan(math.pi * min(max(cutoff_hz[frame + 1], 10.0), HIGHEST * rate_hz) / rate_hz)
        g_step = (next_g - g) / CONTROL_SAMPLES
        for n in range(frame * CONTROL_SAMPLES, min(len(audio), (frame + 1) * CONTROL_SAMPLES)):
            x = audio[n] + SETTLED
            above = (x - (g + damping) * first - second) / (1 + g * (g + damping))
            around = g * above + first
            first = g * above + around
            below = g * around + second
            second = g * around + below
            out[n] = low * below + band * damping * around + high * above
            g += g_step
        g = next_g
    return out


def saturate(audio: np.ndarray, drive: float) -> np.ndarray:
    """Returns the audio, distorted along its last axis by x / sqrt(1 + x^2), with little aliasing.

    x is `drive` times the audio. Each output sample is the mean of the curve between two input
    samples. The output is therefore half a sample late, and its high frequencies are attenuated as
    by a mean of two samples.

    Reference: Parker, Zavalishin and Le Bivic, "Reducing the aliasing of nonlinear waveshaping using
    continuous-time convolution", DAFx 2016. For this curve the paper's quotient of differences
    simplifies to a quotient of sums, which is never 0 / 0.
    """
    audio = np.ascontiguousarray(audio, np.float32)
    return _saturate(audio.reshape(-1, audio.shape[-1]), np.float32(drive)).reshape(audio.shape)


@compiled
def _saturate(audio, drive):
    out = np.empty_like(audio)
    for c in range(audio.shape[0]):
        before = drive * audio[c, 0]
        root_before = np.sqrt(np.float32(1) + before * before)
        out[c, 0] = before / root_before
        for n in range(1, audio.shape[1]):
            now = drive * audio[c, n]
            root = np.sqrt(np.float32(1) + now * now)
            out[c, n] = (now + before) / (root + root_before)
            before, root_before = now, root
    return out
