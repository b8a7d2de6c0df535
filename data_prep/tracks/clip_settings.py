"""How tracks are cut into clips, and where the clips of a track are."""

from __future__ import annotations

from typing import Any, NamedTuple

from data_prep import clips
from data_prep.tracks import tempo


class ClipSettings(NamedTuple):
    """How a track is cut into clips, and at what rate and level.

    The order of the fields is part of the names of decoded files: see `phases.make_stems`.
    """

    sample_rate_hz: int
    channels: int
    clip_samples: int
    stride_samples: int
    normalise: str
    target_lufs: float | None
    silence_db: float
    pad: bool = False  # whether a track shorter than a clip is one, with silence after it
    min_bandwidth_hz: float | None = None  # tracks without sound above it are left out
    bars: int = 0  # in a clip; 0: clips begin anywhere, and the fields below are not used
    stride_bars: int = 0
    bpm: float = 0.0  # the dataset's tempo
    sections: tuple[tempo.Section, ...] = ()  # of one track
    seconds: float = 0.0  # length of that track

    @property
    def bar_samples(self) -> float:
        """Length of a bar in the decoded track; a clip has a whole number of samples, a bar need not."""
        return self.clip_samples / self.bars

    def find_clips(self, samples: int) -> list[ClipPosition]:
        """Returns the clips of a decoded track of this length.

        With bars the decoded track is its sections, one after the other.
        """
        if not self.bars:
            count = clips.count_clips(samples, self.clip_samples, self.stride_samples)
            return [
                ClipPosition(index * self.stride_samples, index * self.stride_samples, {}) for index in range(count)
            ]
        positions, section_offset = [], 0
        for number, section in enumerate(self.sections):
            for index in range(clips.count_clips(section.bars, self.bars, self.stride_bars)):
                bar = index * self.stride_bars
                start = max(0, round(section.time_s(bar) * self.sample_rate_hz))
                bar_info = {"section": number, "bar": bar, "speed": round(self.speed(section), 6)}
                positions.append(ClipPosition(section_offset + round(bar * self.bar_samples), start, bar_info))
            section_offset += section.samples(self.bar_samples)
        return positions

    def decoded_bytes(self, samples: int) -> int:
        """Returns the size of a decoded track, which ends with its last clip."""
        return (self.find_clips(samples)[-1].offset + self.clip_samples) * 2 * self.channels

    def speed(self, section: tempo.Section) -> float:
        """Returns the factor by which a section is played faster than in the track."""
        return tempo.BEATS_PER_BAR * 60 / section.bpm * self.sample_rate_hz / self.bar_samples


class ClipPosition(NamedTuple):
    """Where a clip is in its track."""

    offset: int  # first sample in the decoded track
    start: int  # first sample in the original track, at the dataset's rate
    bar_info: dict[str, Any]  # with bars: number of the section, bar in it, speed
