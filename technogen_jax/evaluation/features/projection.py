"""The projection of embeddings to few uncorrelated dimensions, in which distances are computed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from technogen_jax.common import array_files

LEAST_TRACKS = 10
MOST_DIMENSIONS = 32


class Space(NamedTuple):
    """The projection of one block.

    Attributes:
        columns: first and last + 1 column of the embedding.
        mean: `[D]` of the clips that it was fitted to.
        deviation: `[D]` of the same; ones if not whitened.
        components: `[D, d]`: from standardised columns to uncorrelated coordinates of deviation 1, or
            from centred columns to their principal components.
    """

    columns: tuple[int, int]
    mean: np.ndarray
    deviation: np.ndarray
    components: np.ndarray


class Projection(NamedTuple):
    """A projection that was fitted once, to training tracks, and never to the clips it compares.

    Attributes:
        spaces: one a block, and "all".
        tracks: number of tracks that it was fitted to.
    """

    spaces: dict[str, Space]
    tracks: int

    def apply(self, values: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the coordinates in each space, float64 `[n, d]`.

        Args:
            values: embeddings `[n, D]`.

        Raises:
            ValueError: another D than that of the fit, NaN or Inf.
        """
        values = _check(values, "Projection.apply")
        width = self.spaces["all"].columns[1]
        if values.shape[1] != width:
            raise ValueError(
                f"Projection.apply: expected embeddings [n, {width}], got {values.shape}; the projection was fitted to "
                "another embedding or another number of channels"
            )
        return {
            name: (values[:, slice(*space.columns)] - space.mean) / space.deviation @ space.components
            for name, space in self.spaces.items()
        }

    @property
    def sha256(self) -> str:
        """The SHA-256 of the arrays."""
        arrays = {
            f"{name}/{field}": getattr(space, field) for name, space in self.spaces.items() for field in Space._fields
        }
        return array_files.content_hash({"tracks": self.tracks} | arrays)


def fit_projection(
    values: np.ndarray,
    tracks: np.ndarray,
    blocks: dict[str, slice],
    dimensions: int | None = None,
    *,
    whiten: bool = True,
) -> Projection:
    """Returns a projection of each block, and of all columns, to their principal components.

    Whitened, columns are standardised first, and components have deviation 1. The deviation of a column
    counts as at least a thousandth of the block's largest one, so that the rounding of a constant column
    is not amplified. Otherwise both keep their units. A change in a direction in which the fitted clips
    do not vary is lost.

    Args:
        values: embeddings `[n, D]` to fit to.
        tracks: `[n]`, the track of each.
        blocks: {block: its columns}.
        dimensions: at most this many per space. None: whitened, a fifth of the number of tracks, from 2
            to 32, since all of them count alike; otherwise 32.
        whiten: whether all dimensions count alike.

    Returns:
        The projection, with one space a block and one named "all".

    Raises:
        ValueError: fewer than 10 tracks, arrays that do not fit each other, NaN or Inf, or a block
            that is the same for all clips.
    """
    values, count = _check(values, "fit_projection"), len(set(tracks))
    if len(tracks) != len(values):
        raise ValueError(f"fit_projection: expected one track per clip, got {len(tracks)} for {len(values)}")
    if count < LEAST_TRACKS:
        raise ValueError(
            f"fit_projection: expected clips of at least {LEAST_TRACKS} tracks, got {count}; prepare the dataset from more"
        )
    dimensions = dimensions or (min(MOST_DIMENSIONS, max(2, count // 5)) if whiten else MOST_DIMENSIONS)
    spaces = {}
    for name, columns in {**blocks, "all": slice(0, values.shape[1])}.items():
        block = values[:, columns]
        deviation = block.std(axis=0)
        if not deviation.max() > 1e-9 * np.abs(block).max():
            raise ValueError(f"fit_projection: block {name} is the same for all clips; are they all silent, or copies?")
        deviation = np.maximum(deviation, 1e-3 * deviation.max()) if whiten else np.ones_like(deviation)
        mean = block.mean(axis=0)
        _, strengths, axes = np.linalg.svd((block - mean) / deviation, full_matrices=False)
        kept = min(dimensions, int(np.sum(strengths > 1e-6 * strengths[0])))
        # The sign of a singular vector is arbitrary: the largest entry becomes positive.
        axes = axes[:kept] * np.sign(axes[range(kept), np.abs(axes[:kept]).argmax(axis=1)])[:, None]
        components = axes.T / strengths[:kept] * np.sqrt(len(block) - 1) if whiten else axes.T
        spaces[name] = Space((columns.start, columns.stop), mean, deviation, components)
    return Projection(spaces, count)


def _check(values: np.ndarray, caller: str) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if values.ndim != 2 or not len(values):
        raise ValueError(f"{caller}: expected embeddings [n, D] with n at least 1, got shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"{caller}: the embeddings have NaN or Inf")
    return values
