"""Synthesizes the low end, a kick and a bass, from the controls that the generator gives.

A network that outputs the waveform below the crossover, or a linear code of it, makes rumble: a
tone is clean only where hundreds of samples agree. So the generator outputs few and smooth curves
of pitch and loudness, and sine oscillators follow them. A bar has one kick and four bass notes; a
sixteenth says whether the kick begins in it, which note sounds, and how loud.

The bass of a bar begins at phase zero: its number of periods in a bar is made whole. A bar thus
depends on the bars beside it only by the kick that still sounds and by how loud the next bar's bass
begins.

Equations: docs/technogan.md. Reference: oscillators with generated controls: Engel et al. 2020
(arXiv:2001.04643); a kick as a sine of falling pitch: Gordon Reid, "Synth Secrets" (Sound on
Sound).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from technogen_jax.models.technogan.layout import STEPS_PER_BAR

NOTES = 4  # bass notes of a bar
_KICK_STEPS = 8  # sixteenths that a kick lasts at most
_LEVELS_PER_STEP = 4  # times of a sixteenth at which the bass has a level
_KICK_HARMONICS, _BASS_HARMONICS = 3, 4  # including the fundamental
# The kick of a new generator, to which its outputs are added: seconds, closer together where pitch
# falls fastest; octaves by which pitch falls from each time to the next; log-amplitudes in nepers,
# 0 being full scale. All constants of this file are chosen: training begins there and may move
# far away.
_KICK_TIMES_S = np.r_[0, np.geomspace(0.002, 0.88, 9)]
_KICK_FALLS = np.array([0.2, 0.2, 0.3, 0.5, 0.5, 0.35, 0.15, 0.08, 0.02])
_KICK_LEVELS = np.array([-1.5, -1.2, -1.0, -0.8, -0.8, -0.9, -1.2, -1.8, -3.0, -7.0])
_KICK_HZ, _BASS_HZ = 48.0, 60.0  # end of the kick, and bass notes, for outputs of zero
_FALL_LIMITS = (-4.0, 3.0)  # nepers, of the factors of those octaves
_PITCH_SPREAD = 0.5  # octaves per unit of output
_BASS_LEVEL, _BASS_SPREAD = -2.5, 1.5  # nepers for an output of zero, and per unit of output
_SHARPNESS = 4.0  # factor of the logits of onsets and notes: a new generator then decides clearly
_PITCH_LIMITS_HZ = (22.0, 500.0)
_MAX_LEVEL = 0.3  # nepers: a wrong output does not drown everything else
_GLIDE = 0.125  # of a sixteenth: the time from one bass note to the next
_FADE_HZ = 20.0  # below half of the sample rate: the width over which harmonics fade out
_CURVE = len(_KICK_TIMES_S)


class BarValues(NamedTuple):
    """The generator's output values of a bar: sizes, or arrays `[B, N, size]`."""

    kick_pitch: jax.Array
    kick_level: jax.Array
    kick_phase: jax.Array
    kick_harmonics: jax.Array
    notes: jax.Array
    bass_harmonics: jax.Array


BAR_SIZES = BarValues(_CURVE, _CURVE, 1, _KICK_HARMONICS - 1, NOTES, _BASS_HARMONICS)
BAR_SIZE = sum(BAR_SIZES)  # output values of a bar
STEP_SIZE = 1 + NOTES + _LEVELS_PER_STEP  # output values of a sixteenth: onset, notes, levels


class KickControls(NamedTuple):
    """The controls of a kick.

    Attributes:
        onsets: `[B, N * 16, 1]`, logits: whether the kick begins in a sixteenth.
        falls: `[B, N, 10]`, octaves by which the pitch falls from each time of the curve to the
            next; the last is the end pitch, octaves above 48 Hz.
        levels: `[B, N, 10]`, nepers at the times of the curve.
        phase: `[B, N, 1]`, periods at the onset.
        amplitudes: `[B, N, 3, 1]`, of the harmonics; the first is 1.
    """

    onsets: jax.Array
    falls: jax.Array
    levels: jax.Array
    phase: jax.Array
    amplitudes: jax.Array


class BassControls(NamedTuple):
    """The controls of the bass.

    Attributes:
        weights: `[B, N * 16, 4]`: which note sounds in a sixteenth; they sum to 1.
        notes_hz: `[B, N * 16, 4]`: the pitches of the bar's notes.
        levels: `[B, N * 16, 5]`, nepers about `_BASS_LEVEL`, from the beginning of a sixteenth to
            its end.
        amplitudes: `[B, N * 16, 4, 1]`, of the harmonics.
    """

    weights: jax.Array
    notes_hz: jax.Array
    levels: jax.Array
    amplitudes: jax.Array


def get_controls(step_values: jax.Array, bar_values: jax.Array) -> tuple[KickControls, BassControls]:
    """Turns output values of about unit deviation into the controls of kick and bass.

    Args:
        step_values: `[B, N * 16, STEP_SIZE]`: whether the kick begins (0.5: as likely as not),
            which note sounds, and levels.
        bar_values: `[B, N, BAR_SIZE]` of N bars: `BarValues`, one after the other.
    """
    bar = BarValues(*jnp.split(bar_values, np.cumsum(BAR_SIZES)[:-1], -1))
    onsets, notes, levels = jnp.split(step_values, [1, 1 + NOTES], -1)
    falls = jnp.exp(jnp.clip(bar.kick_pitch[..., :-1], *_FALL_LIMITS)) * np.float32(_KICK_FALLS)
    harmonics = 0.3 * jnp.tanh(bar.kick_harmonics)
    kick = KickControls(
        onsets=_SHARPNESS * (onsets - 0.5),
        falls=jnp.concatenate([falls, _PITCH_SPREAD * bar.kick_pitch[..., -1:]], -1),
        levels=_KICK_LEVELS + bar.kick_level,
        phase=0.5 * bar.kick_phase,
        amplitudes=jnp.concatenate([jnp.ones_like(harmonics[..., :1]), harmonics], -1)[..., None],
    )
    levels = jnp.concatenate([levels, jnp.roll(levels[..., :1], -1, 1)], -1)  # the last: of the next one
    amplitudes = jax.nn.sigmoid(bar.bass_harmonics + 1 - np.arange(_BASS_HARMONICS, dtype=np.float32))
    bass = BassControls(
        weights=jax.nn.softmax(_SHARPNESS * notes),
        notes_hz=_bound_pitch(_BASS_HZ, _PITCH_SPREAD * jnp.repeat(bar.notes, STEPS_PER_BAR, 1)),
        levels=_BASS_SPREAD * levels,
        amplitudes=jnp.repeat(amplitudes, STEPS_PER_BAR, 1)[..., None],
    )
    return kick, bass


def synthesize_kick(controls: KickControls, samples: int, rate_hz: float) -> jax.Array:
    """The kicks of all bars, `[B, N * 16, samples]`, full scale being 1.

    A kick ends the one before it.

    Args:
        controls: the controls of the kicks.
        samples: samples of a sixteenth.
        rate_hz: their sample rate.
    """
    times_s = (np.arange(_KICK_STEPS * samples) + 0.5) / rate_hz
    curves = _make_interpolation(times_s, _KICK_TIMES_S)
    # The pitch at a time is the sum of all falls after it, so that it never rises.
    hz = _bound_pitch(_KICK_HZ, controls.falls @ np.cumsum(curves, 0))  # [B, N, _KICK_STEPS * samples]
    level = jnp.exp(jnp.minimum(controls.levels @ curves, _MAX_LEVEL))
    phase = _integrate(hz.reshape(*hz.shape[:2], _KICK_STEPS, samples), rate_hz).reshape(hz.shape) + controls.phase
    kick = level * _sum_harmonics(phase, hz, controls.amplitudes, rate_hz)
    kick = kick.reshape(*hz.shape[:2], _KICK_STEPS, samples)
    onsets = controls.onsets.reshape(*hz.shape[:2], STEPS_PER_BAR)
    onsets = jnp.concatenate([jnp.roll(onsets, 1, 1), onsets], -1)  # of the bar before, then of this bar
    logarithms = jnp.concatenate([jax.nn.log_sigmoid(onsets), jax.nn.log_sigmoid(-onsets)], -1)
    gains = jnp.exp(jnp.matmul(logarithms, _GAIN_SUMS, precision="highest")) * _IS_POSSIBLE
    gains = gains.reshape(*hz.shape[:2], STEPS_PER_BAR, 2 * _KICK_STEPS)
    wave = jnp.matmul(gains, jnp.concatenate([kick, jnp.roll(kick, 1, 1)], 2))
    return wave.reshape(len(wave), -1, samples)


def synthesize_bass(controls: BassControls, samples: int, rate_hz: float) -> jax.Array:
    """The bass of all bars, `[B, N * 16, samples]`; the arguments are as in `synthesize_kick`."""
    steps = jnp.sum(controls.weights * controls.notes_hz, -1)
    hz = steps.reshape(len(steps), -1, STEPS_PER_BAR, 1)
    before = jnp.concatenate([hz[:, :, :1], hz[:, :, :-1]], 2)
    place = (np.arange(samples) + 0.5) / samples
    glide = np.float32(np.minimum(place / _GLIDE, 1))
    hz = before + glide * (hz - before)  # [B, N, 16, samples]
    phase = _integrate(hz, rate_hz)
    missing = jnp.round(phase[:, :, -1:, -1:]) - phase[:, :, -1:, -1:]  # to whole periods in the bar
    bar_samples = STEPS_PER_BAR * samples
    share = np.float32((np.arange(bar_samples) + 1) / bar_samples).reshape(STEPS_PER_BAR, samples)
    phase = phase + missing * share
    times = np.arange(_LEVELS_PER_STEP + 1) / _LEVELS_PER_STEP
    level = _BASS_LEVEL + controls.levels @ _make_interpolation(place, times)
    phase, hz = (values.reshape(*level.shape) for values in (phase, hz))
    return jnp.exp(jnp.minimum(level, _MAX_LEVEL)) * _sum_harmonics(phase, hz, controls.amplitudes, rate_hz)


def _integrate(hz, rate_hz):
    """The phase, in periods, of pitches `[..., steps, samples]`.

    The whole periods of each step are left out: they change nothing and would lose precision.
    """
    phase = _sum_up(hz) / rate_hz
    of_steps = phase[..., -1] - jnp.round(phase[..., -1])
    return phase + (_sum_up(of_steps) - of_steps)[..., None]


def _sum_up(x):
    """Running sums along the last axis, as a matrix product: on a CPU faster than XLA's own."""
    return jnp.matmul(x, np.triu(np.ones((x.shape[-1], x.shape[-1]), np.float32)), precision="highest")


def _bound_pitch(base_hz, octaves):
    """The pitch in Hz, `octaves` above `base_hz`, within `_PITCH_LIMITS_HZ`."""
    return base_hz * 2.0 ** jnp.clip(octaves, *np.log2(np.array(_PITCH_LIMITS_HZ) / base_hz))


def _sum_harmonics(phase, hz, amplitudes, rate_hz):
    """A tone `[..., T]` of harmonics of amplitudes `[..., H, 1]`.

    Harmonics near half of the sample rate are left out.
    """
    orders = np.arange(1, amplitudes.shape[-2] + 1, dtype=np.float32)[:, None]
    phase, hz = orders * phase[..., None, :], orders * hz[..., None, :]
    fade = jnp.clip((0.5 * rate_hz - hz) / _FADE_HZ, 0, 1)
    return jnp.sum(amplitudes * fade * jnp.sin(2 * np.pi * phase), -2)


def _make_interpolation(at, times):
    """`[len(times), len(at)]`: interpolates values at `times` linearly, then keeps the last."""
    return np.stack([np.interp(at, times, row) for row in np.eye(len(times))]).astype(np.float32)


def _make_gain_sums():
    """The matrix from logarithms of onset probabilities to those of the kicks' gains.

    A kick that began `age` sixteenths ago sounds with the probability that it began there and that
    none began since: a product of probabilities, here a sum of logarithms.

    Returns:
        float32 `[4 * 16, 16 * 2 * 8]`. Rows: log p of an onset for the sixteenths of the bar before
        and of this bar, then log(1 - p). Columns: for each sixteenth, the kick of this bar at age 0
        to 7, then the kick of the bar before. And float32 `[16 * 2 * 8]`, whether such an age is
        possible.
    """
    sums = np.zeros((2, 2 * STEPS_PER_BAR, STEPS_PER_BAR, 2, _KICK_STEPS), np.float32)
    is_possible = np.zeros((STEPS_PER_BAR, 2, _KICK_STEPS), np.float32)
    for step in range(STEPS_PER_BAR):
        for age in range(_KICK_STEPS):
            column, onset = (step, int(age > step), age), STEPS_PER_BAR + step - age
            is_possible[column] = sums[0, onset, *column] = 1
            sums[1, onset + 1 : onset + age + 1, *column] = 1
    return sums.reshape(4 * STEPS_PER_BAR, -1), is_possible.reshape(-1)


_GAIN_SUMS, _IS_POSSIBLE = _make_gain_sums()
