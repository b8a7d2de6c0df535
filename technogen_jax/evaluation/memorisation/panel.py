"""The memorisation panel: are generated clips copies of training audio?

Two detectors compare each generated clip with the training audio. Each finds copies that the other
misses: the correlation of log-mel images finds copies at another speed or with lost phases, the
peak fingerprint finds half a clip, or a copy under other music. Techno tracks resemble one another,
so no fixed threshold works: the thresholds are what real clips of *other* tracks reach.

Not detected, or not reliably: copies more than 5 % faster or slower, in another key at the same
speed, with their beats in another order, of less than half the clip, or under other music as loud.
Of a clip that is both a piece of longer training audio and rotated, only the larger part is found.
Where records are as long as the window, a copy across the end of one counts as two parts: use
longer training audio. The same bass drum alone is not a copy: see `Flag.band`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from technogen_jax.evaluation.memorisation.fingerprints import FRAMES, Fingerprints, peak_frames
from technogen_jax.evaluation.memorisation.image_matching import match_images
from technogen_jax.evaluation.memorisation.peak_matching import match_peaks

_QUANTILE = 0.999
_DETECTORS = {(True, True): "both", (True, False): "correlation", (False, True): "fingerprint"}


class Matches(NamedTuple):
    """The best match of each query, by each detector.

    Attributes:
        correlation: `[n]`, up to 1; 0 for a clip without structure.
        correlation_clip: `[n]`, index of the training clip.
        correlation_shift_s: `[n]`, position in it at which the query begins.
        fingerprint: `[n]`, share of the query's peak pairs that agree in one alignment, 0 to 1.
        fingerprint_clip: `[n]`, index of the training clip.
        fingerprint_shift_s: `[n]`, position in it at which the query begins.
        correlation_rest: `[n]`, the correlation at its best position, without the low bands.
        fingerprint_rest: `[n]`, the fingerprint at its best position, without the pairs that lie
            in the low bands.
    """

    correlation: np.ndarray
    correlation_clip: np.ndarray
    correlation_shift_s: np.ndarray
    fingerprint: np.ndarray
    fingerprint_clip: np.ndarray
    fingerprint_shift_s: np.ndarray
    correlation_rest: np.ndarray
    fingerprint_rest: np.ndarray


class Flag(NamedTuple):
    """A generated clip that is closer to a training clip than real clips of other tracks are.

    Attributes:
        generated: its id.
        train: id of the training clip: the correlation's if that flagged it, else the fingerprint's.
        train_track: that clip's track.
        correlation: the best correlation.
        fingerprint: the best fingerprint.
        detector: "correlation", "fingerprint" or "both".
        shift_s: position in the training clip at which it begins; modulo the length of a training
            clip as long as the window.
        band: "low band only" if neither detector would flag it without the low bands, else
            "full band".
    """

    generated: str
    train: str
    train_track: str
    correlation: float
    fingerprint: float
    detector: str
    shift_s: float
    band: str


class Panel(NamedTuple):
    """The detectors' result for a set of generated clips.

    Attributes:
        threshold_correlation: the 99.9th percentile of the held-out clips; of at most 1,000 clips
            their maximum.
        threshold_fingerprint: the same for the fingerprint.
        threshold_is_maximum: whether the thresholds are maxima.
        held_out_clips: number of held-out clips.
        held_out_tracks: number of their tracks.
        generated_clips: number of generated clips.
        generated_without_structure: number of silent or constant ones, which cannot match.
        flagged: the generated clips above either threshold, the closest first.
        flagged_share: their share, 0 to 1.
        held_out_flagged_share: the share to expect without copies: each half of the held-out tracks
            is flagged by the thresholds of the other half.
        nearest_held_out: (held-out id, training id) of the highest correlation and of the highest
            fingerprint. If a pair sounds like the same music, the split has one track on both
            sides, and anything less similar is not flagged.
    """

    threshold_correlation: float
    threshold_fingerprint: float
    threshold_is_maximum: bool
    held_out_clips: int
    held_out_tracks: int
    generated_clips: int
    generated_without_structure: int
    flagged: list[Flag]
    flagged_share: float
    held_out_flagged_share: float
    nearest_held_out: list[tuple[str, str]]


def detect_copies(generated: Fingerprints, train: Fingerprints, held_out: Fingerprints) -> Panel:
    """Returns which generated clips are closer to the training audio than other real clips are.

    Args:
        generated: clips as long as the window.
        train: the training audio of the model.
        held_out: real clips as long as the window, of tracks that are not in `train`. A thousand or
            more give the 99.9th percentile. Fewer give their maximum, which flags more clips.

    Raises:
        ValueError: different sample rates or windows, a track in both real sets, fewer than two
            held-out tracks, or generated or held-out clips longer than the window.
    """
    shared = set(held_out.tracks) & set(train.tracks)
    if shared:
        raise ValueError(
            f"panel: expected held-out tracks that are not trained on, got {len(shared)} that are, like {min(shared)!r};"
            " split by track"
        )
    tracks = np.unique(held_out.tracks)
    if len(tracks) < 2:
        raise ValueError(f"panel: expected at least 2 held-out tracks, got {len(tracks)}; hold out more")
    found, real = find_matches(generated, train), find_matches(held_out, train)
    limits = _thresholds(real, slice(None))
    flagged = np.flatnonzero(_is_flagged(found, limits))
    excess = np.maximum(found.correlation - limits[0], found.fingerprint - limits[1])
    half = np.isin(held_out.tracks, tracks[::2])
    by_chance = sum(_is_flagged(real, _thresholds(real, ~own))[own].sum() for own in (half, ~half))
    order = flagged[np.argsort(-excess[flagged], kind="stable")]
    return Panel(
        threshold_correlation=limits[0],
        threshold_fingerprint=limits[1],
        threshold_is_maximum=len(held_out.ids) <= 1000,
        held_out_clips=len(held_out.ids),
        held_out_tracks=len(tracks),
        generated_clips=len(generated.ids),
        generated_without_structure=int((generated.counts == 0).sum()),
        flagged=[_make_flag(found, limits, generated, train, int(i)) for i in order],
        flagged_share=len(flagged) / len(generated.ids),
        held_out_flagged_share=float(by_chance) / len(held_out.ids),
        nearest_held_out=[
            (str(held_out.ids[i]), str(train.ids[clips[i]]))
            for values, clips in (
                (real.correlation, real.correlation_clip),
                (real.fingerprint, real.fingerprint_clip),
            )
            for i in [int(np.argmax(values))]
        ],
    )


def find_matches(queries: Fingerprints, train: Fingerprints) -> Matches:
    """Returns the best match of each query in the training audio.

    Measured: 1,000 clips against 1,000 take about 3 s of one core, against 14,000 about 25 s, and
    0.1 GB of memory beside the fingerprints.

    Raises:
        ValueError: different sample rates or windows, or a query longer than the window.
    """
    for name in ("sample_rate_hz", "seconds"):
        ours, theirs = getattr(queries, name), getattr(train, name)
        if ours != theirs:
            raise ValueError(
                f"find_matches: expected one {name}, got {ours} and {theirs}; make both sets of fingerprints alike"
            )
    if (queries.frames != FRAMES).any():
        i = int(np.argmax(queries.frames != FRAMES))
        raise ValueError(
            f"find_matches: {queries.ids[i]}: expected a clip of {queries.seconds:g} s, got a longer one; cut it"
        )
    images, peaks = match_images(queries, train), match_peaks(queries, train)
    return Matches(
        correlation=images.score,
        correlation_clip=images.clip,
        correlation_shift_s=images.shift * (queries.seconds / FRAMES),
        fingerprint=peaks.score,
        fingerprint_clip=peaks.clip,
        fingerprint_shift_s=peaks.shift * (queries.seconds / peak_frames(queries.seconds)),
        correlation_rest=images.rest,
        fingerprint_rest=peaks.rest,
    )


def _thresholds(real: Matches, rows: slice | np.ndarray) -> tuple[float, float]:
    """The two thresholds; with "higher" few clips give their maximum and not less."""
    correlation = np.quantile(real.correlation[rows], _QUANTILE, method="higher")
    return float(correlation), float(np.quantile(real.fingerprint[rows], _QUANTILE, method="higher"))


def _is_flagged(found: Matches, limits: tuple[float, float]) -> np.ndarray:
    """`[n]` bool: whether either detector exceeds its threshold."""
    return (found.correlation > limits[0]) | (found.fingerprint > limits[1])


def _make_flag(
    found: Matches, limits: tuple[float, float], generated: Fingerprints, train: Fingerprints, i: int
) -> Flag:
    by_correlation, by_fingerprint = found.correlation[i] > limits[0], found.fingerprint[i] > limits[1]
    if by_correlation:
        clip, shift_s = found.correlation_clip[i], found.correlation_shift_s[i]
    else:
        clip, shift_s = found.fingerprint_clip[i], found.fingerprint_shift_s[i]
    full_band = found.correlation_rest[i] > limits[0] or found.fingerprint_rest[i] > limits[1]
    return Flag(
        generated=str(generated.ids[i]),
        train=str(train.ids[clip]),
        train_track=str(train.tracks[clip]),
        correlation=float(found.correlation[i]),
        fingerprint=float(found.fingerprint[i]),
        detector=_DETECTORS[bool(by_correlation), bool(by_fingerprint)],
        shift_s=float(shift_s),
        band="full band" if full_band else "low band only",
    )
