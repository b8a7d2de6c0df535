"""The excitations: noise, distorted low end, a pulse train, sines. All are loops.

Their spectra are brought to unit power in each band, so that the gates and the levels of the code
set how loud they are.

Reference: distorted low bands as excitation: Makhoul, Berouti 1979 (ICASSP), high-frequency
regeneration. Pulses without aliases, in closed form: Stilson, Smith 1996 (ICMC).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from technogen_jax.audio import spectral
from technogen_jax.models.technogan.codec import partials

_SPLIT_HZ = (2000.0, 4000.0)  # between noise of low and of high frequencies. Chosen
_DRIVE = 40.0  # into the distortion: a low waveform above -32 dB becomes nearly square. Chosen
_BEAT_HALVES = 8  # halves of a sixteenth after which a pulse train restarts, wherever it is decoded
_RAMP = 0.25  # of half a sixteenth, about 14 ms: the time from one pitch to the next. Chosen
_LEAST_CONFIDENCE = 0.1  # a pulse train does not glide to a pitch of less
_HIGHEST = 0.45  # of the sample rate: the highest harmonic
# Added to the power of a band, relative to white noise of unit power, before the band is divided by
# it: silence stays silent, and so do leakage and rounding errors, 37 dB below, which differ between
# machines. Measured: experiments/log/2026-11-29-notes-and-two-bars.md.
_LEAST_POWER = 2.2e-4
_BLOCK = 64  # samples of a block in which sines are computed by sums of angles


def white_noise(code: jax.Array, channels: int, step_samples: int) -> jax.Array:
    """Noise `[B, C, S * step_samples]` of unit deviation, seeded by the code `[B, S, K]`.

    So sound is a function of its code and rotates with it, yet no two clips share a pattern.
    """
    bits = jax.lax.bitcast_convert_type(code, jnp.uint32)
    seeds = jnp.sum(bits * (2 * jnp.arange(code.shape[2], dtype=jnp.uint32) + 1), -1, dtype=jnp.uint32)
    # Uniform: its spectrum is as good as that of Gaussian noise, and it is drawn faster.
    draw = jax.vmap(
        jax.vmap(lambda seed: jax.random.uniform(jax.random.key(seed), (channels, step_samples), minval=-1, maxval=1))
    )
    return jnp.moveaxis(draw(seeds), 1, 2).reshape(len(code), channels, -1) * np.sqrt(3)


def swell_noise(noise: jax.Array, swells: jax.Array, steps: int, rate_hz: float) -> jax.Array:
    """Noise times the exponentials of two curves, one for low frequencies and one for high ones.

    Args:
        noise: `[B, C, T]`.
        swells: natural logarithms `[B, 2, n]` of low and high frequencies, n equal spans of the
            loop.
        steps: S, a divisor of T.
        rate_hz: sample rate.

    Returns:
        `[B, C, T]`.
    """
    # White noise is split as well in blocks, and faster.
    blocks = noise.reshape(*noise.shape[:2], steps, -1)
    samples = blocks.shape[-1]
    octaves = np.log2(np.maximum(np.fft.rfftfreq(samples, 1 / rate_hz), 1) / _SPLIT_HZ[0])
    share = np.clip(octaves / np.log2(_SPLIT_HZ[1] / _SPLIT_HZ[0]), 0, 1).astype(np.float32)
    high = jnp.fft.irfft(jnp.fft.rfft(blocks) * share, samples).reshape(noise.shape)
    curves = jnp.exp(jnp.clip(interpolate_circular(swells, noise.shape[-1]), -4, 3))
    return (noise - high) * curves[:, None, 0] + high * curves[:, None, 1]


def interpolate_circular(values: jax.Array, samples: int) -> jax.Array:
    """`[..., n]` around a loop to `[..., samples]`: linear between the middles of n equal spans."""
    span = samples // values.shape[-1]
    place = (np.arange(span, dtype=np.float32) + 0.5) / span - 0.5
    before, after = np.maximum(-place, 0), np.maximum(place, 0)
    values = values[..., None]
    mixed = jnp.roll(values, 1, -2) * before + values * (1 - before - after) + jnp.roll(values, -1, -2) * after
    return mixed.reshape(*values.shape[:-2], -1)


def distort(low: jax.Array) -> jax.Array:
    """`[B, T]` to `[B, 3, T]`: nearly square, rectified, a pulse at each rise through zero."""
    square = jnp.tanh(_DRIVE * low)
    pulse = jnp.maximum(jnp.roll(square, -1, -1) - square, 0)
    return jnp.stack([square, jnp.sqrt(low * low + 1e-5), pulse], 1)


def make_pulses(pitch_hz: jax.Array, confidence: jax.Array, samples: int, rate_hz: float) -> jax.Array:
    """A pulse train `[B, samples]` of about unit power, all harmonics alike.

    Args:
        pitch_hz: `[B, 2 S]`, of each half of a sixteenth, whole beats.
        confidence: `[B, 2 S]` in [0, 1].
        samples: the number of samples of the loop.
        rate_hz: sample rate.
    """
    span = samples // pitch_hz.shape[1]
    before, after = (
        jnp.where(jnp.roll(confidence, turn, 1) < _LEAST_CONFIDENCE, pitch_hz, jnp.roll(pitch_hz, turn, 1))
        for turn in (1, -1)
    )
    place = (np.arange(span, dtype=np.float32) + 0.5) / span
    from_before, to_after = np.maximum(0.5 - place / _RAMP, 0), np.maximum(0.5 - (1 - place) / _RAMP, 0)
    # Phases are whole numbers, 2 ** 32 a turn, which wrap without loss. As floats, the order in
    # which a machine adds and multiplies would decide the highest harmonics.
    glide = ((before, from_before), (pitch_hz, 1 - from_before - to_after), (after, to_after))
    advance = sum(
        jnp.round(hz[..., None] * np.float32(2**32 / rate_hz * share)).astype(jnp.int32) for hz, share in glide
    )
    beats = advance.reshape(len(advance), -1, _BEAT_HALVES * span)
    phase = jnp.cumsum(beats, -1, dtype=jnp.int32).reshape(advance.shape)
    count = jnp.floor(_HIGHEST * rate_hz / pitch_hz)[..., None]
    # Twice the sum of cos(k phase) over k from 1 to count is sin(count phase) cot(phase / 2) +
    # cos(count phase) - 1. Each factor is right to its last digits beside its zeros too: a product
    # of small and large would else make a machine's own sines audible.
    whole, half = count.astype(jnp.int32) * phase, phase.astype(jnp.float32) * np.float32(np.pi / 2**32)
    cotangent = _sine_series(np.float32(np.pi / 2) - jnp.abs(half)) / jnp.where(phase == 0, 1, _sine_series(half))
    twice = jnp.where(phase == 0, 2 * count, _sine_of_turns(whole) * cotangent + _sine_of_turns(whole + 2**30) - 1)
    # A sum of `count` cosines has power count / 2.
    return (twice / jnp.sqrt(2 * count)).reshape(len(phase), -1)


def _sine_of_turns(phase: jax.Array) -> jax.Array:
    """Sine of whole numbers, 2 ** 32 a turn."""
    is_beyond = (phase > 2**30) | (phase < -(2**30))  # a quarter
    return _sine_series(jnp.where(is_beyond, -(2**31) - phase, phase).astype(jnp.float32) * np.float32(np.pi / 2**31))


def _sine_series(angle: jax.Array) -> jax.Array:
    """Sine of -pi / 2 to pi / 2 by its power series, to a relative error of 1e-9."""
    square, total = angle * angle, 0
    for power in (12, 10, 8, 6, 4, 2):
        total = (1 + total) * square * np.float32(-1 / (power * (power + 1)))
    return angle * (1 + total)


def make_partials(position: jax.Array, height: jax.Array, samples: int, rate_hz: float, lowest_hz: float) -> jax.Array:
    """Sines `[B, samples]` at the partials of each sixteenth, crossfaded with the one before.

    A bar of 16 steps holds whole periods, so that a sustained partial continues without a jump, in
    whatever block it is made.

    Args:
        position: `[B, S, n]` on the grid of `partials`.
        height: amplitudes `[B, S, n]`.
        samples: the number of samples of the loop.
        rate_hz: sample rate.
        lowest_hz: frequency of position 0.
    """
    steps, span = position.shape[1], samples // position.shape[1]
    bar_samples = 16 * span
    periods = np.round(partials.position_hz(lowest_hz) * bar_samples / rate_hz).astype(np.int64)

    def waves(places):
        """Sine and cosine of each position at samples of a bar, `[2, POSITIONS, places]`."""
        angles = np.float32(2 * np.pi / bar_samples) * ((periods[:, None] * places) % bar_samples)
        return np.stack([np.sin(angles), np.cos(angles)]).astype(np.float32)

    # By the sum of three angles: at the beginning of a sixteenth, of a block within it, and within
    # the block.
    begin = waves(np.arange(steps) * span)
    coarse, fine = waves(np.arange(0, span, _BLOCK)), waves(np.arange(_BLOCK))

    def sines(position, height):
        # [B, S, n] each:
        sin, cos = height * jnp.asarray(begin)[:, position, np.arange(steps)[:, None]]
        (coarse_sin, coarse_cos), (fine_sin, fine_cos) = (
            jnp.asarray(coarse)[:, position],
            jnp.asarray(fine)[:, position],
        )
        rows = (
            sin[..., None] * coarse_cos + cos[..., None] * coarse_sin,
            cos[..., None] * coarse_cos - sin[..., None] * coarse_sin,
        )
        return jnp.einsum("bsnc,bsnf->bscf", rows[0], fine_cos) + jnp.einsum("bsnc,bsnf->bscf", rows[1], fine_sin)

    # Above half the sample rate there is nothing.
    height = height * jnp.asarray(periods < bar_samples // 2, jnp.float32)[position]
    share = ((np.arange(span, dtype=np.float32) + 0.5) / span).reshape(-1, _BLOCK)
    rising = sines(position, height) * share
    falling = sines(jnp.roll(position, 1, 1), jnp.roll(height, 1, 1)) * (1 - share)
    return (rising + falling).reshape(len(position), -1)


def flatten_bands(spectrum: jax.Array, filters: np.ndarray, spread: np.ndarray) -> jax.Array:
    """A spectrum with the same power in each of its mel bands; silence stays silent.

    Args:
        spectrum: `[..., N, F]`.
        filters: weights of the bins in each band, `[M, F]`.
        spread: weights of the bands in each bin, `[M, F]`.
    """
    power = spectral.matmul_banded(spectrum.real**2 + spectrum.imag**2, filters.T)
    least = _LEAST_POWER * spectral.noise_power(2 * (spectrum.shape[-1] - 1))
    return spectrum * jax.lax.rsqrt(spectral.matmul_banded(power, spread) + least)
