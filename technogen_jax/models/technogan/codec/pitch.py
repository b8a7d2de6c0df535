"""The pitch of the mid signal: detection, features for the code, and back.

A pitch is a place on a circle. Its features are the first eight cosines and sines of that place,
multiplied by the confidence that there is a pitch. Features change without jumps, so that principal
components and a generator can blend them. `decode_pitch` takes the pitch whose cosines and sines
are most alike. The features of two distant pitches cancel in their mean, which then has a low
confidence. A sixteenth has two pitches, one for each half, so that notes can slide.

Reference: kernels on square roots of magnitudes, harmonics weighted by their roots: Camacho, Harris
2008 (J. Acoust. Soc. Am. 124(3)), SWIPE. Here kernels are bells, not cosines, and the spectrum is
divided by its surroundings.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from technogen_jax.models.technogan.codec import salience

RANGE_HZ = (55.0, 880.0)  # the lowest and the highest pitch: four octaves
_HARMONICS = 8  # cosines of the circle, and as many sines
FEATURES = 2 * 2 * _HARMONICS  # D, of a sixteenth: cosines and sines of two pitches
QUARTER_TONES = 4 * 24 + 1  # pitches of a generated note: four octaves, both ends included
_CIRCLE_OCTAVES = 5  # one more than the range, so that the lowest pitch is not beside the highest
_CANDIDATES_PER_OCTAVE = 96  # of detection: an eighth of a semitone, with a parabola between
_DECODED_PER_OCTAVE = 240  # of decoding: five cents
# Kernel strengths of confidence 0 and 1. White noise reaches the first once in a thousand frames;
# above the second no pitch of the test signals is wrong.
_STRENGTHS = (0.25, 0.5)
# Width of a bell: of a Hann window's peak, and half the distance of two candidates.
_WIDTH_BINS, _WIDTH_SHARE = 0.9, 0.003
_HARMONICS_HZ = (180.0, 5000.0)  # where harmonics are looked for: above the kick


def find_pitch(signal: jax.Array, rate_hz: float, steps: int) -> tuple[jax.Array, jax.Array]:
    """Detects the pitch of each half of a sixteenth.

    Args:
        signal: loops `[B, T]`, T a multiple of `2 * steps`.
        rate_hz: their sample rate.
        steps: S, sixteenths in a loop.

    Returns:
        (place on the circle in [0, 1), confidence in [0, 1]), `[B, 2 S]` each.
    """
    n_fft = signal.shape[-1] // steps
    _, ratio, bins_hz = salience.measure_salience(signal, n_fft, n_fft // 2, rate_hz, _HARMONICS_HZ[1])
    is_used = (bins_hz >= _HARMONICS_HZ[0]) & (bins_hz <= _HARMONICS_HZ[1])
    kernels, spectrum = _kernels(rate_hz / n_fft, tuple(bins_hz[is_used])), jnp.sqrt(ratio[..., is_used])
    spectrum = spectrum - spectrum.mean(-1, keepdims=True)
    least = 0.25 * spectrum.shape[-1] ** 0.5  # a spectrum as even as silence has no pitch
    length = jnp.linalg.norm(spectrum, axis=-1, keepdims=True)
    strength = jnp.matmul(spectrum / jnp.maximum(length, least), kernels, precision="highest")
    best = jnp.clip(jnp.argmax(strength, -1), 1, strength.shape[-1] - 2)[..., None]
    before, peak, after = (jnp.take_along_axis(strength, best + i, -1)[..., 0] for i in (-1, 0, 1))
    curve = before - 2 * peak + after
    shift = jnp.where(curve < -1e-6, 0.5 * (before - after) / jnp.minimum(curve, -1e-6), 0.0)
    place = (best[..., 0] + jnp.clip(shift, -0.5, 0.5)) / (_CANDIDATES_PER_OCTAVE * _CIRCLE_OCTAVES)
    return place, salience.rescale(peak, _STRENGTHS)


def encode_pitch(place: jax.Array, confidence: jax.Array) -> jax.Array:
    """The features `[B, S, FEATURES]` of places and confidences `[B, 2 S]`."""
    angles = 2 * np.pi * place[..., None] * np.arange(1, _HARMONICS + 1)
    features = confidence[..., None] * jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], -1)
    return features.reshape(len(place), -1, FEATURES)


def decode_pitch(features: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(pitch in Hz, confidence in [0, 1]), `[B, 2 S]` each, of features `[B, S, FEATURES]`."""
    octaves = np.log2(RANGE_HZ[1] / RANGE_HZ[0])
    places = np.arange(int(octaves * _DECODED_PER_OCTAVE) + 1) / (_DECODED_PER_OCTAVE * _CIRCLE_OCTAVES)
    waves = circle_features(places, _HARMONICS) / _HARMONICS
    likeness = jnp.matmul(features.reshape(len(features), -1, 2 * _HARMONICS), waves)
    pitch_hz = jnp.asarray(circle_hz(places), jnp.float32)[jnp.argmax(likeness, -1)]
    return pitch_hz, jnp.clip(jnp.max(likeness, -1), 0, 1)


def quarter_tone_features() -> np.ndarray:
    """`[QUARTER_TONES, FEATURES / 2]`: the features of each pitch of a generated note."""
    places = np.arange(QUARTER_TONES) / (24 * _CIRCLE_OCTAVES)
    return circle_features(places, _HARMONICS).T


def circle_features(places: np.ndarray, harmonics: int) -> np.ndarray:
    """`[2 * harmonics, places]`: cosines, then sines, of places in [0, 1) on a circle."""
    angles = 2 * np.pi * places * np.arange(1, harmonics + 1)[:, None]
    return np.concatenate([np.cos(angles), np.sin(angles)]).astype(np.float32)


def circle_hz(place):
    """The pitch in Hz of places on the circle."""
    return RANGE_HZ[0] * 2 ** (place * _CIRCLE_OCTAVES)


@functools.lru_cache(maxsize=8)
def _kernels(bin_hz: float, bins_hz: tuple[float, ...]) -> np.ndarray:
    """`[bins, candidates]`, of unit length and mean zero: a bell at each harmonic.

    All bells are as narrow as a peak, however far apart the harmonics are. Half of the true pitch
    then has as many bells without a peak as with one, so that octaves are not confused.
    """
    octaves = np.log2(RANGE_HZ[1] / RANGE_HZ[0])
    count = int(octaves * _CANDIDATES_PER_OCTAVE) + 1
    candidates_hz = RANGE_HZ[0] * 2 ** (np.arange(count) / _CANDIDATES_PER_OCTAVE)
    bins_hz = np.array(bins_hz)[:, None]
    harmonic = np.maximum(np.round(bins_hz / candidates_hz), 1)
    width_hz = _WIDTH_BINS * bin_hz + _WIDTH_SHARE * bins_hz
    kernels = np.exp(-(((bins_hz - harmonic * candidates_hz) / width_hz) ** 2) / 2) / harmonic**0.5
    kernels -= kernels.mean(0)
    return (kernels / np.linalg.norm(kernels, axis=0)).astype(np.float32)
