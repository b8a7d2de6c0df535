"""The sounds of a techno record as pure functions: drum machine, bass-line synthesiser, metal, reverb and echo.

Everything is float32 at any rate, mono `[T]` or stereo `[2, T]` (channel by channel here, since that is how filters and
sums run fast), one-shots with a peak of 1 that start on their first sample. Frequencies above what the rate can hold
are brought below it. What recurs from sample to sample and is not linear is compiled by numba; its controls (cutoff,
resonance) come as one value every `CONTROL_SAMPLES`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numba
import numpy as np
from scipy import fft, signal

CONTROL_SAMPLES = 16  # a third of a millisecond: shorter than any envelope here
_OVERSAMPLING = 4  # of distorted one-shots
_HIGHEST = 0.45  # of the rate: the highest frequency asked of a filter
_SETTLED = 1e-18  # added to what recurs: numbers too small for the normal format cost a hundred times as much

_compiled = numba.njit(cache=True, error_model="numpy")


# ----------------------------------------------------------------------------------------------------- drum machine


def kick(
    draw: np.random.Generator,
    rate_hz: int,
    *,
    tune_hz: float,
    sweep_hz: float,
    sweep_s: float,
    zap_hz: float,
    hold_s: float,
    decay_s: float,
    click: float,
    drive: float,
    bias: float,
    tone_hz: float,
) -> np.ndarray:
    """A bass drum `[T]`: a sine that falls to `tune_hz`, a click, and distortion.

    Args:
        draw: where the click's noise comes from.
        rate_hz: sampling rate.
        tune_hz: the frequency at which it ends.
        sweep_hz: how far above that the punch starts.
        sweep_s: time constant of that fall.
        zap_hz: how far above again the first few milliseconds start.
        hold_s: before it starts to decay.
        decay_s: time constant of the level.
        click: level of the noise in the attack.
        drive: into the distortion; 1 is nearly clean.
        bias: makes the distortion asymmetric: even harmonics.
        tone_hz: low-pass after the distortion.
    """
    fast_hz = rate_hz * _OVERSAMPLING
    t = _time(hold_s + 5 * decay_s, fast_hz)
    zap_s = 0.004
    phase = tune_hz * t + sweep_hz * sweep_s * (1 - np.exp(-t / sweep_s)) + zap_hz * zap_s * (1 - np.exp(-t / zap_s))
    level = np.exp(-np.maximum(t - hold_s, 0) / decay_s)
    noise = high_pass(_noise(draw, len(t)), min(1500, 0.1 * rate_hz), fast_hz) * np.exp(-t / 0.003)
    body = np.sin(2 * np.pi * phase) * level + 0.5 * click * noise
    driven = saturate(body + bias * level, drive)
    sound = low_pass(driven, min(tone_hz, _HIGHEST * rate_hz), fast_hz)
    return _one_shot(high_pass(_decimated(sound), 20, rate_hz), rate_hz)


def hat(
    draw: np.random.Generator,
    rate_hz: int,
    *,
    base_hz: float,
    spread: float,
    metal: float,
    cut_hz: float,
    decay_s: float,
    drive: float,
) -> np.ndarray:
    """A hi-hat `[T]`: square oscillators that share no harmonics, and noise, above `cut_hz`.

    Args:
        draw: where the oscillators' ratios, their phases and the noise come from.
        rate_hz: sampling rate.
        base_hz: lowest of the six oscillators.
        spread: the highest, as a multiple of it.
        metal: share of the oscillators; the rest is noise.
        cut_hz: high-pass.
        decay_s: time constant; 0.02 is closed, 0.2 open.
        drive: into the distortion.
    """
    t = _time(5 * decay_s, rate_hz)
    bank = _bank(draw, t, rate_hz, base_hz, spread, 6)
    sound = metal * bank / _rms(bank) + (1 - metal) * _noise(draw, len(t))
    sound = high_pass(high_pass(sound, cut_hz, rate_hz), cut_hz, rate_hz)
    level = np.exp(-t / decay_s) * (1 - np.exp(-t / 0.0004))
    return _one_shot(saturate(sound / _rms(sound) * level, drive), rate_hz)


def cymbal(
    draw: np.random.Generator,
    rate_hz: int,
    *,
    base_hz: float,
    spread: float,
    metal: float,
    cut_hz: float,
    decay_s: float,
    ping: float,
) -> np.ndarray:
    """A ride or crash `[2, T]`: a bank of squares and noise, whose highs die first; both channels differ a little.

    Args:
        draw: where the oscillators' ratios, their phases and the noise come from.
        rate_hz: sampling rate.
        base_hz: lowest oscillator.
        spread: the highest, as a multiple of it.
        metal: share of the oscillators; the rest is noise.
        cut_hz: high-pass.
        decay_s: time constant of the body.
        ping: level of the stick, which decays ten times as fast.
    """
    t = _time(4 * decay_s, rate_hz)
    bank = _bank(draw, t, rate_hz, base_hz, spread, 10)
    bank = np.stack([bank, np.roll(bank, rate_hz // 900)])
    sound = metal * bank / _rms(bank) + (1 - metal) * _noise(draw, len(t), 2)
    sound = high_pass(sound, cut_hz, rate_hz)
    bright = high_pass(sound, 7000, rate_hz)
    attack = 1 - np.exp(-t / 0.0006)
    sound = (sound - 0.6 * bright) * np.exp(-t / decay_s) + bright * np.exp(-t / (0.5 * decay_s))
    stick = high_pass(bank, 3000, rate_hz) * np.exp(-t / (0.1 * decay_s))
    return _one_shot((sound / _rms(sound) + ping * stick / _rms(stick)) * attack, rate_hz)


def clap(
    draw: np.random.Generator,
    rate_hz: int,
    *,
    centre_hz: float,
    bandwidth: float,
    bursts: int,
    spacing_s: float,
    decay_s: float,
    drive: float,
) -> np.ndarray:
    """A hand clap `[2, T]`: a few bursts of band-passed noise, then their tail, which is wide.

    Args:
        draw: where the noise comes from.
        rate_hz: sampling rate.
        centre_hz: middle of the band.
        bandwidth: its width in octaves.
        bursts: hands, the last of which has the tail.
        spacing_s: between them.
        decay_s: time constant of the tail.
        drive: into the distortion.
    """
    t = _time(spacing_s * bursts + 6 * decay_s, rate_hz)
    level = np.zeros_like(t)
    for burst in range(bursts):
        since = t - burst * spacing_s
        level += np.where(since >= 0, np.exp(-np.maximum(since, 0) / (0.35 * spacing_s)), 0)
    tail = t - (bursts - 1) * spacing_s
    tail = np.where(tail >= 0, np.exp(-np.maximum(tail, 0) / decay_s), 0)
    edges_hz = centre_hz * 2 ** (-bandwidth / 2), centre_hz * 2 ** (bandwidth / 2)
    middle, sides = _noise(draw, len(t)), _noise(draw, len(t), 2)
    sound = middle * (level + 0.35 * tail) + 0.3 * sides * tail
    sound = low_pass(high_pass(sound, edges_hz[0], rate_hz), edges_hz[1], rate_hz)
    return _one_shot(saturate(sound / _rms(sound), drive), rate_hz)


def snare(
    draw: np.random.Generator, rate_hz: int, *, tune_hz: float, snap: float, cut_hz: float, decay_s: float
) -> np.ndarray:
    """A snare drum `[T]`: two falling tones and a rattle of noise.

    Args:
        draw: where the noise comes from.
        rate_hz: sampling rate.
        tune_hz: of the lower tone.
        snap: share of the noise.
        cut_hz: high-pass of the noise.
        decay_s: time constant.
    """
    t = _time(6 * decay_s, rate_hz)
    phase = tune_hz * (t + 0.6 * 0.012 * (1 - np.exp(-t / 0.012)))
    tones = (np.sin(2 * np.pi * phase) + 0.6 * np.sin(2 * np.pi * 1.73 * phase)) * np.exp(-t / (0.5 * decay_s))
    noise = high_pass(_noise(draw, len(t)), cut_hz, rate_hz) * np.exp(-t / decay_s)
    return _one_shot(saturate((1 - snap) * tones + snap * noise, 1.5), rate_hz)


def tom(draw: np.random.Generator, rate_hz: int, *, tune_hz: float, decay_s: float) -> np.ndarray:
    """A tom `[T]`: a tone that falls by a fifth to `tune_hz`, with time constant `decay_s`."""
    t = _time(5 * decay_s, rate_hz)
    phase = tune_hz * (t + 0.5 * 0.04 * (1 - np.exp(-t / 0.04)))
    noise = low_pass(_noise(draw, len(t)), 2500, rate_hz) * np.exp(-t / 0.015)
    return _one_shot(saturate(np.sin(2 * np.pi * phase) * np.exp(-t / decay_s) + 0.3 * noise, 1.8), rate_hz)


# ------------------------------------------------------------------------------------------------------------- metal


def metal_fm(
    draw: np.random.Generator, rate_hz: int, *, tune_hz: float, ratio: float, index: float, decay_s: float, drive: float
) -> np.ndarray:
    """A struck plate `[T]` by frequency modulation.

    Args:
        draw: where the phases come from.
        rate_hz: sampling rate.
        tune_hz: the carrier.
        ratio: modulator to carrier; not a simple fraction, or it is a note.
        index: of the modulation when struck.
        decay_s: time constant of the level; the modulation decays twice as fast.
        drive: into the distortion.
    """
    fast_hz = rate_hz * _OVERSAMPLING
    t = _time(5 * decay_s, fast_hz)
    modulator = np.sin(2 * np.pi * (tune_hz * ratio * t + draw.uniform()))
    inner = np.sin(2 * np.pi * tune_hz * ratio * 1.414 * t) * np.exp(-t / (0.3 * decay_s))
    bent = index * np.exp(-t / (0.5 * decay_s)) * (modulator + 0.6 * inner)
    sound = saturate(np.sin(2 * np.pi * tune_hz * t + bent) * np.exp(-t / decay_s), drive)
    return _one_shot(high_pass(_decimated(sound), 150, rate_hz), rate_hz)


def metal_ring(
    draw: np.random.Generator, rate_hz: int, *, tune_hz: float, ratio: float, index: float, decay_s: float, drive: float
) -> np.ndarray:
    """Scraped sheet metal `[T]`: noise that a product of square waves chops. Arguments as for `metal_fm`."""
    t = _time(5 * decay_s, rate_hz)
    chopped = np.sign(np.sin(2 * np.pi * tune_hz * t)) * np.sign(np.sin(2 * np.pi * tune_hz * ratio * t))
    grain = band_pass(_noise(draw, len(t)), tune_hz * (1 + ratio), rate_hz)
    sound = (0.7 * chopped + index * grain / _rms(grain)) * np.exp(-t / decay_s)
    return _one_shot(high_pass(saturate(sound, drive), 250, rate_hz), rate_hz)


def metal_comb(
    draw: np.random.Generator, rate_hz: int, *, tune_hz: float, ratio: float, index: float, decay_s: float, drive: float
) -> np.ndarray:
    """A pipe that is hit `[T]`: a burst of noise in two feedback combs. Arguments as for `metal_fm`."""
    length_s = 5 * decay_s
    t = _time(length_s, rate_hz)
    burst = _noise(draw, len(t)) * np.exp(-t / (0.002 * (1 + index)))
    sound = np.zeros_like(burst)
    for hz in (tune_hz, tune_hz * ratio):
        delay = max(2, round(rate_hz / min(hz, _HIGHEST * rate_hz)))
        sound += echoes(burst, delay, math.exp(-delay / (rate_hz * decay_s))) + burst
    sound = sound / max(1e-9, float(np.abs(sound).max())) * np.exp(-t / (2 * decay_s))
    return _one_shot(high_pass(saturate(sound, drive), 200, rate_hz), rate_hz)


METAL = {"fm": metal_fm, "ring": metal_ring, "comb": metal_comb}


# ------------------------------------------------------------------------------------------------------- synthesiser


@_compiled
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


@_compiled
def oscillator(starts, hz, slides, glide_s, shape, rate_hz):
    """A saw or square wave `[starts[-1] - starts[0]]`, band-limited, that plays one note a step.

    Args:
        starts: int64 `[S + 1]`, the first sample of each step, and the end.
        hz: float64 `[S]`, the notes.
        slides: bool `[S]`: whether the pitch glides into this step from the one before.
        glide_s: time constant of the glide.
        shape: 0 is a saw, 1 a square.
        rate_hz: sampling rate.

    *Source*: the steps are smoothed by polyBLEP (Välimäki, Pekonen and Nam, "Perceptually informed synthesis of
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


@_compiled
def ladder(audio, cutoff_hz, resonance, rate_hz):
    """Four one-pole low-passes in a row with feedback around them, `[T]`; what is fed back saturates.

    For small signals it is 1 / ((1 + s / c)^4 + k), c the cutoff and k the resonance, brought to this rate by the
    bilinear transform with its cutoff in place. At k = 4 it oscillates.

    Args:
        audio: float32 `[T]`.
        cutoff_hz: float `[T // CONTROL_SAMPLES + 2]`, connected by lines.
        resonance: float, likewise: k, from 0 to below 4.
        rate_hz: sampling rate.

    *Source*: the delay-free feedback is Zavalishin's ("The Art of VA Filter Design", 2.1.2, chapter 5).
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
            x = audio[n] + _SETTLED
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


@_compiled
def _pole(cutoff_hz, rate_hz):
    """Gain of one trapezoidal integrator with feedback at this cutoff."""
    g = math.tan(math.pi * min(max(cutoff_hz, 10.0), _HIGHEST * rate_hz) / rate_hz)
    return g / (1 + g)


@_compiled
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

    *Source*: the trapezoidal state-variable filter (Zavalishin, "The Art of VA Filter Design", chapter 4).
    """
    out = np.empty_like(audio)
    first = second = 0.0
    damping = 1 / q
    g = math.tan(math.pi * min(max(cutoff_hz[0], 10.0), _HIGHEST * rate_hz) / rate_hz)
    for frame in range(-(-len(audio) // CONTROL_SAMPLES)):
        next_g = math.tan(math.pi * min(max(cutoff_hz[frame + 1], 10.0), _HIGHEST * rate_hz) / rate_hz)
        g_step = (next_g - g) / CONTROL_SAMPLES
        for n in range(frame * CONTROL_SAMPLES, min(len(audio), (frame + 1) * CONTROL_SAMPLES)):
            x = audio[n] + _SETTLED
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

    *Source*: Parker, Zavalishin and Le Bivic, "Reducing the aliasing of nonlinear waveshaping using continuous-time
    convolution", DAFx 2016; for this curve the quotient of differences simplifies to one of sums, which never is 0 / 0.
    """
    audio = np.ascontiguousarray(audio, np.float32)
    return _saturate(audio.reshape(-1, audio.shape[-1]), np.float32(drive)).reshape(audio.shape)


@_compiled
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


# ------------------------------------------------------------------------------------------------------------- space


@_compiled
def _network(send, lengths, gains, damping, low_cut):
    """A feedback delay network: `[T]` to `[2, T]`; see `reverb`."""
    out = np.empty((2, len(send)), np.float32)
    count = len(lengths)
    lines = np.zeros((count, lengths.max()), np.float32)
    places = np.zeros(count, np.int64)
    smooth = np.zeros(count, np.float32)
    slow = slower = np.float32(0)
    for n in range(len(send)):
        x = send[n] + np.float32(_SETTLED)
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

    *Source*: Jot and Chaigne, "Digital delay networks for designing artificial reverberators", AES 90, 1991.
    """
    # Lengths a constant ratio apart, made odd: no two share an echo for long.
    lengths = np.maximum(3, np.round(size_s * rate_hz * 0.83 ** np.arange(8)).astype(np.int64) | 1)
    gains = (10 ** (-3 * lengths / (decay_s * rate_hz))).astype(np.float32)
    damping = np.float32(1 - _smoothing(damping_hz, rate_hz))
    return _network(send, lengths, gains, damping, np.float32(_smoothing(low_cut_hz, rate_hz)))


@_compiled
def _bounces(send, delay_samples, feedback, high_cut, low_cut):
    """Two delays that feed each other: `[T]` to `[2, T]`; see `ping_pong`."""
    out = np.empty((2, len(send)), np.float32)
    lines = np.zeros((2, delay_samples), np.float32)
    slow = slower = dark = np.float32(0)
    place = 0
    for n in range(len(send)):
        x = send[n] + np.float32(_SETTLED)
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
    return 1 - math.exp(-2 * math.pi * min(cutoff_hz, _HIGHEST * rate_hz) / rate_hz)


@_compiled
def add(bus, sound, start, level):
    """Adds a sound to a bus, both `[C, T]`, from `start` on, as far as the bus goes."""
    count = max(0, min(sound.shape[1], bus.shape[1] - start))
    for c in range(bus.shape[0]):
        # Views that start at 0 let the compiler see that no index is negative, and so do many at a time.
        room, piece = bus[c, start : start + count], sound[c, :count]
        for n in range(count):
            room[n] += level * piece[n]


@_compiled
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
    t = _time(5 * decay_s, rate_hz)
    wet = signal.oaconvolve(kick_sound, _noise(draw, len(t)) * np.exp(-t / decay_s)).astype(np.float32)
    wet = low_pass(high_pass(wet, 35, rate_hz), cut_hz, rate_hz)
    loop = np.zeros(samples, np.float32)
    for start, level in hits:
        _add_around(loop, wet, start, level)
    # Twice around: the second time the filter has forgotten that there was a start.
    twice = np.tile(saturate(loop / _rms(loop), drive), 2)
    loop = high_pass(low_pass(twice, 2.5 * cut_hz, rate_hz), 24, rate_hz)[samples:]
    return loop / _rms(loop)


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
    centre_hz = min(centre_hz, _HIGHEST * rate_hz)
    shape = np.zeros(len(hz) + 1, np.float32)
    shape[1:] = np.minimum(hz / centre_hz, centre_hz / hz) ** tilt * (hz > 200)
    out = fft.irfft(fft.rfft(_noise(draw, samples, 2)) * shape, samples)
    return out / _rms(out)


def echoes(send: np.ndarray, delay_samples: int, feedback: float) -> np.ndarray:
    """The repetitions of `send` `[T]`, without itself: each `delay_samples` after the last and `feedback` as loud."""
    out = np.zeros_like(send)
    for start in range(delay_samples, len(send), delay_samples):
        now = slice(start, min(start + delay_samples, len(send)))
        before = slice(start - delay_samples, now.stop - delay_samples)
        out[now] = np.float32(feedback) * out[before] + send[before]
    return out


# ------------------------------------------------------------------------------------------------------ fixed filters


def low_pass(audio: np.ndarray, cutoff_hz: float, rate_hz: int) -> np.ndarray:
    """Second-order Butterworth low-pass of the last axis; a cutoff above what the rate holds is brought below it."""
    return _butterworth(audio, "lowpass", cutoff_hz, rate_hz)


def high_pass(audio: np.ndarray, cutoff_hz: float, rate_hz: int) -> np.ndarray:
    """Second-order Butterworth high-pass of the last axis; see `low_pass`."""
    return _butterworth(audio, "highpass", cutoff_hz, rate_hz)


def band_pass(audio: np.ndarray, centre_hz: float, rate_hz: int) -> np.ndarray:
    """Butterworth band-pass of the last axis, an octave wide; see `low_pass`."""
    centre_hz = min(centre_hz, 0.6 * _HIGHEST * rate_hz)
    return low_pass(high_pass(audio, centre_hz / 2**0.5, rate_hz), centre_hz * 2**0.5, rate_hz)


def _butterworth(audio: np.ndarray, kind: str, cutoff_hz: float, rate_hz: int) -> np.ndarray:
    sos = signal.butter(2, min(cutoff_hz, _HIGHEST * rate_hz), kind, fs=rate_hz, output="sos")
    # In float32 the low cutoffs' poles are too close to 1; scipy filters in the wider of the two types.
    return signal.sosfilt(sos.astype(np.float64), audio, axis=-1).astype(np.float32)


# ------------------------------------------------------------------------------------------------------------ pieces


def _time(seconds: float, rate_hz: int) -> np.ndarray:
    return np.arange(max(16, round(seconds * rate_hz)), dtype=np.float32) / np.float32(rate_hz)


def _noise(draw: np.random.Generator, samples: int, channels: int | None = None) -> np.ndarray:
    return draw.standard_normal(samples if channels is None else (channels, samples), np.float32)


def _rms(audio: np.ndarray) -> np.float32:
    return np.float32(max(1e-9, math.sqrt(float(np.mean(np.square(audio, dtype=np.float64))))))


def _bank(
    draw: np.random.Generator, t: np.ndarray, rate_hz: int, base_hz: float, spread: float, count: int
) -> np.ndarray:
    """Sum of `count` square waves from `base_hz` to `spread` times that, each a random step above the one before."""
    steps = np.cumsum(draw.uniform(0.5, 1.5, count))
    hz = base_hz * spread ** ((steps - steps[0]) / (steps[-1] - steps[0]))
    out = np.zeros_like(t)
    for one_hz, start in zip(hz, draw.uniform(size=count), strict=True):
        phase = t * np.float32(min(one_hz, 0.4 * rate_hz)) + np.float32(start)
        out += np.where(phase - np.floor(phase) < 0.5, np.float32(1), np.float32(-1))
    return out


def _decimated(audio: np.ndarray) -> np.ndarray:
    return signal.resample_poly(audio, 1, _OVERSAMPLING, axis=-1).astype(np.float32)


def _one_shot(sound: np.ndarray, rate_hz: int) -> np.ndarray:
    """With a peak of 1, and its last 5 ms faded out."""
    sound = sound / np.float32(max(1e-9, float(np.abs(sound).max())))
    fade = min(sound.shape[-1], max(1, round(0.005 * rate_hz)))
    sound[..., -fade:] *= np.linspace(1, 0, fade, dtype=np.float32)
    return sound.astype(np.float32)


def _add_around(loop: np.ndarray, sound: np.ndarray, start: int, level: float) -> None:
    """Adds a sound to a loop, at whose end it goes on at the start."""
    for place in range(0, len(sound), len(loop)):
        piece = sound[place : place + len(loop)] * np.float32(level)
        first = piece[: len(loop) - start]
        loop[start : start + len(first)] += first
        loop[: len(piece) - len(first)] += piece[len(first) :]
