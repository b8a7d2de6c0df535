"""Two sets of clips to one result: every distance, test and feature, each beside what real clips give among themselves.

How sets are compared. A *draw* takes one clip of each of T tracks on every side: of the reference, of other real tracks and of
the generated clips. Distances are means over draws, of generated and of real clips by the same rule, so that the second is
the *floor* of the first: the same bias, the same number of tracks.
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
from technogen_jax.evaluation.feature_extraction import CONTROL_SNR_DB, MIN_TRACKS, Heard, Options, Sides, halves
from technogen_jax.evaluation.features import embeddings, musical
from technogen_jax.evaluation.memorisation import detection
from technogen_jax.evaluation.metrics import distances, two_sample

VERSION = 1  # of a result
FEW_TRACKS = 30  # a draw with fewer is warned of
FEW_HELD_OUT = 200  # clips
TOLD_P = 0.01  # below it a warning's test has told its two sets apart
RENDERING = "16 bit, one rate, channel count and length, no change of level"
NEIGHBOURS = 5
OTHER_REAL = "real against other real clips"  # the control that must not be told apart
_GENERATED = 2  # its place among reference, other and generated
_MOST_TRACKS_A_DRAW = 1000
_MOST_TRACKS_A_TEST = 2000
_MOST_IMAGES = 1000  # for |D|_self and |D|_train


# Many small products: on a busy machine threads cost more than they give.
@threadpoolctl.threadpool_limits.wrap(limits=1)
def score(sides: Sides, chosen: dict[str, embeddings.Embedding], options: Options) -> dict[str, Any]:
    """The result: what was compared and how, every figure beside its floor, and what may be said.

    Args:
        sides: from `listen_to_all`.
        chosen: the embeddings that were listened with.
        options: the same.
    """
    made = draws(sides, options)
    clips = sides.reference.clips
    heard = sides.reference, sides.other, sides.generated
    scores, spaces = {}, {}
    for name, embedding in chosen.items():
        blocks = embedding.blocks(clips.channels)
        projection = embeddings.fit_projection(sides.fit.values[name], sides.fit.tracks, blocks)
        projected = [projection.apply(side.values[name]) for side in heard]
        if len(blocks) == 1:  # it is all there is
            projected = [{block: values[block] for block in blocks} for values in projected]
        scores[name] = score_distances(sides, made, projected, options)
        spaces[name] = embedding.describe(clips.sample_rate_hz) | {
            "projection_sha256": projection.sha256,
            "dimensions": {block: values.shape[1] for block, values in projected[0].items()},
            "fit_tracks": projection.tracks,
        }
    blocks = {"all": slice(0, sides.fit.matched.shape[1])}
    matched_projection = embeddings.fit_projection(sides.fit.matched, sides.fit.tracks, blocks)
    matched = score_distances(sides, made, [matched_projection.apply(side.matched) for side in heard], options)
    two, claim = score_two_sample(sides, next(iter(chosen)), options)
    copied = None if sides.train is None else score_memorisation(sides, options)
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
        "sets": {name: _about(side) for name, side in zip(("reference", "other", "generated"), heard, strict=True)},
        "embeddings": spaces,
        "draws": {"count": len(made), "tracks": len(made[0].generated), "reference_tracks": len(made[0].reference)},
        "distances": scores,
        "loudness_matched": {"tmr-v1": matched},
        "features": score_features(sides, options),
        "two_sample": two,
        "memorisation": copied,
        "claim": claim._asdict(),
    }
    result["warnings"] = _warnings(result, sides)
    return result


def _warnings(result: dict[str, Any], sides: Sides) -> list[str]:
    """What a reader must know before believing the figures."""
    found = []
    tracks = result["draws"]["tracks"]
    if tracks < FEW_TRACKS:
        found.append(
            f"Each draw has {tracks} tracks: with fewer than {FEW_TRACKS} the figures are rough; hold out more tracks"
        )
    if "valid" in sides.reference.clips.origin.get("splits", ()):
        found.append(
            "The valid tracks chose the best checkpoint, so that judging by them flatters it; use the test tracks"
        )
    for side in (sides.reference, sides.generated):
        if side.silent:
            found.append(f"{side.clips.name}: {side.silent} of {len(side.indices)} clips are silent")
    if sides.train is None:
        found.append(
            "What was trained on is not known: no search for copies, and the projection is fitted to the reference, which "
            "makes the generated clips look slightly worse than they are"
        )
    elif sides.other is sides.fit:
        found.append(
            f"The floor is of clips that the projection was fitted to, too few to be halved ({sides.fit.clips.name}): it is too "
            "high, and the ratios flatter"
        )
    control = result["two_sample"]["controls"].get(OTHER_REAL)
    if control and control["p"] < TOLD_P:
        found.append(
            f"The real clips that the floor is of ({sides.other.clips.name}) are themselves told from the reference "
            f"({control['accuracy']:.0%} right): the floor is too high, and the ratios flatter; split one collection by track"
        )
    if (panel := result["memorisation"]) and panel["held_out_clips"] < FEW_HELD_OUT:
        found.append(
            f"What counts as copied is judged by {panel['held_out_clips']} held-out clips: of so few, real ones are flagged "
            f"too ({panel['held_out_flagged_share']:.0%}); hold out {FEW_HELD_OUT} or more"
        )
    if result["two_sample"]["shortcuts"]["p"] < TOLD_P:
        found.append(
            "Rendering alone (offset, peak, lowest bit, silence at the ends, top band) tells the sets apart: mend that "
            "before believing the two-sample test"
        )
    return found


def _about(side: Heard) -> dict[str, Any]:
    return {
        "name": side.clips.name,
        "clips": len(side.indices),
        "tracks": len(np.unique(side.tracks)),
        "silent": side.silent,
        "rejected": len(side.clips.rejected),
        "pcm_sha256": side.pcm_sha256,
        "origin": side.clips.origin,
    }


def plane(sides: Sides) -> tuple[np.ndarray, np.ndarray]:
    """Reference and generated clips in the two widest dimensions of the first embedding: `[n, 2]` each."""
    name, values = next(iter(sides.fit.values.items()))
    projection = embeddings.fit_projection(values, sides.fit.tracks, {}, 2)
    return tuple(projection.apply(side.values[name])["all"] for side in (sides.reference, sides.generated))


def save_embeddings(path: str | os.PathLike, sides: Sides, options: Options) -> None:
    """Writes the embeddings, tracks and draws of all sides as .npz: every distance can be computed again from it."""
    found = {}
    for name in ("reference", "other", "generated", "fit"):
        side = getattr(sides, name)
        found[f"{name}/tracks"] = side.tracks
        found |= {f"{name}/{embedding}": values for embedding, values in side.values.items()}
    for number, draw in enumerate(draws(sides, options)):
        found |= {f"draw{number:02d}/{side}": rows for side, rows in draw._asdict().items()}
    array_files.write(path, found)


class Draw(NamedTuple):
    """One clip of each track of a draw: rows of the reference, of other real clips and of the generated ones."""

    reference: np.ndarray
    other: np.ndarray
    generated: np.ndarray


def draws(sides: Sides, options: Options) -> list[Draw]:
    """The draws of a comparison; the same for the same seed and tracks.

    Where the other real clips are the reference itself, its tracks are halved anew in each draw.
    """
    reference, other, generated = sides.reference, sides.other, sides.generated
    made, count = [], 1
    while len(made) < count:
        random = np.random.default_rng([options.seed, len(made)])
        if other is reference:
            tracks = random.permutation(np.unique(reference.tracks))
            halves = tracks[: len(tracks) // 2], tracks[len(tracks) // 2 :]
        else:
            halves = np.unique(reference.tracks), random.permutation(np.unique(other.tracks))
        fakes = random.permutation(np.unique(generated.tracks))
        size = min(_MOST_TRACKS_A_DRAW, *map(len, halves), len(fakes))
        sides = (reference, halves[0][:_MOST_TRACKS_A_DRAW]), (other, halves[1][:size]), (generated, fakes[:size])
        made.append(Draw(*(_one_a_track(heard, tracks, random) for heard, tracks in sides)))
        count = min(options.draws, max(3, 4000 // size))
    return made


def score_distances(
    sides: Sides, made: Sequence[Draw], projected: Sequence[dict[str, np.ndarray]], options: Options
) -> dict[str, dict[str, Any]]:
    """Block -> metric -> {value, sd, floor, floor_sd, ratio}, in one embedding's projection.

    For `mmd`, whose floor is 0 on average, the ratio is to what 95 % of random deals of a draw's real tracks stay below
    (`floor_95`), and `p` is of a permutation of tracks over all of them. `frechet` also has `bias`, what its value would
    be on average were both sides one distribution, and `at_infinity`, an estimate of what it would be with endlessly many
    tracks.

    Args:
        sides: what was listened to.
        made: from `draws`.
        projected: block -> `[n, d]` for the reference, the others and the generated clips.
        options: permutations and seed.
    """
    result: dict[str, dict[str, Any]] = {}
    heard = sides.reference, sides.other, sides.generated

    def embedded(side: int, block: str, rows: np.ndarray) -> distances.Embedded:
        values, tracks, name = projected[side][block][rows], heard[side].tracks[rows], heard[side].clips.name
        return distances.embedded(values, tracks, name, may_be_alike=side == _GENERATED)

    random = np.random.default_rng(options.seed)
    whole_rows = {
        side: _one_a_track(heard[side], _some(heard[side], _MOST_TRACKS_A_TEST, random), random)
        for side in (0, _GENERATED)
    }
    for block in projected[0]:
        values, floors = collections.defaultdict(list), collections.defaultdict(list)
        for draw in made:
            real, other, fake = (embedded(side, block, rows) for side, rows in enumerate(draw))
            for against, into in ((fake, values), (other, floors)):
                for metric, value in _all_distances(real, against).items():
                    into[metric].append(value)
        found = {metric: _beside_floor(values[metric], floors[metric]) for metric in values}
        # The kernel distance's floor is 0 on average: its scale is what chance gives at this number of tracks.
        real, other, _ = (embedded(side, block, rows) for side, rows in enumerate(made[0]))
        null = distances.rbf_mmd_test(real, other, permutations=options.permutations, seed=options.seed).null_95
        found["mmd"] |= {"floor_95": null, "ratio": found["mmd"]["value"] / null}
        covariance = np.atleast_2d(np.cov(projected[0][block], rowvar=False))
        sizes = len(made[0].reference), len(made[0].generated)
        found["frechet"]["bias"] = distances.frechet_bias(np.linalg.eigvalsh(covariance), *sizes)
        whole = [embedded(side, block, rows) for side, rows in whole_rows.items()]
        if min(len(np.unique(clips.tracks)) for clips in whole) >= 2 * MIN_TRACKS:
            beyond = distances.frechet_at_infinity(*whole, seed=options.seed)
            found["frechet"]["at_infinity"], found["frechet"]["at_infinity_error"] = beyond
        found["mmd"]["p"] = distances.rbf_mmd_test(*whole, permutations=options.permutations, seed=options.seed).p
        result[block] = found
    return result


def _all_distances(real: distances.Embedded, against: distances.Embedded) -> dict[str, float]:
    size = min(len(real.values), len(against.values))
    equal = [distances.Embedded(clips.values[:size], clips.tracks[:size]) for clips in (real, against)]
    return {
        "mmd": distances.rbf_mmd(real, against),
        "frechet": distances.frechet_distance(real, against),
        **distances.prdc(*equal, k=NEIGHBOURS)._asdict(),
        # About the real clips' centre: about their own, copies of one clip that differ by rounding look all different.
        "vendi": distances.vendi_score(against.values - real.values.mean(axis=0)),
    }


def _beside_floor(values: list[float], floors: list[float]) -> dict[str, float | None]:
    found = {
        "value": float(np.mean(values)),
        "sd": float(np.std(values)),
        "floor": float(np.mean(floors)),
        "floor_sd": float(np.std(floors)),
    }
    return found | {"ratio": found["value"] / found["floor"] if found["floor"] > 0 else None}


def score_features(sides: Sides, options: Options) -> dict[str, dict[str, Any]]:
    """Feature -> its distribution among generated and real clips, how far apart they are, and how far real ones are."""
    real, fake = sides.reference, sides.generated
    pair = halves(real, options.seed) if sides.other is real else (real, sides.other)
    result = {}
    for name, feature in musical.FEATURES.items():
        found = _compare(real, fake, name, options)
        result[name] = {"unit": feature.unit, "says": feature.says, **found._asdict()}
        result[name] |= {side: result[name][side]._asdict() for side in ("reference", "other")}
        result[name]["floor"] = _compare(*pair, name, options).wasserstein
        result[name]["generated"] = result[name].pop("other")

    def mean_spectrum(heard: Heard) -> np.ndarray:
        return np.mean(heard.bands_db, axis=0)

    def mean_pattern(heard: Heard) -> np.ndarray | None:
        known = np.isfinite(heard.pattern).all(axis=(1, 2))
        return heard.pattern[known].mean(axis=0) if known.any() else None

    shape_db, offset_db = musical.ltas_distance(mean_spectrum(real), mean_spectrum(fake))
    floor_shape_db, floor_offset_db = musical.ltas_distance(*map(mean_spectrum, pair))
    result["ltas"] = {
        "unit": "dB",
        "shape_db": shape_db,
        "offset_db": offset_db,
        "floor_shape_db": floor_shape_db,
        "floor_offset_db": floor_offset_db,
    }
    result["onset_pattern"] = {"unit": "correlation"}
    for what, (first, second) in (("value", (real, fake)), ("floor", pair)):
        patterns = mean_pattern(first), mean_pattern(second)
        known = all(pattern is not None for pattern in patterns)
        result["onset_pattern"][what] = musical.pattern_correlation(*patterns) if known else None
    return result


def _compare(first: Heard, second: Heard, name: str, options: Options) -> distances.FeatureComparison:
    values = [item for heard in (first, second) for item in (heard.features[name], heard.tracks)]
    return distances.compare_feature(*values, permutations=options.permutations, seed=options.seed)


def score_two_sample(sides: Sides, name: str, options: Options) -> tuple[dict[str, Any], two_sample.Claim]:
    """The classifier two-sample test on held-out tracks, with its audit and its controls; and what may be claimed.

    Args:
        sides: what was listened to.
        name: of the embedding that the classifiers hear.
        options: the seed.
    """

    def test(real: Heard, fake: Heard, values: Callable[[Heard], np.ndarray]) -> two_sample.TwoSample:
        sets = [
            distances.embedded(values(heard), heard.tracks, heard.clips.name, may_be_alike=heard is fake)
            for heard in (real, fake)
        ]
        return two_sample.best_of(
            [two_sample.classifier_test(*sets, classifier=kind, seed=options.seed) for kind in two_sample.CLASSIFIERS]
        )

    def told(found: two_sample.TwoSample) -> dict[str, Any]:
        return found._asdict() | {"verdict": two_sample.verdict(found)}

    def heard_values(heard: Heard) -> np.ndarray:
        return heard.values[name]

    reference, other = (sides.reference, sides.train) if sides.train else halves(sides.reference, options.seed)
    noisy = f"real against real with noise {CONTROL_SNR_DB:g} dB below"
    known = {OTHER_REAL: (reference, other), noisy: (reference, sides.noisy)}
    if sides.earlier is not None:
        known[f"real against {sides.earlier.clips.name}"] = (sides.reference, sides.earlier)
    main = test(sides.reference, sides.generated, heard_values)
    controls = {
        what: test(*pair, heard_values)
        for what, pair in known.items()
        if min(len(np.unique(heard.tracks)) for heard in pair) >= two_sample.LEAST_TRACKS
    }
    result = {
        "test": told(main),
        "shortcuts": told(test(sides.reference, sides.generated, lambda heard: heard.trivial)),
        "controls": {what: told(found) for what, found in controls.items()},
    }
    # Where clean clips of those tracks are told apart, it is not the noise that is heard.
    confounded = OTHER_REAL in controls and controls[OTHER_REAL].p < TOLD_P
    return result, two_sample.claim(main, None if confounded else controls.get(noisy))


def score_memorisation(sides: Sides, options: Options) -> dict[str, Any]:
    """Whether clips were copied: the panel of detectors, and statistics of sets beside the same of real clips.

    Distances to the training clips are taken in tmr-v1 of clips at one loudness: a copy with another gain is a copy.

    Args:
        sides: what was listened to, with the training clips.
        options: the seed.
    """
    known = sides.train
    blocks = {"all": slice(0, known.matched.shape[1])}
    project = embeddings.fit_projection(known.matched, known.tracks, blocks, embeddings.MOST_DIMENSIONS).apply
    real, train, fake = (project(heard.matched)["all"] for heard in (sides.reference, known, sides.generated))
    random = np.random.default_rng(options.seed)
    panel = detection.panel(sides.generated.prints, sides.train_prints, sides.reference.prints)
    singles = real[_one_a_track(sides.reference, np.unique(sides.reference.tracks), random)]
    result = panel._asdict() | {"flagged": [flag._asdict() for flag in panel.flagged]}
    result |= {
        "auth_pct": detection.auth_pct(fake, train, known.tracks),
        "auth_pct_held_out": detection.auth_pct(real, train, known.tracks),
        "z_u": detection.data_copying_test(fake, singles, train),
    }
    with contextlib.suppress(ValueError):  # too few clips for cells
        cells = max(2, len(singles) // 20)
        result["c_t"] = detection.data_copying_by_cell(fake, real, train, cells=cells, seed=options.seed)
    images = [
        _images(prints, most, random)
        for prints, most in (
            (sides.generated.prints, _MOST_IMAGES),
            (sides.reference.prints, _MOST_IMAGES),
            (sides.train_prints, 2 * _MOST_IMAGES),
        )
    ]
    size = min(len(images[0]), len(images[1]))
    fake, real, train = images[0][:size], images[1][:size], images[2]
    return result | {
        "d_self": detection.self_distance(fake),
        "d_self_held_out": detection.self_distance(real),
        "d_train": detection.train_distance(fake, train),
        "d_train_held_out": detection.train_distance(real, train),
    }


def _images(prints: detection.Prints, most: int, random: np.random.Generator) -> np.ndarray:
    """`[n, D]` flattened log-mel images of at most so many clips."""
    images = prints.images.reshape(len(prints.ids), -1)
    chosen = np.sort(random.permutation(len(images))[:most])
    return images[chosen].astype(np.float64)


def score_labels(sides: Sides, by: embeddings.Embedding) -> dict[str, Any]:
    """Inception score of as many generated and real clips, and which labels they are taken for.

    Args:
        sides: what was listened to.
        by: gives probabilities of labels.

    *Source*: Salimans et al., "Improved Techniques for Training GANs" (2016), section 4.
    """
    known = by.describe(sides.reference.clips.sample_rate_hz)
    fake, real = sides.generated.values[by.name], sides.reference.values[by.name]
    random, size = np.random.default_rng(0), min(len(fake), len(real))
    fake, real = (random.permutation(rows)[:size] for rows in (fake, real))

    def shares(rows: np.ndarray) -> dict[str, float]:
        return dict(
            zip(known["classes"], (rows.argmax(axis=1)[:, None] == np.arange(rows.shape[1])).mean(0), strict=True)
        )

    return {
        "clips": size,
        "inception_score": distances.inception_score(fake)[0],
        "inception_score_held_out": distances.inception_score(real)[0],
        "validation_accuracy": known["validation_accuracy"],
        "generated": {name: float(share) for name, share in shares(fake).items()},
        "real": {name: float(share) for name, share in shares(real).items()},
    }


def _one_a_track(heard: Heard, tracks: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A row of each track."""
    order = random.permutation(len(heard.tracks))
    names, first = np.unique(heard.tracks[order], return_index=True)
    return order[first[np.searchsorted(names, tracks)]]


def _some(heard: Heard, most: int, random: np.random.Generator) -> np.ndarray:
    """At most so many of its tracks."""
    tracks = np.unique(heard.tracks)
    return tracks if len(tracks) <= most else random.permutation(tracks)[:most]
