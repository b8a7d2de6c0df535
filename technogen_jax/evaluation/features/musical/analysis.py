"""What the features of one clip share: computed once, and only if a feature needs it."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from technogen_jax.evaluation.features.musical import beats, level
from technogen_jax.evaluation.features.musical.clip import Clip, make_clip


@dataclasses.dataclass(frozen=True)
class ClipAnalysis:
    """A clip with its loudness, onsets, tempo, beat grid and bars.

    Attributes:
        clip: the clip with its spectrum.
        beats: number of beats in the clip, if known.
    """

    clip: Clip
    beats: int | None

    @functools.cached_property
    def loudness_lufs(self) -> float | None:
        """Gated loudness; None for silence."""
        return level.measure_loudness(self.clip)

    @functools.cached_property
    def onsets(self) -> beats.Onsets:
        """Rise of the level from frame to frame."""
        return beats.find_onsets(self.clip)

    @functools.cached_property
    def tempo(self) -> beats.Tempo:
        """The estimated tempo."""
        return beats.estimate_tempo(self.clip, self.onsets)

    @functools.cached_property
    def grid(self) -> beats.Grid | None:
        """The beats; None for a clip without a tempo or a whole beat."""
        return beats.find_grid(self.clip, self.onsets, self.tempo.bpm, self.beats)

    @functools.cached_property
    def bars(self) -> np.ndarray | None:
        """Onsets of the whole bars `[bars, 16, 3]`; None without one, or for silence."""
        if self.loudness_lufs is None or self.grid is None:
            return None
        return beats.cut_bars(self.onsets, self.grid, self.clip.loop)


def analyse(audio: np.ndarray, sample_rate_hz: int, beat_count: int | None, loop: bool) -> ClipAnalysis:
    """Returns the analysis of a clip.

    Raises:
        ValueError: audio that `check_audio` refuses, or fewer than one beat.
    """
    clip = make_clip(audio, sample_rate_hz, loop)
    if beat_count is not None and beat_count < 1:
        raise ValueError(f"beats: expected 1 or more, or None for an estimate, got {beat_count}")
    return ClipAnalysis(clip, beat_count)
