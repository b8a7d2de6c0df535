"""Code vectors to audio: excitations, shaped band by band, above a waveform of the low end.

    code -> low waveform, pitch, partials, noise -> excitations
         -> all of these and the levels -> shaper -> gates
    gates x excitations x levels -> mid and side, low waveform below the crossover -> audio

Without a shaper white noise is the only excitation, with the levels of the code.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from technogen_jax.audio import spectral
from technogen_jax.models.technogan.codec import constants, excitations, partials, pitch, shaper
from technogen_jax.models.technogan.codec.analysis import FLOOR, Bands, respond_to_partials, unfold
from technogen_jax.models.technogan.codec.components import PrincipalComponents
from technogen_jax.models.technogan.codec.leveling import double_frames, match_levels
from technogen_jax.models.technogan.codec.statistics import CodecStatistics, PartStatistics
from technogen_jax.models.technogan.layout import (
    CROSSOVER_HZ,
    STEPS_PER_BEAT,
    BeatGrid,
    CodeLayout,
    Parts,
    group_members,
)

_RUMBLE_HZ = (8.0, 24.0)  # inaudible below: a generator's output there would only take headroom
_LOUDEST = 0.0  # log-magnitude of a sine at full scale: a generator's level may be higher
# Frames of synthesis by which the side gets some of the mid's noise and pulses: 14 ms at 136 BPM.
_DELAY_FRAMES = 2


class Decoder:
    """Code to audio.

    Args:
        grid: the grid of the clips.
        layout: the layout of the code.
        bands: the bands of the spectra.
        components: principal components of each part.
        statistics: with the corrections and the shaper.
        level_passes: how often the levels of the sound are brought to those of the code
            (`leveling`).
    """

    def __init__(
        self,
        grid: BeatGrid,
        layout: CodeLayout,
        bands: Bands,
        components: Parts[PrincipalComponents],
        statistics: CodecStatistics,
        level_passes: int = 0,
    ):
        self._grid, self._layout, self._bands, self._components = grid, layout, bands, components
        self._level_passes = level_passes
        self._statistics = statistics.parts
        self._shaper = jax.tree.map(lambda value: value.astype(np.float32), statistics.shaper)
        self._n_mels, self._is_stereo = len(bands.mid), layout.side is not None
        # A band's value over its bins:
        self._spread = bands.mid / np.maximum(bands.mid.sum(0), 1e-9)
        # Magnitudes of bands to those of bins, for each of `layout.spectra`.
        self._inverses = [
            np.linalg.pinv(getattr(bands, name).astype(np.float64)).astype(np.float32) for name in layout.spectra
        ]

    def decode(self, code: jax.Array, noise: jax.Array | None = None) -> jax.Array:
        """Code `[B, S, K]` to audio `[B, T, C]`, with no sample above the limiter's ceiling.

        Args:
            code: the code of the clips.
            noise: what `draw_noise` returns; by default it is drawn.
        """
        noise = self.draw_noise(code) if noise is None else noise
        loop = self.synthesize(self._shaper, code, noise, clear=True)
        if self._is_stereo:
            mid, side = loop[:, 0], loop[:, 1]
            loop = jnp.stack([mid + side, mid - side], -1)
        else:
            loop = jnp.moveaxis(loop, 1, -1)
        return spectral.limit_circular(spectral.saturate(loop), self._grid.sample_rate_hz)

    def draw_noise(self, code: jax.Array) -> jax.Array:
        """The white noise that `decode` uses for a code, `[B, C, grid.samples]`."""
        return excitations.white_noise(code, len(self._layout.spectra), self._grid.step_samples)

    def synthesize(
        self, params: dict[str, Any] | None, code: jax.Array, noise: jax.Array, *, clear: bool = False
    ) -> jax.Array:
        """Mid and side `[B, C, T]` (of mono the signal), before saturation and limiter.

        Args:
            params: the parameters of the shaper, None for noise alone.
            code: `[B, S, K]`.
            noise: white noise `[B, C, grid.samples]` of unit standard deviation.
            clear: whether to apply the gains that correct the shaper's bias towards noise
                (`constants`); False while the shaper is trained.
        """
        grid = self._grid
        features = self._read_features(code)
        levels = self._read_levels(features)
        low = unfold(features.low).reshape(len(code), -1)
        waves, gates, pan = noise, None, None
        if params is not None:
            waves, gates = self._excite(params, levels, low, features, noise, clear)
        if self._is_stereo:
            pan = jnp.repeat(jnp.clip(features.pan, -1, 1), 2 * grid.frames_per_step, 1)
        controls = (*jax.tree.map(double_frames, (levels, gates)), pan)
        loop = spectral.resynthesize_circular(
            self._shape_spectra,
            waves,
            controls,
            grid.n_fft,
            grid.hop_length,
            # Beat by beat on a CPU, for the sake of its caches; elsewhere fewer and larger kernels.
            pieces=grid.steps // STEPS_PER_BEAT if jax.default_backend() == "cpu" else 1,
            before=_DELAY_FRAMES,
        )
        for _ in range(self._level_passes if clear else 0):
            filters = [getattr(self._bands, name) for name in self._layout.spectra]
            loop = match_levels(loop, self._read_levels(features, with_lost=False), filters, grid)
        loop = spectral.resample_circular(loop, grid.clip_samples)
        return jnp.concatenate([_cross_over(low, loop[:, :1], grid.sample_rate_hz), loop[:, 1:]], 1)

    def _read_features(self, code: jax.Array) -> Parts[jax.Array]:
        """The features `[B, S, D]` of each part of a code."""
        parts = zip(self._components, self._layout.split(code), strict=True)
        return Parts(*(components and components.decode(values) for components, values in parts))

    def _read_levels(self, features: Parts[jax.Array], *, with_lost: bool = True) -> tuple[jax.Array, ...]:
        """Logarithms of magnitudes, `[B, N, bands]`, of mid and, if stereo, side; see `_correct_levels`."""
        parts = (features, self._components, self._statistics)
        return tuple(
            self._correct_levels(*(getattr(of_parts, name) for of_parts in parts), with_lost)
            for name in self._layout.spectra
        )

    def _correct_levels(
        self, levels: jax.Array, components: PrincipalComponents, statistics: PartStatistics, with_lost: bool
    ) -> jax.Array:
        """Levels `[B, S, D]` with the correction and, if wanted, the lost variance, `[B, N, bands]`."""
        # What the components leave out of a level is noise around it. The exponentials of levels
        # without that noise would have less power.
        frames = self._grid.frames_per_step
        bands = levels.shape[-1] // frames
        swing = np.tile(np.ones(bands) if statistics.swing is None else statistics.swing, frames)
        level = np.tile(np.zeros(bands) if statistics.level is None else statistics.level, frames)
        lost = components.lost if with_lost else np.zeros_like(components.lost)
        offset = np.float32((1 - swing) * components.mean + lost + level)
        levels = np.float32(swing) * levels + offset
        return jnp.minimum(levels.reshape(len(levels), self._grid.frames, -1), _LOUDEST)

    def _excite(self, params, levels, low, features, noise, clear) -> tuple[jax.Array, shaper.Gates]:
        """Waveforms of the excitations, and the gates that they are multiplied by.

        Args:
            params: the parameters of the shaper.
            levels: what `_read_levels` returns.
            low: waveform below the crossover, `[B, S * low_samples]`.
            features: what `_read_features` returns.
            noise: white noise `[B, C, samples]`.
            clear: as in `synthesize`.

        Returns:
            (waveforms `[B, W, samples]`: C of noise, then three of the distorted low end, the pulse
            train, and the partials of mid and, of stereo, side; gates `[B, N, M]`).
        """
        grid = self._grid
        pitch_hz, confidence = pitch.decode_pitch(features.pitch)
        seen_confidence = jnp.minimum(constants.CONFIDENCE_GAIN * confidence, 1) if clear else confidence
        tonal, sines = [self._describe_pitch(pitch_hz, seen_confidence)], []
        for of_part, lowest_hz in (
            (features.partials, partials.LOWEST_MID_HZ),
            (features.side_partials, partials.LOWEST_SIDE_HZ),
        ):
            if of_part is None:  # the side of mono
                tonal.append(jnp.zeros_like(tonal[-1]))
                continue
            position, height = partials.decode_partials(of_part)
            height = jnp.where(height < constants.LEAST_PROMINENCE, 0, height)
            wave = excitations.make_partials(position, height, grid.samples, grid.rate_hz, lowest_hz)
            sines.append(wave[:, None])
            tonal.append(self._describe_partials(position, height, lowest_hz))
        mid = levels[0]
        side = levels[1][..., 1:] if self._is_stereo else jnp.full_like(mid, np.log(FLOOR))
        seen_low = spectral.resample_circular(low, grid.frames * shaper.LOW_SAMPLES)
        gates, swells = shaper.apply(params, jnp.stack([mid, side], 1), seen_low, jnp.concatenate(tonal, -1))
        if clear:
            gates = self._clear_tones(gates, swells)
        waves = [
            excitations.swell_noise(noise, swells, grid.steps, grid.rate_hz),
            excitations.distort(spectral.resample_circular(low, grid.samples)),
            excitations.make_pulses(pitch_hz, confidence, grid.samples, grid.rate_hz)[:, None],
            *sines,
        ]
        return jnp.concatenate(waves, 1), gates

    def _describe_pitch(self, pitch_hz: jax.Array, confidence: jax.Array) -> jax.Array:
        """What the shaper sees of the pitch, `[B, N, 2]`."""
        octave = confidence * jnp.log2(pitch_hz / pitch.RANGE_HZ[0]) - 2
        return jnp.repeat(jnp.stack([2 * confidence, octave], -1), self._grid.frames_per_step // 2, 1)

    def _describe_partials(self, position: jax.Array, height: jax.Array, lowest_hz: float) -> jax.Array:
        """What the shaper sees of the partials, `[B, N, M]`."""
        response = jnp.asarray(respond_to_partials(lowest_hz, self._bands.mid, self._grid))
        return 2 * jnp.repeat(jnp.sum(height[..., None] * response[position], 2), self._grid.frames_per_step, 1)

    def _clear_tones(self, gates: shaper.Gates, swells: jax.Array) -> shaper.Gates:
        """Gates with louder pulses and partials, and less noise where pulses are loud."""

        def louder(gates, statistics):
            tone = np.ones(self._n_mels) if statistics.tone is None else statistics.tone
            tone = tone.astype(np.float32)
            return gates._replace(
                pitch=gates.pitch * (constants.PULSE_GAIN * tone),
                partials=gates.partials * (constants.PARTIALS_GAIN * tone),
            )

        mid = louder(gates.mid, self._statistics.mid)
        mid = mid._replace(noise=reduce_noise(mid.noise, mid.pitch, swells))
        side = louder(gates.side, self._statistics.side) if self._is_stereo else gates.side
        return shaper.Gates(mid, side)

    def _shape_spectra(self, spectra: jax.Array, controls: tuple) -> list[jax.Array]:
        """Spectra of the excitations to those of mid and side, `[B, n, F]` each.

        Args:
            spectra: `[B, W, _DELAY_FRAMES + n, F]`, in the order of `_excite`.
            controls: (levels, gates or None, correlation of mid and side or None), `[B, n, ...]`
                each.
        """
        levels, gates, pan = controls
        grid, count = self._grid, len(levels)
        noise = spectra[:, :count] * spectral.noise_power(grid.n_fft) ** -0.5  # of unit mean square
        sounds = [noise[:, i, _DELAY_FRAMES:] for i in range(count)]
        if gates is not None:
            tones = excitations.flatten_bands(spectra[:, count:], self._bands.mid, self._spread)
            gates = jax.tree.map(lambda gate: spectral.matmul_banded(gate, self._spread), gates)
            square, rectified, pulse, train, mid_partials = (tones[:, i, _DELAY_FRAMES:] for i in range(5))
            of_mid = gates.mid
            shaped = [of_mid.square * square, of_mid.rectified * rectified, of_mid.pulse * pulse]
            shaped += [of_mid.pitch * train, of_mid.partials * mid_partials]
            sounds[0] = _gain(of_mid.noise) * sounds[0] + sum(shaped)
            if self._is_stereo:
                of_side, side_partials = gates.side, tones[:, 5, _DELAY_FRAMES:]
                delayed_noise, delayed_train = noise[:, 0, :-_DELAY_FRAMES], tones[:, 3, :-_DELAY_FRAMES]
                shaped = [of_side.square * square, of_side.partials * side_partials]
                shaped += [of_side.delayed * delayed_noise, of_side.pitch * delayed_train]
                sounds[1] = _gain(of_side.noise) * sounds[1] + sum(shaped)
        if pan is not None:
            pan = jnp.matmul(pan, group_members(self._n_mels) @ self._spread)  # [B, n, F]
            sounds[1] = pan * sounds[0] + jnp.sqrt(jnp.maximum(1 - pan**2, 0)) * sounds[1]
        return [
            _to_magnitude(level, inverse) * (grid.n_fft / 4) * sound
            for level, inverse, sound in zip(levels, self._inverses, sounds, strict=True)
        ]


def reduce_noise(noise: jax.Array, pulses: jax.Array, swells: jax.Array) -> jax.Array:
    """The logarithmic gate of noise `[B, N, M]`, lower where pulses have most of the power.

    Args:
        noise: the mid's gate of noise.
        pulses: the mid's gate of the pulse train.
        swells: the swells of the noise, `[B, 2, N * SWELLS]`.
    """
    swell = jnp.mean(swells[:, 0].reshape(len(swells), -1, shaper.SWELLS), -1)[..., None]
    share = pulses**2 / (pulses**2 + jnp.exp(2 * (noise + swell)) + 1e-9)
    return noise - constants.NOISE_REDUCTION_NEPERS * share**2


def _gain(logarithm: jax.Array) -> jax.Array:
    return jnp.exp(jnp.clip(logarithm, -8, 3))


def _to_magnitude(levels: jax.Array, inverse: np.ndarray) -> jax.Array:
    """Levels `[B, N, bands]` to magnitudes `[B, N, F]`."""
    magnitude = jnp.maximum(jnp.exp(levels) - FLOOR, 0)
    return jnp.maximum(jnp.matmul(magnitude, inverse.T, precision="highest"), 0)


def _cross_over(low: jax.Array, loop: jax.Array, sample_rate_hz: int) -> jax.Array:
    """A loop `[B, 1, T]` with another waveform `[B, n]` below the crossover."""
    samples = loop.shape[-1]
    hz = np.arange(samples // 2 + 1) * (sample_rate_hz / samples)
    above = spectral.rise(hz, CROSSOVER_HZ).astype(np.float32)
    kept = (low.shape[-1] + 1) // 2  # bins of the low waveform, below half of its rate
    spectrum = jnp.fft.rfft(loop[:, 0]) * above
    is_audible = spectral.rise(hz[:kept], _RUMBLE_HZ).astype(np.float32)
    below = jnp.fft.rfft(low)[:, :kept] * ((1 - above[:kept]) * is_audible * (samples / low.shape[-1]))
    return jnp.fft.irfft(spectrum.at[:, :kept].add(below), samples)[:, None]
