"""An evaluation from its datasets to its files: opens clips, extracts features, scores, reports."""

from __future__ import annotations

import os
import pathlib
import platform
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Any, NamedTuple

import numpy as np

from technogen_jax.data.manifest import read_manifest
from technogen_jax.evaluation import charts, clip_sets, embeddings, feature_extraction, report, results, scoring
from technogen_jax.evaluation.clip_sets import ClipSet, ClipSetError
from technogen_jax.evaluation.features import musical
from technogen_jax.runs.workdir import check_dataset
from technogen_jax.sampling import generator

REPORT_FILE = "report.html"
EMBEDDINGS_FILE = "embeddings.npz"
_SOUNDS = 8  # clips in the report, of each side
_COPIES = 10  # pairs in the report
_POINTS = 1000
_VERSIONED = ("jax", "numpy", "scipy", "scikit-learn")


class ClipSets(NamedTuple):
    """The clips of an evaluation.

    Attributes:
        reference: real clips that were not trained on.
        generated: the clips to judge.
        train: the real clips that were trained on; None where they are unknown.
        earlier: clips of an earlier checkpoint, a control; None without one.
    """

    reference: ClipSet
    generated: ClipSet
    train: ClipSet | None
    earlier: ClipSet | None


def open_run(
    workdir: str | os.PathLike,
    step: int | str,
    count: int,
    seed: int,
    *,
    data: str | None = None,
    splits: Sequence[str] = ("test",),
    earlier: int | str | None = None,
) -> tuple[ClipSets, pathlib.Path]:
    """Opens the clips of a run and of its dataset; returns them and the folder for the report.

    Args:
        workdir: the run.
        step: "latest", "best" or a step that has a checkpoint.
        count: clips to generate.
        seed: the seed of their latents.
        data: the prepared dataset; None: where the run says it was.
        splits: which real tracks are the reference.
        earlier: a checkpoint for a control.

    Raises:
        ClipSetError: there is no dataset, or it has another rate or number of channels.
        WorkdirError: it is another dataset than the run was trained on.
    """
    trained = generator.load(workdir, step)
    config = trained.config
    window = config.audio.clip_samples
    data = data or config.data.dir
    if not data:
        raise ClipSetError(f"{workdir} does not name its dataset; name the prepared dataset with --data")
    check_dataset(workdir, generator.dataset_fingerprint(workdir), data, read_manifest(data))
    reference = clip_sets.from_records(data, list(splits), window)
    found = reference.sample_rate_hz, reference.channels
    expected = config.audio.sample_rate_hz, config.audio.channels
    if found != expected:
        raise ClipSetError(
            f"{data}: expected {expected[0]} Hz and {expected[1]} channels, as {workdir} generates; got {found[0]} Hz and "
            f"{found[1]}; name the dataset it was trained on"
        )
    train = clip_sets.from_records(data, [config.data.split], window)
    control = None
    if earlier is not None:
        control = clip_sets.from_generator(generator.load(workdir, earlier), len(reference.ids), seed)
    folder = generator.folder_for(workdir) / "eval" / f"step{trained.step}-seed{seed}"
    return ClipSets(reference, clip_sets.from_generator(trained, count, seed), train, control), folder


def open_folders(
    real: str,
    generated: str,
    train: str | None = None,
    *,
    seconds: float | None = None,
    sample_rate_hz: int | None = None,
    track_pattern: str | None = None,
) -> ClipSets:
    """Opens folders of audio files, all cut to one rate, number of channels and length.

    Args:
        real: folder of real audio.
        generated: folder of generated audio.
        train: folder of what was trained on.
        seconds: length of the clips; None: the shortest file of the first two.
        sample_rate_hz: None: the files', which must be one.
        track_pattern: regular expression whose first group, found in a file's path, is the track; None: each file is one.

    Raises:
        ClipSetError: a folder that cannot be used, or files of different rates.
    """
    folders = [clip_sets.find_files(path) for path in (real, generated, train) if path]
    rates = {folder.path: set(folder.rates_hz) for folder in folders}
    if sample_rate_hz is None and len(set.union(*rates.values())) > 1:
        found = "; ".join(f"{path}: {', '.join(map(str, sorted(rate)))} Hz" for path, rate in rates.items())
        raise ClipSetError(f"the files have different rates ({found}); --sample_rate resamples all to one")
    rate_hz = sample_rate_hz or folders[0].rates_hz[0]
    # The least that all sides have: otherwise a classifier could distinguish the sides by it.
    channels = 1 if any(1 in folder.channels for folder in folders) else 2
    seconds = seconds or clip_sets.shortest_seconds(folders[:2])
    cut = dict(sample_rate_hz=rate_hz, channels=channels, clip_samples=round(seconds * rate_hz))
    reference, fakes, *trained_on = (
        clip_sets.from_folder(folder, side, **cut, track_pattern=track_pattern)
        for side, folder in zip(("real", "generated", "train"), folders, strict=False)
    )
    return ClipSets(reference, fakes, *(trained_on or [None]), earlier=None)


def evaluate(
    sets: ClipSets,
    folder: pathlib.Path,
    options: feature_extraction.Options,
    say: Callable[[str], None],
    *,
    embedding_names: str = "tmr-v1",
    labels: bool = False,
    save_embeddings: bool = False,
) -> dict[str, Any]:
    """Compares generated with real clips; writes result.json and the report, and returns the result.

    Args:
        sets: the clips.
        folder: where the files go; made if there is none.
        options: how features are extracted and figures estimated. Clips of whole bars are loops of four beats a bar, unless
            `beats` is given.
        say: takes lines for people on files that are left out.
        embedding_names: a comma-separated list of names in `embeddings.EMBEDDINGS`, with their files.
        labels: also the inception score, by a classifier of the dataset's labels.
        save_embeddings: also write the embeddings to embeddings.npz.

    Raises:
        ValueError: clips or embeddings that cannot be used.
    """
    for clips in sets:
        if clips is not None and clips.rejected:
            first = clips.rejected[0]
            say(f"{clips.name}: {len(clips.rejected)} files left out; {first['path']}: {first['reason']}")
    if (bars := sets.reference.origin.get("bars")) and options.beats is None:
        options = options._replace(loop=True, beats=4 * bars)
    folder.mkdir(parents=True, exist_ok=True)
    chosen = embeddings.load_embeddings(embedding_names, sets.train, options.seed)
    extracted = dict(chosen)
    if labels:
        classifier = embeddings.train_label_classifier(sets.train, options.seed)
        extracted[classifier.name] = classifier
    comparison = feature_extraction.extract_comparison(*sets, extracted, options)
    result = scoring.score(comparison, chosen, options)
    if labels:
        result["labels"] = scoring.score_labels(comparison, classifier)
    result["made_with"] = {name: metadata.version(name) for name in _VERSIONED} | {"python": platform.python_version()}
    results.write(folder, result)
    if save_embeddings:
        scoring.save_embeddings(folder / EMBEDDINGS_FILE, comparison, options)
    report.write(folder / REPORT_FILE, result, _make_exhibits(sets, comparison, result))
    return result


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
