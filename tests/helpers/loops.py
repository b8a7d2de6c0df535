"""Loops for tests: a bar of techno, mono; a track is a seed, its takes differ in what a player would vary."""

import functools

import numpy as np
from scipy import signal

RATE_HZ = 16000
TEMPOS_BPM = (126, 132, 138)  # few, as each length of clip is one compilation


def render(track, take):
    """One loop `[T, 1]`, float64, its peak at 0.5."""
    rng = np.random.default_rng([7, track])
    tempo_bpm = TEMPOS_BPM[track % len(TEMPOS_BPM)]
    steps = np.rint(np.arange(16) * 15 / tempo_bpm * RATE_HZ).astype(int)
    samples = round(24000 / tempo_bpm) * (RATE_HZ // 100)  # whole frames of 10 ms
    time_s = np.arange(RATE_HZ // 3) / RATE_HZ

    def burst(decay_s):
        return np.exp(-time_s / decay_s)

    sweep_hz = rng.uniform(42, 62) + rng.uniform(100, 300) * burst(rng.uniform(0.01, 0.03))
    kick = np.tanh(rng.uniform(1, 4) * np.sin(2 * np.pi * np.cumsum(sweep_hz) / RATE_HZ)) * burst(
        rng.uniform(0.08, 0.2)
    )
    hat_hz, hat_decay_s, hat_level = rng.uniform(2500, 6000), rng.uniform(0.01, 0.06), rng.uniform(0.05, 0.3)
    hat_pattern = np.where(rng.random(16) < rng.uniform(0.2, 0.9), rng.uniform(0.3, 1, 16), 0)
    hat_pattern[2::4] = 1
    bass_pattern = np.where(rng.random(16) < rng.uniform(0.2, 0.7), rng.uniform(0.4, 1, 16), 0)
    bass_hz = rng.uniform(60, 110) * 2 ** (rng.integers(0, 12, 16) / 12)
    bass_level, bass_decay_s = rng.uniform(0.1, 0.5), rng.uniform(0.05, 0.2)
    bass_filter = signal.butter(2, rng.uniform(300, 3000), fs=RATE_HZ, output="sos")
    clap_level, clap_decay_s = rng.uniform(0, 0.4), rng.uniform(0.03, 0.1)
    hiss_db = rng.uniform(-70, -55)

    rng = np.random.default_rng([7, track, 1 + take])
    hat_filter = signal.butter(4, hat_hz, "high", fs=RATE_HZ, output="sos")
    bar = 10 ** (hiss_db / 20) * rng.standard_normal(samples)

    def add(sound, start, level):
        np.add.at(bar, (start + np.arange(len(sound))) % samples, level * sound)

    for step, start in enumerate(steps):
        if step % 4 == 0:
            add(kick, start, rng.uniform(0.9, 1))
        if step % 8 == 4:
            add(rng.standard_normal(len(time_s)) * burst(clap_decay_s), start, 0.3 * clap_level)
        if hat_pattern[step]:
            noise = signal.sosfilt(hat_filter, rng.standard_normal(len(time_s)))
            add(noise * burst(hat_decay_s), start, hat_level * hat_pattern[step] * rng.uniform(0.7, 1))
        if bass_pattern[step] and rng.random() < 0.85:
            saw = signal.sosfilt(bass_filter, signal.sawtooth(2 * np.pi * bass_hz[step] * time_s))
            add(saw * burst(bass_decay_s), start, bass_level * bass_pattern[step])
    return 0.5 * bar[:, None] / np.abs(bar).max()


@functools.cache
def corpus(first, tracks, takes=2):
    """(loops, their tracks): `takes` loops of each of the tracks from `first` on."""
    ids = np.repeat(np.arange(first, first + tracks), takes)
    return [render(track, index % takes) for index, track in enumerate(ids)], ids


def change_speed(audio, factor):
    """The whole loop `[T, C]` played `factor` times as fast, tempo and pitch alike."""
    return signal.resample(np.asarray(audio, np.float64), round(len(audio) / factor), axis=0)
