"""The bass-line synthesizer of the built-in corpus: oscillator, resonant filters, distortion.

Loops whose state is not linear are compiled by numba. Cutoff and resonance are given as one value every
`CONTROL_SAMPLES`.
"""

from __future__ import annotations

import math

import numpy as np

from data_prep.corpus.filters import CONTROL_SAMPLES, HIGHEST, SETTLED, compiled


@compiled
def _saw(phase, width):
    """A saw wave at a phase in [0, 1), its step smoothed over `width`, the phase of a sample, to either side."""
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
    """A saw or square wave `[starts[-1] - starts[0]]`, band-limited, that plays one note a step.

    Args:
        starts: int64 `[S + 1]`, the first sample of each step, and the end.
        hz: float64 `[S]`, the notes.
        slides: bool `[S]`: whether the pitch glides into this step from the one before.
        glide_s: time constant of the glide.
        shape: 0 is a saw, 1 a square.
        rate_hz: sampling rate.

    Reference: the steps are smoothed by polyBLEP (Välimäki, Pekonen and Nam, "Perceptually informed synthesis of
    bandlimited classical waveforms using integrated polynomial interpolation", JASA 131, 2012, the two-point case).
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
            other = phase + 0.5
            if other >= 1:
                other -= 1
            shifted = _saw(other, width)
            out[n] = (1 - shape) * saw + shape * (saw - shifted)
    return out


@compiled
def ladder(audio, cutoff_hz, resonance, rate_hz):
    """Four one-pole low-passes in a row with feedback around them, `[T]`; what is fed back saturates.

    For small signals it is 1 / ((1 + s / c)^4 + k), c the cutoff and k the resonance, brought to this rate by the
    bilinear transform with its cutoff in place. At k = 4 it oscillates.

    Args:
        audio: float32 `[T]`.
        cutoff_hz: float `[T // CONTROL_SAMPLES + 2]`, connected by lines.
        resonance: float, likewise: k, from 0 to below 4.
        rate_hz: sampling rate.

    Reference: the delay-free feedback is Zavalishin's ("The Art of VA Filter Design", 2.1.2, chapter 5).
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
            # A rational tanh, exact to the fifth order, flat from 3 on.
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
    """Gain of one trapezoidal integrator with feedback at this cutoff."""
    g = math.tan(math.pi * min(max(cutoff_hz, 10.0), HIGHEST * rate_hz) / rate_hz)
    return g / (1 + g)


@compiled
def sweep(audio, cutoff_hz, q, low, band, high, rate_hz):
    """A two-pole filter with a moving cutoff, `[T]`: `low`, `band` and `high` are the shares of its three outputs.

    Args:
        audio: float32 `[T]`.
        cutoff_hz: float `[T // CONTROL_SAMPLES + 2]`, connected by lines.
        q: quality; 0.71 has no peak.
        low: of what is below the cutoff.
        band: of what is around it.
        high: of what is above it.
        rate_hz: sampling rate.

    Reference: the trapezoidal state-variable filter (Zavalishin, "The Art of VA Filter Design", chapter 4).
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
    """Soft distortion of the last axis, x / sqrt(1 + x^2) of x = `drive` times the audio, with little aliasing.

    What comes out is the mean of the curve over the line between two samples: half a sample late, and highs are
    softened as by a mean of two samples.

    Reference: Parker, Zavalishin and Le Bivic, "Reducing the aliasing of nonlinear waveshaping using continuous-time
    convolution", DAFx 2016; for this curve the quotient of differences simplifies to one of sums, which never is 0 / 0.
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
