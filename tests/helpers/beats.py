"""Drums at given times, for tests of tempo: nothing else knows to the sample where a beat is."""

import numpy as np


def beat_times(bpm, seconds, first_s=0.0):
    """Times of the beats of a steady tempo."""
    return np.arange(first_s, seconds, 60 / bpm)


def drums(seconds, rate_hz, kicks_s=(), hats_s=(), kick_levels=None):
    """`[T]` float32: kicks, each of which starts on the sample nearest to its time, and hats."""
    t = np.arange(round(0.15 * rate_hz)) / rate_hz
    noise = np.random.default_rng(0).standard_normal(len(t))
    kick = np.cos(2 * np.pi * (50 * t + 4 * (1 - np.exp(-t / 0.02)))) * np.exp(-t / 0.04)
    hat = 0.4 * noise * np.exp(-t / 0.02)
    out = np.zeros(round(seconds * rate_hz) + len(t), np.float32)
    levels = np.ones(len(kicks_s)) if kick_levels is None else kick_levels
    for sound, times, gains in ((kick, kicks_s, levels), (hat, hats_s, np.ones(len(hats_s)))):
        for time_s, gain in zip(times, gains, strict=True):
            start = round(time_s * rate_hz)
            out[start : start + len(t)] += gain * sound[: max(0, len(out) - start)]
    return 0.5 * out[: round(seconds * rate_hz)]
