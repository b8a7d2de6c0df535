"""An evaluation from its datasets to its result and report: opens clips, extracts features, scores, writes the files."""

from __future__ import annotations

import argparse
import pathlib
import platform
from collections.abc import Callable
from importlib import metadata
from typing import Any, NamedTuple

import numpy as np
import scipy.special

from technogen_jax.audio import audio_files
from technogen_jax.evaluation import charts, classifier, clip_sets, feature_extraction, report, results, scoring
from technogen_jax.evaluation.clip_sets import ClipSet, ClipSetError
from technogen_jax.evaluation.features import embeddings, musical, pretrained
from technogen_jax.sampling import generator

REPORT_FILE = "report.html"
EMBEDDINGS_FILE = "embeddings.npz"
_SHOWN = 8  # clips to listen to on each side
_SHOWN_COPIES = 10
_POINTS = 1000
_LEARNT_FROM = 1000
_VERSIONED = ("jax", "numpy", "scipy", "scikit-learn")


class Sides(NamedTuple):
    """The sets of an evaluation.

    Attributes:
        reference: real clips, held out.
        generated: the clips in question.
        train: the real clips that were trained on; None where they were not given.
        earlier: clips of an earlier checkpoint, a control; None without one.
    """

    reference: ClipSet
    generated: ClipSet
    train: ClipSet | None
    earlier: ClipSet | None


def evaluate(options: argparse.Namespace, say: Callable[[str], None]) -> tuple[dict[str, Any], pathlib.Path]:
    """Everything that the command does but printing the result: (the result, the folder of the report).

    Raises:
        ValueError: sets, checkpoints or embeddings that cannot be used; one line.
    """
    sets, folder = _open(options)
    for clips in sets:
        if clips is not None and clips.rejected:
            first = clips.rejected[0]
            say(f"{clips.name}: {len(clips.rejected)} files left out; {first['path']}: {first['reason']}")
    if (bars := sets.reference.origin.get("bars")) and options.beats is None:
        options.loop, options.beats = True, 4 * bars
    folder.mkdir(parents=True, exist_ok=True)
    how = feature_extraction.Options(**{name: getattr(options, name) for name in feature_extraction.Options._fields})
    chosen = _embeddings(options, sets)
    by_label = _label_net(options, sets)
    heard_by = chosen if by_label is None else chosen | {by_label.name: by_label}
    sides = feature_extraction.listen_to_all(*sets, heard_by, how)
    result = scoring.score(sides, chosen, how)
    if by_label is not None:
        result["labels"] = scoring.score_labels(sides, by_label)
    result["made_with"] = {name: metadata.version(name) for name in _VERSIONED} | {"python": platform.python_version()}
    results.write(folder, result)
    if options.save_embeddings:
        scoring.save_embeddings(folder / EMBEDDINGS_FILE, sides, how)
    report.write(folder / REPORT_FILE, result, _shown(sets, sides, result))
    return result, folder


def _open(options: argparse.Namespace) -> tuple[Sides, pathlib.Path]:
    """The sets that the command line names, and where the results go."""
    if options.real:
        return _open_folders(options), pathlib.Path(options.output)
    trained = generator.load(options.workdir, options.step)
    config = trained.config
    window = config.audio.clip_samples
    data = options.data or config.data.dir
    if not data:
        raise ClipSetError(f"{options.workdir} does not say what it was trained on; name the prepared set with --data")
    reference = clip_sets.from_records(data, options.split, window)
    found = reference.sample_rate_hz, reference.channels
    wanted = config.audio.sample_rate_hz, config.audio.channels
    if found != wanted:
        raise ClipSetError(
            f"{data}: expected {wanted[0]} Hz and {wanted[1]} channels, what {options.workdir} makes; got {found[0]} Hz and "
            f"{found[1]}; name the set it was trained on"
        )
    train = clip_sets.from_records(data, [config.data.split], window)
    earlier = None
    if options.earlier is not None:
        earlier = clip_sets.from_generator(
            generator.load(options.workdir, options.earlier), len(reference.ids), options.seed
        )
    sides = Sides(reference, clip_sets.from_generator(trained, options.n, options.seed), train, earlier)
    return sides, pathlib.Path(
        options.output or generator.folder_for(options.workdir) / "eval" / f"step{trained.step}-seed{options.seed}"
    )


def _open_folders(options: argparse.Namespace) -> Sides:
    folders = [clip_sets.look(path) for path in (options.real, options.generated, options.train) if path]
    rates = {folder.path: set(folder.rates_hz) for folder in folders}
    if options.sample_rate is None and len(set.union(*rates.values())) > 1:
        found = "; ".join(f"{path}: {', '.join(map(str, sorted(rate)))} Hz" for path, rate in rates.items())
        raise ClipSetError(f"the files have different rates ({found}); --sample_rate brings all to one")
    rate = options.sample_rate or folders[0].rates_hz[0]
    # What both sides have: a side that is widened or cut otherwise would be known by that.
    channels = 1 if any(1 in folder.channels for folder in folders) else 2
    seconds = options.seconds or min(min(folder.seconds) for folder in folders[:2])
    cut = dict(sample_rate_hz=rate, channels=channels, clip_samples=round(seconds * rate))
    pattern = options.track_pattern
    reference, generated, *train = (
        clip_sets.from_folder(folder, side, **cut, track_pattern=pattern)
        for side, folder in zip(("real", "generated", "train"), folders, strict=False)
    )
    return Sides(reference, generated, *(train or [None]), earlier=None)


def _embeddings(options: argparse.Namespace, sets: Sides) -> dict[str, embeddings.Embedding]:
    """The embeddings that were asked for, by name."""
    chosen = {}
    for name in options.embeddings.split(","):
        kind, _, path = name.partition("=")
        if kind in embeddings.EMBEDDINGS and not path:
            found = embeddings.EMBEDDINGS[kind]
        elif kind == "artefact" and path:
            found = classifier.artefact_embedding(_artefact_net(pathlib.Path(path), sets, options.seed))
        elif kind in pretrained.PUBLISHED and path:
            found = pretrained.load(kind, path)
        else:
            known = [*embeddings.EMBEDDINGS, "artefact=FILE", *(f"{kind}=PATH" for kind in pretrained.PUBLISHED)]
            raise ClipSetError(f"--embeddings {name}: expected some of {', '.join(known)}")
        chosen[found.name] = found
    return chosen


def _artefact_net(path: pathlib.Path, sets: Sides, seed: int) -> classifier.Net:
    """The net in a file, or one trained on the training clips and put there."""
    if path.exists():
        return classifier.load_net(path)
    if sets.train is None:
        raise ClipSetError(f"--embeddings artefact={path}: no such file, and without --train DIR none can be trained")
    indices, sound = _some_clips(sets.train, seed)
    loud = sound.any(axis=(1, 2))
    tracks = sets.train.tracks[indices][loud]
    net = classifier.train_artefact(sound[loud], tracks, sets.train.sample_rate_hz, seed=seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    net.save(path)
    return net


def _label_net(options: argparse.Namespace, sets: Sides) -> embeddings.Embedding | None:
    """Clips to probabilities of the set's labels, by a classifier trained on them; None where it was not asked for."""
    if not options.labels:
        return None
    names = sets.train.origin.get("labels", []) if sets.train else []
    if len(names) < 2:
        raise ClipSetError(
            "--labels: expected a prepared set with two labels or more, got "
            f"{len(names)}; the first folder below data_prep.prepare's --input is a track's label"
        )
    indices, sound = _some_clips(sets.train, options.seed)
    images = embeddings.log_mel_images(sound, sets.train.sample_rate_hz)
    tracks, targets = sets.train.tracks[indices], sets.train.labels[indices]
    net = classifier.train(images, targets, tracks, classes=names, seed=options.seed, what="classifier of labels")

    def embed(clips: np.ndarray, sample_rate_hz: int, *, loop: bool) -> np.ndarray:
        scores = classifier.logits(net, embeddings.log_mel_images(clips, sample_rate_hz)).astype(np.float64)
        return scipy.special.softmax(scores, axis=1)

    def describe(sample_rate_hz: int) -> dict[str, Any]:
        return {"classes": list(names), "validation_accuracy": net.validation_accuracy, "sha256": net.sha256}

    return embeddings.Embedding("labels", lambda channels: {"P": slice(0, len(names))}, embed, describe)


def _some_clips(clips: ClipSet, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Clips for a small net to learn from, of all tracks, at most what half a gigabyte holds: (indices, `[n, T, C]`)."""
    most = max(1, min(_LEARNT_FROM, (1 << 27) // (clips.clip_samples * clips.channels)))
    count = len(np.unique(clips.tracks))
    indices = clip_sets.choose(clips, per_track=max(1, most // count), tracks=most, seed=seed)
    return indices, np.stack([audio_files.from_int16(pcm) for pcm in clips.read(indices)])


def _shown(sets: Sides, sides: feature_extraction.Sides, result: dict[str, Any]) -> report.Shown:
    """What the report lets one see and hear."""
    rate = sets.reference.sample_rate_hz
    real, fake = sides.reference, sides.generated
    spectra = [("real", charts.REAL, real.bands_db), ("generated", charts.GENERATED, fake.bands_db)]
    names = [name for name in musical.FEATURES if min(np.isfinite(s.features[name]).sum() for s in (real, fake)) >= 2]
    copies = []
    for flag in result["memorisation"]["flagged"][:_SHOWN_COPIES] if result["memorisation"] else ():
        words = (
            f"{flag['detector']}: correlation {flag['correlation']:.2f}, fingerprint {flag['fingerprint']:.2f}; "
            f"{flag['band']}"
        )
        copies.append((_sound(sets.generated, flag["generated"]), _sound(sets.train, flag["train"]), words))
    return report.Shown(
        sample_rate_hz=rate,
        generated=_sounds(sets.generated, fake.indices),
        real=_sounds(sets.reference, real.indices),
        copies=copies,
        features=[
            (f"{name}, {musical.FEATURES[name].unit}".rstrip(", "), real.features[name], fake.features[name])
            for name in names
        ],
        spectra=spectra,
        spectra_hz=musical.ltas_centres_hz(rate),
        points=[
            (name, colour, points[:_POINTS])
            for (name, colour), points in zip(
                (("real", charts.REAL), ("generated", charts.GENERATED)), scoring.plane(sides), strict=True
            )
        ],
    )


def _sounds(clips: ClipSet, indices: np.ndarray) -> list[report.Sound]:
    """A few clips, of different tracks where there are."""
    _, first = np.unique(clips.tracks[indices], return_index=True)
    chosen = np.sort(first)[np.linspace(0, len(first) - 1, min(_SHOWN, len(first))).astype(int)]
    chosen = np.sort(indices[chosen])
    return [report.Sound(clips.ids[i], pcm) for i, pcm in zip(chosen, clips.read(chosen), strict=True)]


def _sound(clips: ClipSet, name: str) -> report.Sound:
    index = clips.ids.index(name)
    return report.Sound(name, next(iter(clips.read(np.array([index])))))
