"""Corrects the codec on its dataset: decoded levels, their swing, and the energy of partials."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from concurrent import futures
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from technogen_jax.audio import spectral
from technogen_jax.common.run_config import AudioConfig
from technogen_jax.models.technogan.codec import constants, partials
from technogen_jax.models.technogan.codec.analysis import Bands, analyze, make_bands, split_mid_side
from technogen_jax.models.technogan.codec.codec import Codec
from technogen_jax.models.technogan.codec.statistics import CodecStatistics
from technogen_jax.models.technogan.config import TechnoGANConfig
from technogen_jax.models.technogan.layout import BeatGrid, CodeLayout

_THREADS = 2  # clips at work: parts of the codec use one core
Batches = Callable[[], Iterable[np.ndarray]]


def correct(
    batches: Batches, statistics: dict[str, np.ndarray], config: TechnoGANConfig, audio: AudioConfig
) -> dict[str, np.ndarray]:
    """Statistics with corrections: decoded clips become like real ones in each band.

    Without them decoded audio is half a decibel too loud at low frequencies, the side a whole one,
    as much too soft at high ones; it rises and falls a little less, and has less than half of the
    partials between 200 and 300 Hz. Measured:
    experiments/log/2026-11-29-codec-correction.md, 2026-11-30-tone-correction-and-ladder.md.

    Args:
        batches: gives audio `[B, T, C]` of the training set, the same each time it is called; a
            hundred bars from all over it are enough. It is called once, or twice with a shaper:
            levels are measured after the partials are corrected.
        statistics: what `measure` returned, with the shaper that is to be used. Corrections in them
            are measured anew.
        config: the model's fields.
        audio: rate, channels and length of the clips.

    Returns:
        The statistics with `level` and `swing` and, with a shaper, `tone` of mid and side (see
        `PartStatistics`). Levels and swings are medians over the clips, so that a few silent
        clips have no effect. Tones are computed from mean energies.
    """
    grid, layout = BeatGrid.of_clips(config, audio), CodeLayout.plan(config, audio)
    bands = make_bands(grid, config.n_mels)
    found = CodecStatistics.from_arrays(statistics, layout)
    for name in layout.spectra:
        found = _update(found, name, level=None, swing=None, tone=None)

    def measure_energy_shares(clip):
        loop = spectral.resample_circular(split_mid_side(clip), grid.samples)
        return [
            partials.measure_energy_shares(loop[:, i], grid.rate_hz, grid.steps) for i in range(len(layout.spectra))
        ]

    def measure_levels(clip):
        """Of mid and side (mean, standard deviation) over a clip, `[bands]` each."""
        features = analyze(clip, grid, bands, tonal=False)
        levels = [getattr(features, name).reshape(grid.frames, -1) for name in layout.spectra]
        return [(jnp.mean(values, 0), jnp.std(values, 0)) for values in levels]

    def measure(clip):
        return measure_energy_shares(clip) if found.shaper else None, measure_levels(clip)

    # The tones are arguments, so that both passes run one compiled program.
    @jax.jit
    def compare(clip, tones):
        statistics = found
        for name, tone in tones.items():
            statistics = _update(statistics, name, tone=tone)
        codec = Codec(config, audio, statistics)
        return measure(clip), measure(codec.decode(codec.encode(clip)))

    tones = {}
    if found.shaper:
        tones = {name: np.ones(config.n_mels, np.float32) for name in layout.spectra}
        (real, _), (decoded, _) = _compare(compare, batches, tones)
        for name, *shares in zip(layout.spectra, real, decoded, strict=True):
            tones[name] = _find_tone(*shares, bands, grid)
    (_, real), (_, decoded) = _compare(compare, batches, {name: np.float32(tone) for name, tone in tones.items()})
    for name, tone in tones.items():
        found = _update(found, name, tone=tone)
    for name, (mean, deviation), (decoded_mean, decoded_deviation) in zip(layout.spectra, real, decoded, strict=True):
        level = np.median(mean - decoded_mean, 0)
        swing = np.median(deviation / np.maximum(decoded_deviation, 1e-6), 0)
        found = _update(
            found,
            name,
            level=np.clip(level, -constants.MOST_LEVEL_NEPERS, constants.MOST_LEVEL_NEPERS),
            swing=np.clip(swing, 1 / constants.MOST_SWING, constants.MOST_SWING),
        )
    return found.to_arrays()


def _compare(compare: Callable[..., Any], batches: Batches, tones: dict[str, np.ndarray]) -> Any:
    """What `compare` returns for each clip, stacked, in float64."""

    def compare_clip(clip: np.ndarray) -> Any:
        return jax.device_get(compare(clip[None], tones))

    with futures.ThreadPoolExecutor(_THREADS) as pool:
        of_clips = [result for clips in batches() for result in pool.map(compare_clip, clips)]
    return jax.tree.map(lambda *values: np.stack(values, dtype=np.float64), *of_clips)


def _find_tone(real: np.ndarray, decoded: np.ndarray, bands: Bands, grid: BeatGrid) -> np.ndarray:
    """`[M]`: the factor of pulses and partials that gives them the energy of real clips.

    Args:
        real: shares of energy `[clips, 1, half octaves]` of real clips.
        decoded: those of decoded ones.
        bands: the bands of the spectra.
        grid: the grid of the clips.
    """
    hz = np.arange(bands.mid.shape[1]) * (grid.rate_hz / grid.n_fft)
    centre_hz = bands.mid @ hz / bands.mid.sum(1)
    middle_hz = np.sqrt(partials.SHARE_EDGES_HZ[:-1] * partials.SHARE_EDGES_HZ[1:])
    # Above that nothing is measured, and nothing is changed.
    middle_hz = np.append(middle_hz, 2 * middle_hz[-1])
    # Relative to the energy of all else, that of partials grows with the square of the factor.
    wanted, given = (
        (energy + constants.LEAST_SHARE) / (1 - energy.sum() + constants.LEAST_SHARE)
        for energy in (shares.mean((0, 1)) for shares in (real, decoded))
    )
    tone = np.interp(np.log(centre_hz), np.log(middle_hz), np.append(np.sqrt(wanted / given), 1))
    return np.clip(tone, 1 / constants.MOST_TONE, constants.MOST_TONE)


def _update(statistics: CodecStatistics, name: str, **values) -> CodecStatistics:
    """Statistics with other values of one part."""
    part = dataclasses.replace(getattr(statistics.parts, name), **values)
    return dataclasses.replace(statistics, parts=statistics.parts._replace(**{name: part}))
