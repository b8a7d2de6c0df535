"""Sets of embedded clips with their tracks: the input of all distances.

Clips of one track resemble each other, so they are not independent draws. All statistics that need
independent draws (p-values, distances within a set, the bias of the Fréchet distance) go by tracks.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


class EmbeddedSet(NamedTuple):
    """A set of embedded clips; made and checked by `make_embedded_set`.

    Attributes:
        values: float64 `[n, D]`.
        tracks: `[n]`, the id of each clip's track.
    """

    values: np.ndarray
    tracks: np.ndarray


def make_embedded_set(values: ArrayLike, tracks: ArrayLike, name: str, *, may_be_alike: bool = False) -> EmbeddedSet:
    """Returns a set that every distance accepts.

    Args:
        values: `[n, D]`, one row a clip.
        tracks: `[n]`, the id of each clip's track, strings or integers. A generated clip is a track
            of its own, unless several share a label or a seed.
        name: name of the set, for errors.
        may_be_alike: whether all clips may have the same values, as those of a collapsed generator.

    Raises:
        ValueError: values that are not `[n, D]`, not finite or all equal (a silent set); not one
            track a clip; fewer than two tracks.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 2 or not values.shape[1]:
        raise ValueError(f"{name}: expected values [n, D], got shape {values.shape}")
    tracks = check_tracks(tracks, len(values), name)
    if not np.isfinite(values).all():
        bad = np.flatnonzero(~np.isfinite(values).all(1))
        raise ValueError(f"{name}: {len(bad)} of {len(values)} clips have NaN or Inf, the first is clip {bad[0]}")
    count = len(np.unique(tracks))
    if count < 2:
        raise ValueError(f"{name}: expected clips of at least 2 tracks, got {len(values)} clips of {count}; add tracks")
    if not may_be_alike and (values == values[0]).all():
        raise ValueError(f"{name}: all {len(values)} clips have the same values; is the set silent?")
    return EmbeddedSet(values, tracks)


def check_pair(reference: EmbeddedSet, other: EmbeddedSet, *, disjoint: bool = False) -> None:
    """Checks that two sets can be compared.

    Args:
        reference: one set.
        other: the other set.
        disjoint: whether no track may be in both sets.

    Raises:
        TypeError: a set that is no `EmbeddedSet`.
        ValueError: different dimensions; a track in both sets where they must be disjoint.
    """
    if not (isinstance(reference, EmbeddedSet) and isinstance(other, EmbeddedSet)):
        raise TypeError(
            "expected two sets of make_embedded_set(values, tracks, name): the track of each clip is needed"
        )
    dimensions = reference.values.shape[1], other.values.shape[1]
    if dimensions[0] != dimensions[1]:
        raise ValueError(f"expected one embedding for both sets, got {dimensions[0]} and {dimensions[1]} dimensions")
    if disjoint:
        check_disjoint(reference.tracks, other.tracks)


def choose_one_a_track(clips: EmbeddedSet, *, seed: int = 0) -> EmbeddedSet:
    """Returns one clip of each track, drawn by the seed, with tracks in the order of their ids."""
    order = np.random.default_rng(seed).permutation(len(clips.tracks))
    _, first = np.unique(clips.tracks[order], return_index=True)
    return EmbeddedSet(clips.values[order[first]], clips.tracks[order[first]])


def check_tracks(tracks: ArrayLike, clips: int, name: str) -> np.ndarray:
    """Returns the track ids as an array `[clips]`.

    Raises:
        ValueError: not one string or integer per clip.
    """
    tracks = np.asarray(tracks)
    if tracks.shape != (clips,) or tracks.dtype.kind not in "iuU":
        raise ValueError(
            f"{name}: expected one track id (string or integer) for each of {clips} clips, "
            f"got shape {tracks.shape} of {tracks.dtype}"
        )
    return tracks


def check_disjoint(tracks_a: np.ndarray, tracks_b: np.ndarray) -> None:
    """Checks that no track is in both sets.

    Raises:
        ValueError: a track is in both.
    """
    shared = np.intersect1d(tracks_a, tracks_b)
    if len(shared):
        raise ValueError(
            f"expected different tracks in the two sets, got {len(shared)} in both ({shared[0]!s} ...); "
            "split by tracks, or give the tracks of different sets different ids"
        )
