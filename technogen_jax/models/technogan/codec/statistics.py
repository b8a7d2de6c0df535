"""What the codec measures on a dataset: principal components, corrections, the shaper."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from technogen_jax.common.run_config import AudioConfig
from technogen_jax.models.technogan.codec import constants, shaper
from technogen_jax.models.technogan.codec.analysis import analyze, make_bands
from technogen_jax.models.technogan.config import TechnoGANConfig
from technogen_jax.models.technogan.layout import BeatGrid, CodeLayout, Parts

# A component that changes less is constant (the side of mono): dividing would amplify rounding.
LEAST_DEVIATION = 1e-3
# Names of parts in statistics.npz and in exported files, where they differ from those of the code.
_NAMES_ON_DISK = {"partials": "line", "side_partials": "side_line"}
# The weight of each part in the code.
_WEIGHTS = Parts(
    mid=1.0,
    side=constants.SIDE_WEIGHT,
    low=constants.LOW_WEIGHT,
    pitch=constants.PITCH_WEIGHT,
    partials=constants.PARTIALS_WEIGHT,
    side_partials=constants.SIDE_PARTIALS_WEIGHT,
    pan=constants.PAN_WEIGHT,
)


@dataclasses.dataclass(frozen=True)
class PartStatistics:
    """The statistics of one part.

    Attributes:
        mean: `[D]`, mean of the features.
        basis: `[D, K]`, orthonormal columns of falling variance.
        deviation: `[K]`, standard deviation of the projections on the columns.
        scale: `[K]`, standard deviation that the components have in the code.
        lost: `[D]`, variance of the features that the components leave out.
        within: the weight that changes within a sixteenth had when the basis was computed.
        level: `[bands]`, nepers that the correction adds to decoded levels; None before it.
        swing: `[bands]`, factor of the decoded levels' distance from their mean; None before the
            correction.
        tone: `[M]`, factor of pulses and partials; None before the correction or without a shaper.
    """

    mean: np.ndarray
    basis: np.ndarray
    deviation: np.ndarray
    scale: np.ndarray
    lost: np.ndarray
    within: np.ndarray
    level: np.ndarray | None = None
    swing: np.ndarray | None = None
    tone: np.ndarray | None = None


_FIELDS = tuple(field.name for field in dataclasses.fields(PartStatistics))


@dataclasses.dataclass(frozen=True)
class CodecStatistics:
    """All statistics of a codec.

    Attributes:
        parts: the statistics of each part.
        shaper: the shaper's parameters, None without a shaper or before it is trained.
    """

    parts: Parts[PartStatistics]
    shaper: dict[str, Any] | None = None

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray], layout: CodeLayout) -> CodecStatistics:
        """Statistics from the arrays of statistics.npz or of an exported file.

        Raises:
            ValueError: they are of another layout, or of an older version that can't be read.
        """
        parts = dict.fromkeys(Parts._fields)
        for name, part in layout.items():
            prefix = _NAMES_ON_DISK.get(name, name)
            found = {field: arrays[f"{prefix}_{field}"] for field in _FIELDS if f"{prefix}_{field}" in arrays}
            wanted, shape = (part.features, part.size), found.get("basis", np.zeros(0)).shape
            if shape != wanted:
                raise ValueError(f"technogan: expected statistics with a {prefix}_basis of {wanted}, got {shape}")
            if "scale" not in found:
                raise ValueError(
                    f"technogan: expected statistics with a {prefix}_scale; these are an older version's, train anew"
                )
            # Older versions did not write `within`.
            parts[name] = PartStatistics(**{"within": np.ones(())} | found)
        return cls(Parts(**parts), shaper.from_arrays(arrays))

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The arrays of statistics.npz."""
        arrays = {}
        for name, part in self.parts._asdict().items():
            for field in _FIELDS if part else ():
                if (value := getattr(part, field)) is not None:
                    arrays[f"{_NAMES_ON_DISK.get(name, name)}_{field}"] = value
        return arrays | shaper.to_arrays(self.shaper or {})

    @classmethod
    def placeholder(cls, layout: CodeLayout) -> CodecStatistics:
        """Statistics of the right shapes, for a model built before its dataset is measured."""
        parts = dict.fromkeys(Parts._fields)
        for name, part in layout.items():
            ones = np.ones(part.size)
            parts[name] = PartStatistics(
                mean=np.zeros(part.features),
                basis=np.zeros((part.features, part.size)),
                deviation=ones,
                scale=ones,
                lost=np.zeros(part.features),
                within=np.ones(()),
            )
        return cls(Parts(**parts))


def measure(batches: Iterable[np.ndarray], config: TechnoGANConfig, audio: AudioConfig) -> dict[str, np.ndarray]:
    """The principal components of a dataset's sixteenths, as the arrays of statistics.npz.

    Args:
        batches: audio `[B, T, C]` in [-1, 1]: the whole dataset, a batch at a time.
        config: the model's fields.
        audio: rate, channels and length of the clips.

    Returns:
        See `CodecStatistics`; float64. With `config.shaper` that is a file or "shipped" also the
        shaper's parameters.

    Raises:
        ValueError: no clips, clips of another length, or a shaper of another grid.
    """
    grid, layout = BeatGrid.of_clips(config, audio), CodeLayout.plan(config, audio)
    bands = make_bands(grid, config.n_mels)
    features_of = jax.jit(lambda clips: analyze(clips, grid, bands, tonal=config.shaper != "none"))
    given_shaper = shaper.read(config.shaper, audio.sample_rate_hz, config.frames_per_step, config.n_mels)
    moments = {name: _Moments() for name, _ in layout.items()}
    waiting: list[Parts[jax.Array]] = []  # JAX computes the next features while these are summed up

    def add(features: Parts[jax.Array]) -> None:
        for name, _ in layout.items():
            moments[name].add(getattr(features, name))

    for clips in batches:
        if clips.shape[1] != audio.clip_samples:
            raise ValueError(
                f"technogan: expected clips of config.audio.clip_samples = {audio.clip_samples}, got {clips.shape[1]}; "
                f"a clip must be whole bars: prepare the dataset with --grid bars --bars {config.bars}"
            )
        waiting.append(features_of(clips))
        if len(waiting) > 1:
            add(waiting.pop(0))
    for features in waiting:
        add(features)
    if not moments["mid"].count:
        raise ValueError("technogan: expected clips to measure, got none")
    parts = dict.fromkeys(Parts._fields)
    for name, part in layout.items():
        within = constants.SIDE_WITHIN if name == "side" else 1.0
        weight = getattr(_WEIGHTS, name)
        parts[name] = _find_components(moments[name], part.size, weight, within, grid.frames_per_step)
    return CodecStatistics(Parts(**parts), given_shaper).to_arrays()


class _Moments:
    """Sums of feature vectors and of their products, in float64."""

    def __init__(self):
        self.count, self.total, self.products = 0, 0.0, 0.0

    def add(self, features: jax.Array) -> None:
        """Adds vectors `[B, S, D]`."""
        rows = np.asarray(features, np.float64).reshape(-1, features.shape[-1])
        self.count += len(rows)
        self.total, self.products = self.total + rows.sum(0), self.products + rows.T @ rows


def _find_components(moments: _Moments, size: int, weight: float, within: float, frames: int) -> PartStatistics:
    """The first principal components of a part, by the eigenvectors of the covariance."""
    mean = moments.total / moments.count
    covariance = moments.products / moments.count - np.outer(mean, mean)
    weighted = weigh_changes(weigh_changes(covariance, frames, within).T, frames, within)
    variances, vectors = np.linalg.eigh(weighted)
    variances = np.maximum(variances[::-1], 0)[:size]  # rounding can leave one below 0
    basis = vectors[:, ::-1][:, :size]
    deviation = np.sqrt(variances)
    scale = np.maximum(deviation, LEAST_DEVIATION) ** constants.DEVIATION_POWER
    kept = variances @ weigh_changes(basis.T, frames, 1 / within) ** 2
    return PartStatistics(
        mean=mean,
        basis=basis,
        deviation=deviation,
        scale=scale / np.sqrt(np.mean(scale**2)) * weight,
        lost=np.maximum(np.diag(covariance) - kept, 0),
        within=np.array(within),
    )


def weigh_changes(features: np.ndarray, frames: int, factor: float) -> np.ndarray:
    """Features `[..., frames * bands]`, their distance from the mean over frames times a factor."""
    if factor == 1:
        return features
    spectra = features.reshape(*features.shape[:-1], frames, -1)
    mean = spectra.mean(-2, keepdims=True)
    return (mean + features.dtype.type(factor) * (spectra - mean)).reshape(features.shape)
