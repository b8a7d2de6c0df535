"""What sound is made of before it is shaped: noise, distorted bass, a pulse train, standing sines. All are loops.

Their spectra are brought to unit power in each band, so that what shapes them sets the level.

*Source*: distorted low bands as excitation: Makhoul, Berouti 1979 (ICASSP), high-frequency regeneration. Pulses without aliases,
in closed form: Stilson, Smith 1996 (ICMC).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from technogen_jax.audio import spectral
from technogen_jax.models.technogan.codec import pitch

_SPLIT_HZ = (2000.0, 4000.0)  # between noise that swells as what lies low and noise that swells as the rest
_DRIVE = 40.0  # into the distortion: a low waveform above -32 dB comes out nearly square
_BEAT = 8  # halves of a sixteenth, after which a pulse train begins anew: blocks of bars are then made apart
_RAMP = 0.25  # of half a sixteenth, about 14 ms: the time from one pitch to the next
_VOICED = 0.1  # less sure than that, a pitch is not gone to
_HIGHEST = 0.45  # of the rate: the highest harmonic
# Of a band that is brought to unit power, against white noise of unit power: silence stays silent, and so does what is only leakage and
# rounding, 37 dB below, which no two machines round alike.
_LEAST_POWER = 2.2e-4


def white_noise(x: jax.Array, channels: int, step_samples: int) -> jax.Array:
    """Noise `[B, channels, steps * step_samples]` of unit deviation: that of a sixteenth follows from its vector in `[B, steps, K]`.

    So sound is a function of its sequence and turns with it, yet no two clips share a pattern.
    """
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
    seeds = jnp.sum(bits * (2 * jnp.arange(x.shape[2], dtype=jnp.uint32) + 1), -1, dtype=jnp.uint32)
    # Uniform: its spectrum is as good as that of Gaussian noise, and it is drawn faster.
    draw = jax.vmap(
        jax.vmap(lambda seed: jax.random.uniform(jax.random.key(seed), (channels, step_samples), minval=-1, maxval=1))
    )
    return jnp.moveaxis(draw(seeds), 1, 2).reshape(len(x), channels, -1) * np.sqrt(3)


def swelling(noise: jax.Array, swells: jax.Array, steps: int, rate_hz: float) -> jax.Array:
    """Noise `[B, C, T]` times the exponentials of two curves `[B, 2, n]`, one for what lies low and one for the rest."""
    parts = noise.reshape(*noise.shape[:2], steps, -1)  # white noise is split as well in pieces, and faster
    samples = parts.shape[-1]
    octaves = np.log2(np.maximum(np.fft.rfftfreq(samples, 1 / rate_hz), 1) / _SPLIT_HZ[0])
    share = np.clip(octaves / np.log2(_SPLIT_HZ[1] / _SPLIT_HZ[0]), 0, 1).astype(np.float32)
    high = jnp.fft.irfft(jnp.fft.rfft(parts) * share, samples).reshape(noise.shape)
    curves = jnp.exp(jnp.clip(straight_between(swells, noise.shape[-1]), -4, 3))
    return (noise - high) * curves[:, None, 0] + high * curves[:, None, 1]


def straight_between(values: jax.Array, samples: int) -> jax.Array:
    """`[..., n]` around a loop to `[..., samples]`, in straight lines between the middles of n equal spans."""
    span = samples // values.shape[-1]
    place = (np.arange(span, dtype=np.float32) + 0.5) / span - 0.5
    before, after = np.maximum(-place, 0), np.maximum(place, 0)
    values = values[..., None]
    mixed = jnp.roll(values, 1, -2) * before + values * (1 - before - after) + jnp.roll(values, -1, -2) * after
    return mixed.reshape(*values.shape[:-2], -1)


def distorted(low: jax.Array) -> jax.Array:
    """Waveforms `[B, T]` to `[B, 3, T]`: nearly square, rectified, and a pulse at each rise through zero."""
    square = jnp.tanh(_DRIVE * low)
    pulse = jnp.maximum(jnp.roll(square, -1, -1) - square, 0)
    return jnp.stack([square, jnp.sqrt(low * low + 1e-5), pulse], 1)


def pulses(pitch_hz: jax.Array, sure: jax.Array, samples: int, rate_hz: float) -> jax.Array:
    """A train of pulses `[B, samples]` of about unit power, all harmonics alike, at the pitch of each half of a sixteenth.

    Args:
        pitch_hz: `[B, 2 * steps]`, whole beats.
        sure: of the same shape, how sure each is.
        samples: of the loop.
        rate_hz: of them.
    """
    span = samples // pitch_hz.shape[1]
    before, after = (
        jnp.where(jnp.roll(sure, turn, 1) < _VOICED, pitch_hz, jnp.roll(pitch_hz, turn, 1)) for turn in (1, -1)
    )
    place = (np.arange(span, dtype=np.float32) + 0.5) / span
    from_before, to_after = np.maximum(0.5 - place / _RAMP, 0), np.maximum(0.5 - (1 - place) / _RAMP, 0)
    # Phases are whole numbers, 2 ** 32 a turn, which wrap without loss. As floats, the order in which a machine adds and multiplies
    # would decide the highest harmonics.
    glide = ((before, from_before), (pitch_hz, 1 - from_before - to_after), (after, to_after))
    advance = sum(
        jnp.round(hz[..., None] * np.float32(2**32 / rate_hz * share)).astype(jnp.int32) for hz, share in glide
    )
    phase = jnp.cumsum(advance.reshape(len(advance), -1, _BEAT * span), -1, dtype=jnp.int32).reshape(advance.shape)
    count = jnp.floor(_HIGHEST * rate_hz / pitch_hz)[..., None]
    # Twice the sum of cos(k phase) over k from 1 to count is sin(count phase) cot(phase / 2) + cos(count phase) - 1. Each factor is
    # right to its last digits beside its zeros too: a product of small and large would else bring a machine's own sines to the ear.
    whole, half = count.astype(jnp.int32) * phase, phase.astype(jnp.float32) * np.float32(np.pi / 2**32)
    cotangent = _series(np.float32(np.pi / 2) - jnp.abs(half)) / jnp.where(phase == 0, 1, _series(half))
    twice = jnp.where(phase == 0, 2 * count, _sine(whole) * cotangent + _sine(whole + 2**30) - 1)
    return (twice / jnp.sqrt(2 * count)).reshape(len(phase), -1)  # a sum of `count` cosines has power count / 2


def _sine(phase: jax.Array) -> jax.Array:
    """Of whole numbers, 2 ** 32 a turn."""
    beyond = (phase > 2**30) | (phase < -(2**30))  # a quarter
    return _series(jnp.where(beyond, -(2**31) - phase, phase).astype(jnp.float32) * np.float32(np.pi / 2**31))


def _series(angle: jax.Array) -> jax.Array:
    """Sine of -pi / 2 to pi / 2, by the terms of its series up to the thirteenth power: to 1e-9 of itself, and float32's digits."""
    square, total = angle * angle, 0
    for power in (12, 10, 8, 6, 4, 2):
        total = (1 + total) * square * np.float32(-1 / (power * (power + 1)))
    return angle * (1 + total)


def standing(tone: jax.Array, height: jax.Array, samples: int, rate_hz: float, lowest_hz: float) -> jax.Array:
    """Sines `[B, samples]` at tones and heights, `[B, steps, n]` as `pitch.lines` gives, each going over into the next sixteenth's.

    A bar of 16 steps holds whole periods, so that a tone that is held goes on without a jump, in whatever block it is made.
    """
    steps, span = tone.shape[1], samples // tone.shape[1]
    bar_samples = 16 * span
    periods = np.round(pitch.lines_hz(lowest_hz) * bar_samples / rate_hz).astype(np.int64)

    def waves(places):
        """Sine and cosine of each tone at samples of a bar, `[2, LINES, places]`."""
        angles = np.float32(2 * np.pi / bar_samples) * ((periods[:, None] * places) % bar_samples)
        return np.stack([np.sin(angles), np.cos(angles)]).astype(np.float32)

    # Of a sum of angles: at the beginning of a sixteenth, within it by 64 samples, within those.
    begun, coarse, fine = waves(np.arange(steps) * span), waves(np.arange(0, span, 64)), waves(np.arange(64))

    def sines(tone, height):
        sin, cos = height * jnp.asarray(begun)[:, tone, np.arange(steps)[:, None]]  # [B, steps, n] each
        (coarse_sin, coarse_cos), (fine_sin, fine_cos) = jnp.asarray(coarse)[:, tone], jnp.asarray(fine)[:, tone]
        rows = (
            sin[..., None] * coarse_cos + cos[..., None] * coarse_sin,
            cos[..., None] * coarse_cos - sin[..., None] * coarse_sin,
        )
        return jnp.einsum("bsnc,bsnf->bscf", rows[0], fine_cos) + jnp.einsum("bsnc,bsnf->bscf", rows[1], fine_sin)

    height = height * jnp.asarray(periods < bar_samples // 2, jnp.float32)[tone]  # above half the rate there is nothing
    share = ((np.arange(span, dtype=np.float32) + 0.5) / span).reshape(-1, 64)
    rising = sines(tone, height) * share
    falling = sines(jnp.roll(tone, 1, 1), jnp.roll(height, 1, 1)) * (1 - share)
    return (rising + falling).reshape(len(tone), -1)


def even(spectrum: jax.Array, filters: np.ndarray, spread: np.ndarray) -> jax.Array:
    """A spectrum `[..., N, bins]` with the same power in each of its mel bands, silence left silent."""
    power = spectral.matmul_banded(spectrum.real**2 + spectrum.imag**2, filters.T)
    least = _LEAST_POWER * spectral.noise_power(2 * (spectrum.shape[-1] - 1))
    return spectrum * jax.lax.rsqrt(spectral.matmul_banded(power, spread) + least)
