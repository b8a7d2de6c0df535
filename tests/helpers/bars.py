"""Bars that loop, for tests of TechnoGAN and its codec."""

import numpy as np
import scipy.signal

# A bar of 1.792 s, 134 beats a minute: whole hops, so that nothing is resampled.
SMALL = dict(clip_samples=14336, audio_channels=2, sample_rate_hz=8000, frames_per_step=4, n_mels=16)
PARTS = dict(mid_components=12, side_components=3, low_components=10, pan_components=2)
TONES = dict(pitch_components=6, partial_components=5, side_partial_components=4)  # more parts, where there is a shaper


def bar(seed, options=SMALL, channels=2):
    """A bar that loops, `[T, channels]`: four kicks, off-beat hats to one side, a tone that lasts."""
    samples, rate_hz = options["clip_samples"], options["sample_rate_hz"]
    rng = np.random.default_rng(seed)
    beat_s = samples / rate_hz / 4
    time_s = np.arange(samples) / rate_hz
    since_s = time_s % beat_s
    kick = np.sin(2 * np.pi * (50 * since_s + 3 * (1 - np.exp(-40 * since_s)))) * np.exp(-9 * since_s)
    hat = rng.standard_normal(samples) * np.exp(-60 * ((time_s + beat_s / 2) % beat_s))
    tone = np.sin(2 * np.pi * rng.integers(600, 2000) * time_s * rate_hz / samples)
    mid, side = 0.6 * rng.uniform(0.5, 1) * kick + 0.02 * tone, 0.1 * hat
    return np.stack([mid + side, mid - 0.5 * side], -1)[:, :channels].astype(np.float32)


def saw(pitch_hz, samples, rate_hz):
    """A sawtooth `[samples]` whose pitch in Hz is this at each sample, or throughout."""
    return 0.3 * scipy.signal.sawtooth(2 * np.pi * np.cumsum(np.broadcast_to(pitch_hz, samples)) / rate_hz)
