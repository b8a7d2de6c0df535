"""Audio to sequences on the beat grid and back: the codec of `technogan`.

To the sequence it is linear: principal components, of the log-mel frames of a sixteenth and of its waveform below the
crossover, where the kick is. What is coded as a waveform keeps its phase: a kick comes back as it was.

Back, the rest is made of excitations that are shaped band by band: white noise, and the harmonics that the low waveform has
when it is distorted, which are in phase with it. Without a shaper there is only noise, with the levels that were coded. The
shaper, a small network, says how much of each excitation a band has, and how noise swells within a frame. It learns
that from the distance between spectra that `losses.spectral_energy` gives; no critic is needed.

*Source*: distorted low bands as excitation: Makhoul, Berouti 1979 (ICASSP), high-frequency regeneration; noise and harmonics
shaped by a network: Engel et al. 2020 (arXiv:2001.04643); the distance: Gritsenko et al. 2020 (arXiv:2008.01160).
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from technogen_jax import arrays, dsp
from technogen_jax.models.contract import Functional, functional
from technogen_jax.models.layers import CircularConv, Dense

STEPS = 16  # sixteenth notes in a bar
SHAPER = "shaper/"  # what the names of its parameters begin with, among the statistics
CROSSOVER_HZ = (125.0, 235.0)  # below the first all is coded as a waveform, above the second all as magnitudes
_FLOOR = 1e-4  # of magnitudes, a sine at full scale being 1: what is below -80 dB says nothing
_LOUDEST = 0.0  # of log-magnitudes, a sine at full scale: no sound is louder, a generator may be
_SHAPED_HZ = 32000  # the least rate that the shaper is for: its bands reach from the crossover to half of it
FRAMES, N_MELS = 8, 96  # spectra of a sixteenth and their bands, for which there is a shaper
_WIDTH, _BLOCKS, _TAPS = 128, 3, 3  # of the shaper
_LOW_SAMPLES = 8  # of the low waveform that the shaper sees, a frame
_SWELLS = 8  # numbers a frame for the loudness of noise in time, below and above
_SPLIT_HZ = (2000.0, 4000.0)
_DRIVE = 40.0  # into the distortion: a low waveform above -32 dB comes out nearly square
_DELAY = 2  # frames of synthesis, by which the side gets some of the mid's noise: 14 ms at 136 BPM
_GATES = dict(mid=("noise", "square", "rectified", "pulse"), side=("noise", "square", "delayed"))
_WEIGHTING = 0.75  # power of a component's deviation that its numbers keep: measured, see experiments/README.md
_LEAST_DEVIATION = 1e-3  # a component that changes less is constant (side of mono): dividing would blow up rounding


class Codec(NamedTuple):
    """Audio to the sequence on the grid, and back.

    Attributes:
        components: K, the length of a vector.
        scale: float32 `[K]`, the deviation of each of its numbers over the training set: those of large components count more, but
            less than they are larger. Ones without statistics.
        encode: `[B, T, C]` -> `[B, bars * 16, K]`.
        decode: the reverse.
        play: shaper parameters or None, sequences, white noise `[B, C, samples]` of unit deviation -> mid and side (mono: the
            signal) `[B, C, T]`, their peaks as they come.
    """

    components: int
    scale: np.ndarray
    encode: Callable[[jax.Array], jax.Array]
    decode: Callable[[jax.Array], jax.Array]
    play: Callable[[dict | None, jax.Array, jax.Array], jax.Array]


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
    low_samples = 2 * int(CROSSOVER_HZ[1] * clip_samples / sample_rate_hz / steps + 1)
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
    shaper: str = "none",
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
        shaper: see there.

    Returns:
        For each part, "mid", "low" and with two channels "side": PART_mean `[D]`, PART_basis `[D, K]`, orthonormal columns
        of falling variance, PART_deviation `[K]`, the population's, and PART_lost `[D]`, the variance that the components
        leave out; float64. The parameters of the shaper, their names beginning with `SHAPER`.

    Raises:
        ValueError: no batches, or clips of another length, or a shaper that is not for this grid.
    """
    grid = grid_of(clip_samples, sample_rate_hz, bars, frames_per_step)
    features = jax.jit(partial(_features, grid=grid, bands=_bands(clip_samples, sample_rate_hz, grid, n_mels)))
    shaped = _read_shaper(shaper, sample_rate_hz, frames_per_step, n_mels)
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
    return statistics | shaped


def _read_shaper(name: str, sample_rate_hz: int, frames_per_step: int, n_mels: int) -> dict[str, np.ndarray]:
    """The parameters of a shaper: of the one that comes with the package, "shipped", of a file, or of none.

    Raises:
        ValueError: it is for another grid, or the file is not one.
    """
    if name == "none":
        return {}
    if frames_per_step != FRAMES or n_mels != N_MELS or sample_rate_hz < _SHAPED_HZ:
        raise ValueError(
            f"config.model.shaper: expected {FRAMES} frames_per_step, {N_MELS} n_mels and a rate of {_SHAPED_HZ} Hz or more, got "
            f"{frames_per_step}, {n_mels} and {sample_rate_hz}; set it to none"
        )
    path = pathlib.Path(__file__).parents[1] / "pretrained" / "shaper.npz" if name == "shipped" else name
    try:
        found = arrays.read(path)
    except FileNotFoundError:
        raise ValueError(f"config.model.shaper: expected shipped, none or a file, got {name!r}") from None
    wanted = jax.eval_shape(shaper(n_mels).init, jax.random.key(0))
    shapes = {
        f"{SHAPER}{layer}/{kind}": value.shape for layer, kinds in wanted.items() for kind, value in kinds.items()
    }
    if {key: value.shape for key, value in found.items()} != shapes:
        raise ValueError(f"{path}: expected the shaper that experiments.train_shaper writes")
    return found


class Shaper(nnx.Module):
    """Levels and low waveform of a loop to what its excitations are multiplied by. It begins as if it were not there.

    Args:
        n_mels: M, bands of a spectrum.
        rngs: source of the initial values.
    """

    def __init__(self, n_mels, *, rngs):
        self.n_mels = n_mels
        self.input = Dense(2 * n_mels + _LOW_SAMPLES, _WIDTH, rngs=rngs)
        for i in range(_BLOCKS):
            setattr(self, f"conv_{i}", CircularConv(_WIDTH, 2 * _WIDTH, _TAPS, rngs=rngs))
            setattr(self, f"dense_{i}", Dense(2 * _WIDTH, _WIDTH, rngs=rngs))
        self.gates = CircularConv(_WIDTH, sum(map(len, _GATES.values())) * n_mels, 1, zero=True, rngs=rngs)
        self.swells = CircularConv(_WIDTH, 2 * _SWELLS, 1, zero=True, rngs=rngs)

    def __call__(self, levels, low):
        """Levels `[B, 2, N, M]`, low `[B, N * 8]` -> gates `[B, 7, N, M]` (2 logarithms, 5 factors), swells `[B, 2, N * 8]`."""
        count = levels.shape[2]
        frames = jnp.moveaxis((levels + 5) / 2, 1, 2).reshape(len(levels), count, -1)  # to about unit deviation
        x = self.input(jnp.concatenate([frames, 4 * low.reshape(len(low), count, -1)], -1))
        for i in range(_BLOCKS):
            y = getattr(self, f"conv_{i}")(_of_unit_power(x))
            x = x + getattr(self, f"dense_{i}")(jax.nn.gelu(y))
        x = _of_unit_power(x)
        gates = jnp.moveaxis(self.gates(x).reshape(len(x), count, -1, self.n_mels), 1, 2)
        swells = jnp.moveaxis(self.swells(x).reshape(len(x), count, 2, _SWELLS), 1, 2)
        return gates, swells.reshape(len(x), 2, -1)


def shaper(n_mels: int) -> Functional:
    """The shaper for spectra of so many bands, as pure functions."""
    return functional(partial(Shaper, n_mels))


def make(clip_samples, sample_rate_hz, grid, n_mels, parts, statistics) -> Codec:
    """The codec; the arguments are `technogan.build`'s, and `parts` the number of components of each part, in order."""
    bands = _bands(clip_samples, sample_rate_hz, grid, n_mels)
    inverse = {part: np.linalg.pinv(rows.astype(np.float64)).astype(np.float32) for part, rows in bands.items()}
    filters = bands["mid"]
    spread = filters / np.maximum(filters.sum(0), 1e-9)  # of a value of each band over its bins
    share = _low_share(clip_samples, sample_rate_hz)
    channels = len(parts) - 1

    def measured(part):
        if statistics is None:
            raise ValueError(
                "technogan: no statistics of the training set; pass models.build what models.measure returns"
            )
        mean, basis, deviation, lost = (
            statistics[f"{part}_{name}"].astype(np.float32) for name in ("mean", "basis", "deviation", "lost")
        )
        deviation = np.maximum(deviation, _LEAST_DEVIATION)
        scale = deviation**_WEIGHTING
        scale = scale / np.sqrt(np.mean(scale**2))
        return mean, basis, deviation, lost, scale

    def encode(audio):
        coded = []
        features = _features(audio, grid=grid, bands=bands)
        for part in parts:
            mean, basis, deviation, _, scale = measured(part)
            coded.append(jnp.matmul(features[part] - mean, basis, precision="highest") * (scale / deviation))
        return jnp.concatenate(coded, -1)

    def play(shaper_params, x, noise):
        features, counts = {}, list(parts.values())  # of each part, [B, steps, D]
        for part, coded in zip(parts, jnp.split(x, np.cumsum(counts)[:-1], -1), strict=True):
            mean, basis, deviation, lost, scale = measured(part)
            features[part] = jnp.matmul(coded * (deviation / scale), basis.T, precision="highest") + mean
            if part != "low":
                # What is lost of a level is noise about it. Exponentials of levels without that noise would have less power.
                levels = (features[part] + lost).reshape(len(x), grid.steps * grid.frames, -1)
                features[part] = jnp.minimum(levels, _LOUDEST)  # [B, N, bands]
        low = features.pop("low").reshape(len(x), -1)
        magnitude = jnp.stack([_magnitude(features[part], inverse[part]) for part in features], 1) * (grid.n_fft / 4)
        if shaper_params is None:
            excitation = _noise_spectrum(noise, grid)
        else:
            levels = jnp.stack([features[part][..., -n_mels:] for part in features], 1)
            excitation = shaped(shaper_params, levels, low, noise)
        sound = dsp.istft_circular(magnitude * excitation, grid.n_fft, grid.hop_length)
        low = dsp.resample_circular(low, clip_samples)
        spectrum = jnp.fft.rfft(dsp.resample_circular(sound, clip_samples))
        spectrum = spectrum.at[:, 0].set(spectrum[:, 0] * (1 - share) + jnp.fft.rfft(low) * share)
        return jnp.fft.irfft(spectrum, clip_samples)

    def shaped(params, levels, low, noise):
        both = levels if channels == 2 else jnp.concatenate([levels, jnp.full_like(levels, np.log(_FLOOR))], 1)
        seen = dsp.resample_circular(low, grid.steps * grid.frames * _LOW_SAMPLES)
        gates, swells = shaper(n_mels).apply(params, both, seen)
        gates = jnp.matmul(_between(gates), spread)  # [B, 7, N, bins]
        names = [f"{part} {name}" for part, names in _GATES.items() for name in names]
        of = dict(zip(names, jnp.moveaxis(gates, 1, 0), strict=True))
        hiss = _noise_spectrum(_swelling(noise, swells, sample_rate_hz * grid.samples / clip_samples), grid)
        harmonics = _distorted(dsp.resample_circular(low, grid.samples))
        harmonics = _even(dsp.stft_circular(harmonics, grid.n_fft, grid.hop_length), filters, spread)
        sounds = [_gain(of["mid noise"]) * hiss[:, 0]]
        sounds[0] += sum(of[f"mid {name}"] * harmonics[:, i] for i, name in enumerate(_GATES["mid"][1:]))
        if channels == 2:
            delayed = jnp.roll(hiss[:, 0], _DELAY, 1)
            sounds.append(
                _gain(of["side noise"]) * hiss[:, 1]
                + of["side square"] * harmonics[:, 0]
                + of["side delayed"] * delayed
            )
        return jnp.stack(sounds, 1)

    def decode(x):
        sound = play(_shaper_of(statistics), x, _noise(x, channels, grid))
        if channels == 1:
            sound = jnp.moveaxis(sound, 1, -1)
        else:
            mid, side = sound[:, 0], sound[:, 1]
            sound = jnp.stack([mid + side, mid - side], -1)
        return dsp.limit_circular(sound, sample_rate_hz)

    components = sum(parts.values())
    scale = np.concatenate([measured(part)[-1] for part in parts]) if statistics else np.ones(components, np.float32)
    return Codec(components, scale, encode, decode, play)


def mid_and_side(audio: jax.Array) -> jax.Array:
    """`[B, T, C]` to `[B, C, T]`: the mean of two channels and half their difference; mono as it is."""
    if audio.shape[-1] == 1:
        return jnp.moveaxis(audio, -1, 1)
    left, right = audio[..., 0], audio[..., 1]
    return jnp.stack([(left + right) / 2, (left - right) / 2], 1)


def _shaper_of(statistics):
    """The shaper's parameters among the statistics, None if there are none."""
    params = {}
    for name, value in (statistics or {}).items():
        if name.startswith(SHAPER):
            layer, kind = name.removeprefix(SHAPER).split("/")
            params.setdefault(layer, {})[kind] = value.astype(np.float32)
    return params or None


def _of_unit_power(x: jax.Array) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6)


def _gain(logarithm: jax.Array) -> jax.Array:
    return jnp.exp(jnp.clip(logarithm, -8, 3))


def _noise_spectrum(noise: jax.Array, grid: Grid) -> jax.Array:
    """The spectrum of noise of unit deviation, its mean square brought to 1: a Hann window's squares sum to 3/8 of its length."""
    return dsp.stft_circular(noise, grid.n_fft, grid.hop_length) * (8 / 3 / grid.n_fft) ** 0.5


def _swelling(noise: jax.Array, swells: jax.Array, rate_hz: float) -> jax.Array:
    """Noise `[B, C, samples]` times the exponentials of two curves `[B, 2, n]`, one for what lies low and one for the rest."""
    samples = noise.shape[-1]
    curves = jnp.exp(jnp.clip(_straight_between(swells, samples), -4, 3))
    octaves = np.log2(np.maximum(np.fft.rfftfreq(samples, 1 / rate_hz), 1) / _SPLIT_HZ[0])
    share = np.clip(octaves / np.log2(_SPLIT_HZ[1] / _SPLIT_HZ[0]), 0, 1).astype(np.float32)
    high = jnp.fft.irfft(jnp.fft.rfft(noise) * share, samples)
    return (noise - high) * curves[:, None, 0] + high * curves[:, None, 1]


def _straight_between(values: jax.Array, samples: int) -> jax.Array:
    """`[..., n]` around a loop to `[..., samples]`, in straight lines between the middles of n equal spans."""
    span = samples // values.shape[-1]
    place = (np.arange(span, dtype=np.float32) + 0.5) / span - 0.5
    before, after = np.maximum(-place, 0), np.maximum(place, 0)
    values = values[..., None]
    lines = jnp.roll(values, 1, -2) * before + values * (1 - before - after) + jnp.roll(values, -1, -2) * after
    return lines.reshape(*values.shape[:-2], -1)


def _distorted(low: jax.Array) -> jax.Array:
    """Waveforms `[B, T]` to `[B, 3, T]`: nearly square, rectified, and a pulse at each rise through zero."""
    square = jnp.tanh(_DRIVE * low)
    pulse = jnp.maximum(jnp.roll(square, -1, -1) - square, 0)
    return jnp.stack([square, jnp.sqrt(low * low + 1e-5), pulse], 1)


def _even(spectrum: jax.Array, filters: np.ndarray, spread: np.ndarray) -> jax.Array:
    """A spectrum `[..., N, bins]` with the same power in each of its mel bands, silence left silent."""
    power = jnp.matmul(spectrum.real**2 + spectrum.imag**2, filters.T)
    return spectrum * jax.lax.rsqrt(jnp.matmul(power, spread) + 1e-3)


def _features(audio: jax.Array, grid: Grid, bands: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    """What the components are of, `[B, steps, D]` a part: levels of mid and side, mid's waveform below the crossover."""
    signals = mid_and_side(audio)
    sound = dsp.resample_circular(signals, grid.samples)
    magnitude = jnp.abs(dsp.stft_circular(sound, grid.n_fft, 2 * grid.hop_length)) / (grid.n_fft / 4)
    features = {}
    for index, part in enumerate(("mid", "side")[: signals.shape[1]]):
        levels = jnp.log(jnp.matmul(magnitude[:, index], bands[part].T, precision="highest") + _FLOOR)  # [B, N, bands]
        features[part] = levels.reshape(len(audio), grid.steps, -1)
    low = dsp.resample_circular(signals[:, 0], grid.steps * grid.low_samples)
    return features | {"low": low.reshape(len(audio), grid.steps, -1)}


def _magnitude(levels: jax.Array, inverse: np.ndarray) -> jax.Array:
    """Levels `[B, N, bands]` to magnitudes at twice as many times, `[B, 2 N, bins]`."""
    magnitude = jnp.maximum(jnp.exp(_between(levels)) - _FLOOR, 0)
    return jnp.maximum(jnp.matmul(magnitude, inverse.T, precision="highest"), 0)


def _noise(x: jax.Array, channels: int, grid: Grid) -> jax.Array:
    """White noise `[B, channels, samples]` of unit deviation: that of a sixteenth follows from its vector and nothing else.

    So sound is a function of its sequence and turns with it, yet no two clips share a pattern.
    """
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
    seeds = jnp.sum(bits * (2 * jnp.arange(x.shape[2], dtype=jnp.uint32) + 1), -1, dtype=jnp.uint32)
    shape = (channels, grid.samples // grid.steps)
    # Uniform: its spectrum is as good as that of Gaussian noise, and it is drawn faster.
    draw = jax.vmap(jax.vmap(lambda seed: jax.random.uniform(jax.random.key(seed), shape, minval=-1, maxval=1)))
    return jnp.moveaxis(draw(seeds), 1, 2).reshape(len(x), channels, -1) * np.sqrt(3)


def _between(levels: jax.Array) -> jax.Array:
    """Spectra around the loop, `[..., N, M]`, to twice as many, each a quarter of the distance away from a given one."""
    before, after = jnp.roll(levels, 1, -2), jnp.roll(levels, -1, -2)
    doubled = jnp.stack([0.75 * levels + 0.25 * before, 0.75 * levels + 0.25 * after], -2)  # [..., N, 2, M]
    return doubled.reshape(*levels.shape[:-2], -1, levels.shape[-1])


def _low_share(clip_samples: int, sample_rate_hz: int) -> np.ndarray:
    """How much of each frequency of a whole clip comes from the waveform: 1 below the crossover, 0 above it."""
    frequencies_hz = np.arange(clip_samples // 2 + 1) * (sample_rate_hz / clip_samples)
    return (1 - dsp.rise(frequencies_hz, CROSSOVER_HZ)).astype(np.float32)


def _bands(clip_samples: int, sample_rate_hz: int, grid: Grid, n_mels: int) -> dict[str, np.ndarray]:
    """Weights of bins in bands, `[bands, n_fft // 2 + 1]`: of the mid mel bands from the crossover up, of the side one more below."""
    filters = _mel_filters(clip_samples, sample_rate_hz, grid, n_mels)
    below = np.fft.rfftfreq(grid.n_fft, clip_samples / sample_rate_hz / grid.samples) < CROSSOVER_HZ[0]
    below[:2] = False, True  # nothing of the constant, and at least one bin
    return {
        "mid": filters,
        "side": np.concatenate([below[None] / below.sum(dtype=np.float32), filters]).astype(np.float32),
    }


def _mel_filters(clip_samples: int, sample_rate_hz: int, grid: Grid, n_mels: int) -> np.ndarray:
    """`[M, n_fft // 2 + 1]`: each band, from the crossover up, the weighted mean of its bins."""
    rate_hz = sample_rate_hz * grid.samples / clip_samples
    filters = dsp.mel_filters(rate_hz, grid.n_fft, n_mels, CROSSOVER_HZ[0])
    weights = filters.sum(1, keepdims=True)
    empty = int(np.sum(weights == 0))
    if empty:
        raise ValueError(
            f"config.model.n_mels: {empty} of {n_mels} bands hold none of the {grid.n_fft // 2 + 1} bins of a frame; lower n_mels, or "
            "config.model.frames_per_step, which makes frames longer"
        )
    return filters / weights
