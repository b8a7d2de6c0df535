"""All figures of a comparison: distances, tests, features and copies, each beside its floor.

How sets are compared. A *draw* takes one clip of each of T tracks from the reference, from other real
tracks, and from the generated clips. A distance is a mean over draws. It is computed for generated
and for other real clips by the same rule, so the second is the *floor* of the first: it has the same
bias and the same number of tracks.
"""

from __future__ import annotations

import collections
import contextlib
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import threadpoolctl

from technogen_jax.common import array_files
from technogen_jax.evaluation import opinions
from technogen_jax.evaluation.feature_extraction import (
    CONTROL_SNR_DB,
    MIN_TRACKS,
    ClipFeatures,
    Comparison,
    Options,
    split_tracks,
)
from technogen_jax.evaluation.features import musical
from technogen_jax.evaluation.features.embedding import Embedding
from technogen_jax.evaluation.features.projection import MOST_DIMENSIONS, fit_projection
from technogen_jax.evaluation.memorisation import panel, set_statistics
from technogen_jax.evaluation.memorisation.fingerprints import Fingerprints
from technogen_jax.evaluation.metrics import distances, feature_comparison, two_sample
from technogen_jax.evaluation.metrics.embedded_set import EmbeddedSet, make_embedded_set

VERSION = 1  # of a result
FEW_TRACKS = 30  # a draw with fewer gets a warning
FEW_HELD_OUT = 200  # clips; fewer get a warning
WARNING_P = 0.01  # below it, the test of a warning has distinguished its two sets
RENDERING = "16 bit, one rate, channel count and length, no change of level"
OTHER_REAL = "real against other real clips"  # a control that must not be distinguished
_GENERATED = 2  # its place among reference, other and generated
_MOST_TRACKS_A_DRAW = 1000
_MOST_TRACKS_A_TEST = 2000
_MOST_IMAGES = 1000  # for |D|_self and |D|_train


# Many small products: on a busy machine threads cost more time than they save.
@threadpoolctl.threadpool_limits.wrap(limits=1)
def score(comparison: Comparison, embeddings: dict[str, Embedding], options: Options) -> dict[str, Any]:
    """Returns the result: the sets and options, every figure beside its floor, and the claim.

    Args:
        comparison: from `extract_comparison`.
        embeddings: the embeddings of the comparison, by name, the first one first.
        options: the options of the comparison.
    """
    draws = make_draws(comparison, options)
    clips = comparison.reference.clips
    sides = comparison.reference, comparison.other, comparison.generated
    scores, spaces = {}, {}
    for name, embedding in embeddings.items():
        blocks = embedding.blocks(clips.channels)
        projection = fit_projection(comparison.fit.values[name], comparison.fit.tracks, blocks, whiten=embedding.whiten)
        projected = [projection.apply(side.values[name]) for side in sides]
        if len(blocks) == 1:  # the block and "all" are the same
            projected = [{block: values[block] for block in blocks} for values in projected]
        scores[name] = score_distances(comparison, draws, projected, options)
        spaces[name] = embedding.describe(clips.sample_rate_hz) | {
            "projection_sha256": projection.sha256,
            "dimensions": {block: values.shape[1] for block, values in projected[0].items()},
            "fit_tracks": projection.tracks,
        }
    blocks = {"all": slice(0, comparison.fit.matched.shape[1])}
    projection = fit_projection(comparison.fit.matched, comparison.fit.tracks, blocks)
    matched = score_distances(comparison, draws, [projection.apply(side.matched) for side in sides], options)
    test, claim = score_two_sample(comparison, list(embeddings), options)
    result = {
        "version": VERSION,
        "context": {
            "sample_rate_hz": clips.sample_rate_hz,
            "clip_samples": clips.clip_samples,
            "seconds": clips.clip_samples / clips.sample_rate_hz,
            "channels": clips.channels,
            "rendering": RENDERING,
            "options": options._asdict(),
        },
        "sets": {
            name: _describe_set(side) for name, side in zip(("reference", "other", "generated"), sides, strict=True)
        },
        "embeddings": spaces,
        "draws": {"count": len(draws), "tracks": len(draws[0].generated), "reference_tracks": len(draws[0].reference)},
        "distances": scores,
        "loudness_matched": {"tmr-v1": matched},
        "features": score_features(comparison, options),
        "two_sample": test,
        "tags": opinions.score_tags(comparison, embeddings),
        "memorisation": None if comparison.train is None else score_memorisation(comparison, options),
        "claim": claim._asdict(),
    }
    result["disagreements"] = opinions.find_disagreements(result)
    result["warnings"] = _find_warnings(result, comparison)
    return result


def _find_warnings(result: dict[str, Any], comparison: Comparison) -> list[dict[str, Any]]:
    """Returns what a reader must know before trusting the figures.

    Each warning has its text, what it is about ("distance", "classifier", "copies" or "clips"), and whether the figure
    looks better than it is.
    """
    found = []

    def warn(about: str, text: str, flatters: bool = False) -> None:
        found.append({"about": about, "flatters": flatters, "text": text})

    tracks = result["draws"]["tracks"]
    if tracks < FEW_TRACKS:
        warn(
            "distance",
            f"Each draw has {tracks} tracks: with fewer than {FEW_TRACKS} the figures are rough; hold out more tracks",
        )
    if "valid" in comparison.reference.clips.origin.get("splits", ()):
        warn(
            "distance",
            "The valid tracks chose the best checkpoint, so that judging by them flatters it; use the test tracks",
            True,
        )
    for side in (comparison.reference, comparison.generated):
        if side.silent:
            warn("clips", f"{side.clips.name}: {side.silent} of {len(side.indices)} clips are silent")
    if comparison.train is None:
        warn(
            "copies",
            "The training clips are not known: no search for copies, and the projection is fitted to the reference, which "
            "makes the generated clips look slightly worse than they are",
        )
    elif comparison.other is comparison.fit:
        warn(
            "distance",
            f"The floor is computed from the clips that the projection was fitted to ({comparison.fit.clips.name}), since "
            "they are too few to be divided: the floor is too high, and the ratios flatter",
            True,
        )
    control = result["two_sample"]["controls"].get(OTHER_REAL)
    if control and control["p"] < WARNING_P:
        warn(
            "distance",
            f"A classifier distinguishes the real clips of the floor ({comparison.other.clips.name}) from the reference "
            f"({control['accuracy']:.0%} right): the floor is too high, and the ratios flatter; split one collection by track",
            True,
        )
    if (copies := result["memorisation"]) and copies["held_out_clips"] < FEW_HELD_OUT:
        warn(
            "copies",
            f"Only {copies['held_out_clips']} held-out clips set the thresholds for copies: with so few, real clips are "
            f"flagged too ({copies['held_out_flagged_share']:.0%}); hold out {FEW_HELD_OUT} or more",
        )
    if result["two_sample"]["shortcuts"]["p"] < WARNING_P:
        warn(
            "classifier",
            "Properties of the files alone (offset, peak, lowest bit, silence at the ends, top band) distinguish the sets: "
            "correct that before you trust the two-sample test",
        )
    return found


def _describe_set(side: ClipFeatures) -> dict[str, Any]:
    return {
        "name": side.clips.name,
        "clips": len(side.indices),
        "tracks": len(np.unique(side.tracks)),
        "silent": side.silent,
        "rejected": len(side.clips.rejected),
        "pcm_sha256": side.pcm_sha256,
        "origin": side.clips.origin,
    }


def project_to_plane(comparison: Comparison) -> tuple[np.ndarray, np.ndarray]:
    """Returns reference and generated clips in two dimensions of the first embedding, `[n, 2]`."""
    name, values = next(iter(comparison.fit.values.items()))
    projection = fit_projection(values, comparison.fit.tracks, {}, 2)
    sides = comparison.reference, comparison.generated
    return tuple(projection.apply(side.values[name])["all"] for side in sides)


def save_embeddings(path: str | os.PathLike, comparison: Comparison, options: Options) -> None:
    """Writes the embeddings, tracks and draws as .npz; every distance can be recomputed from it."""
    found = {}
    for name in ("reference", "other", "generated", "fit"):
        side = getattr(comparison, name)
        found[f"{name}/tracks"] = side.tracks
        found |= {f"{name}/{embedding}": values for embedding, values in side.values.items()}
    for number, draw in enumerate(make_draws(comparison, options)):
        found |= {f"draw{number:02d}/{side}": rows for side, rows in draw._asdict().items()}
    array_files.write(path, found)


class Draw(NamedTuple):
    """Row numbers of one clip of each track: of the reference, the other real and the generated."""

    reference: np.ndarray
    other: np.ndarray
    generated: np.ndarray


def make_draws(comparison: Comparison, options: Options) -> list[Draw]:
    """Returns the draws of a comparison; the same for the same seed and tracks.

    Where the other real clips are the reference itself, each draw splits its tracks into halves.
    """
    reference, other, generated = comparison.reference, comparison.other, comparison.generated
    draws, count = [], 1
    while len(draws) < count:
        random = np.random.default_rng([options.seed, len(draws)])
        if other is reference:
            tracks = random.permutation(np.unique(reference.tracks))
            real = tracks[: len(tracks) // 2], tracks[len(tracks) // 2 :]
        else:
            real = np.unique(reference.tracks), random.permutation(np.unique(other.tracks))
        fake = random.permutation(np.unique(generated.tracks))
        size = min(_MOST_TRACKS_A_DRAW, *map(len, real), len(fake))
        chosen = (reference, real[0][:_MOST_TRACKS_A_DRAW]), (other, real[1][:size]), (generated, fake[:size])
        draws.append(Draw(*(_choose_one_a_track(side, tracks, random) for side, tracks in chosen)))
        count = min(options.draws, max(3, 4000 // size))
    return draws


def score_distances(
    comparison: Comparison, draws: Sequence[Draw], projected: Sequence[dict[str, np.ndarray]], options: Options
) -> dict[str, dict[str, Any]]:
    """Returns block -> figure -> {value, sd, floor, floor_sd, ratio}, in one projection.

    The floor of `mmd` is 0 on average. Its ratio is to the 95th percentile of random assignments of
    a draw's real tracks (`floor_95`), and it has `p`, of a permutation test of all tracks.
    `frechet` has `bias`, its mean for two sets of one distribution, and `at_infinity`, an estimate
    for infinitely many tracks.

    Args:
        comparison: the features of all sets.
        draws: from `make_draws`.
        projected: block -> `[n, d]` for the reference, the other real and the generated clips.
        options: permutations and seed.
    """
    result: dict[str, dict[str, Any]] = {}
    sides = comparison.reference, comparison.other, comparison.generated

    def embed(side: int, block: str, rows: np.ndarray) -> EmbeddedSet:
        values, tracks, name = projected[side][block][rows], sides[side].tracks[rows], sides[side].clips.name
        return make_embedded_set(values, tracks, name, may_be_alike=side == _GENERATED)

    random = np.random.default_rng(options.seed)
    all_rows = {
        side: _choose_one_a_track(sides[side], _choose_tracks(sides[side], _MOST_TRACKS_A_TEST, random), random)
        for side in (0, _GENERATED)
    }
    for block in projected[0]:
        values, floors = collections.defaultdict(list), collections.defaultdict(list)
        for draw in draws:
            real, other, fake = (embed(side, block, rows) for side, rows in enumerate(draw))
            for against, into in ((fake, values), (other, floors)):
                for name, value in distances.compute_all(real, against).items():
                    into[name].append(value)
        found = {name: _compare_with_floor(values[name], floors[name]) for name in values}
        real, other, _ = (embed(side, block, rows) for side, rows in enumerate(draws[0]))
        null = distances.rbf_mmd_test(real, other, permutations=options.permutations, seed=options.seed).null_95
        found["mmd"] |= {"floor_95": null, "ratio": found["mmd"]["value"] / null}
        covariance = np.atleast_2d(np.cov(projected[0][block], rowvar=False))
        sizes = len(draws[0].reference), len(draws[0].generated)
        found["frechet"]["bias"] = distances.frechet_bias(np.linalg.eigvalsh(covariance), *sizes)
        whole = [embed(side, block, rows) for side, rows in all_rows.items()]
        if min(len(np.unique(clips.tracks)) for clips in whole) >= 2 * MIN_TRACKS:
            extrapolated = distances.frechet_at_infinity(*whole, seed=options.seed)
            found["frechet"]["at_infinity"], found["frechet"]["at_infinity_error"] = extrapolated
        found["mmd"]["p"] = distances.rbf_mmd_test(*whole, permutations=options.permutations, seed=options.seed).p
        result[block] = found
    return result


def _compare_with_floor(values: list[float], floors: list[float]) -> dict[str, float | None]:
    found = {
        "value": float(np.mean(values)),
        "sd": float(np.std(values)),
        "floor": float(np.mean(floors)),
        "floor_sd": float(np.std(floors)),
    }
    return found | {"ratio": found["value"] / found["floor"] if found["floor"] > 0 else None}


def score_features(comparison: Comparison, options: Options) -> dict[str, dict[str, Any]]:
    """Returns feature -> its distribution in both sets, their distance, and the floor."""
    real, fake = comparison.reference, comparison.generated
    pair = split_tracks(real, options.seed) if comparison.other is real else (real, comparison.other)
    result = {}
    for name, feature in musical.features().items():
        found = _compare_feature(real, fake, name, options)
        result[name] = {"unit": feature.unit, "says": feature.says, **found._asdict()}
        result[name] |= {side: result[name][side]._asdict() for side in ("reference", "other")}
        result[name]["floor"] = _compare_feature(*pair, name, options).wasserstein
        result[name]["generated"] = result[name].pop("other")
    shape_db, offset_db = musical.ltas_distance(_mean_spectrum(real), _mean_spectrum(fake))
    floor_shape_db, floor_offset_db = musical.ltas_distance(*map(_mean_spectrum, pair))
    result["ltas"] = {
        "unit": "dB",
        "shape_db": shape_db,
        "offset_db": offset_db,
        "floor_shape_db": floor_shape_db,
        "floor_offset_db": floor_offset_db,
    }
    result["onset_pattern"] = {"unit": "correlation"}
    for what, (first, second) in (("value", (real, fake)), ("floor", pair)):
        patterns = _mean_pattern(first), _mean_pattern(second)
        known = all(pattern is not None for pattern in patterns)
        result["onset_pattern"][what] = musical.pattern_correlation(*patterns) if known else None
    return result


def _mean_spectrum(clips: ClipFeatures) -> np.ndarray:
    return np.mean(clips.bands_db, axis=0)


def _mean_pattern(clips: ClipFeatures) -> np.ndarray | None:
    known = np.isfinite(clips.pattern).all(axis=(1, 2))
    return clips.pattern[known].mean(axis=0) if known.any() else None


def _compare_feature(
    first: ClipFeatures, second: ClipFeatures, name: str, options: Options
) -> feature_comparison.FeatureComparison:
    values = [item for clips in (first, second) for item in (clips.features[name], clips.tracks)]
    return feature_comparison.compare_feature(*values, permutations=options.permutations, seed=options.seed)


def score_two_sample(
    comparison: Comparison, names: Sequence[str], options: Options
) -> tuple[dict[str, Any], two_sample.Claim]:
    """Returns the classifier two-sample test with its shortcuts and controls, and the claim.

    The tests of the first embedding are at the top, those of the others under "others". Of the claims of
    all embeddings the most cautious one counts: that the clips are distinguished, then no claim.

    Args:
        comparison: the features of all sets.
        names: names of the embeddings that the classifiers get.
        options: the seed.
    """

    def test(
        real: ClipFeatures, fake: ClipFeatures, select: Callable[[ClipFeatures], np.ndarray]
    ) -> two_sample.TwoSample:
        sets = [
            make_embedded_set(select(clips), clips.tracks, clips.clips.name, may_be_alike=clips is fake)
            for clips in (real, fake)
        ]
        return two_sample.best_of(
            [two_sample.classifier_test(*sets, classifier=kind, seed=options.seed) for kind in two_sample.CLASSIFIERS]
        )

    def to_dict(found: two_sample.TwoSample) -> dict[str, Any]:
        return found._asdict() | {"verdict": two_sample.verdict(found)}

    real, fake = comparison.reference, comparison.generated
    pair = (real, comparison.train) if comparison.train else split_tracks(real, options.seed)
    noisy = f"real against real with noise {CONTROL_SNR_DB:g} dB below"
    pairs = {OTHER_REAL: pair, noisy: (pair[0], comparison.noisy)}
    if comparison.earlier is not None:
        pairs[f"real against {comparison.earlier.clips.name}"] = (real, comparison.earlier)
    by_name, claims = {}, []
    for name in names:
        main = test(real, fake, lambda clips, name=name: clips.values[name])
        controls = {
            what: test(*pair, lambda clips, name=name: clips.values[name])
            for what, pair in pairs.items()
            if min(len(np.unique(clips.tracks)) for clips in pair) >= two_sample.LEAST_TRACKS
        }
        by_name[name] = {
            "test": to_dict(main),
            "controls": {what: to_dict(found) for what, found in controls.items()},
        }
        # If the classifier distinguishes those tracks without noise, the noise is not what it detects.
        confounded = OTHER_REAL in controls and controls[OTHER_REAL].p < WARNING_P
        claim = two_sample.claim(main, None if confounded else controls.get(noisy))
        claims.append(claim if len(names) == 1 else claim._replace(sentence=f"{claim.sentence} ({name})"))
    first = by_name.pop(names[0])
    shortcuts = to_dict(test(real, fake, lambda clips: clips.trivial))
    result = {"test": first["test"], "shortcuts": shortcuts, "controls": first["controls"], "others": by_name}
    return result, min(claims, key=lambda claim: ("L1", "L0", "L2").index(claim.level))


def score_memorisation(comparison: Comparison, options: Options) -> dict[str, Any]:
    """Returns whether clips were copied: the panel, and statistics beside those of real clips.

    Distances to the training clips are computed in tmr-v1 of clips at one loudness: a copy with
    another gain is a copy.

    Args:
        comparison: the features of all sets, with those of the training clips.
        options: the seed.
    """
    known = comparison.train
    blocks = {"all": slice(0, known.matched.shape[1])}
    project = fit_projection(known.matched, known.tracks, blocks, MOST_DIMENSIONS).apply
    sides = comparison.reference, known, comparison.generated
    real, train, fake = (project(clips.matched)["all"] for clips in sides)
    random = np.random.default_rng(options.seed)
    train_fingerprints = comparison.train_fingerprints
    fake_fingerprints, real_fingerprints = comparison.generated.fingerprints, comparison.reference.fingerprints
    found = panel.detect_copies(fake_fingerprints, train_fingerprints, real_fingerprints)
    singles = real[_choose_one_a_track(comparison.reference, np.unique(comparison.reference.tracks), random)]
    result = found._asdict() | {"flagged": [flag._asdict() for flag in found.flagged]}
    result |= {
        "auth_pct": set_statistics.auth_pct(fake, train, known.tracks),
        "auth_pct_held_out": set_statistics.auth_pct(real, train, known.tracks),
        "z_u": set_statistics.data_copying_test(fake, singles, train),
    }
    with contextlib.suppress(ValueError):  # too few clips for cells
        cells = max(2, len(singles) // 20)
        result["c_t"] = set_statistics.data_copying_by_cell(fake, real, train, cells=cells, seed=options.seed)
    fake, real, train = (
        _choose_images(fingerprints, most, random)
        for fingerprints, most in (
            (fake_fingerprints, _MOST_IMAGES),
            (real_fingerprints, _MOST_IMAGES),
            (train_fingerprints, 2 * _MOST_IMAGES),
        )
    )
    size = min(len(fake), len(real))
    fake, real = fake[:size], real[:size]
    return result | {
        "d_self": set_statistics.self_distance(fake),
        "d_self_held_out": set_statistics.self_distance(real),
        "d_train": set_statistics.train_distance(fake, train),
        "d_train_held_out": set_statistics.train_distance(real, train),
    }


def _choose_images(fingerprints: Fingerprints, most: int, random: np.random.Generator) -> np.ndarray:
    """Flattened log-mel images of at most `most` clips, `[n, D]`."""
    images = fingerprints.images.reshape(len(fingerprints.ids), -1)
    chosen = np.sort(random.permutation(len(images))[:most])
    return images[chosen].astype(np.float64)


def score_labels(comparison: Comparison, classifier: Embedding) -> dict[str, Any]:
    """Returns the inception score of as many generated and real clips, and their predicted labels.

    Args:
        comparison: the features of all sets.
        classifier: an embedding whose values are probabilities of labels.

    Reference: Salimans et al., "Improved Techniques for Training GANs" (2016), section 4.
    """
    known = classifier.describe(comparison.reference.clips.sample_rate_hz)
    fake, real = comparison.generated.values[classifier.name], comparison.reference.values[classifier.name]
    random, size = np.random.default_rng(0), min(len(fake), len(real))
    fake, real = (random.permutation(rows)[:size] for rows in (fake, real))

    def label_shares(rows: np.ndarray) -> dict[str, float]:
        shares = (rows.argmax(axis=1)[:, None] == np.arange(rows.shape[1])).mean(0)
        return {name: float(share) for name, share in zip(known["classes"], shares, strict=True)}

    return {
        "clips": size,
        "inception_score": distances.inception_score(fake),
        "inception_score_held_out": distances.inception_score(real),
        "validation_accuracy": known["validation_accuracy"],
        "generated": label_shares(fake),
        "real": label_shares(real),
    }


def _choose_one_a_track(clips: ClipFeatures, tracks: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The index of one row of each track."""
    order = random.permutation(len(clips.tracks))
    names, first = np.unique(clips.tracks[order], return_index=True)
    return order[first[np.searchsorted(names, tracks)]]


def _choose_tracks(clips: ClipFeatures, most: int, random: np.random.Generator) -> np.ndarray:
    """At most `most` of its tracks."""
    tracks = np.unique(clips.tracks)
    return tracks if len(tracks) <= most else random.permutation(tracks)[:most]
