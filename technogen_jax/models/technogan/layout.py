"""The beat grid of a clip, and where each part lies in the code vector of a sixteenth note.

Axes in this package: `B` clips, `T` samples, `C` channels, `S` sixteenth notes (steps), `N`
spectral frames, `F` frequency bins, `M` mel bands, `D` features of a part, `K` components: the
principal components of those features, which are the code.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from technogen_jax.common.config_fields import check_condition
from technogen_jax.common.run_config import AudioConfig
from technogen_jax.models.technogan.codec import partials, pitch
from technogen_jax.models.technogan.config import TechnoGANConfig

STEPS_PER_BAR = 16  # sixteenth notes
STEPS_PER_BEAT = 4
# Below the first frequency the code has the waveform alone, above the second the magnitudes of
# spectra alone.
CROSSOVER_HZ = (125.0, 235.0)
BAND_GROUPS = 8  # of mel bands, in which mid and side are compared and the critic sees spectra

T = TypeVar("T")


class Parts(NamedTuple, Generic[T]):
    """One value for each part of the code; None where the codec does not have the part.

    Attributes:
        mid: log-mel spectra of the mid, the mean of left and right; of mono, the signal.
        side: log-mel spectra of the side, half the difference of left and right (stereo).
        low: waveform of the mid below the crossover.
        pitch: pitch of the mid (with a shaper).
        partials: sustained partials of the mid (with a shaper).
        side_partials: sustained partials of the side (stereo, with a shaper).
        pan: correlation of mid and side in groups of bands (stereo).
    """

    mid: T
    side: T | None
    low: T
    pitch: T | None
    partials: T | None
    side_partials: T | None
    pan: T | None


@dataclasses.dataclass(frozen=True)
class BeatGrid:
    """How the samples of a clip lie on the beat grid.

    Attributes:
        clip_samples: T, samples of the clip.
        sample_rate_hz: rate of the clip.
        bars: bars in the clip.
        frames_per_step: spectra of a sixteenth.
    """

    clip_samples: int
    sample_rate_hz: int
    bars: int
    frames_per_step: int

    @classmethod
    def of_clips(cls, config: TechnoGANConfig, audio: AudioConfig, clips: int = 1) -> BeatGrid:
        """The grid of that many clips in a row, as one loop."""
        return cls(clips * audio.clip_samples, audio.sample_rate_hz, clips * config.bars, config.frames_per_step)

    @property
    def steps(self) -> int:
        """S, the sixteenths of the clip."""
        return STEPS_PER_BAR * self.bars

    @property
    def frames(self) -> int:
        """N, the spectra of the clip."""
        return self.steps * self.frames_per_step

    @functools.cached_property
    def hop_length(self) -> int:
        """Samples between two frames of synthesis: a multiple of 16, for fast transforms."""
        return -(-self.clip_samples // (16 * 2 * self.frames)) * 16

    @property
    def analysis_hop_length(self) -> int:
        """Samples between two frames of analysis; the code has all of their spectra."""
        return 2 * self.hop_length

    @property
    def n_fft(self) -> int:
        """The length of a frame."""
        return 4 * self.hop_length

    @property
    def samples(self) -> int:
        """The samples of the clip after it is resampled to whole hops."""
        return self.frames * self.analysis_hop_length

    @property
    def step_samples(self) -> int:
        """The samples of a sixteenth after resampling."""
        return self.samples // self.steps

    @property
    def rate_hz(self) -> float:
        """The sample rate after resampling."""
        return self.sample_rate_hz * self.samples / self.clip_samples

    @property
    def low_samples(self) -> int:
        """The samples of a sixteenth of the waveform below the crossover."""
        return 2 * int(CROSSOVER_HZ[1] * self.clip_samples / self.sample_rate_hz / self.steps + 1)

    @property
    def low_rate_hz(self) -> float:
        """The sample rate of the waveform below the crossover."""
        return self.low_samples * self.steps * self.sample_rate_hz / self.clip_samples


@dataclasses.dataclass(frozen=True)
class Part:
    """One part of the code vector.

    Attributes:
        start: its first dimension in the vector.
        size: K of the part, its number of components.
        features: D, the features that the components are made from.
    """

    start: int
    size: int
    features: int

    @property
    def slice(self) -> slice:
        """Its dimensions in the vector."""
        return slice(self.start, self.start + self.size)

    def take(self, code: jax.Array) -> jax.Array:
        """The part `[..., size]` of code vectors `[..., K]`."""
        return code[..., self.slice]


@dataclasses.dataclass(frozen=True)
class CodeLayout:
    """The parts of the code vector of a sixteenth, in order; None for one that is missing."""

    mid: Part
    side: Part | None
    low: Part
    pitch: Part | None
    partials: Part | None
    side_partials: Part | None
    pan: Part | None

    @classmethod
    def plan(cls, config: TechnoGANConfig, audio: AudioConfig) -> CodeLayout:
        """The layout that a config describes.

        Raises:
            FieldError: a part would have more components than features; names the field.
        """
        grid, stereo, shaped = BeatGrid.of_clips(config, audio), audio.channels == 2, config.shaper != "none"
        rows = (  # name, whether it exists, its field, its components, its features
            ("mid", True, "mid_components", config.mid_components, grid.frames_per_step * config.n_mels),
            ("side", stereo, "side_components", config.side_components, grid.frames_per_step * (config.n_mels + 1)),
            ("low", True, "low_components", config.low_components, grid.low_samples),
            ("pitch", shaped, "pitch_components", config.pitch_components, pitch.FEATURES),
            ("partials", shaped, "partial_components", config.partial_components, partials.FEATURES),
            (
                "side_partials",
                shaped and stereo,
                "side_partial_components",
                config.side_partial_components,
                partials.FEATURES,
            ),
            ("pan", stereo, "pan_components", config.pan_components, BAND_GROUPS),
        )
        parts, start = {}, 0
        for name, exists, field, size, features in rows:
            parts[name] = None
            if exists:
                given = f"n_mels = {config.n_mels} and frames_per_step = {config.frames_per_step}"
                check_condition(size <= features, f"model.{field}", f"at most {features}, all that {given} give", size)
                parts[name] = Part(start, size, features)
                start += size
        return cls(**parts)

    def items(self) -> Iterator[tuple[str, Part]]:
        """(name, part) of each part that exists, in order."""
        for field in dataclasses.fields(self):
            if part := getattr(self, field.name):
                yield field.name, part

    def split(self, code: jax.Array) -> Parts[jax.Array]:
        """Code vectors `[..., K]` as their parts, `[..., K of the part]`."""
        names = [name for name, _ in self.items()]
        starts = [part.start for _, part in self.items()]
        found = dict(zip(names, jnp.split(code, starts[1:], -1), strict=True))
        return Parts(**dict.fromkeys(Parts._fields) | found)

    @property
    def size(self) -> int:
        """K, the length of a code vector."""
        return sum(part.size for _, part in self.items())

    @property
    def spectra(self) -> tuple[str, ...]:
        """Names of the parts that are spectra, which come first in the vector."""
        return ("mid", "side") if self.side else ("mid",)


def group_members(size: int, count: int = BAND_GROUPS) -> np.ndarray:
    """`[count, size]`: which of `size` elements in a row are in each of `count` equal groups."""
    return np.float32(np.arange(size) * count // size == np.arange(count)[:, None])
