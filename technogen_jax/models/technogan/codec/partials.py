"""Sustained partials of metal, bells and chords: detection, features for the code, and back.

A partial is a spectral peak that stands out of its surroundings. Its position lies on a grid of 20
cents over five octaves, and its prominence says how far it stands out, from 0 to 1. The features of
a sixteenth are the sum over the strongest three of the cosines and sines of the position on a
circle, times the prominence, as with a pitch. `decode_partials` reads them back one after the
other, the strongest first. Mid and side have partials of their own.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from technogen_jax.models.technogan.codec import pitch, salience

# The lowest position in the mid and in the side. The side starts lower: the code has no waveform of
# it.
LOWEST_MID_HZ, LOWEST_SIDE_HZ = 220.0, 125.0
_PER_OCTAVE = 60  # positions: steps of 20 cents
POSITIONS = 5 * _PER_OCTAVE
AT_ONCE = 3  # partials of a sixteenth that the code keeps
_HARMONICS = 16  # cosines of the circle, and as many sines
FEATURES = 2 * _HARMONICS  # D, of a sixteenth
POSITION_STRIDE = 2  # a generated partial has every other position: steps of 40 cents
GENERATED_POSITIONS = POSITIONS // POSITION_STRIDE
_CIRCLE_OCTAVES = 6  # one more than is used, so that the lowest position is not beside the highest
# Ratios to the surroundings of prominence 0 and 1. Noise hardly reaches the first: by Rayleigh's
# law once in 15,000 bins.
_RATIOS = (3.5, 8.0)
# Edges of the half octaves in which the energy of partials is measured. Bass and kick below are not
# their surroundings.
SHARE_EDGES_HZ = 200 * 2 ** (np.arange(10) / 2)


def find_partials(
    signal: jax.Array,
    rate_hz: float,
    steps: int,
    lowest_hz: float,
    found_pitch: tuple[jax.Array, jax.Array] | None = None,
) -> jax.Array:
    """The prominence of each position in each sixteenth, `[B, S, POSITIONS]` in [0, 1].

    Args:
        signal: loops `[B, T]`, T a multiple of `2 * steps`.
        rate_hz: their sample rate.
        steps: S, sixteenths in a loop.
        lowest_hz: frequency of the first position.
        found_pitch: what `pitch.find_pitch` returned; its harmonics are not counted as partials.
    """
    hop_length = signal.shape[-1] // steps
    n_fft = 2 * hop_length
    highest_hz = lowest_hz * 2 ** (POSITIONS / _PER_OCTAVE)
    _, ratio, bins_hz = salience.measure_salience(signal, n_fft, hop_length, rate_hz, highest_hz)
    is_peak = (ratio >= jnp.roll(ratio, 1, -1)) & (ratio >= jnp.roll(ratio, -1, -1))
    prominence = jnp.where(is_peak, salience.rescale(ratio, _RATIOS), 0)
    if found_pitch is not None:
        place, confidence = (values.reshape(len(signal), steps, 2, 1) for values in found_pitch)
        pitch_hz = pitch.circle_hz(place)
        order = bins_hz.astype(np.float32) / pitch_hz  # [B, S, 2, F]
        is_harmonic = jnp.abs(order - jnp.round(order)) * pitch_hz < 1.5 * rate_hz / hop_length
        prominence = prominence * (1 - jnp.max(confidence * is_harmonic, 2))
    positions = np.round(_PER_OCTAVE * np.log2(np.maximum(bins_hz, 1) / lowest_hz)).astype(int)
    bins_of = [np.flatnonzero(positions == position) for position in range(POSITIONS)]
    of_positions = [prominence[..., bins].max(-1) if len(bins) else 0 * prominence[..., 0] for bins in bins_of]
    return jnp.stack(of_positions, -1)


def encode_partials(prominence: jax.Array) -> jax.Array:
    """The features `[..., FEATURES]` of the strongest partials among `[..., POSITIONS]`."""
    heights, positions = jax.lax.top_k(prominence, AT_ONCE)
    return jnp.sum(heights[..., None] * jnp.asarray(_position_features().T)[positions], -2)


def decode_partials(features: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(positions, prominences) of features `[..., FEATURES]`, `[..., AT_ONCE]` each."""
    waves, found = _position_features(), []
    for _ in range(AT_ONCE):
        likeness = jnp.matmul(features, waves) / _HARMONICS
        position, height = jnp.argmax(likeness, -1), jnp.clip(jnp.max(likeness, -1), 0, 1)
        features = features - height[..., None] * jnp.asarray(waves.T)[position]
        found.append((position, height))
    positions, heights = zip(*found, strict=True)
    return jnp.stack(positions, -1), jnp.stack(heights, -1)


def generated_position_features() -> np.ndarray:
    """`[GENERATED_POSITIONS, FEATURES]`: the features of each position of a generated partial."""
    return _position_features()[:, ::POSITION_STRIDE].T


def measure_energy_shares(signal: jax.Array, rate_hz: float, steps: int) -> jax.Array:
    """The energy of partials in each half octave of `SHARE_EDGES_HZ`, `[B, 9]`.

    Energies are shares of all energy between the first edge and the last.

    Args:
        signal: loops `[B, T]`, T a multiple of `2 * steps`.
        rate_hz: their sample rate.
        steps: S, sixteenths in a loop.
    """
    n_fft, edges_hz = signal.shape[-1] // steps, SHARE_EDGES_HZ
    magnitude, ratio, bins_hz = salience.measure_salience(signal, n_fft, n_fft // 2, rate_hz, edges_hz[-1], edges_hz[0])
    is_partial = ratio > _RATIOS[0]
    # With a window's two neighbours:
    is_partial = is_partial | jnp.roll(is_partial, 1, -1) | jnp.roll(is_partial, -1, -1)
    power = magnitude**2
    within = np.float32((bins_hz[:, None] >= edges_hz[:-1]) & (bins_hz[:, None] < edges_hz[1:]))
    of_partials, of_all = (
        jnp.sum(jnp.matmul(values, within, precision="highest"), 1) for values in (power * is_partial, power)
    )
    return of_partials / jnp.maximum(jnp.sum(of_all, -1, keepdims=True), 1e-15)


def position_hz(lowest_hz: float) -> np.ndarray:
    """`[POSITIONS]`: the frequencies of the grid."""
    return lowest_hz * 2 ** (np.arange(POSITIONS) / _PER_OCTAVE)


def _position_features() -> np.ndarray:
    """`[FEATURES, POSITIONS]`: cosines and sines of each position."""
    return pitch.circle_features(np.arange(POSITIONS) / (_PER_OCTAVE * _CIRCLE_OCTAVES), _HARMONICS)
