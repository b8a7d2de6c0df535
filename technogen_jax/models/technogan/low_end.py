"""The low end as a generator speaks it: a kick whose pitch falls, and a bass of a few notes, as a waveform.

A codec may keep the waveform below the crossover as it is; a network that puts out its samples, or any linear code of them, makes
rumble of it, for a tone is clean only where hundreds of them agree. So what a network says here are curves of pitch and loudness,
few and smooth, and sines follow them. A bar has one kick and a few notes, which its style chooses; a sixteenth says whether the kick begins in it, and
which note sounds how loud.

A bar's bass begins in phase, for the number of its turns is made whole: so a bar depends on those beside it by no more than the kick
that still rings and how loud the next one begins.

*Source*: oscillators whose controls a network says: Engel et al. 2020 (arXiv:2001.04643); a kick as a sine that falls in pitch:
Gordon Reid's series "Synth Secrets" (Sound on Sound).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from technogen_jax.models.technogan.layout import STEPS_PER_BAR

NOTES = 4  # of a bar's bass
_LASTS = 8  # sixteenths that a kick rings at most
_TIMES = 4  # of a sixteenth, at which the bass is told how loud it is
_KICK_HARMONICS, _BASS_HARMONICS = 3, 4  # the first among them
# A new generator's kick, about which its styles lie, at times (s) that lie closer where more happens: octaves that it falls from each to
# the next, and the logarithm of its amplitude, full scale being 0. Chosen, as all in this block is: where a generator begins, not where it ends.
_TIMES_S = np.r_[0, np.geomspace(0.002, 0.88, 9)]
_FALLS = np.array([0.2, 0.2, 0.3, 0.5, 0.5, 0.35, 0.15, 0.08, 0.02])
_LOUDNESS = np.array([-1.5, -1.2, -1.0, -0.8, -0.8, -0.9, -1.2, -1.8, -3.0, -7.0])
_KICK_HZ, _BASS_HZ = 48.0, 60.0
_FALLEN = (-4.0, 3.0)  # nepers of those octaves
_SPREAD = 0.5  # octaves that a number of unit deviation changes a pitch
_BASS_LOUDNESS, _SWING = -2.5, 1.5  # of the bass's loudness, in nepers: the mean and the deviation
_SHARP = 4.0  # of the logits of hits and notes: a new generator's are then more yes or no, and more one than many
_HZ = (22.0, 500.0)  # that any pitch may have
_LOUDEST = 0.3  # nepers: what is said wrongly does not drown all else
_GLIDE = 0.125  # of a sixteenth, from one note to the next
_FADE_HZ = 20.0  # below half of the rate, over which harmonics go
_CURVES = len(_TIMES_S)
_SIZES = dict(kick_pitch=_CURVES, kick_loudness=_CURVES, kick_phase=1, kick_harmonics=_KICK_HARMONICS - 1)
_SIZES |= dict(notes=NOTES, bass_harmonics=_BASS_HARMONICS)
SAID = 1 + NOTES + _TIMES  # numbers of a sixteenth
CHOSEN = sum(_SIZES.values())  # and of a bar


def speak(said: jax.Array, chosen: jax.Array, samples: int, rate_hz: float) -> jax.Array:
    """The waveform of each sixteenth, `[B, N * 16, samples]`, full scale being 1; all numbers of about unit deviation.

    Args:
        said: `[B, N * 16, SAID]`: whether the kick begins (0.5 is as likely as not), which note of the bass, how loud at four times.
        chosen: `[B, N, CHOSEN]` of N bars: the kick's curves, phase and harmonics, the notes and their harmonics.
        samples: of a sixteenth.
        rate_hz: of them.
    """
    of_bar = by_part(chosen, _SIZES)
    hits, notes, loudness = jnp.split(said, [1, 1 + NOTES], -1)
    return _kicks(_SHARP * (hits - 0.5), of_bar, samples, rate_hz) + _bass(notes, loudness, of_bar, samples, rate_hz)


def by_part(x: jax.Array, sizes: dict[str, int]) -> dict[str, jax.Array]:
    """`[..., K]` in parts that are so long, `[..., size]` each."""
    split = jnp.split if isinstance(x, jax.Array) else np.split
    return dict(zip(sizes, split(x, np.cumsum(list(sizes.values()))[:-1], -1), strict=True))


def _kicks(logits, of_bar, samples, rate_hz):
    """Each bar's kick where it is hit, logits `[B, N * 16, 1]`; the next one cuts it off."""
    at_s = (np.arange(_LASTS * samples) + 0.5) / rate_hz
    curves = _interpolating(at_s, _TIMES_S)
    falls = jnp.exp(jnp.clip(of_bar["kick_pitch"][..., :-1], *_FALLEN)) * np.float32(_FALLS)
    falls = jnp.concatenate([falls, _SPREAD * of_bar["kick_pitch"][..., -1:]], -1)  # and what it comes to
    # Never rising: at each time the pitch is all falls after it.
    hz = _pitch(_KICK_HZ, falls @ np.cumsum(curves, 0))  # [B, N, LASTS * samples]
    loud = jnp.exp(jnp.minimum((_LOUDNESS + of_bar["kick_loudness"]) @ curves, _LOUDEST))
    turns = _turns(hz.reshape(*hz.shape[:2], _LASTS, samples), rate_hz).reshape(hz.shape) + 0.5 * of_bar["kick_phase"]
    harmonics = 0.3 * jnp.tanh(of_bar["kick_harmonics"])
    harmonics = jnp.concatenate([jnp.ones_like(harmonics[..., :1]), harmonics], -1)[..., None]
    kick = (loud * _sines(turns, hz, harmonics, rate_hz)).reshape(*hz.shape[:2], _LASTS, samples)
    logits = logits.reshape(*hz.shape[:2], STEPS_PER_BAR)
    logits = jnp.concatenate([jnp.roll(logits, 1, 1), logits], -1)  # of the bar before too
    shares = jnp.concatenate([jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)], -1)
    rings = jnp.exp(jnp.matmul(shares, _RINGING, precision="highest")) * _CAN_RING
    rings = rings.reshape(*hz.shape[:2], STEPS_PER_BAR, 2 * _LASTS)
    wave = jnp.matmul(rings, jnp.concatenate([kick, jnp.roll(kick, 1, 1)], 2))
    return wave.reshape(len(wave), -1, samples)


def _bass(notes, loudness, of_bar, samples, rate_hz):
    """The notes of each bar as sixteenths choose them, `[B, N * 16, NOTES]`, so loud `[B, N * 16, TIMES]` from each beginning on."""
    kept = _pitch(_BASS_HZ, _SPREAD * jnp.repeat(of_bar["notes"], STEPS_PER_BAR, 1))
    hz = jnp.sum(jax.nn.softmax(_SHARP * notes) * kept, -1).reshape(len(kept), -1, STEPS_PER_BAR, 1)
    before = jnp.concatenate([hz[:, :, :1], hz[:, :, :-1]], 2)
    place = (np.arange(samples) + 0.5) / samples
    glide = np.float32(np.minimum(place / _GLIDE, 1))
    hz = before + glide * (hz - before)  # [B, N, 16, samples]
    turns = _turns(hz, rate_hz)
    missing = jnp.round(turns[:, :, -1:, -1:]) - turns[:, :, -1:, -1:]  # of a whole number
    through = np.float32((np.arange(STEPS_PER_BAR * samples) + 1) / (STEPS_PER_BAR * samples)).reshape(
        STEPS_PER_BAR, samples
    )
    turns = turns + missing * through
    levels = jnp.concatenate([loudness, jnp.roll(loudness[..., :1], -1, 1)], -1)  # to where the next one begins
    levels = _BASS_LOUDNESS + _SWING * levels @ _interpolating(place, np.arange(_TIMES + 1) / _TIMES)
    harmonics = jax.nn.sigmoid(of_bar["bass_harmonics"] + 1 - np.arange(_BASS_HARMONICS, dtype=np.float32))
    harmonics = jnp.repeat(harmonics, STEPS_PER_BAR, 1)[..., None]
    turns, hz = (values.reshape(*levels.shape) for values in (turns, hz))
    return jnp.exp(jnp.minimum(levels, _LOUDEST)) * _sines(turns, hz, harmonics, rate_hz)


def _turns(hz, rate_hz):
    """How far pitches `[..., steps, samples]` have turned since the first, but for whole turns of each step, which would only cost digits."""
    turns = _summed(hz) / rate_hz
    of_steps = turns[..., -1] - jnp.round(turns[..., -1])
    return turns + (_summed(of_steps) - of_steps)[..., None]


def _summed(x):
    """Sums up to each place of the last axis: a small product is many times as fast as XLA's running sum is on a CPU."""
    return jnp.matmul(x, np.triu(np.ones((x.shape[-1], x.shape[-1]), np.float32)), precision="highest")


def _pitch(base_hz, octaves):
    return base_hz * 2.0 ** jnp.clip(octaves, *np.log2(np.array(_HZ) / base_hz))


def _sines(turns, hz, amplitudes, rate_hz):
    """A tone of harmonics of these amplitudes, `[..., H, 1]`; those near half of the rate are left out."""
    orders = np.arange(1, amplitudes.shape[-2] + 1, dtype=np.float32)[:, None]
    turns, hz = orders * turns[..., None, :], orders * hz[..., None, :]
    heard = jnp.clip((0.5 * rate_hz - hz) / _FADE_HZ, 0, 1)
    return jnp.sum(amplitudes * heard * jnp.sin(2 * np.pi * turns), -2)


def _interpolating(at, times):
    """`[len(times), len(at)]`: what interpolates values at `times` linearly, the last one kept."""
    return np.stack([np.interp(at, times, row) for row in np.eye(len(times))]).astype(np.float32)


def _ringing():
    """How much of each kick rings in a sixteenth, as sums of logarithms `[4 * 16, 16 * 2 * _LASTS]`; and where it can, `[16 * 2 * _LASTS]`.

    Rows are sixteenths of the bar before and of this one, whether the kick is hit in them, then whether it is not. Columns are, for each
    sixteenth, this bar's kick and that of the bar before if they were hit none to seven sixteenths ago.
    """
    sums = np.zeros((2, 2 * STEPS_PER_BAR, STEPS_PER_BAR, 2, _LASTS), np.float32)
    can = np.zeros((STEPS_PER_BAR, 2, _LASTS), np.float32)
    for step in range(STEPS_PER_BAR):
        for ago in range(_LASTS):
            place, hit = (step, int(ago > step), ago), STEPS_PER_BAR + step - ago
            can[place] = sums[0, hit, *place] = 1
            sums[1, hit + 1 : hit + ago + 1, *place] = 1
    return sums.reshape(4 * STEPS_PER_BAR, -1), can.reshape(-1)


_RINGING, _CAN_RING = _ringing()
