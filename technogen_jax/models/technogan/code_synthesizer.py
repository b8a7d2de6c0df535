"""Adds up what the heads contribute to the code of each sixteenth.

    output values -> heads
        -> percussion, timbres, levels around partials: added to the continuous components
        -> kick and bass: added to the low components
        -> pitch and partials: parts of their own

Continuous components are counted in deviations from their mean until the end. Two more rules: a
gate of each sixteenth mixes the free components of the low end with silence; a bar with a continuous
component too far from the mean is made smaller as a whole.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from technogen_jax.models.technogan.codec.codec import Codec
from technogen_jax.models.technogan.heads import (
    ContinuousHead,
    LowEndHead,
    NoteControls,
    NoteHead,
    PartialControls,
    PartialHead,
    PercussionHead,
)
from technogen_jax.models.technogan.layout import STEPS_PER_BAR

_GATE_LOGIT = -4.0  # a new generator's gate of the low end is 0.02 open; chosen
_MAX_DEVIATIONS = 12.0  # nearly all real bars are closer: experiments/log/2026-11-29-side-weight.md


class StepValues(NamedTuple):
    """The generator's output values for a sixteenth, in the order of the columns of its layer.

    Each is a size, or an array `[B, S, size]`. The size is 0 for a part that the code does not
    have.
    """

    mid: jax.Array
    side: jax.Array
    low_gate: jax.Array
    low_end: jax.Array
    low: jax.Array
    notes: jax.Array
    partials: jax.Array
    side_partials: jax.Array
    pan: jax.Array
    percussion: jax.Array


class BarValues(NamedTuple):
    """The output values for a bar, in the order of the columns: sizes, or arrays `[B, N, size]`."""

    motion: jax.Array
    noise: jax.Array
    low_end: jax.Array
    percussion: jax.Array
    peaks: jax.Array
    side_peaks: jax.Array
    timbres: jax.Array
    notes: jax.Array
    partials: jax.Array
    side_partials: jax.Array


class ContinuousParts(NamedTuple):
    """The continuous parts of the code: sizes, or arrays `[B, S, size]`."""

    mid: jax.Array
    side: jax.Array
    low: jax.Array
    pan: jax.Array


def split_values(values: jax.Array, sizes: NamedTuple) -> NamedTuple:
    """Splits the last axis into arrays of these sizes, named as the sizes are."""
    split = np.split if isinstance(values, np.ndarray) else jnp.split
    return type(sizes)(*split(values, np.cumsum(sizes)[:-1], -1))


class CodeSynthesizer:
    """Turns the output values of the generator into the code.

    Args:
        codec: the codec of the code.

    Attributes:
        step_sizes: output values of a sixteenth, by name.
        bar_sizes: output values of a bar, by name.
        noise_size: noise components of a sixteenth.
    """

    def __init__(self, codec: Codec):
        self._codec, layout, grid = codec, codec.layout, codec.grid
        mid, side, low, pan = parts = [layout.mid, layout.side, layout.low, layout.pan]
        self._sizes = ContinuousParts(*(part.size if part else 0 for part in parts))
        columns = np.concatenate([np.arange(layout.size)[part.slice] for part in parts if part])
        self._scale = codec.scale[columns]
        self._is_low = np.isin(columns, np.arange(layout.size)[low.slice]).astype(np.float32)
        # The code of silence, in deviations, of the low components; 0 of the others.
        self._silence = self._is_low * codec.silence[columns] / self._scale
        added_size = sum(self._sizes) - low.size
        self._continuous = ContinuousHead(sum(self._sizes))
        self._percussion = PercussionHead(added_size)
        self._low_end = LowEndHead(grid.low_samples, grid.low_rate_hz)
        self._notes = NoteHead(added_size) if layout.pitch else None
        self._partials = PartialHead() if layout.partials else None
        self._side_partials = PartialHead() if layout.side_partials else None
        self.noise_size = self._continuous.noise_size
        self.step_sizes, self.bar_sizes = self._count_values()

    def _count_values(self) -> tuple[StepValues, BarValues]:
        """The sizes of the output values."""
        notes, partials, side_partials = self._notes, self._partials, self._side_partials
        step_sizes = StepValues(
            mid=self._sizes.mid,
            side=self._sizes.side,
            low_gate=1,
            low_end=self._low_end.step_size,
            low=self._sizes.low,
            notes=notes.step_size if notes else 0,
            partials=partials.step_size if partials else 0,
            side_partials=side_partials.step_size if side_partials else 0,
            pan=self._sizes.pan,
            percussion=self._percussion.step_size,
        )
        bar_sizes = BarValues(
            motion=self._continuous.motion_size,
            noise=self._continuous.noise_size,
            low_end=self._low_end.bar_size,
            percussion=self._percussion.bar_size,
            peaks=partials.peak_size if partials else 0,
            side_peaks=side_partials.peak_size if side_partials else 0,
            timbres=notes.timbre_size if notes else 0,
            notes=notes.pitch_size if notes else 0,
            partials=partials.position_size if partials else 0,
            side_partials=side_partials.position_size if side_partials else 0,
        )
        return step_sizes, bar_sizes

    def sum_contributions(self, step_values: jax.Array, bar_values: jax.Array, noise: jax.Array) -> jax.Array:
        """The code of N bars.

        Args:
            step_values: `[B, S, sum of step_sizes]`.
            bar_values: `[B, N, sum of bar_sizes]`.
            noise: standard normal `[B, S, noise_size]`.

        Returns:
            `[B, S, K]`, the parts in the order of the layout.
        """
        step, bar = split_values(step_values, self.step_sizes), split_values(bar_values, self.bar_sizes)
        controls = self._continuous.get_controls(
            jnp.concatenate([step.mid, step.side, step.low, step.pan], -1), bar.motion, bar.noise, noise
        )
        x = self._continuous.contribute(controls) + self._sum_additions(step, bar)
        mid, side, low, pan = split_values(self._limit(x, step.low_gate), self._sizes)
        low_end = self._low_end.contribute(self._low_end.get_controls(step.low_end, bar.low_end))
        parts = [mid, side, low + self._codec.encode_low_waveform(low_end)]
        # Controls of notes and partials are computed here and in `_sum_additions`, not shared: so
        # gradients are summed in the order of earlier versions, and training gives the same bits.
        if self._notes:
            features = self._notes.get_pitch(self._control_notes(step, bar))
            parts.append(self._codec.encode_part("pitch", features))
        if self._partials:
            features = self._partials.get_partials(self._control_partials(step, bar))
            parts.append(self._codec.encode_part("partials", features))
        if self._side_partials:
            features = self._side_partials.get_partials(self._control_side_partials(step, bar))
            parts.append(self._codec.encode_part("side_partials", features))
        return jnp.concatenate([*parts, pan], -1)

    def _sum_additions(self, step: StepValues, bar: BarValues) -> jax.Array:
        """What percussion, notes and partials add to the continuous components, `[B, S, M]`."""
        added = self._percussion.contribute(self._percussion.get_controls(step.percussion, bar.percussion))
        if self._notes:
            added += self._notes.contribute(self._control_notes(step, bar))
        mid, side, _, pan = split_values(added, self._sizes._replace(low=0))
        scale = split_values(self._scale, self._sizes)
        if self._partials:
            rises = self._codec.encode_partial_peaks("mid") / scale.mid
            mid += self._partials.contribute(self._control_partials(step, bar), rises)
        if self._side_partials:
            rises = self._codec.encode_partial_peaks("side") / scale.side
            side += self._side_partials.contribute(self._control_side_partials(step, bar), rises)
        return jnp.concatenate([mid, side, jnp.zeros_like(step.low), pan], -1)

    def _control_notes(self, step: StepValues, bar: BarValues) -> NoteControls:
        return self._notes.get_controls(step.notes, bar.notes, bar.timbres)

    def _control_partials(self, step: StepValues, bar: BarValues) -> PartialControls:
        return self._partials.get_controls(step.partials, bar.partials, bar.peaks)

    def _control_side_partials(self, step: StepValues, bar: BarValues) -> PartialControls:
        return self._side_partials.get_controls(step.side_partials, bar.side_partials, bar.side_peaks)

    def _limit(self, x: jax.Array, low_gate: jax.Array) -> jax.Array:
        """Applies the gate of the low end, and limits the bars; `[B, S, M]`.

        Args:
            x: `[B, S, M]`, in deviations; the result is in the units of the code.
            low_gate: logits `[B, S, 1]`: how much of the low end's free components there is.
        """
        closed = self._is_low * jax.nn.sigmoid(-_GATE_LOGIT - low_gate)
        x = x + closed * (self._silence - x)
        factor = limit_bars(x)
        # What is closed stays silent: silence is not zero, which is the mean of the dataset.
        return (factor * x + (1 - factor) * closed * self._silence) * self._scale


def limit_bars(x: jax.Array) -> jax.Array:
    """The factor of each bar with which all its components are within 12 deviations.

    The scales of the style multiply from block to block: one generated bar of some hundred would
    otherwise have components a hundred times too large.

    Args:
        x: `[B, S, M]`, in deviations.

    Returns:
        `[B, S, 1]`: 1 for a bar that is within.
    """
    # Not jnp.max: its gradient is divided by the number of entries that equal the maximum. XLA may
    # compute the entries a second time with another rounding. Then no entry equals it: 0 / 0.
    sizes = jnp.abs(x).reshape(len(x), -1, STEPS_PER_BAR * x.shape[2])
    is_largest = jnp.arange(sizes.shape[-1]) == jnp.argmax(sizes, -1, keepdims=True)
    largest = jnp.sum(jnp.where(is_largest, sizes, 0), -1)
    return jnp.repeat(_MAX_DEVIATIONS / jnp.maximum(largest, _MAX_DEVIATIONS), STEPS_PER_BAR, 1)[..., None]
