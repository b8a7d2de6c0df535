"""Audio to sequences on the beat grid and back: the codecs of `technogan`.

*Source* of the linear one: principal components, of log-mel frames and of a waveform; phases by Perraudin, Balazs and
Søndergaard 2013, the fast Griffin-Lim algorithm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from technogen_jax import dsp

STEPS = 16  # sixteenth notes in a bar
_CROSSOVER_HZ = (125.0, 235.0)  # below the first all is coded as a waveform, above the second all as magnitudes
_FLOOR = 1e-4  # of magnitudes, a sine at full scale being 1: what is below -80 dB says nothing
_LOUDEST = 0.0  # of log-magnitudes, a sine at full scale: no sound is louder, a generator may be
_LEAST_DEVIATION = 1e-3  # a component that changes less is constant (side of mono): dividing would blow up rounding
_MOMENTUM = 0.99  # of the fast Griffin-Lim algorithm, as in its paper


class Codec(NamedTuple):
    """Audio to the sequence on the grid, and back.

    Attributes:
        components: K, the length of a vector.
        encode: `[B, T, C]` -> `[B, bars * 16, K]`.
        decode: the reverse.
    """

    components: int
    encode: Callable[[jax.Array], jax.Array]
    decode: Callable[[jax.Array], jax.Array]


class Grid(NamedTuple):
    """How the samples of a clip lie on the beat grid.

    Attributes:
        steps: sixteenths in the clip.
        frames: spectra of a sixteenth.
        hop_length: half of what lies between two of them; a frame is four.
        samples: of the clip when it is brought to whole hops.
        low_samples: of a sixteenth when only what lies below the crossover is kept.
        n_fft: frame length.
    """

    steps: int
    frames: int
    hop_length: int
    samples: int
    low_samples: int
    n_fft: int


def grid_of(clip_samples: int, sample_rate_hz: int, bars: int, frames: int) -> Grid:
    """The grid of clips of `bars` bars with `frames` spectra a sixteenth: the fewest samples that lose nothing."""
    steps = STEPS * bars
    hop_length = -(-clip_samples // (16 * 2 * frames * steps)) * 16  # sixteen: for a fast Fourier transform
    low_samples = 2 * int(_CROSSOVER_HZ[1] * clip_samples / sample_rate_hz / steps + 1)
    return Grid(steps, frames, hop_length, steps * frames * 2 * hop_length, low_samples, 4 * hop_length)


def measure(
    batches: Iterable[np.ndarray],
    *,
    clip_samples: int,
    sample_rate_hz: int,
    bars: int = 1,
    frames_per_step: int = 8,
    n_mels: int = 96,
    mid_components: int = 40,
    side_components: int = 8,
    low_components: int = 24,
) -> dict[str, np.ndarray]:
    """The principal components of a training set's sixteenths: the `statistics` of `build`.

    Args:
        batches: audio `[B, T, C]` in [-1, 1], the whole set, a batch at a time; each clip `clip_samples` long.
        clip_samples: see `build`, as for the rest.
        sample_rate_hz: see there.
        bars: see there.
        frames_per_step: see there.
        n_mels: see there.
        mid_components: see there.
        side_components: see there.
        low_components: see there.

    Returns:
        For each part, "mid", "low" and with two channels "side": PART_mean `[D]`, PART_basis `[D, K]`, orthonormal columns
        of falling variance, PART_deviation `[K]`, the population's, and PART_lost `[D]`, the variance that the components
        leave out. float64.

    Raises:
        ValueError: no batches, or clips of another length.
    """
    grid = grid_of(clip_samples, sample_rate_hz, bars, frames_per_step)
    features = jax.jit(partial(_features, grid=grid, filters=_mel_filters(clip_samples, sample_rate_hz, grid, n_mels)))
    sums, count = {}, 0
    for audio in batches:
        if audio.shape[1] != clip_samples:
            raise ValueError(
                f"technogan: expected clips of config.audio.clip_samples = {clip_samples}, got {audio.shape[1]}; a clip must be "
                f"whole bars: prepare the set with --grid bars --bars {bars}"
            )
        for part, values in features(audio).items():
            rows = np.asarray(values, np.float64).reshape(-1, values.shape[-1])
            total, products = sums.get(part, (0.0, 0.0))
            sums[part] = total + rows.sum(0), products + rows.T @ rows
        count += len(audio) * grid.steps
    if not count:
        raise ValueError("technogan: expected clips to measure, got none")
    wanted, statistics = dict(mid=mid_components, side=side_components, low=low_components), {}
    for part, (total, products) in sums.items():
        mean = total / count
        covariance = products / count - np.outer(mean, mean)
        variances, vectors = np.linalg.eigh(covariance)
        variances = np.maximum(variances[::-1], 0)[: wanted[part]]  # rounding can leave one below
        basis = vectors[:, ::-1][:, : wanted[part]]
        statistics |= {
            f"{part}_mean": mean,
            f"{part}_basis": basis,
            f"{part}_deviation": np.sqrt(variances),
            f"{part}_lost": np.maximum(np.diag(covariance) - basis**2 @ variances, 0),
        }
    return statistics


def pca_codec(clip_samples, sample_rate_hz, grid, n_mels, parts, iterations, statistics) -> Codec:
    """The linear codec; the arguments are `build`'s, and `parts` the number of components of each part, in order."""
    filters = _mel_filters(clip_samples, sample_rate_hz, grid, n_mels)
    inverse = np.linalg.pinv(filters.astype(np.float64)).astype(np.float32)
    share = _low_share(clip_samples, sample_rate_hz)
    # Phases to begin with: random, the same in each sixteenth. Begun from an impulse in each frame, the spectrum came out a
    # little nearer, and peaks more than twice as high.
    shape = (2 * grid.frames, grid.n_fft // 2 + 1)
    phase = np.tile(np.random.default_rng(0).uniform(0, 2 * np.pi, shape).astype(np.float32), (grid.steps, 1))

    def measured(part):
        if statistics is None:
            raise ValueError(
                "technogan: no statistics of the training set; pass models.build what models.measure returns"
            )
        mean, basis, deviation = (statistics[f"{part}_{name}"] for name in ("mean", "basis", "deviation"))
        return (
            mean.astype(np.float32),
            basis.astype(np.float32),
            np.maximum(deviation, _LEAST_DEVIATION).astype(np.float32),
        )

    def lost(part):
        return statistics[f"{part}_lost"].astype(np.float32)

    def encode(audio):
        coded = []
        features = _features(audio, grid=grid, filters=filters)
        for part in parts:
            mean, basis, deviation = measured(part)
            coded.append(jnp.matmul(features[part] - mean, basis, precision="highest") / deviation)
        return jnp.concatenate(coded, -1)

    def decode(x):
        features = {}
        for part, coded in zip(parts, jnp.split(x, np.cumsum(list(parts.values()))[:-1], -1), strict=True):
            mean, basis, deviation = measured(part)
            features[part] = jnp.matmul(coded * deviation, basis.T, precision="highest") + mean  # [B, steps, D]
        # What is lost of a level is noise about it. Exponentials of levels without that noise would have less power.
        levels = jnp.stack([features[part] + lost(part) for part in parts if part != "low"], 1)
        levels = levels.reshape(len(x), -1, grid.steps * grid.frames, n_mels)  # [B, 1 or 2, N, M]
        magnitude = jnp.maximum(jnp.exp(jnp.minimum(_between(levels), _LOUDEST)) - _FLOOR, 0)
        magnitude = jnp.maximum(jnp.matmul(magnitude, inverse.T, precision="highest"), 0) * (grid.n_fft / 4)
        sound = dsp.griffin_lim_circular(magnitude, phase, grid.n_fft, grid.hop_length, iterations, _MOMENTUM)
        low = dsp.resample_circular(features["low"].reshape(len(x), -1), clip_samples)
        spectrum = jnp.fft.rfft(dsp.resample_circular(sound, clip_samples)) * (1 - share)
        sound = jnp.fft.irfft(spectrum.at[:, 0].add(jnp.fft.rfft(low) * share), clip_samples)
        if "side" not in parts:
            return jnp.moveaxis(sound, 1, -1)
        mid, side = sound[:, 0], sound[:, 1]
        return jnp.stack([mid + side, mid - side], -1)

    return Codec(sum(parts.values()), encode, decode)


def _features(audio: jax.Array, grid: Grid, filters: np.ndarray) -> dict[str, jax.Array]:
    """What the components are of, `[B, steps, D]` a part: mel levels of mid and side, mid's waveform below the crossover."""
    signals = {"mid": jnp.mean(audio, -1)}
    if audio.shape[-1] == 2:
        signals["side"] = (audio[..., 0] - audio[..., 1]) / 2
    sound = dsp.resample_circular(jnp.stack(list(signals.values()), 1), grid.samples)
    magnitude = jnp.abs(dsp.stft_circular(sound, grid.n_fft, 2 * grid.hop_length)) / (grid.n_fft / 4)
    levels = jnp.log(jnp.matmul(magnitude, filters.T, precision="highest") + _FLOOR)  # [B, 1 or 2, N, M]
    levels = levels.reshape(len(audio), len(signals), grid.steps, -1)
    features = {part: levels[:, index] for index, part in enumerate(signals)}
    low = dsp.resample_circular(signals["mid"], grid.steps * grid.low_samples)
    return features | {"low": low.reshape(len(audio), grid.steps, -1)}


def _between(levels: jax.Array) -> jax.Array:
    """Spectra around the loop, `[..., N, M]`, to twice as many, each a quarter of the distance away from a given one."""
    before, after = jnp.roll(levels, 1, -2), jnp.roll(levels, -1, -2)
    doubled = jnp.stack([0.75 * levels + 0.25 * before, 0.75 * levels + 0.25 * after], -2)  # [..., N, 2, M]
    return doubled.reshape(*levels.shape[:-2], -1, levels.shape[-1])


def _low_share(clip_samples: int, sample_rate_hz: int) -> np.ndarray:
    """How much of each frequency of a whole clip comes from the waveform: 1 below the crossover, 0 above it."""
    low_hz, high_hz = _CROSSOVER_HZ
    frequencies_hz = np.arange(clip_samples // 2 + 1) * (sample_rate_hz / clip_samples)
    ramp = np.clip((high_hz - frequencies_hz) / (high_hz - low_hz), 0, 1)
    return (0.5 - 0.5 * np.cos(np.pi * ramp)).astype(np.float32)


def _mel_filters(clip_samples: int, sample_rate_hz: int, grid: Grid, n_mels: int) -> np.ndarray:
    """`[M, n_fft // 2 + 1]`: each band, from the crossover up, the weighted mean of its bins."""
    rate_hz = sample_rate_hz * grid.samples / clip_samples
    filters = dsp.mel_filters(rate_hz, grid.n_fft, n_mels, _CROSSOVER_HZ[0])
    weights = filters.sum(1, keepdims=True)
    empty = int(np.sum(weights == 0))
    if empty:
        raise ValueError(
            f"config.model.n_mels: {empty} of {n_mels} bands hold none of the {grid.n_fft // 2 + 1} bins of a frame; lower n_mels, or "
            "config.model.frames_per_step, which makes frames longer"
        )
    return filters / weights
