"""Heads: each turns some of the generator's output values into a contribution to the code.

A head has no weights. It says how many output values it needs for a sixteenth and for a bar; the
dense layers that compute them are the generator's own, one for sixteenths and one for bars, which
is one matrix product each. A head works in two steps, as the synthesizers of DDSP do:

    get_controls(output values) -> controls: probabilities, weights, levels, with a meaning
    contribute(controls) -> what the head adds to the code, before it is scaled

| head | contributes to | rule |
| --- | --- | --- |
| ContinuousHead | mid, side, low, pan | values that move as much as the bar allows, and noise |
| PercussionHead | mid, side, pan | four sounds of the bar, wherever a sixteenth hits them |
| NoteHead | pitch; mid, side, pan | six notes of the bar, each with its timbre |
| PartialHead | partials; mid or side | eight sustained partials of the bar, and the levels around them |
| LowEndHead | low | a kick and a bass, from oscillators (`low_end`) |

`code_synthesizer` adds up the contributions to the code. Notes, percussion sounds, partials and the
kick belong to the bar, a sixteenth says which of them it has: they return exactly as they were, as
they do in music, without the network having to compute them anew. Equations: docs/technogan.md.

Axes: B clips, N bars, S = 16 N sixteenths, M continuous components (mid, side, low, pan), E of them
that percussion and notes contribute to (mid, side, pan).

Reference: Engel et al. 2020 (arXiv:2001.04643), DDSP.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from technogen_jax.models.technogan import low_end
from technogen_jax.models.technogan.codec import partials, pitch
from technogen_jax.models.technogan.codec.constants import CHOICE_SHARPNESS, NOTES_PER_BAR, PARTIALS_PER_BAR
from technogen_jax.models.technogan.layout import STEPS_PER_BAR, STEPS_PER_BEAT

# What a new generator does; chosen: they say where training begins, not where it ends.
_MOTION_LOGIT = 2.0  # of the shares of motion: 0.88 of all that moves
_NOISE_LOGIT = -1.0  # of the noise of a component: 0.27 of its deviation
_HIT_SHARPNESS = 4.0  # factor of the logits of hits: a new generator then decides clearly


class ContinuousControls(NamedTuple):
    """The controls of `ContinuousHead`.

    Attributes:
        values: `[B, S, M]`, deviations from the mean.
        motion: `[B, N, 3, M]` in [0, 1], three nested factors: of all variation in the bar; of what
            differs between its beats; of what differs between its halves.
        noise: `[B, S, M]`, deviations.
    """

    values: jax.Array
    motion: jax.Array
    noise: jax.Array


@dataclasses.dataclass(frozen=True)
class ContinuousHead:
    """Values that move as much as the bar allows, and noise.

    Much of techno repeats exactly or stands still, which convolutions alone never do. So a bar's
    values are split into its mean, what is common to its beats, what is common to its halves, and
    the rest; the generator gives each bar a factor of each. Noise is added after that: it never repeats.

    Attributes:
        size: M, components.
    """

    size: int

    @property
    def step_size(self) -> int:
        """Output values of a sixteenth."""
        return self.size

    @property
    def motion_size(self) -> int:
        """Output values of a bar for the shares of motion."""
        return 3 * self.size

    @property
    def noise_size(self) -> int:
        """Output values of a bar for the levels of noise."""
        return self.size

    def get_controls(self, values, motion, noise_levels, noise) -> ContinuousControls:
        """Turns output values into controls.

        Args:
            values: `[B, S, M]`.
            motion: logits `[B, N, 3 M]`.
            noise_levels: logits `[B, N, M]`.
            noise: standard normal `[B, S, M]`, part of the latents.
        """
        motion = jax.nn.sigmoid(_MOTION_LOGIT + motion).reshape(*motion.shape[:2], 3, -1)
        levels = jnp.repeat(jax.nn.sigmoid(noise_levels + _NOISE_LOGIT), STEPS_PER_BAR, 1)
        return ContinuousControls(values, motion, levels * noise)

    def contribute(self, controls: ContinuousControls) -> jax.Array:
        """The values with their motion reduced, and noise, `[B, S, M]` in deviations.

        The mean of a bar stays.

        The factors are nested. With independent factors, one half of a bar could be the other one
        with the opposite sign.
        """
        x = controls.values
        moving, of_beats, of_halves = (controls.motion[:, :, i, None] for i in range(3))
        bars = x.reshape(len(x), -1, STEPS_PER_BAR, x.shape[2])
        layers = jnp.matmul(_LAYERS, bars, precision="highest").reshape(*bars.shape[:2], -1, *bars.shape[2:])
        mean, beat, half, rest = (layers[:, :, i] for i in range(len(_LAYERS) // STEPS_PER_BAR))
        return (mean + moving * (beat + of_beats * (half + of_halves * rest))).reshape(x.shape) + controls.noise


def _make_layers() -> np.ndarray:
    """The matrix `[4 * 16, 16]` that splits a bar into layers which sum to it.

    The layers are the mean of the bar; the mean of its beats, minus the mean of the bar; the mean
    of its halves, minus the mean of the beats; the rest.
    """
    step = np.arange(STEPS_PER_BAR)
    periods = (1, STEPS_PER_BEAT, STEPS_PER_BAR // 2, STEPS_PER_BAR)
    means = [step % period == step[:, None] % period for period in periods]
    means = np.float32([mean / mean.sum(1, keepdims=True) for mean in means])
    return np.concatenate([means[0], *(means[1:] - means[:-1])])


_LAYERS = _make_layers()


class PercussionControls(NamedTuple):
    """The controls of `PercussionHead`.

    Attributes:
        hits: `[B, N, 16, 4]` in [0, 1]: whether a sixteenth hits a sound.
        sounds: `[B, N, 4, 3 * E]`: what a sound adds in the sixteenth of its hit and in the next
            two.
    """

    hits: jax.Array
    sounds: jax.Array


@dataclasses.dataclass(frozen=True)
class PercussionHead:
    """Four percussion sounds of the bar, three sixteenths long, wherever a sixteenth hits them.

    Attributes:
        size: E, components that a sound adds to.
    """

    size: int
    SOUNDS: ClassVar[int] = 4
    LENGTH: ClassVar[int] = 3  # sixteenths that a sound lasts

    @property
    def step_size(self) -> int:
        """Output values of a sixteenth."""
        return self.SOUNDS

    @property
    def bar_size(self) -> int:
        """Output values of a bar."""
        return self.SOUNDS * self.LENGTH * self.size

    def get_controls(self, hits: jax.Array, sounds: jax.Array) -> PercussionControls:
        """Turns output values into controls.

        Args:
            hits: `[B, S, step_size]`, whether each sound is hit; 0.5: as likely as not.
            sounds: `[B, N, bar_size]`.
        """
        hits = jax.nn.sigmoid(_HIT_SHARPNESS * (hits - 0.5)).reshape(len(hits), -1, STEPS_PER_BAR, self.SOUNDS)
        return PercussionControls(hits, sounds.reshape(*sounds.shape[:2], self.SOUNDS, -1))

    def contribute(self, controls: PercussionControls) -> jax.Array:
        """What the sounds add from their hits on, `[B, S, E]` in deviations."""
        added = jnp.matmul(controls.hits, controls.sounds)
        added = added.reshape(len(added), -1, self.LENGTH, self.size)
        return sum(jnp.roll(added[:, :, age], age, 1) for age in range(self.LENGTH))


class NoteControls(NamedTuple):
    """The controls of `NoteHead`.

    Attributes:
        weights: `[B, N, 16, 2, 6]` in [0, 1]: which note of the bar sounds in each half of a
            sixteenth; the sum over notes is the confidence that there is a pitch.
        pitches: `[B, N, 6, 97]`: the weights of the quarter-tones that each note has; they sum to
            1.
        timbres: `[B, N, 6, E]`: what each note adds to the spectra.
    """

    weights: jax.Array
    pitches: jax.Array
    timbres: jax.Array


@dataclasses.dataclass(frozen=True)
class NoteHead:
    """Six notes of the bar, each with a pitch and a timbre; half a sixteenth says which one sounds.

    Attributes:
        size: E, components that a timbre adds to.
    """

    size: int
    step_size: ClassVar[int] = 2 * (1 + NOTES_PER_BAR)
    pitch_size: ClassVar[int] = NOTES_PER_BAR * pitch.QUARTER_TONES

    @property
    def timbre_size(self) -> int:
        """Output values of a bar for timbres."""
        return NOTES_PER_BAR * self.size

    def get_controls(self, choices: jax.Array, pitches: jax.Array, timbres: jax.Array) -> NoteControls:
        """Turns output values into controls.

        Args:
            choices: logits `[B, S, step_size]`: for each half of a sixteenth, the confidence that
                there is a pitch, then which note it is.
            pitches: logits `[B, N, pitch_size]`: which quarter-tone each note is, or what lies
                between.
            timbres: `[B, N, timbre_size]`.
        """
        choices = choices.reshape(*pitches.shape[:2], STEPS_PER_BAR, 2, -1)
        return NoteControls(
            weights=jax.nn.sigmoid(choices[..., :1]) * jax.nn.softmax(choices[..., 1:]),
            pitches=jax.nn.softmax(CHOICE_SHARPNESS * pitches.reshape(*pitches.shape[:2], NOTES_PER_BAR, -1)),
            timbres=timbres.reshape(*timbres.shape[:2], NOTES_PER_BAR, -1),
        )

    def contribute(self, controls: NoteControls) -> jax.Array:
        """What the timbres of the sounding notes add, `[B, S, E]` in deviations."""
        added = jnp.matmul(controls.weights.mean(-2), controls.timbres)
        return added.reshape(len(added), -1, self.size)

    def get_pitch(self, controls: NoteControls) -> jax.Array:
        """The features of the pitch, `[B, S, pitch.FEATURES]`."""
        of_notes = jnp.matmul(controls.pitches, pitch.quarter_tone_features())
        features = jnp.einsum("...shn,...nk->...shk", controls.weights, of_notes)
        return features.reshape(len(features), -1, pitch.FEATURES)


class PartialControls(NamedTuple):
    """The controls of `PartialHead`.

    Attributes:
        prominences: `[B, N, 16, 8]` in [0, 1]: how far each partial stands out in a sixteenth.
        positions: `[B, N, 8, 150]`: the weights of the positions, 40 cents apart; they sum to 1.
        peaks: `[B, N, 8]`, nepers: how much louder the bands around a partial become.
    """

    prominences: jax.Array
    positions: jax.Array
    peaks: jax.Array


@dataclasses.dataclass(frozen=True)
class PartialHead:
    """Eight sustained partials of the bar; a sixteenth says how far each stands out.

    Mid and side have a head each.

    The bands around a partial become louder with it. Otherwise it would be lost in noise.
    """

    step_size: ClassVar[int] = PARTIALS_PER_BAR
    position_size: ClassVar[int] = PARTIALS_PER_BAR * partials.GENERATED_POSITIONS
    peak_size: ClassVar[int] = PARTIALS_PER_BAR

    def get_controls(self, prominences: jax.Array, positions: jax.Array, peaks: jax.Array) -> PartialControls:
        """Turns output values into controls.

        Args:
            prominences: logits `[B, S, step_size]`.
            positions: logits `[B, N, position_size]`.
            peaks: `[B, N, peak_size]`, whose softplus is in nepers.
        """
        bars = peaks.shape[:2]
        return PartialControls(
            prominences=jax.nn.sigmoid(prominences).reshape(*bars, STEPS_PER_BAR, -1),
            positions=jax.nn.softmax(CHOICE_SHARPNESS * positions.reshape(*bars, PARTIALS_PER_BAR, -1)),
            peaks=jax.nn.softplus(peaks),
        )

    def contribute(self, controls: PartialControls, rises: np.ndarray) -> jax.Array:
        """What the levels around the partials add to a spectrum, `[B, S, K]` in deviations.

        Args:
            controls: the controls of the partials.
            rises: `[POSITIONS, K]`, what one neper around each position is in the components.
        """
        loudness = controls.prominences * controls.peaks[:, :, None]
        added = jnp.matmul(loudness, jnp.matmul(controls.positions, rises[:: partials.POSITION_STRIDE]))
        return added.reshape(len(added), -1, rises.shape[1])

    def get_partials(self, controls: PartialControls) -> jax.Array:
        """The features of the partials, `[B, S, partials.FEATURES]`."""
        of_partials = jnp.matmul(controls.positions, partials.generated_position_features())
        features = jnp.matmul(controls.prominences, of_partials)
        return features.reshape(len(features), -1, partials.FEATURES)


@dataclasses.dataclass(frozen=True)
class LowEndHead:
    """A kick and a bass, from oscillators.

    Attributes:
        step_samples: samples of a sixteenth of the waveform below the crossover.
        rate_hz: their sample rate.
    """

    step_samples: int
    rate_hz: float
    step_size: ClassVar[int] = low_end.STEP_SIZE
    bar_size: ClassVar[int] = low_end.BAR_SIZE

    def get_controls(self, step_values: jax.Array, bar_values: jax.Array) -> tuple:
        """Turns `[B, S, step_size]` and `[B, N, bar_size]` into the controls of kick and bass."""
        return low_end.get_controls(step_values, bar_values)

    def contribute(self, controls: tuple[low_end.KickControls, low_end.BassControls]) -> jax.Array:
        """The waveform of each sixteenth, `[B, S, step_samples]`, full scale being 1."""
        kick, bass = controls
        wave = low_end.synthesize_kick(kick, self.step_samples, self.rate_hz)
        return wave + low_end.synthesize_bass(bass, self.step_samples, self.rate_hz)
