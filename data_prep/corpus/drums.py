"""One-shot drums, cymbals and metallic sounds of the built-in corpus.

Each function depends only on its arguments, including a random generator. It returns float32 audio
at any sampling rate, mono `[T]` or stereo `[2, T]`. The peak is 1, and the attack is at the first
sample. Frequencies too high for the sampling rate are lowered.
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
    """Returns a hi-hat `[T]`: six inharmonic square oscillators and noise, high-passed.

    Args:
        draw: generator of the oscillators' ratios and phases and of the noise.
        rate_hz: sampling rate.
        base_hz: frequency of the lowest oscillator.
        spread: frequency of the highest oscillator divided by that of the lowest.
        metal: share of the oscillators, 0 to 1; the rest is noise.
        cut_hz: cutoff of the high-pass.
        decay_s: time constant of the level; 0.02 is a closed hat, 0.2 an open one.
        drive: gain into the distortion.
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
    """Returns a ride or crash cymbal `[2, T]`: ten square oscillators and noise.

    High frequencies decay first. The two channels differ a little.

    Args:
        draw: generator of the oscillators' ratios and phases and of the noise.
        rate_hz: sampling rate.
        base_hz: frequency of the lowest oscillator.
        spread: frequency of the highest oscillator divided by that of the lowest.
        metal: share of the oscillators, 0 to 1; the rest is noise.
        cut_hz: cutoff of the high-pass.
        decay_s: time constant of the level.
        ping: level of the stick's attack, which decays ten times as fast.
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
    """Returns a hand clap `[2, T]`: a few bursts of band-passed noise and a stereo tail.

    Args:
        draw: generator of the noise.
        rate_hz: sampling rate.
        centre_hz: centre of the band.
        bandwidth: width of the band in octaves.
        bursts: number of bursts; the tail begins at the last one.
        spacing_s: time between two bursts.
        decay_s: time constant of the tail.
        drive: gain into the distortion.
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
    """Returns a snare drum `[T]`: two tones with falling frequencies, and noise.

    Args:
        draw: generator of the noise.
        rate_hz: sampling rate.
        tune_hz: final frequency of the lower tone.
        snap: share of the noise, 0 to 1.
        cut_hz: cutoff of the noise's high-pass.
        decay_s: time constant of the noise; the tones decay twice as fast.
    """
    t = time_axis(6 * decay_s, rate_hz)
    phase = tune_hz * (t + 0.6 * 0.012 * (1 - np.exp(-t / 0.012)))
    tones = (np.sin(2 * np.pi * phase) + 0.6 * np.sin(2 * np.pi * 1.73 * phase)) * np.exp(-t / (0.5 * decay_s))
    noise = high_pass(white_noise(draw, len(t)), cut_hz, rate_hz) * np.exp(-t / decay_s)
    return finish_one_shot(saturate((1 - snap) * tones + snap * noise, 1.5), rate_hz)


def tom(draw: np.random.Generator, rate_hz: int, *, tune_hz: float, decay_s: float) -> np.ndarray:
    """Returns a tom `[T]`: a tone with a falling frequency, and a short burst of noise.

    Args:
        draw: generator of the noise.
        rate_hz: sampling rate.
        tune_hz: final frequency; the tone starts a fifth above it.
        decay_s: time constant of the level.
    """
    t = time_axis(5 * decay_s, rate_hz)
    phase = tune_hz * (t + 0.5 * 0.04 * (1 - np.exp(-t / 0.04)))
    noise = low_pass(white_noise(draw, len(t)), 2500, rate_hz) * np.exp(-t / 0.015)
    return finish_one_shot(saturate(np.sin(2 * np.pi * phase) * np.exp(-t / decay_s) + 0.3 * noise, 1.8), rate_hz)


def metal_fm(
    draw: np.random.Generator, rate_hz: int, *, tune_hz: float, ratio: float, index: float, decay_s: float, drive: float
) -> np.ndarray:
    """Returns the sound of a metal plate `[T]`, synthesized by frequency modulation.

    Args:
        draw: generator of the modulator's phase.
        rate_hz: sampling rate.
        tune_hz: frequency of the carrier.
        ratio: frequency of the modulator divided by that of the carrier; a simple fraction gives a
            harmonic sound.
        index: modulation index at the attack.
        decay_s: time constant of the level; the modulation decays twice as fast.
        drive: gain into the distortion.
    """
    fast_hz = rate_hz * OVERSAMPLING
    t = time_axis(5 * decay_s, fast_hz)
    modulator = np.sin(2 * np.pi * (tune_hz * ratio * t + draw.uniform()))
    inner = np.sin(2 * np.pi * tune_hz * ratio * 1.414 * t) * np.exp(-t / (0.3 * decay_s))
    modulation = index * np.exp(-t / (0.5 * decay_s)) * (modulator + 0.6 * inner)
    sound = saturate(np.sin(2 * np.pi * tune_hz * t + modulation) * np.exp(-t / decay_s), drive)
    return finish_one_shot(high_pass(decimate(sound), 150, rate_hz), rate_hz)


def metal_ring(
    draw: np.random.Generator, rate_hz: int, *, tune_hz: float, ratio: float, index: float, decay_s: float, drive: float
) -> np.ndarray:
    """Returns the sound of scraped metal `[T]`: a product of two square waves, and noise.

    Args:
        draw: generator of the noise.
        rate_hz: sampling rate.
        tune_hz: frequency of the first square wave.
        ratio: frequency of the second square wave divided by that of the first.
        index: level of the noise.
        decay_s: time constant of the level.
        drive: gain into the distortion.
    """
    t = time_axis(5 * decay_s, rate_hz)
    squares = np.sign(np.sin(2 * np.pi * tune_hz * t)) * np.sign(np.sin(2 * np.pi * tune_hz * ratio * t))
    noise = band_pass(white_noise(draw, len(t)), tune_hz * (1 + ratio), rate_hz)
    sound = (0.7 * squares + index * noise / rms(noise)) * np.exp(-t / decay_s)
    return finish_one_shot(high_pass(saturate(sound, drive), 250, rate_hz), rate_hz)


def metal_comb(
    draw: np.random.Generator, rate_hz: int, *, tune_hz: float, ratio: float, index: float, decay_s: float, drive: float
) -> np.ndarray:
    """Returns the sound of a metal pipe `[T]`: a burst of noise through two feedback comb filters.

    Args:
        draw: generator of the noise.
        rate_hz: sampling rate.
        tune_hz: fundamental frequency of the first comb filter.
        ratio: fundamental frequency of the second comb filter divided by that of the first.
        index: sets the length of the burst: its time constant is 2 ms times `1 + index`.
        decay_s: time constant of the comb filters; the whole sound decays with twice this constant.
        drive: gain into the distortion.
    """
    t = time_axis(5 * decay_s, rate_hz)
    burst = white_noise(draw, len(t)) * np.exp(-t / (0.002 * (1 + index)))
    sound = np.zeros_like(burst)
    for hz in (tune_hz, tune_hz * ratio):
        delay = max(2, round(rate_hz / min(hz, HIGHEST * rate_hz)))
        sound += echoes(burst, delay, math.exp(-delay / (rate_hz * decay_s))) + burst
    sound = sound / max(1e-9, float(np.abs(sound).max())) * np.exp(-t / (2 * decay_s))
    return finish_one_shot(high_pass(saturate(sound, drive), 200, rate_hz), rate_hz)


# The keys are stored in the parameters of a composed track.
METAL = {"fm": metal_fm, "ring": metal_ring, "comb": metal_comb}
