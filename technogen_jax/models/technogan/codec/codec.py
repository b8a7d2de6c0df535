"""The codec: audio to code vectors on the beat grid, and back."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from technogen_jax.common.run_config import AudioConfig
from technogen_jax.models.technogan.codec.analysis import exact_products, make_bands
from technogen_jax.models.technogan.codec.components import PrincipalComponents
from technogen_jax.models.technogan.codec.decoder import Decoder
from technogen_jax.models.technogan.codec.encoder import Encoder
from technogen_jax.models.technogan.codec.statistics import CodecStatistics
from technogen_jax.models.technogan.config import TechnoGANConfig
from technogen_jax.models.technogan.layout import BeatGrid, CodeLayout, Parts


class Codec:
    """Audio to code `[B, S, K]`, one vector for each sixteenth note, and back.

    All methods are pure functions and can be compiled. Without statistics the codec has its sizes
    and makes codes of zeros, but `encode` and `decode` raise.

    Args:
        config: the model's fields.
        audio: rate, channels and length of a clip.
        statistics: those of the dataset, as `statistics.CodecStatistics` or as the arrays of
            statistics.npz; None before they are measured.
        clips: how many clips in a row are one loop.

    Attributes:
        grid: the beat grid of the clips.
        layout: the parts of the code.
        components: principal components of each part.
        scale: float32 `[K]`, standard deviation of each component over the dataset: it is
            proportional to a power below 1 of the deviation of the features, so that large ones
            count more, but less than in plain principal components. Ones without statistics.
        silence: float32 `[K]`, the code of features of zero. It is not zero, which is the mean of
            the dataset.

    Raises:
        ValueError: fields or statistics that do not fit the audio; names them.
    """

    def __init__(
        self,
        config: TechnoGANConfig,
        audio: AudioConfig,
        statistics: CodecStatistics | dict[str, np.ndarray] | None = None,
        clips: int = 1,
    ):
        self.grid, self.layout = BeatGrid.of_clips(config, audio, clips), CodeLayout.plan(config, audio)
        self._is_measured = bool(statistics)
        if isinstance(statistics, dict) and statistics:
            statistics = CodecStatistics.from_arrays(statistics, self.layout)
        statistics = statistics or CodecStatistics.placeholder(self.layout)
        frames = self.grid.frames_per_step
        parts = (part and PrincipalComponents(part, frames) for part in statistics.parts)
        self.components = Parts(*parts)
        bands = make_bands(self.grid, config.n_mels)
        self._encoder = Encoder(self.grid, self.layout, bands, self.components)
        self._decoder = Decoder(self.grid, self.layout, bands, self.components, statistics, config.level_passes)
        existing = [part for part in self.components if part]
        self.scale = np.concatenate([part.scale for part in existing])
        self.silence = np.concatenate([part.silence for part in existing])

    def encode(self, audio: jax.Array) -> jax.Array:
        """Audio `[B, T, C]` in [-1, 1] to code `[B, S, K]`."""
        self._check_measured()
        with exact_products():
            return self._encoder.encode(audio)

    def decode(self, code: jax.Array, noise: jax.Array | None = None) -> jax.Array:
        """Code `[B, S, K]` to audio `[B, T, C]`; `noise` is by default drawn."""
        self._check_measured()
        with exact_products():
            return self._decoder.decode(code, noise)

    def draw_noise(self, code: jax.Array) -> jax.Array:
        """The white noise that `decode` uses for a code, `[B, C, grid.samples]`."""
        return self._decoder.draw_noise(code)

    def synthesize(self, params: dict[str, Any] | None, code: jax.Array, noise: jax.Array) -> jax.Array:
        """Mid and side `[B, C, T]` by a shaper with these parameters, for its training."""
        self._check_measured()
        return self._decoder.synthesize(params, code, noise)

    def encode_part(self, name: str, features: jax.Array) -> jax.Array:
        """The code `[..., K]` of the features `[..., D]` of the part of that name."""
        return self._encoder.encode_part(name, features)

    def encode_low_waveform(self, waveform: jax.Array) -> jax.Array:
        """What sixteenths `[B, S, low_samples]` below the crossover add to the silent `low`."""
        return self._encoder.encode_low_waveform(waveform)

    def encode_partial_peaks(self, name: str) -> np.ndarray:
        """`[POSITIONS, K]`: what a neper at a partial adds to the code of "mid" or "side"."""
        return self._encoder.encode_partial_peaks(name)

    def _check_measured(self):
        if not self._is_measured:
            raise ValueError(
                "technogan: no statistics of the training set; pass models.build what models.measure returns"
            )
