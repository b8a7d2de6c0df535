"""Audio to sequences on the beat grid and back: the codec of `technogan`.

A sixteenth has seven parts, and of each its principal components are the sequence: log-mel frames of mid and side; the mid's
waveform below the crossover, where the kick is; the pitch of one voice, and lines that stand in mid and in side (`tones`); and how
mid and side go together. What is coded as a waveform keeps its phase: a kick comes back as it was. Of the side those components are
kept that say when it sounds, not how loud it is alone.

Back, the rest is made of excitations (`excitation`) that are shaped band by band: white noise, the harmonics that the low waveform
has when it is distorted, a pulse train at the pitch, sines. Without a shaper there is only noise, with the levels that were coded. The
shaper, a small network, says how much of each excitation a band has, and how noise swells within a frame. It learns
that from the distance between spectra that `losses.spectral_energy` gives; no critic is needed.

*Source*: noise and harmonics shaped by a network: Engel et al. 2020 (arXiv:2001.04643); the distance: Gritsenko et al. 2020
(arXiv:2008.01160).
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterable
from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from flax import nnx

from technogen_jax.audio import spectral
from technogen_jax.common import array_files
from technogen_jax.common.run_config import AudioConfig
from technogen_jax.models.convolution import convolve_circular
from technogen_jax.models.gan import Functional, functional
from technogen_jax.models.layers import CircularConv, Dense
from technogen_jax.models.technogan.codec import excitations, pitch
from technogen_jax.models.technogan.config import TechnoGANConfig

STEPS = 16  # sixteenth notes in a bar
SHAPER = "shaper/"  # what the names of its parameters begin with, among the statistics
CROSSOVER_HZ = (125.0, 235.0)  # below the first all is coded as a waveform, above the second all as magnitudes
_RUMBLE_HZ = (8.0, 24.0)  # below them nothing is heard, and what a generator puts there only takes headroom
_FLOOR = 1e-4  # of magnitudes, a sine at full scale being 1: what is below -80 dB says nothing
_LOUDEST = 0.0  # of log-magnitudes, a sine at full scale: no sound is louder, a generator may be
_SHAPED_HZ = 32000  # the least rate that the shaper is for: its bands reach from the crossover to half of it
FRAMES, N_MELS = 8, 96  # spectra of a sixteenth and their bands, for which there is a shaper
_WIDTH, _BLOCKS, _TAPS = 128, 3, 3  # of the shaper
_LOW_SAMPLES = 8  # of the low waveform that the shaper sees, a frame
_SWELLS = 8  # numbers a frame for the loudness of noise in time, below and above
_BEAT = 4  # sixteenths: sound is made beat by beat, see `dsp.resynthesize_circular`
_DELAY = 2  # frames of synthesis, by which the side gets some of the mid's noise and tones: 14 ms at 136 BPM
_GATES = dict(
    mid=("noise", "square", "rectified", "pulse", "pitch", "lines"),
    side=("noise", "square", "delayed", "pitch", "lines"),
)
_GROUPS = 8  # of bands, in which mid and side are compared and spectra are pictured coarsely
_TIMES = 4  # of a sixteenth in such a picture
_LOW_FLOOR = 0.003  # of magnitudes below the crossover, a sine at full scale being 1: a tone 50 dB softer is not seen
# Of the parts against the mid's spectra. The critic hears large numbers: with the side at 0.7 its rhythm was wrong: measured, see
# experiments/README.md.
_WEIGHTS = dict(side=2.0, low=0.5, pitch=0.7, line=0.5, side_line=0.5, pan=0.5)
_CURVES = 4  # of an equaliser: cosines over the bands, the first their level
# Deviations of a mix: of each curve, of the bass, of the width. Chosen as what an engineer might as well have done, not searched for.
_MIX_DB = (2.0, 2.0, 3.0)
# What makes tones as clear as real ones. Where the shaper is unsure it asks for noise, and what it is trained by forgives a voice that is
# hoarse and a line too weak. So its pulses and lines are made louder by these factors, it is told that a pitch is surer, and where nearly
# all is pulses noise is softer by so many nepers: by these decoded bars have as much of their energy in lines as real ones and are about
# as periodic, see experiments/README.md.
_TONES = dict(pitch=1.3, lines=1.8)
_SURER, _LESS_NOISE = 2.0, 1.0
_LEAST_LINE = 0.15  # lower ones are what a truncated code leaves
# Of what changes from frame to frame within a sixteenth against its mean, when components are chosen: by variance alone the few of the
# side leave out when it sounds, and songs decode with twice the rhythm in it that they have. The mid so would lose its lines: measured,
# see experiments/README.md.
_WITHIN = dict(side=3.0)
# Nepers, times as far and times as loud that a correction reaches to: beyond, a band is silent or was hardly heard.
_LEVEL, _SWING, _TONE = 0.35, 1.25, 2.0
_LEAST_SHARE = 0.002  # of the energy in lines of half an octave: less is chance
_WEIGHTING = 0.75  # power of a component's deviation that its numbers keep: measured, see experiments/README.md
_LEAST_DEVIATION = 1e-3  # a component that changes less is constant (side of mono): dividing would blow up rounding


class Codec(NamedTuple):
    """Audio to the sequence on the grid, and back.

    Attributes:
        components: K, the length of a vector.
        scale: float32 `[K]`, the deviation of each of its numbers over the training set: those of large components count more, but
            less than they are larger. Ones without statistics.
        silence: float32 `[K]`, what features of zero are coded as: not zeros, which are the mean of the set. Zeros without statistics.
        encode: `[B, T, C]` -> `[B, bars * 16, K]`.
        decode: the reverse.
        play: shaper parameters or None, sequences, white noise `[B, C, samples]` of unit deviation, and whether tones are to be as clear
            as real ones (False if not given: as the shaper asks, which is trained so) -> mid and side (mono: the signal) `[B, C, T]`,
            their peaks as they come.
        code: a part's name and features `[..., D]` -> its numbers of a sequence.
        peaks: a spectrum's name, mid or side -> what a neper more in the bands where a line is adds to its numbers, `[LINES, K]`, of each
            line of `tones`.
        code_low: the waveform of each sixteenth below the crossover `[B, steps, low_samples]` -> what it adds to the low end's numbers
            of silence; zeros without statistics.
        remix: sequences `[B, steps, K]` and a `Mix` of each -> the sequences as if they had been mixed so.
        pictured: G, groups of bands of all signals in `pictures`.
        pictures: sequences `[B, steps, K]` -> levels of their spectra, coarsely: nepers `[B, steps, times, G]`; 0 without statistics.
        low_pictured: F, bins of all spectra in `low_pictures`.
        low_pictures: sequences `[B, steps, K]` -> levels of the spectra of what lies below the crossover, `[B, steps, F]` of about unit
            deviation; 0 without statistics.
    """

    components: int
    scale: np.ndarray
    silence: np.ndarray
    encode: Callable[[jax.Array], jax.Array]
    decode: Callable[[jax.Array], jax.Array]
    play: Callable[[dict | None, jax.Array, jax.Array, bool], jax.Array]
    code: Callable[[str, jax.Array], jax.Array]
    peaks: Callable[[str], np.ndarray]
    code_low: Callable[[jax.Array], jax.Array]
    remix: Callable[[jax.Array, Mix], jax.Array]
    pictured: int
    pictures: Callable[[jax.Array], jax.Array]
    low_pictured: int
    low_pictures: Callable[[jax.Array], jax.Array]


class Mix(NamedTuple):
    """What is changed in each of B clips.

    Attributes:
        curve: `[B, 4]` of an equaliser above the crossover, nepers: the level, and cosines over the bands, half a turn each more.
        bass: `[B]` of what lies below the crossover, nepers.
        width: `[B]` of the side, nepers.
        swapped: `[B]`, whether left is right.
    """

    curve: jax.Array
    bass: jax.Array
    width: jax.Array
    swapped: jax.Array


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


def part_sizes(grid: Grid, n_mels: int, channels: int, toned: bool) -> dict[str, int]:
    """The parts of a sixteenth, in the order of its numbers, and how many features each is made of; `toned`: with a shaper."""
    sizes = dict(mid=grid.frames * n_mels)
    if channels == 2:
        sizes["side"] = grid.frames * (n_mels + 1)
    sizes["low"] = grid.low_samples
    if toned:
        sizes |= dict(pitch=pitch.PITCH_SIZE, line=pitch.LINE_SIZE)
    if toned and channels == 2:
        sizes["side_line"] = pitch.LINE_SIZE
    if channels == 2:
        sizes["pan"] = _GROUPS
    return sizes


def by_part(x: jax.Array, sizes: dict[str, int]) -> dict[str, jax.Array]:
    """`[..., K]` in parts that are so long, `[..., size]` each."""
    split = jnp.split if isinstance(x, jax.Array) else np.split
    return dict(zip(sizes, split(x, np.cumsum(list(sizes.values()))[:-1], -1), strict=True))


def measure(batches: Iterable[np.ndarray], config: TechnoGANConfig, audio: AudioConfig) -> dict[str, np.ndarray]:
    """The principal components of a training set's sixteenths: the `statistics` of `build`.

    Args:
        batches: audio `[B, T, C]` in [-1, 1], the whole set, a batch at a time; each clip `audio.clip_samples` long.
        config: the model's fields.
        audio: of the clips.

    Returns:
        For each part (`part_sizes`): PART_mean `[D]`, PART_within `[]`, how much what changes within a sixteenth counts against its
        mean, PART_basis `[D, K]`, orthonormal columns of falling variance of features so weighted, PART_deviation `[K]`, the population's,
        PART_scale `[K]`, the deviation that they are given in a sequence, and PART_lost `[D]`, the variance that the components leave
        out; float64. The parameters of the shaper, their names beginning with `SHAPER`.

    Raises:
        ValueError: no batches, or clips of another length, or a shaper that is not for this grid.
    """
    clip_samples, sample_rate_hz, bars = audio.clip_samples, audio.sample_rate_hz, config.bars
    frames_per_step, n_mels, shaper, wanted = config.frames_per_step, config.n_mels, config.shaper, config.components
    grid = grid_of(clip_samples, sample_rate_hz, bars, frames_per_step)
    bands = _bands(clip_samples, sample_rate_hz, grid, n_mels)
    rate_hz = sample_rate_hz * grid.samples / clip_samples
    features = jax.jit(partial(_features, grid=grid, bands=bands, rate_hz=rate_hz, toned=shaper != "none"))
    shaped = _read_shaper(shaper, sample_rate_hz, frames_per_step, n_mels)
    sums, count = {}, 0
    for clips in batches:
        if clips.shape[1] != clip_samples:
            raise ValueError(
                f"technogan: expected clips of config.audio.clip_samples = {clip_samples}, got {clips.shape[1]}; a clip must be "
                f"whole bars: prepare the set with --grid bars --bars {bars}"
            )
        for part, values in features(clips).items():
            rows = np.asarray(values, np.float64).reshape(-1, values.shape[-1])
            total, products = sums.get(part, (0.0, 0.0))
            sums[part] = total + rows.sum(0), products + rows.T @ rows
        count += len(clips) * grid.steps
    if not count:
        raise ValueError("technogan: expected clips to measure, got none")
    statistics = {}
    for part, (total, products) in sums.items():
        mean = total / count
        covariance = products / count - np.outer(mean, mean)
        within = _WITHIN.get(part, 1.0)
        weighted = _weigh(_weigh(covariance, grid.frames, within).T, grid.frames, within)
        variances, vectors = np.linalg.eigh(weighted)
        variances = np.maximum(variances[::-1], 0)[: wanted[part]]  # rounding can leave one below
        basis = vectors[:, ::-1][:, : wanted[part]]
        deviation = np.sqrt(variances)
        scale = np.maximum(deviation, _LEAST_DEVIATION) ** _WEIGHTING
        statistics |= {
            f"{part}_mean": mean,
            f"{part}_basis": basis,
            f"{part}_deviation": deviation,
            f"{part}_scale": scale / np.sqrt(np.mean(scale**2)) * _WEIGHTS.get(part, 1.0),
            f"{part}_lost": np.maximum(
                np.diag(covariance) - variances @ _weigh(basis.T, grid.frames, 1 / within) ** 2, 0
            ),
            f"{part}_within": np.array(within),
        }
    return statistics | shaped


def correct(
    batches: Callable[[], Iterable[np.ndarray]],
    statistics: dict[str, np.ndarray],
    config: TechnoGANConfig,
    audio: AudioConfig,
) -> dict[str, np.ndarray]:
    """Statistics with what coding and decoding gets wrong on the whole, by band; a codec of them puts it right.

    Sound that comes back is half a decibel too loud below, the side a whole one, as much too soft above, rises and falls a little
    less, and has less than half of the lines between 200 and 300 Hz: measured, see experiments/README.md.

    Args:
        batches: gives audio of the training set as `measure` takes it, the same each time it is called; a hundred bars from all over
            it will do. With a shaper that is twice: levels are those of sound whose lines have been corrected.
        statistics: what `measure` returns, with the shaper that is to be used; corrections in them are made anew.
        config: the model's fields.
        audio: of the clips.

    Returns:
        The statistics with, for mid and side, PART_level `[bands]`, nepers that a decoded clip lacks in the mean, and PART_swing
        `[bands]`, how many times as far real levels deviate from their mean over a clip as decoded ones: medians over the clips, so
        that some that are silent, where logarithms say little, do not count. With a shaper also PART_tone `[M]`, how many times as
        loud pulses and lines should be for as much energy in lines as real clips have, in the mean.
    """
    clip_samples, sample_rate_hz, bars = audio.clip_samples, audio.sample_rate_hz, config.bars
    frames_per_step, n_mels = config.frames_per_step, config.n_mels
    grid = grid_of(clip_samples, sample_rate_hz, bars, frames_per_step)
    bands = _bands(clip_samples, sample_rate_hz, grid, n_mels)
    sizes = part_sizes(grid, n_mels, 2 if "side_basis" in statistics else 1, "pitch_basis" in statistics)
    parts = {part: statistics[f"{part}_basis"].shape[1] for part in sizes}
    signals = ("mid", "side") if "side" in sizes else ("mid",)
    rate_hz = sample_rate_hz * grid.samples / clip_samples
    found = {name: values for name, values in statistics.items() if not name.endswith(("_level", "_swing", "_tone"))}

    def heard(read):
        """What a function of audio says of real clips and of decoded ones, an array of each, float64."""
        coder = make(clip_samples, sample_rate_hz, grid, n_mels, parts, found)
        both = jax.jit(lambda clip: (read(clip), read(coder.decode(coder.encode(clip)))))
        of_clips = [jax.device_get(both(clips[i : i + 1])) for clips in batches() for i in range(len(clips))]
        return jax.tree.map(lambda *values: np.stack(values, dtype=np.float64), *of_clips)

    def line_shares(audio):
        """Of mid and side, `[1, half octaves]` each."""
        sound = spectral.resample_circular(mid_and_side(audio), grid.samples)
        return {part: pitch.line_shares(sound[:, i], rate_hz, grid.steps) for i, part in enumerate(signals)}

    def levels(audio):
        """Of mid and side the mean and the deviation over a clip, `[bands]` each."""
        features = _features(audio, grid, bands, rate_hz, toned=False)
        features = {part: features[part].reshape(grid.steps * grid.frames, -1) for part in signals}
        return {part: (jnp.mean(values, 0), jnp.std(values, 0)) for part, values in features.items()}

    if shaper_of(found):
        real, back = heard(line_shares)
        hz = np.arange(bands["mid"].shape[1]) * (rate_hz / grid.n_fft)
        centre_hz = bands["mid"] @ hz / bands["mid"].sum(1)
        middle_hz = np.sqrt(pitch.SHARE_EDGES_HZ[:-1] * pitch.SHARE_EDGES_HZ[1:])
        middle_hz = np.append(middle_hz, 2 * middle_hz[-1])  # where nothing is measured nothing is changed
        for part in signals:
            # Against all that is no line, energy goes with the square of what is multiplied.
            of_lines = [shares[part].mean((0, 1)) for shares in (real, back)]
            wanted, given = ((energy + _LEAST_SHARE) / (1 - energy.sum() + _LEAST_SHARE) for energy in of_lines)
            tone = np.interp(np.log(centre_hz), np.log(middle_hz), np.append(np.sqrt(wanted / given), 1))
            found[f"{part}_tone"] = np.clip(tone, 1 / _TONE, _TONE)
    real, back = heard(levels)
    corrections = {}
    for part, (mean, deviation) in real.items():
        mean_back, deviation_back = back[part]
        corrections[f"{part}_level"] = np.clip(np.median(mean - mean_back, 0), -_LEVEL, _LEVEL)
        swing = np.median(deviation / np.maximum(deviation_back, 1e-6), 0)
        corrections[f"{part}_swing"] = np.clip(swing, 1 / _SWING, _SWING)
    return found | corrections


def _read_shaper(name: str, sample_rate_hz: int, frames_per_step: int, n_mels: int) -> dict[str, np.ndarray]:
    """The parameters of a shaper: of the one that comes with the package, "shipped", or of a file.

    Of "none" there are none, nor of "new", for those who train one: it begins as if it were not there.

    Raises:
        ValueError: it is for another grid, or the file is not one.
    """
    if name in ("none", "new"):
        return {}
    if frames_per_step != FRAMES or n_mels != N_MELS or sample_rate_hz < _SHAPED_HZ:
        raise ValueError(
            f"config.model.shaper: expected {FRAMES} frames_per_step, {N_MELS} n_mels and a rate of {_SHAPED_HZ} Hz or more, got "
            f"{frames_per_step}, {n_mels} and {sample_rate_hz}; set it to none, or to new with config.model.shaping_steps"
        )
    path = pathlib.Path(__file__).parents[3] / "pretrained" / "shaper.npz" if name == "shipped" else name
    try:
        found = {key: value for key, value in array_files.read(path).items() if key.startswith(SHAPER)}
    except FileNotFoundError:
        raise ValueError(f"config.model.shaper: expected shipped, none, new or a file, got {name!r}") from None
    wanted = named_shaper(jax.eval_shape(shaper(n_mels).init, jax.random.key(0)))
    if {key: value.shape for key, value in found.items()} != {key: value.shape for key, value in wanted.items()}:
        raise ValueError(
            f"{path}: expected a shaper, as in the statistics.npz of a run with config.model.shaping_steps"
        )
    return found


class Shaper(nnx.Module):
    """What is known of a loop to what its excitations are multiplied by. It begins as if it were not there.

    Args:
        n_mels: M, bands of a spectrum.
        rngs: source of the initial values.
    """

    def __init__(self, n_mels, *, rngs):
        self.n_mels = n_mels
        self.input = Dense(4 * n_mels + _LOW_SAMPLES + 2, _WIDTH, rngs=rngs)
        for i in range(_BLOCKS):
            setattr(self, f"conv_{i}", CircularConv(_WIDTH, 2 * _WIDTH, _TAPS, rngs=rngs))
            setattr(self, f"dense_{i}", Dense(2 * _WIDTH, _WIDTH, rngs=rngs))
        self.gates = CircularConv(_WIDTH, sum(map(len, _GATES.values())) * n_mels, 1, zero=True, rngs=rngs)
        self.swells = CircularConv(_WIDTH, 2 * _SWELLS, 1, zero=True, rngs=rngs)

    def __call__(self, levels, low, told):
        """Levels `[B, 2, N, M]`, low `[B, N * 8]`, pitch and lines `[B, N, 2 + 2 M]` -> gates `[B, 11, N, M]`, swells `[B, 2, N * 8]`.

        Of the gates those of noise are logarithms, the others factors.
        """
        count = levels.shape[2]
        frames = jnp.moveaxis((levels + 5) / 2, 1, 2).reshape(len(levels), count, -1)  # to about unit deviation
        x = self.input(jnp.concatenate([frames, 4 * low.reshape(len(low), count, -1), told], -1))
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
    rate_hz = sample_rate_hz * grid.samples / clip_samples
    spectra = ("mid", "side") if "side" in parts else ("mid",)

    def measured(part):
        if statistics is None:
            raise ValueError(
                "technogan: no statistics of the training set; pass models.build what models.measure returns"
            )
        names = ("mean", "basis", "deviation", "lost", "scale")
        mean, basis, deviation, lost, scale = (statistics[f"{part}_{name}"].astype(np.float32) for name in names)
        return mean, basis, np.maximum(deviation, _LEAST_DEVIATION), lost, scale

    def weighed(part, power):
        """`[D, K]`, the basis of a part with what changes within a sixteenth so much weightier, or if the power is -1 less."""
        within = statistics.get(f"{part}_within", np.ones(()))  # sets that older versions measured have none
        return _weigh(measured(part)[1].T, grid.frames, float(within) ** power).T

    def encode(audio):
        features = _features(audio, grid=grid, bands=bands, rate_hz=rate_hz, toned="pitch" in parts)
        return jnp.concatenate([code(part, features[part]) for part in parts], -1)

    def code(part, features):
        mean, _, deviation, _, scale = measured(part)
        return jnp.matmul(features - mean, weighed(part, 1), precision="highest") * (scale / deviation)

    def coding(part):
        """`[D, K]`, the numbers of a sequence that a change of features is."""
        _, _, deviation, _, scale = measured(part)
        return weighed(part, 1) * (scale / deviation)

    def reading(part):
        """`[K, D]`, the reverse."""
        _, _, deviation, _, scale = measured(part)
        return (deviation / scale)[:, None] * weighed(part, -1).T

    def read(x):
        """The features of a sequence, `[B, steps, D]` a part."""
        return {part: features_of(part, coded) for part, coded in by_part(x, parts).items()}

    def features_of(part, coded):
        """What the numbers of a part say, `[..., D]`: the reverse of `code`."""
        return jnp.matmul(coded, reading(part), precision="highest") + measured(part)[0]

    def levels_of(features, part):
        # What is lost of a level is noise about it. Exponentials of levels without that noise would have less power.
        mean, _, _, lost, _ = measured(part)
        # Sets that older versions measured have no correction.
        swing = np.tile(statistics.get(f"{part}_swing", np.ones(len(bands[part]))), grid.frames)
        level = np.tile(statistics.get(f"{part}_level", np.zeros(len(bands[part]))), grid.frames)
        levels = np.float32(swing) * features[part] + np.float32((1 - swing) * mean + lost + level)
        levels = levels.reshape(len(levels), grid.steps * grid.frames, -1)
        return jnp.minimum(levels, _LOUDEST)  # [B, N, bands]

    def play(shaper_params, x, noise, clear=False):
        features = read(x)
        levels = {part: levels_of(features, part) for part in spectra}
        low = folded(features["low"], -1).reshape(len(x), -1)
        waves, gates, pan = noise, {}, None
        if shaper_params is not None:
            waves, gates = excited(shaper_params, levels, low, features, noise, clear)
        if len(spectra) == 2:
            pan = jnp.repeat(jnp.clip(features["pan"], -1, 1), 2 * grid.frames, 1)
        controls = (*jax.tree.map(_between, (levels, gates)), pan)
        beats = dict(pieces=grid.steps // _BEAT, before=_DELAY)
        sound = spectral.resynthesize_circular(shaped, waves, controls, grid.n_fft, grid.hop_length, **beats)
        sound = spectral.resample_circular(sound, clip_samples)
        return jnp.concatenate([_crossed(low, sound[:, :1], sample_rate_hz), sound[:, 1:]], 1)

    def shaped(given, controls):
        """Spectra of noise and of other excitations, `[B, S, _DELAY + n, bins]`, to those of mid and side, `[B, n, bins]` each.

        Controls: levels of mid and side, gates as `excited` gives them, how mid and side go together; `[B, n, ...]`.
        """
        levels, gates, pan = controls
        noise = given[:, : len(spectra)] * spectral.noise_power(grid.n_fft) ** -0.5  # of unit mean square
        sounds = list(jnp.moveaxis(noise[:, :, _DELAY:], 1, 0))
        if gates:
            tonal = excitations.even(given[:, len(spectra) :], filters, spread)
            mid = {name: tonal[:, i, _DELAY:] for i, name in enumerate(_GATES["mid"][1:])}
            later = dict(delayed=noise[:, 0, :-_DELAY], pitch=tonal[:, list(mid).index("pitch"), :-_DELAY])
            side = dict(square=mid["square"], lines=tonal[:, -1, _DELAY:]) | later
            for i, (part, waves) in enumerate(zip(spectra, (mid, side), strict=False)):
                gate = {name: spectral.matmul_banded(gates[part, name], spread) for name in _GATES[part]}
                sounds[i] = _gain(gate["noise"]) * sounds[i] + sum(gate[name] * wave for name, wave in waves.items())
        if pan is not None:
            pan = jnp.matmul(pan, groups(n_mels) @ spread)  # [B, n, bins]
            sounds[1] = pan * sounds[0] + jnp.sqrt(jnp.maximum(1 - pan**2, 0)) * sounds[1]
        return [
            _magnitude(levels[part], inverse[part]) * (grid.n_fft / 4) * sound
            for part, sound in zip(spectra, sounds, strict=True)
        ]

    def excited(params, levels, low, features, noise, clear):
        """Waveforms `[B, S, samples]`: noise of mid and side, the mid's other excitations in the order of `_GATES`, the side's lines.

        And gates `[B, N, M]`, of (part, name) in `_GATES`: by what each is multiplied, of noise its logarithm.
        """
        below = jnp.full_like(levels["mid"], np.log(_FLOOR))
        both = jnp.stack([levels["mid"], levels["side"][..., 1:] if "side" in levels else below], 1)
        seen = spectral.resample_circular(low, grid.steps * grid.frames * _LOW_SAMPLES)
        pitch_hz, sure = pitch.pitches(features["pitch"])
        told, standing = [_told(pitch_hz, jnp.minimum(_SURER * sure, 1) if clear else sure, grid)], []
        for part, lowest_hz in zip(("line", "side_line"), pitch.LOWEST_HZ, strict=True):
            if part in features:
                tone, height = pitch.lines(features[part])
                height = jnp.where(height < _LEAST_LINE, 0, height)
                standing.append(excitations.standing(tone, height, grid.samples, rate_hz, lowest_hz)[:, None])
                told.append(_told_of_lines(tone, height, lowest_hz, filters, rate_hz, grid))
            else:
                told.append(jnp.zeros_like(told[-1]))
        gates, swells = shaper(n_mels).apply(params, both, seen, jnp.concatenate(told, -1))
        names = [(part, name) for part, names in _GATES.items() for name in names]
        gates = dict(zip(names, jnp.moveaxis(gates, 1, 0), strict=True))  # [B, N, M] each
        if clear:
            for part in _GATES:
                # Sets that older versions measured have no such correction.
                tone = statistics.get(f"{part}_tone", np.ones(n_mels)).astype(np.float32)
                for name, factor in _TONES.items():
                    gates[part, name] *= factor * tone
            gates["mid", "noise"] = _less_noise(gates["mid", "noise"], gates["mid", "pitch"], swells)
        waves = [
            excitations.swelling(noise, swells, grid.steps, rate_hz),
            excitations.distorted(spectral.resample_circular(low, grid.samples)),
            excitations.pulses(pitch_hz, sure, grid.samples, rate_hz)[:, None],
            *standing,
        ]
        return jnp.concatenate(waves, 1), gates

    def decode(x):
        noise = excitations.white_noise(x, len(spectra), grid.samples // grid.steps)
        sound = play(shaper_of(statistics), x, noise, True)
        if len(spectra) == 1:
            sound = jnp.moveaxis(sound, 1, -1)
        else:
            mid, side = sound[:, 0], sound[:, 1]
            sound = jnp.stack([mid + side, mid - side], -1)
        return spectral.limit_circular(spectral.saturate(sound), sample_rate_hz)

    def remix(x, mix):
        said = jnp.concatenate([mix.curve, mix.width[:, None], jnp.expm1(mix.bass)[:, None], mix.swapped[:, None]], -1)
        gain, shift = (jnp.matmul(said, rows, precision="highest")[:, None] for rows in mixing())
        return x + gain * x + shift

    @cache
    def mixing():
        """What each number of a `Mix`, in its order, adds to the gains of a sequence and to the sequence: `[7, K]` both."""
        gain, shift = (
            {part: np.zeros((_CURVES + 3, size), np.float32) for part, size in parts.items()} for _ in range(2)
        )
        curves = _curves(n_mels)
        shift["mid"][:_CURVES] = np.tile(curves, grid.frames) @ coding("mid")
        gain["low"][_CURVES + 1], shift["low"][_CURVES + 1] = 1, measured("low")[0] @ coding("low")
        if "side" in parts:
            below_and_above = np.concatenate([curves[:, :1], curves], -1)
            shift["side"][:_CURVES] = np.tile(below_and_above, grid.frames) @ coding("side")
            shift["side"][_CURVES] = coding("side").sum(0)
            gain["pan"][-1], shift["pan"][-1] = -2, -2 * measured("pan")[0] @ coding("pan")
        return [np.concatenate(list(rows.values()), -1) for rows in (gain, shift)]

    def pictures(x):
        shape = *x.shape[:2], min(_TIMES, grid.frames), len(spectra) * _GROUPS
        if statistics is None:
            return jnp.zeros(shape)
        rows, offset = drawing()
        return (jnp.matmul(x[..., : len(rows)], rows, precision="highest") + offset).reshape(shape)

    @cache
    def drawing():
        """What numbers of spectra, the first of a sequence, add to a picture, `[K, times * G]`, and the picture of the mean."""
        # One small product and not those of `read` and `_coarse`, which are large: the critic asks for it in every step.
        times = min(_TIMES, grid.frames)
        sizes = {part: parts[part] for part in spectra}
        rows, offset = np.zeros((sum(sizes.values()), times, len(spectra), _GROUPS)), []
        of = by_part(np.arange(len(rows)), sizes)
        for i, part in enumerate(spectra):
            coarse = _coarse(grid.frames, measured(part)[1].shape[0] // grid.frames)
            rows[of[part], :, i] = (reading(part) @ coarse).reshape(-1, times, _GROUPS)
            offset.append((measured(part)[0] @ coarse).reshape(times, _GROUPS))
        return np.float32(rows.reshape(len(rows), -1)), np.float32(np.stack(offset, 1).reshape(-1))

    views = _low_views(grid.low_samples)

    def low_pictures(x):
        if statistics is None:
            return jnp.zeros((*x.shape[:2], views.shape[1]))
        kernel, mean = viewing()
        waves = convolve_circular(by_part(x, parts)["low"], kernel, "highest") + mean
        real, imag = jnp.split(waves, 2, -1)
        return (0.5 * jnp.log(real**2 + imag**2 + _LOW_FLOOR**2) + 3) / 2  # to about unit deviation

    @cache
    def viewing():
        """The convolution from the low end's numbers to the real and the imaginary parts of its spectra, and what the mean adds to them."""

        def view(low):
            low = folded(low, -1)
            around = np.concatenate([np.roll(low, 1, 1), low, np.roll(low, -1, 1)], -1)
            return around @ np.concatenate([views.real, views.imag], 1)

        mean = view(np.broadcast_to(measured("low")[0], (1, 1, grid.low_samples)))[0, 0]
        return _kernel_of(lambda numbers: view(numbers @ reading("low")), parts["low"], 2), np.float32(mean)

    @cache
    def peaks(part):
        heard = _heard_of_lines(pitch.LOWEST_HZ[part == "side"], bands[part], rate_hz, grid)
        return np.float32(np.tile(heard, grid.frames) @ coding(part))

    def code_low(waves):
        if statistics is None:
            return jnp.zeros((*waves.shape[:2], parts["low"]))
        return convolve_circular(waves, hearing(), "highest")

    @cache
    def hearing():
        """The convolution from the waveform to the low end's numbers."""
        return _kernel_of(lambda low: folded(low, 1) @ coding("low"), grid.low_samples, 1)

    components = sum(parts.values())
    scale, silence = np.ones(components, np.float32), np.zeros(components, np.float32)
    if statistics:
        scale = np.concatenate([measured(part)[-1] for part in parts])
        silence = np.concatenate([-measured(part)[0] @ coding(part) for part in parts])
    return Codec(
        components=components,
        scale=scale,
        silence=silence,
        encode=encode,
        decode=decode,
        play=play,
        code=code,
        peaks=peaks,
        code_low=code_low,
        remix=remix,
        pictured=len(spectra) * _GROUPS,
        pictures=pictures,
        low_pictured=views.shape[1],
        low_pictures=low_pictures,
    )


def _kernel_of(function, size: int, reach: int) -> np.ndarray:
    """The kernel of `convolve_circular` that does what numpy does of `[B, steps, size]`, linearly, looking so many steps to either side."""
    taps = 2 * reach + 1
    impulses = np.zeros((size, taps, size))
    impulses[np.arange(size), reach, np.arange(size)] = 1
    return np.float32(function(impulses)[:, ::-1].swapaxes(0, 1))


def draw_mix(key: jax.Array, count: int, share: float = 1.0) -> Mix:
    """Mixes at random, so little apart from what was that each could be; a share of them, and the others change nothing."""
    curve, bass, width = np.float32(np.log(10) / 20 * np.array(_MIX_DB))
    drawn = jax.random.normal(
        key, (count, _CURVES + 4)
    )  # at once: each call of a random function takes long to compile
    is_mixed = drawn[:, -1] < scipy.special.ndtri(share)
    changes = jnp.where(is_mixed[:, None], drawn, 0)
    return Mix(curve * changes[:, :_CURVES], bass * changes[:, -4], width * changes[:, -3], changes[:, -2] > 0)


def _weigh(features: np.ndarray, frames: int, within: float) -> np.ndarray:
    """Features of frames `[..., frames * bands]` with so many times their deviation from the mean over frames."""
    if within == 1:
        return features
    spectra = features.reshape(*features.shape[:-1], frames, -1)
    mean = spectra.mean(-2, keepdims=True)
    return (mean + features.dtype.type(within) * (spectra - mean)).reshape(features.shape)


def mid_and_side(audio: jax.Array) -> jax.Array:
    """`[B, T, C]` to `[B, C, T]`: the mean of two channels and half their difference; mono as it is."""
    if audio.shape[-1] == 1:
        return jnp.moveaxis(audio, -1, 1)
    left, right = audio[..., 0], audio[..., 1]
    return jnp.stack([(left + right) / 2, (left - right) / 2], 1)


def shaper_of(statistics):
    """The parameters of the shaper among the statistics, None if there are none."""
    params = {}
    for name, value in (statistics or {}).items():
        if name.startswith(SHAPER):
            layer, kind = name.removeprefix(SHAPER).split("/")
            params.setdefault(layer, {})[kind] = value.astype(np.float32)
    return params or None


def named_shaper(params) -> dict:
    """The parameters of a shaper as they are among the statistics: the reverse of `shaper_of`."""
    return {f"{SHAPER}{layer}/{kind}": value for layer, kinds in params.items() for kind, value in kinds.items()}


def _of_unit_power(x: jax.Array) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6)


def _gain(logarithm: jax.Array) -> jax.Array:
    return jnp.exp(jnp.clip(logarithm, -8, 3))


def _less_noise(noise: jax.Array, pitch: jax.Array, swells: jax.Array) -> jax.Array:
    """The logarithmic gate of noise `[B, N, M]` with less of it where pulses have most of the power; gates and swells as `Shaper` gives them."""
    swell = jnp.mean(swells[:, 0].reshape(len(swells), -1, _SWELLS), -1)[..., None]
    share = pitch**2 / (pitch**2 + jnp.exp(2 * (noise + swell)) + 1e-9)
    return noise - _LESS_NOISE * share**2


def _features(audio, grid, bands, rate_hz, toned) -> dict[str, jax.Array]:
    """What the components are of, `[B, steps, D]` a part; pitch and lines where they are asked for, side and pan of stereo."""
    signals = mid_and_side(audio)
    sound = spectral.resample_circular(signals, grid.samples)
    spectra = spectral.stft_circular(sound, grid.n_fft, 2 * grid.hop_length)
    magnitude = jnp.abs(spectra) / (grid.n_fft / 4)
    features = {}
    for index, part in enumerate(("mid", "side")[: signals.shape[1]]):
        levels = jnp.log(jnp.matmul(magnitude[:, index], bands[part].T, precision="highest") + _FLOOR)  # [B, N, bands]
        features[part] = levels.reshape(len(audio), grid.steps, -1)
    low = spectral.resample_circular(signals[:, 0], grid.steps * grid.low_samples)
    features["low"] = folded(low.reshape(len(audio), grid.steps, -1), 1)
    if toned:
        features["pitch"], features["line"] = pitch.numbers_of(sound[:, 0], rate_hz, grid.steps)
    if toned and signals.shape[1] == 2:
        lines = pitch.find_lines(sound[:, 1], rate_hz, grid.steps, pitch.LOWEST_HZ[1])
        features["side_line"] = pitch.line_numbers(lines)
    if signals.shape[1] == 2:
        features["pan"] = _pan(spectra / (grid.n_fft / 4), bands["mid"], grid)
    return features


def folded(low: jax.Array, sign: int) -> jax.Array:
    """Sixteenths of a waveform `[B, steps, n]` that lap over each other, by a rotation of samples as far before a boundary as behind it.

    The end of a sixteenth fades out and its beginning is what both have in common, so that two that do not belong together still join.
    *Source*: the folding of the MDCT: Princen, Bradley 1986 (IEEE Trans. ASSP 34(5)). A sign of -1 undoes it.
    """
    lap = low.shape[-1] // 8
    angle = np.pi / 4 * (1 - np.sin(np.pi / 2 * (np.arange(lap) + 0.5) / lap))
    cos, sin = np.float32(np.cos(angle)), np.float32(sign * np.sin(angle))
    of = jnp if isinstance(low, jax.Array) else np
    begin, end = low[..., :lap], of.roll(low, 1, 1)[..., : -lap - 1 : -1]  # from the boundary on, to either side
    begin, end = cos * begin + sin * end, cos * end - sin * begin
    return of.concatenate([begin, low[..., lap:-lap], of.roll(end, -1, 1)[..., ::-1]], -1)


def _pan(spectra, filters, grid):
    """How mid and side go together, `[B, steps, 8]` in [-1, 1]: their correlation in groups of bands. The sign says where."""
    grouped = (groups(len(filters)) @ filters).T

    def power(values):
        powers = jnp.matmul(values, grouped, precision="highest")  # [B, N, 8]
        return powers.reshape(len(powers), grid.steps, grid.frames, -1).sum(2)

    mid, side = spectra[:, 0], spectra[:, 1]
    both = power((mid * side.conj()).real)
    return both * jax.lax.rsqrt(power(jnp.abs(mid) ** 2) * power(jnp.abs(side) ** 2) + _FLOOR**4)


def _curves(n_mels):
    """`[4, M]`: cosines of 0, 1, 2 and 3 half turns from the lowest band to the highest."""
    return np.cos(np.pi * np.arange(_CURVES)[:, None] * (np.arange(n_mels) + 0.5) / n_mels).astype(np.float32)


def _coarse(frames, bands):
    """`[frames * bands, times * 8]`: means over a group of bands and the first frame, halves of the inner ones, or the last."""
    inner = np.arange(frames - 2) * 2 // max(frames - 2, 2)
    when = np.r_[0, 1 + inner, min(_TIMES, frames) - 1] == np.arange(min(_TIMES, frames))[:, None]
    when, where = (choice / np.maximum(choice.sum(1, keepdims=True), 1) for choice in (when, groups(bands)))
    return np.kron(when, where).T.astype(np.float32)


def _low_views(samples):
    """`[3 * samples, F]`, complex: the waves that a sixteenth with those beside it is held against for its spectra, of which a sine of amplitude 1 gives 1.

    Under Hann windows of two sixteenths, of one and of a half, each half over the one before: a tone that stands is clean in the
    first, one that falls in the last.
    """
    places, views = np.arange(3 * samples) + 0.5, []
    for size in (2 * samples, samples, samples / 2):
        centres = samples + size / 2 * (np.arange(round(2 * samples / size)) + 0.5)
        place = (places[:, None] - centres) / size
        window = np.where(np.abs(place) < 0.5, np.cos(np.pi * place) ** 2, 0)
        waves = np.exp(2j * np.pi * place[..., None] * np.arange(1, int(size / 2) + 1))
        views.append((2 * window / window.sum(0))[..., None] * waves)
    return np.concatenate([view.reshape(3 * samples, -1) for view in views], 1)


def groups(size: int, count: int = _GROUPS) -> np.ndarray:
    """`[count, size]`: which of so many bands or numbers on end are in which group."""
    return np.float32(np.arange(size) * count // size == np.arange(count)[:, None])


def _told(pitch_hz, sure, grid):
    """What the shaper sees of the pitch, `[B, N, 2]`."""
    octave = sure * jnp.log2(pitch_hz / pitch.PITCHES_HZ[0]) - 2
    return jnp.repeat(jnp.stack([2 * sure, octave], -1), grid.frames // 2, 1)


def _heard_of_lines(lowest_hz, filters, rate_hz, grid):
    """How much each band hears of each line, `[LINES, bands]`, the nearest band the most: 1."""
    bins = np.minimum(np.round(pitch.lines_hz(lowest_hz) * grid.n_fft / rate_hz).astype(int), filters.shape[1] - 1)
    heard = filters[:, bins].T
    return heard / np.maximum(heard.max(1, keepdims=True), 1e-9)


def _told_of_lines(tone, height, lowest_hz, filters, rate_hz, grid):
    """What the shaper sees of lines, `[B, N, M]`."""
    heard = jnp.asarray(_heard_of_lines(lowest_hz, filters, rate_hz, grid))
    return 2 * jnp.repeat(jnp.sum(height[..., None] * heard[tone], 2), grid.frames, 1)


def _crossed(low, sound, sample_rate_hz):
    """A loop `[B, 1, T]` with a waveform of fewer samples `[B, n]` in place of what is below the crossover."""
    samples = sound.shape[-1]
    hz = np.arange(samples // 2 + 1) * (sample_rate_hz / samples)
    above = spectral.rise(hz, CROSSOVER_HZ).astype(np.float32)
    kept = (low.shape[-1] + 1) // 2  # bins of the low waveform, below half of its rate
    spectrum = jnp.fft.rfft(sound[:, 0]) * above
    heard = spectral.rise(hz[:kept], _RUMBLE_HZ).astype(np.float32)
    below = jnp.fft.rfft(low)[:, :kept] * ((1 - above[:kept]) * heard * (samples / low.shape[-1]))
    return jnp.fft.irfft(spectrum.at[:, :kept].add(below), samples)[:, None]


def _magnitude(levels: jax.Array, inverse: np.ndarray) -> jax.Array:
    """Levels `[B, N, bands]` to magnitudes `[B, N, bins]`."""
    magnitude = jnp.maximum(jnp.exp(levels) - _FLOOR, 0)
    return jnp.maximum(jnp.matmul(magnitude, inverse.T, precision="highest"), 0)


def _between(levels: jax.Array) -> jax.Array:
    """Spectra around the loop, `[..., N, M]`, to twice as many, each a quarter of the distance away from a given one."""
    before, after = jnp.roll(levels, 1, -2), jnp.roll(levels, -1, -2)
    doubled = jnp.stack([0.75 * levels + 0.25 * before, 0.75 * levels + 0.25 * after], -2)  # [..., N, 2, M]
    return doubled.reshape(*levels.shape[:-2], -1, levels.shape[-1])


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
    filters = spectral.mel_filters(rate_hz, grid.n_fft, n_mels, CROSSOVER_HZ[0])
    weights = filters.sum(1, keepdims=True)
    empty = int(np.sum(weights == 0))
    if empty:
        raise ValueError(
            f"config.model.n_mels: {empty} of {n_mels} bands hold none of the {grid.n_fft // 2 + 1} bins of a frame; lower n_mels, or "
            "config.model.frames_per_step, which makes frames longer"
        )
    return filters / weights
