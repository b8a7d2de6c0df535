"""Fits a config to a prepared dataset, and checks that both match before anything is compiled."""

from __future__ import annotations

import collections
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from technogen_jax.data.batching import check_crop
from technogen_jax.data.manifest import UNLABELLED, Manifest

LABELS = (2, 20)  # a model learns between so many labels by default (chosen)
LEAST_LABEL_TRACKS = 8  # that each of these labels needs in the training split (chosen)


def complete_config(config: ConfigDict, manifest: Manifest) -> ConfigDict:
    """Returns the config with values of the dataset in the fields of clips that are None.

    The fields are the rate, the channels and the length of a clip, and for a model of bars their number and the labels.
    From a dataset that is cut at bars a run may use fewer bars than a record has: `model.bars` or
    `audio.clip_samples` says how many.

    Args:
        config: as a config file gives it; it is not changed. Values of a wrong type or range stay, for
            the check of the config to report.
        manifest: the manifest of the dataset.

    Raises:
        ValueError: the number of bars is unknown, or does not match the length of a clip; names the
            fields and what to do.
    """
    config = config.copy_and_resolve_references().unlock()
    audio, model = config.audio, config.model
    if audio.sample_rate_hz is None:
        audio.sample_rate_hz = manifest.sample_rate_hz
    if audio.channels is None:
        audio.channels = manifest.channels
    record_bars = manifest.options.get("bars")  # None: the dataset is not cut at bars
    if "bars" in model and record_bars is not None and audio.sample_rate_hz == manifest.sample_rate_hz:
        _complete_bars(audio, model, manifest.clip_samples / record_bars, record_bars)
    elif audio.clip_samples is None:
        audio.clip_samples = manifest.clip_samples
    if "classes" in model and model.classes is None:
        model.classes = choose_labels(manifest, config.data.split)
    if "bars" in model and model.bars is None:
        raise ValueError(
            "config.model.bars: a clip of this model is whole bars, and the dataset was not cut at them; prepare it with "
            "--grid bars, or set how many bars a clip has"
        )
    return config.lock()


def _complete_bars(audio: ConfigDict, model: ConfigDict, bar_samples: float, record_bars: int) -> None:
    """Sets `clip_samples` and `bars` where they are None; raises ValueError if both are set and differ."""
    if not all(value is None or (type(value) is int and value > 0) for value in (audio.clip_samples, model.bars)):
        return
    if model.bars is None:
        model.bars = record_bars if audio.clip_samples is None else max(1, round(audio.clip_samples / bar_samples))
    if audio.clip_samples is None:
        audio.clip_samples = round(model.bars * bar_samples)
    if abs(audio.clip_samples - model.bars * bar_samples) > 1:
        raise ValueError(
            f"config.audio.clip_samples is {audio.clip_samples} and config.model.bars {model.bars}, but that number of bars of "
            f"the dataset has {round(model.bars * bar_samples)} samples; leave both out to use the dataset's"
        )


def check_config(
    manifest: Manifest,
    split: str,
    crop: str,
    *,
    sample_rate_hz: int,
    channels: int,
    clip_samples: int,
    classes: Sequence[str] = (),
    encode_once: bool = False,
) -> None:
    """Compares a config with a prepared dataset.

    Args:
        manifest: the manifest of the dataset.
        split: `config.data.split`.
        crop: `config.data.crop`.
        sample_rate_hz: `config.audio.sample_rate_hz`.
        channels: `config.audio.channels`.
        clip_samples: `config.audio.clip_samples`, the model's window.
        classes: labels that the model is conditioned on.
        encode_once: whether the model encodes each clip once, so that it cannot be cropped anew.

    Raises:
        ValueError: they do not match; names both values and what to do.
    """

    def fail(field: str, wanted: Any, found: Any, remedy: str):
        raise ValueError(f"config.{field} is {wanted}, but the dataset has {found}; {remedy}")

    check_crop(crop)
    again = "prepare the dataset again with --{}, or set config.{} to the dataset's"
    if manifest.sample_rate_hz != sample_rate_hz:
        remedy = again.format(f"sample_rate {sample_rate_hz}", "audio.sample_rate_hz")
        fail("audio.sample_rate_hz", sample_rate_hz, manifest.sample_rate_hz, remedy)
    if manifest.channels != channels:
        fail("audio.channels", channels, manifest.channels, again.format(f"channels {channels}", "audio.channels"))
    if manifest.clip_samples < clip_samples:
        remedy = again.format(f"hop_size {clip_samples / sample_rate_hz:g} or more", "audio.clip_samples")
        fail("audio.clip_samples", clip_samples, f"clips of {manifest.clip_samples}", remedy)
    if split not in manifest.splits:
        fail("data.split", repr(split), ", ".join(manifest.splits), "name one of these")
    if not manifest.splits[split]["clips"]:
        fail("data.split", repr(split), f"no {split} clips", "add tracks, or prepare with another --split")
    if encode_once and crop == "random" and manifest.clip_samples > clip_samples:
        found = f"clips of {manifest.clip_samples} samples for a window of {clip_samples}"
        fail("data.crop", "'random'", found, "this model encodes each clip once: set it to 'start'")
    labels = sorted(count_clips_by_label(manifest, split))
    if unknown := [name for name in classes if name not in labels]:
        fail("model.classes", tuple(classes), f"no {split} clip with the label {unknown[0]!r}", f"it has {labels}")


def choose_labels(manifest: Manifest, split: str) -> tuple[str, ...]:
    """Returns the labels that a model learns by default: those of the dataset, if they are enough and not too many.

    Tracks that are in no folder have no label, and clips of theirs count as all labels.

    Returns:
        Sorted labels; empty if there are fewer or more than `LABELS`, or if one of them has fewer than
        `LEAST_LABEL_TRACKS` tracks in the split.
    """
    tracks = [track for track in manifest.tracks if track["label"] != UNLABELLED]
    counts = collections.Counter(track["label"] for track in tracks if track["split"] == split and track["clips"])
    labels = sorted({track["label"] for track in tracks})
    enough = all(counts[label] >= LEAST_LABEL_TRACKS for label in labels)
    return tuple(labels) if LABELS[0] <= len(labels) <= LABELS[1] and enough else ()


def describe_labels(manifest: Manifest, split: str, classes: Sequence[str]) -> str:
    """Returns a line for the user on the labels that a model learns, or why it learns none; "" if there are none."""
    found = count_clips_by_label(manifest, split)
    if not classes:
        labels = [label for label in found if label != UNLABELLED]
        if len(labels) < 2:
            return ""
        default = "" if choose_labels(manifest, split) else f" (fewer than {LEAST_LABEL_TRACKS} tracks in one of them)"
        if len(labels) > LABELS[1]:
            default = f" (more than {LABELS[1]})"
        return f"without the dataset's {len(labels)} labels{default}: config.model.classes names those to learn"
    others = sum(count for label, count in found.items() if label not in classes)
    note = f"; {others} clips with other labels count as all of these" if others else ""
    return f'learns the labels {", ".join(classes)}{note}; without: --config.model.classes="()"'


def count_clips_by_label(manifest: Manifest, split: str) -> dict[str, int]:
    """Returns label -> number of clips in a split, without labels that have none there."""
    counts = collections.Counter()
    for track in manifest.tracks:
        if track["split"] == split:
            counts[track["label"]] += track["clips"]
    return +counts
