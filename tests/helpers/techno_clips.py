"""Clips whose features are known."""

import numpy as np

RATE = 16000


def sine(hz, seconds, rate=RATE, phase=0.0):
    return np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate + phase)[:, None]


def noise(seconds, rate=RATE, channels=1, seed=0):
    return 0.1 * np.random.default_rng(seed).standard_normal((round(seconds * rate), channels))


def four_to_the_floor(bpm=132.0, beats=8, rate=RATE, seed=0):
    """A seamless loop of a kick, an off-beat hat and a line of three sixteenths after each kick, `[T, 1]`."""
    rng = np.random.default_rng(seed)
    audio = np.zeros(round(beats * 60 / bpm * rate))
    t = np.arange(round(0.3 * rate)) / rate
    kick = np.sin(2 * np.pi * (50 * t + 4.5 * (1 - np.exp(-t / 0.03)))) * np.exp(-t / 0.1)
    t = np.arange(round(0.05 * rate)) / rate
    hat = rng.standard_normal(len(t)) * np.exp(-t / 0.015)
    t = np.arange(round(0.09 * rate)) / rate
    notes_hz = rng.choice([220, 247, 262, 330], 3)
    line = [(np.sin(2 * np.pi * hz * t) + np.sin(4 * np.pi * hz * t)) * np.exp(-t / 0.04) for hz in notes_hz]

    def hit(place, sound, level):
        start = round(place * 60 / bpm * rate)
        audio[(start + np.arange(len(sound))) % len(audio)] += level * sound

    for beat in range(beats):
        hit(beat, kick, 0.8)
        hit(beat + 0.5, hat, 0.15)
        for step, note in enumerate(line, 1):
            hit(beat + step / 4, note, 0.1)
    return 0.9 * audio[:, None] / np.abs(audio).max()
