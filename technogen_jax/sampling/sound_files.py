"""Generated sound as files: clips or a track, each with its recipe beside it; the same files again from recipes."""

from __future__ import annotations

import hashlib
import math
import os
import pathlib
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from technogen_jax.audio import audio_files, spectrogram_images
from technogen_jax.common import progress
from technogen_jax.data import tfrecords
from technogen_jax.data.clip_source import ClipSource, choose_spread
from technogen_jax.data.manifest import read_clip_table
from technogen_jax.runs.workdir import WorkdirError, check_dataset
from technogen_jax.sampling import arrangement, generator, recipes

_PICTURED = 8  # clips in a row of the picture
_SILENT_DBFS = -60.0
_MOST_LETTERS = 40  # of a word in a file's name; file systems take 255 bytes in all
_LARGEST_WAV_BYTES = 2**32 - 2**10  # a wav states its length in 32 bits; less its header


class SampleError(ValueError):
    """Why a sound cannot be made."""


class Controls(NamedTuple):
    """What the latents of one call share.

    Attributes:
        seed: another seed gives other sounds.
        truncation: scale of the latents, more than 0 and at most 1.
        label: weight of each label; None: each clip draws its own.
    """

    seed: int = 0
    truncation: float = 1.0
    label: Mapping[str, float] | None = None


class Clips(NamedTuple):
    """Clips to be written.

    Attributes:
        name: file name of their picture, without its extension.
        names: n file names, without extension.
        latents: `[n, Z]`.
        origins: n dicts: where each latent comes from.
    """

    name: str
    names: Sequence[str]
    latents: np.ndarray
    origins: Sequence[Mapping[str, Any]]


def file_name(trained: generator.Trained, label: Mapping[str, float] | None, *words: str, truncation: float = 1) -> str:
    """Returns the name of a sound without its extension, such as technogan-acid-136bpm-step7000-seed0-003.

    Args:
        trained: the generator. Its name is the first word, its step is one if it is not a single file.
        label: weight of each label; None: no word.
        words: the last words.
        truncation: one of the words unless it is 1.
    """
    weights = [(name, weight) for name, weight in (label or {}).items() if weight > 0]
    bpm = generator.tempo_bpm(trained)
    parts = [
        generator.model_name(trained),
        *([weights[0][0]] if len(weights) == 1 else [f"{name}{weight:.3g}" for name, weight in weights]),
        *([f"{bpm:.0f}bpm"] if bpm else []),
        *([] if os.path.isfile(trained.workdir) else [f"step{trained.step}"]),
        *words[:1],
        *([f"truncation{truncation:g}"] if truncation != 1 else []),
        *words[1:],
    ]
    return "-".join(_file_word(part) for part in parts)


def _file_word(text: str) -> str:
    """Returns a text that every file system takes as part of a name, at most 40 letters."""
    letters = unicodedata.normalize("NFC", text)[-_MOST_LETTERS:]
    return "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in letters)


def draw_clips(trained: generator.Trained, count: int, controls: Controls) -> Clips:
    """Returns clips 0 to count - 1 of a seed."""
    latents = generator.draw_latents(trained.gan, controls.seed, range(count), controls.truncation, controls.label)
    given, truncation = {"seed": controls.seed, "truncation": controls.truncation}, controls.truncation
    labels = [controls.label or generator.drawn_label(trained.gan, z) for z in latents]
    origins = [given | {"index": index} | ({"label": label} if label else {}) for index, label in enumerate(labels)]
    seed = f"seed{controls.seed}"
    names = [
        file_name(trained, label, seed, f"{index:03d}", truncation=truncation) for index, label in enumerate(labels)
    ]
    return Clips(file_name(trained, controls.label, seed, truncation=truncation), names, latents, origins)


def interpolate_clips(trained: generator.Trained, ends: Sequence[str], count: int, controls: Controls) -> Clips:
    """Returns clips from one latent to another, both included.

    Args:
        trained: the generator.
        ends: two: each a seed, of which it is the first clip, or the path of a clip's recipe.
        count: how many clips.
        controls: truncation and label of the ends that are seeds.

    Raises:
        SampleError: an end that is neither, or is of another model.
    """
    latents = generator.interpolate(*(_latent_of(trained, end, controls) for end in ends), count)
    first, last = (pathlib.Path(end).stem for end in ends)
    origins = [
        {"interpolate": list(ends), "index": index, "of": count, "latents": recipes.encode_latents(z)}
        for index, z in enumerate(latents)
    ]
    name = file_name(trained, controls.label, f"{first}-to-{last}", truncation=controls.truncation)
    return Clips(name, [f"{name}-{index:03d}" for index in range(count)], latents, origins)


def _latent_of(trained: generator.Trained, end: str, controls: Controls) -> np.ndarray:
    """`[Z]`: the latent of a seed's first clip, or of a recipe."""
    if not end.endswith(".json"):
        try:
            return generator.draw_latents(trained.gan, int(end), [0], controls.truncation, controls.label)[0]
        except ValueError:
            raise SampleError(f"--interpolate {end}: expected a seed or the .json of a clip") from None
    recipe = recipes.read(pathlib.Path(end))
    if "sections" in recipe:
        raise SampleError(f"--interpolate {end}: expected the .json of a clip, this is a track's")
    latent = recipes.latents_of(trained.gan, recipe)
    expected = jax.eval_shape(lambda key: trained.gan.sample_latents(key, 1), jax.random.key(0)).shape[1]
    found = recipe.get("latent_size", len(latent))
    if found != expected:
        raise SampleError(f"{end}: expected {expected} latents, found {found}: it is another model's")
    return latent


def write_clips(
    trained: generator.Trained,
    latents: np.ndarray,
    origins: Sequence[Mapping[str, Any]],
    paths: Sequence[pathlib.Path],
) -> list[np.ndarray]:
    """Renders each latent into a file with a recipe beside it; returns the clips as written, int16 `[T, C]`.

    Args:
        trained: the generator.
        latents: `[n, Z]`.
        origins: n dicts for the recipes: where each latent comes from.
        paths: n files, .wav or .flac; 16 bit.
    """
    written = []
    with progress.bar("generating", len(paths), " clips") as bar:
        for clip, origin, path in zip(generator.render(trained, latents), origins, paths, strict=True):
            origin = {**origin, "latent_size": latents.shape[1]}
            audio_files.write(path, clip, trained.config.audio.sample_rate_hz, generator.tempo_bpm(trained))
            pcm = audio_files.to_int16(clip)
            recipes.write(trained, path, origin, pcm.shape, hashlib.sha256(pcm.data).hexdigest())
            written.append(pcm)
            bar.update()
    return written


def bar_seconds(trained: generator.Trained) -> float:
    """Length of a bar of a model that plays without end."""
    audio = trained.config.audio
    return audio.clip_samples / arrangement.endless(trained.gan).bars / audio.sample_rate_hz


def plan_track(
    trained: generator.Trained, controls: Controls, *, bars: int | None = None, minutes: float | None = None
) -> list[arrangement.Section]:
    """Returns a track of one section, as long as its bars say, or else to the nearest whole clip of its minutes."""
    clip_bars = arrangement.endless(trained.gan).bars
    count = bars or clip_bars * max(1, round(minutes * 60 / bar_seconds(trained) / clip_bars))
    return [arrangement.Section(count, controls.seed, controls.label)]


def write_track(
    trained: generator.Trained,
    sections: Sequence[arrangement.Section],
    hold: int | None,
    truncation: float,
    path: pathlib.Path,
) -> str:
    """Renders a track into a file, a block at a time, with a recipe beside it.

    Args:
        trained: the generator, of a model that plays without end.
        sections: the sections of the track, in order.
        hold: bars until anchors change; None: 4, or a clip of the model where that is longer.
        truncation: scale of the latents.
        path: a .wav or .flac; 16 bit.

    Returns:
        SHA-256 of the 16-bit samples, in hexadecimal.

    Raises:
        SampleError: the track is too long for a wav.
    """
    clip_bars = arrangement.endless(trained.gan).bars
    hold = hold or -(-4 // clip_bars) * clip_bars
    rate_hz, channels = trained.config.audio.sample_rate_hz, trained.config.audio.channels
    length_s = bar_seconds(trained) * sum(section.bars for section in sections)
    if path.suffix == ".wav" and length_s * rate_hz * channels * 2 > _LARGEST_WAV_BYTES:
        raise SampleError(f"{length_s / 3600:.1f} hours: a wav has 4 GB at most; shorten it or write --format flac")
    latents = arrangement.latents_of(trained.gan, sections, hold, truncation)
    energy = arrangement.energy_of(sections)
    digest, samples = hashlib.sha256(), 0
    with progress.bar("generating", math.ceil(length_s), " s") as bar:

        def blocks():
            nonlocal samples
            for block in arrangement.render(trained, latents, energy):
                digest.update(audio_files.to_int16(block).data)
                samples += len(block)
                bar.update(len(block) / rate_hz)
                yield block

        audio_files.write_blocks(path, blocks(), rate_hz, generator.tempo_bpm(trained))
    origin = {"sections": [section._asdict() for section in sections], "hold": hold, "truncation": truncation}
    recipes.write(trained, path, origin, (samples, channels), digest.hexdigest())
    return digest.hexdigest()


def repeat(
    path: pathlib.Path,
    folder: pathlib.Path,
    suffix: str,
    load: Callable[[str, int], generator.Trained],
    workdir: str | None = None,
) -> tuple[pathlib.Path, str]:
    """Makes the sound of a recipe again.

    Args:
        path: the recipe.
        folder: where the sound goes.
        suffix: .wav or .flac.
        load: `generator.load`.
        workdir: the run, if it is no longer where the recipe says.

    Returns:
        The sound file, and how it differs from the first one; "" if it is the same to the bit.

    Raises:
        SampleError: the run has other weights now.
    """
    recipe = recipes.read(path)
    trained = load(workdir or recipe["workdir"], recipe["step"])
    if trained.weights != recipe["weights"]:
        raise SampleError(
            f"{path}: made from other weights than {trained.workdir} has at step {trained.step}; "
            "name the folder of its own run with --workdir"
        )
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{path.stem}{suffix}"
    if "sections" in recipe:
        pcm_sha256 = write_track(trained, recipe["sections"], recipe["hold"], recipe["truncation"], target)
    else:
        names = ("seed", "truncation", "label", "index", "interpolate", "of")
        origin = {name: recipe[name] for name in names if name in recipe}
        latents = recipes.latents_of(trained.gan, recipe)
        if "latents" in recipe:
            origin["latents"] = recipes.encode_latents(latents)
        (pcm,) = write_clips(trained, latents[None], [origin], [target])
        pcm_sha256 = hashlib.sha256(pcm.data).hexdigest()
    if pcm_sha256 == recipe["pcm_sha256"]:
        return target, ""
    return target, _explain_difference(recipe.get("made_with", {}))


def _explain_difference(first: Mapping[str, Any]) -> str:
    """Returns why a sound differs from the first one, from what made both.

    The noise of TechnoGAN is drawn from the bits of the code, so that one bit gives another pattern of the same noise.
    """
    now = recipes.describe_machine()
    changed = [
        f"{name} was {first[name]}, is {now[name]}" for name in now if name in first and first[name] != now[name]
    ]
    why = (
        "; ".join(changed)
        or f"jaxlib {first.get('jaxlib')} on {first.get('device')}, perhaps another kind of processor"
    )
    return f"differs: the same clip with other rounding and other noise ({why})"


def describe(clips: Iterable[np.ndarray]) -> str:
    """Returns one line on int16 `[T, C]` clips: how loud they are, how many are clipped, silent, the same."""
    clips = [audio_files.from_int16(clip) for clip in clips]
    peak = max(float(np.abs(clip).max()) for clip in clips)
    levels = [_decibels(float(np.sqrt(np.mean(clip.astype(np.float64) ** 2)))) for clip in clips]
    clipped = sum(bool((np.abs(clip) >= 32767 / 32768).any()) for clip in clips)
    silent = sum(level < _SILENT_DBFS for level in levels)
    different = len({clip.tobytes() for clip in clips})
    parts = [
        f"peak {_decibels(peak):.1f} dBFS",
        f"RMS {min(levels):.1f} to {max(levels):.1f} dBFS",
        f"{clipped} with samples at full scale",
        f"{silent} silent",
    ]
    if different < len(clips):
        parts.append(f"only {different} different")
    return f"{len(clips)} clips: " + ", ".join(parts)


def draw_picture(trained: generator.Trained, clips: Sequence[np.ndarray], path: pathlib.Path, data: str | None) -> str:
    """Draws spectrograms of the first clips, and of real ones below them.

    Args:
        trained: the generator.
        clips: int16 `[T, C]` each.
        path: the .png.
        data: the prepared dataset of the real clips; None: the one that the run was trained on.

    Returns:
        Why there are no real clips; "" if there are, or if the generator is one file that names no dataset.
    """
    drawn = [audio_files.from_int16(clip) for clip in clips[:_PICTURED]]
    titles, count, why = [f"generated {index}" for index in range(len(drawn))], len(drawn), ""
    data = data or trained.config.data.dir
    try:
        source = ClipSource(data, trained.config.data.split) if data else ()
        if source and data == trained.config.data.dir:  # the folder may have been prepared anew
            check_dataset(trained.workdir, generator.dataset_fingerprint(trained.workdir), data, source.manifest)
        window = trained.config.audio.clip_samples
        tracks = [line["track"] for line in read_clip_table(data, trained.config.data.split)] if source else []
        for index in choose_spread(tracks, count):
            clip = source[index]
            drawn.append(audio_files.from_int16(clip["audio"][:window]))
            titles.append(f"{clip['track']} @ {clip['offset'] / trained.config.audio.sample_rate_hz:.0f} s")
    except (tfrecords.RecordError, WorkdirError, TypeError) as error:
        why = str(error)
    heading = f"step {trained.step}" + (": generated above, real below" if len(drawn) > count else "")
    endless = trained.gan.endless
    note = "Lines: beats; with a mark: bars. Kicks (bottom) should begin at them." if endless else None
    bars = endless and endless.bars
    rate_hz = trained.config.audio.sample_rate_hz
    spectrogram_images.write_contact_sheet(path, drawn, rate_hz, titles, heading=heading, bars=bars, note=note)
    return why


def _decibels(level: float) -> float:
    return 20 * float(np.log10(max(level, 1e-10)))
