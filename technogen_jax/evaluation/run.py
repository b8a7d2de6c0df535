"""An evaluation from its datasets to its files: opens clips, extracts features, scores, reports."""

from __future__ import annotations

import argparse
import pathlib
import platform
from collections.abc import Callable
from importlib import metadata
from typing import Any, NamedTuple

import numpy as np

from technogen_jax.evaluation import charts, clip_sets, embeddings, feature_extraction, report, results, scoring
from technogen_jax.evaluation.clip_sets import ClipSet, ClipSetError
from technogen_jax.evaluation.features import musical
from technogen_jax.sampling import generator

REPORT_FILE = "report.html"
EMBEDDINGS_FILE = "embeddings.npz"
_SOUNDS = 8  # clips in the report, of each side
_COPIES = 10  # pairs in the report
_POINTS = 1000
_VERSIONED = ("jax", "numpy", "scipy", "scikit-learn")


class ClipSets(NamedTuple):
    """The sets of an evaluation.

    Attributes:
        reference: real clips, held out.
        generated: the generated clips.
        train: the real clips that the model was trained on; None where they are not known.
        earlier: clips of an earlier checkpoint, a control; None without one.
    """

    reference: ClipSet
    generated: ClipSet
    train: ClipSet | None
    earlier: ClipSet | None


def evaluate(options: argparse.Namespace, say: Callable[[str], None]) -> tuple[dict[str, Any], pathlib.Path]:
    """Evaluates generated clips and writes the result and the report.

    Args:
        options: the options of the command.
        say: prints a line for the user.

    Returns:
        (the result, the folder of the files).

    Raises:
        ValueError: sets, checkpoints or embeddings that cannot be used; one line.
    """
    sets, folder = _open_sets(options)
    for clips in sets:
        if clips is not None and clips.rejected:
            first = clips.rejected[0]
            say(f"{clips.name}: {len(clips.rejected)} files left out; {first['path']}: {first['reason']}")
    if (bars := sets.reference.origin.get("bars")) and options.beats is None:
        options.loop, options.beats = True, 4 * bars
    folder.mkdir(parents=True, exist_ok=True)
    how = feature_extraction.Options(**{name: getattr(options, name) for name in feature_extraction.Options._fields})
    chosen = embeddings.load_embeddings(options.embeddings, sets.train, options.seed)
    extracted = dict(chosen)
    if options.labels:
        labels = embeddings.train_label_classifier(sets.train, options.seed)
        extracted[labels.name] = labels
    comparison = feature_extraction.extract_comparison(*sets, extracted, how)
    result = scoring.score(comparison, chosen, how)
    if options.labels:
        result["labels"] = scoring.score_labels(comparison, labels)
    result["made_with"] = {name: metadata.version(name) for name in _VERSIONED} | {"python": platform.python_version()}
    results.write(folder, result)
    if options.save_embeddings:
        scoring.save_embeddings(folder / EMBEDDINGS_FILE, comparison, how)
    report.write(folder / REPORT_FILE, result, _make_exhibits(sets, comparison, result))
    return result, folder


def _open_sets(options: argparse.Namespace) -> tuple[ClipSets, pathlib.Path]:
    """The sets that the options name, and the folder of the files."""
    if options.real:
        return _open_folders(options), pathlib.Path(options.output)
    trained = generator.load(options.workdir, options.step)
    config = trained.config
    window = config.audio.clip_samples
    data = options.data or config.data.dir
    if not data:
        raise ClipSetError(f"{options.workdir} does not name its dataset; name the prepared dataset with --data")
    reference = clip_sets.from_records(data, options.split, window)
    found = reference.sample_rate_hz, reference.channels
    wanted = config.audio.sample_rate_hz, config.audio.channels
    if found != wanted:
        raise ClipSetError(
            f"{data}: expected {wanted[0]} Hz and {wanted[1]} channels, as {options.workdir} generates; got {found[0]} Hz "
            f"and {found[1]}; name the dataset that it was trained on"
        )
    train = clip_sets.from_records(data, [config.data.split], window)
    generated = clip_sets.from_generator(trained, options.n, options.seed)
    earlier = None
    if options.earlier is not None:
        earlier = clip_sets.from_generator(
            generator.load(options.workdir, options.earlier), len(reference.ids), options.seed
        )
    folder = generator.folder_for(options.workdir) / "eval" / f"step{trained.step}-seed{options.seed}"
    return ClipSets(reference, generated, train, earlier), pathlib.Path(options.output or folder)


def _open_folders(options: argparse.Namespace) -> ClipSets:
    folders = [clip_sets.find_files(path) for path in (options.real, options.generated, options.train) if path]
    rates = {folder.path: set(folder.rates_hz) for folder in folders}
    if options.sample_rate is None and len(set.union(*rates.values())) > 1:
        found = "; ".join(f"{path}: {', '.join(map(str, sorted(rate)))} Hz" for path, rate in rates.items())
        raise ClipSetError(f"the files have different rates ({found}); --sample_rate resamples all to one")
    rate = options.sample_rate or folders[0].rates_hz[0]
    # The least that all sides have: otherwise a classifier could distinguish the sides by it.
    channels = 1 if any(1 in folder.channels for folder in folders) else 2
    seconds = options.seconds or min(min(folder.seconds) for folder in folders[:2])
    cut = dict(sample_rate_hz=rate, channels=channels, clip_samples=round(seconds * rate))
    reference, generated, *train = (
        clip_sets.from_folder(folder, side, **cut, track_pattern=options.track_pattern)
        for side, folder in zip(("real", "generated", "train"), folders, strict=False)
    )
    return ClipSets(reference, generated, *(train or [None]), earlier=None)


def _make_exhibits(
    sets: ClipSets, comparison: feature_extraction.Comparison, result: dict[str, Any]
) -> report.Exhibits:
    """The sounds of the report and the data of its charts."""
    rate = sets.reference.sample_rate_hz
    real, fake = comparison.reference, comparison.generated
    named = (("real", charts.REAL), ("generated", charts.GENERATED))
    features = [
        (f"{name}, {feature.unit}".rstrip(", "), real.features[name], fake.features[name])
        for name, feature in musical.features().items()
        if min(np.isfinite(side.features[name]).sum() for side in (real, fake)) >= 2
    ]
    copies = []
    for flag in result["memorisation"]["flagged"][:_COPIES] if result["memorisation"] else ():
        text = (
            f"{flag['detector']}: correlation {flag['correlation']:.2f}, fingerprint {flag['fingerprint']:.2f}; "
            f"{flag['band']}"
        )
        copies.append((_read_sound(sets.generated, flag["generated"]), _read_sound(sets.train, flag["train"]), text))
    return report.Exhibits(
        sample_rate_hz=rate,
        generated=_read_sounds(sets.generated, fake.indices),
        real=_read_sounds(sets.reference, real.indices),
        copies=copies,
        features=features,
        spectra=[(*name, side.bands_db) for name, side in zip(named, (real, fake), strict=True)],
        spectra_hz=musical.ltas_centres_hz(rate),
        points=[
            (*name, points[:_POINTS]) for name, points in zip(named, scoring.project_to_plane(comparison), strict=True)
        ],
    )


def _read_sounds(clips: ClipSet, indices: np.ndarray) -> list[report.Sound]:
    """A few clips, of different tracks as far as possible."""
    _, first = np.unique(clips.tracks[indices], return_index=True)
    chosen = np.sort(first)[np.linspace(0, len(first) - 1, min(_SOUNDS, len(first))).astype(int)]
    chosen = np.sort(indices[chosen])
    return [report.Sound(clips.ids[i], pcm) for i, pcm in zip(chosen, clips.read(chosen), strict=True)]


def _read_sound(clips: ClipSet, name: str) -> report.Sound:
    return report.Sound(name, next(iter(clips.read(np.array([clips.ids.index(name)])))))
