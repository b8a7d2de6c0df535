"""Drums, cymbals and metal of the built-in corpus: one-shots as pure functions of a random generator.

Each returns float32 at any rate, mono `[T]` or stereo `[2, T]`, with a peak of 1 and its attack on the
first sample. Frequencies that the rate cannot hold are lowered.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from data_prep.corpus.effects import echoes
from data_prep.corpus.filters import (
    HIGHEST,
    OVERSAMPLING,
    band_pass,
    decimate,
    finish_one_shot,
    high_pass,
    low_pass,
    rms,
    square_bank,
    time_axis,
    white_noise,
)
from data_prep.corpus.synthesizer import saturate


@dataclasses.dataclass(frozen=True)
class KickParameters:
    """The sound of a bass drum.

    Attributes:
        tune_hz: frequency at the end.
        sweep_hz: how far above `tune_hz` the frequency starts its main fall.
        sweep_s: time constant of this fall.
        zap_hz: how much higher still the frequency is in the first few milliseconds.
        hold_s: time until the level starts to decay.
        decay_s: time constant of the level.
        click: level of the noise in the attack.
        drive: gain into the distortion; 1 is nearly clean.
        bias: offset into the distortion; it adds even harmonics.
        tone_hz: cutoff of the low-pass after the distortion.
    """

    tune_hz: float
    sweep_hz: float
    sweep_s: float
    zap_hz: float
    hold_s: float
    decay_s: float
    click: float
    drive: float
    bias: float
    tone_hz: float


def kick(draw: np.random.Generator, rate_hz: int, p: KickParameters) -> np.ndarray:
    """Returns a bass drum `[T]`: a sine with a falling frequency and a click, both distorted.

    Args:
        draw: generator of the click's noise.
        rate_hz: sampling rate.
        p: the sound.
    """
    fast_hz = rate_hz * OVERSAMPLING
    t = time_axis(p.hold_s + 5 * p.decay_s, fast_hz)
    zap_s = 0.004  # chosen
    sweep = p.sweep_hz * p.sweep_s * (1 - np.exp(-t / p.sweep_s))
    zap = p.zap_hz * zap_s * (1 - np.exp(-t / zap_s))
    phase = p.tune_hz * t + sweep + zap
    level = np.exp(-np.maximum(t - p.hold_s, 0) / p.decay_s)
    noise = high_pass(white_noise(draw, len(t)), min(1500, 0.1 * rate_hz), fast_hz)
    noise = noise * np.exp(-t / 0.003)
    body = np.sin(2 * np.pi * phase) * level + 0.5 * p.click * noise
    driven = saturate(body + p.bias * level, p.drive)
    sound = low_pass(driven, min(p.tone_hz, HIGHEST * rate_hz), fast_hz)
    return finish_one_shot(high_pass(decimate(sound), 20, rate_hz), rate_hz)


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
    t = time_axis(5 * decay_s, rate_hz)
    bank = square_bank(draw, t, rate_hz, base_hz, spread, 6)
    sound = metal * bank / rms(bank) + (1 - metal) * white_noise(draw, len(t))
    sound = high_pass(high_pass(sound, cut_hz, rate_hz), cut_hz, rate_hz)
    level = np.exp(-t / decay_s) * (1 - np.exp(-t / 0.0004))
    return finish_one_shot(saturate(sound / rms(sound) * level, drive), rate_hz)


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
    t = time_axis(4 * decay_s, rate_hz)
    bank = square_bank(draw, t, rate_hz, base_hz, spread, 10)
    bank = np.stack([bank, np.roll(bank, rate_hz // 900)])
    sound = metal * bank / rms(bank) + (1 - metal) * white_noise(draw, len(t), 2)
    sound = high_pass(sound, cut_hz, rate_hz)
    bright = high_pass(sound, 7000, rate_hz)
    attack = 1 - np.exp(-t / 0.0006)
    sound = (sound - 0.6 * bright) * np.exp(-t / decay_s) + bright * np.exp(-t / (0.5 * decay_s))
    stick = high_pass(bank, 3000, rate_hz) * np.exp(-t / (0.1 * decay_s))
    return finish_one_shot((sound / rms(sound) + ping * stick / rms(stick)) * attack, rate_hz)


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
    t = time_axis(spacing_s * bursts + 6 * decay_s, rate_hz)
    level = np.zeros_like(t)
    for burst in range(bursts):
        since = t - burst * spacing_s
        level += np.where(since >= 0, np.exp(-np.maximum(since, 0) / (0.35 * spacing_s)), 0)
    tail = t - (bursts - 1) * spacing_s
    tail = np.where(tail >= 0, np.exp(-np.maximum(tail, 0) / decay_s), 0)
    edges_hz = centre_hz * 2 ** (-bandwidth / 2), centre_hz * 2 ** (bandwidth / 2)
    middle, sides = white_noise(draw, len(t)), white_noise(draw, len(t), 2)
    sound = middle * (level + 0.35 * tail) + 0.3 * sides * tail
    sound = low_pass(high_pass(sound, edges_hz[0], rate_hz), edges_hz[1], rate_hz)
    return finish_one_shot(saturate(sound / rms(sound), drive), rate_hz)


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
    t = time_axis(6 * decay_s, rate_hz)
    phase = tune_hz * (t + 0.6 * 0.012 * (1 - np.exp(-t / 0.012)))
    tones = (np.sin(2 * np.pi * phase) + 0.6 * np.sin(2 * np.pi * 1.73 * phase)) * np.exp(-t / (0.5 * decay_s))
    noise = high_pass(white_noise(draw, len(t)), cut_hz, rate_hz) * np.exp(-t / decay_s)
    return finish_one_shot(saturate((1 - snap) * tones + snap * noise, 1.5), rate_hz)


def tom(draw: np.random.Generator, rate_hz: int, *, tune_hz: float, decay_s: float) -> np.ndarray:
    """A tom `[T]`: a tone that falls by a fifth to `tune_hz`, with time constant `decay_s`."""
    t = time_axis(5 * decay_s, rate_hz)
    phase = tune_hz * (t + 0.5 * 0.04 * (1 - np.exp(-t / 0.04)))
    noise = low_pass(white_noise(draw, len(t)), 2500, rate_hz) * np.exp(-t / 0.015)
    return finish_one_shot(saturate(np.sin(2 * np.pi * phase) * np.exp(-t / decay_s) + 0.3 * noise, 1.8), rate_hz)


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
    fast_hz = rate_hz * OVERSAMPLING
    t = time_axis(5 * decay_s, fast_hz)
    modulator = np.sin(2 * np.pi * (tune_hz * ratio * t + draw.uniform()))
    inner = np.sin(2 * np.pi * tune_hz * ratio * 1.414 * t) * np.exp(-t / (0.3 * decay_s))
    bent = index * np.exp(-t / (0.5 * decay_s)) * (modulator + 0.6 * inner)
    sound = saturate(np.sin(2 * np.pi * tune_hz * t + bent) * np.exp(-t / decay_s), drive)
    return finish_one_shot(high_pass(decimate(sound), 150, rate_hz), rate_hz)


def metal_ring(
    draw: np.random.Generator, rate_hz: int, *, tune_hz: float, ratio: float, index: float, decay_s: float, drive: float
) -> np.ndarray:
    """Scraped sheet metal `[T]`: noise that a product of square waves chops. Arguments as for `metal_fm`."""
    t = time_axis(5 * decay_s, rate_hz)
    chopped = np.sign(np.sin(2 * np.pi * tune_hz * t)) * np.sign(np.sin(2 * np.pi * tune_hz * ratio * t))
    grain = band_pass(white_noise(draw, len(t)), tune_hz * (1 + ratio), rate_hz)
    sound = (0.7 * chopped + index * grain / rms(grain)) * np.exp(-t / decay_s)
    return finish_one_shot(high_pass(saturate(sound, drive), 250, rate_hz), rate_hz)


def metal_comb(
    draw: np.random.Generator, rate_hz: int, *, tune_hz: float, ratio: float, index: float, decay_s: float, drive: float
) -> np.ndarray:
    """A pipe that is hit `[T]`: a burst of noise in two feedback combs. Arguments as for `metal_fm`."""
    length_s = 5 * decay_s
    t = time_axis(length_s, rate_hz)
    burst = white_noise(draw, len(t)) * np.exp(-t / (0.002 * (1 + index)))
    sound = np.zeros_like(burst)
    for hz in (tune_hz, tune_hz * ratio):
        delay = max(2, round(rate_hz / min(hz, HIGHEST * rate_hz)))
        sound += echoes(burst, delay, math.exp(-delay / (rate_hz * decay_s))) + burst
    sound = sound / max(1e-9, float(np.abs(sound).max())) * np.exp(-t / (2 * decay_s))
    return finish_one_shot(high_pass(saturate(sound, drive), 200, rate_hz), rate_hz)


METAL = {"fm": metal_fm, "ring": metal_ring, "comb": metal_comb}
