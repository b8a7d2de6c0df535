"""Clips and tracks as audio files, each with a JSON beside it that makes the same file again."""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import math
import pathlib
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jaxlib
import numpy as np

from technogen_jax.audio import audio_files, spectrogram_images
from technogen_jax.common import atomic_files, progress
from technogen_jax.data import tfrecords
from technogen_jax.data.clip_source import ClipSource
from technogen_jax.sampling import arrangement, generator

FORMATS = ("wav", "flac")
_CARD_VERSION = 1
_PICTURED = 8  # clips in a row of the picture
_SILENT_DBFS = -60.0
_LARGEST_WAV_BYTES = 2**32 - 2**10  # its length is a number of 32 bits; less what else is in the file


class SampleError(ValueError):
    """Why there is no sound, in one line."""


def write_clips(
    trained: generator.Trained, latents: np.ndarray, cards: Sequence[dict[str, Any]], paths: Sequence[pathlib.Path]
) -> list[np.ndarray]:
    """Renders each latent into its file, with a JSON card beside it that makes the same file again.

    Args:
        trained: the generator.
        latents: `[n, Z]`.
        cards: n dicts: where each latent comes from.
        paths: n files, .wav or .flac; 16 bit.

    Returns:
        The clips as written, int16 `[T, C]` each.
    """
    written = []
    with progress.bar("sampling", len(paths), " clips") as bar:
        for clip, z, card, path in zip(generator.render(trained, latents), latents, cards, paths, strict=True):
            audio_files.write(path, clip, trained.config.audio.sample_rate_hz)
            pcm = audio_files.to_int16(clip)
            origin = {**card, "latents": z.tolist()}
            _write_card(trained, path, origin, pcm.shape, hashlib.sha256(pcm.data).hexdigest())
            written.append(pcm)
            bar.update()
    return written


def write_track(
    trained: generator.Trained,
    sections: Sequence[arrangement.Section],
    hold: int,
    truncation: float,
    path: pathlib.Path,
) -> str:
    """Renders a track into a file, a block at a time, with a JSON card beside it that makes the same file again.

    Args:
        trained: the generator, of a model that plays without end.
        sections: of the track, in order.
        hold: see `arrange.latents_of`.
        truncation: see `generate.draw_latents`.
        path: a .wav or .flac; 16 bit.

    Returns:
        SHA-256 of the samples as written, in hexadecimal.
    """
    latents = arrangement.latents_of(trained.gan, sections, hold, truncation)
    energy, rate_hz = arrangement.energy_of(sections), trained.config.audio.sample_rate_hz
    digest, samples, channels = hashlib.sha256(), 0, trained.config.audio.channels
    length_s = len(latents) / trained.config.model.bars * trained.config.audio.clip_samples / rate_hz
    with progress.bar("playing", math.ceil(length_s), " s") as bar:

        def blocks():
            nonlocal samples
            for block in arrangement.render(trained, latents, energy):
                digest.update(audio_files.to_int16(block).data)
                samples += len(block)
                bar.update(len(block) / rate_hz)
                yield block

        audio_files.write_blocks(path, blocks(), rate_hz)
    origin = {"sections": [section._asdict() for section in sections], "hold": hold, "truncation": truncation}
    _write_card(trained, path, origin, (samples, channels), digest.hexdigest())
    return digest.hexdigest()


def _write_card(trained, path, origin, shape, pcm_sha256) -> None:
    """The JSON beside a file of `shape` [T, C]."""
    content = {
        "version": _CARD_VERSION,
        "workdir": trained.workdir,
        "step": trained.step,
        "weights": trained.weights,
        **origin,
        "sample_rate_hz": trained.config.audio.sample_rate_hz,
        "channels": shape[1],
        "samples": shape[0],
        "pcm_sha256": pcm_sha256,
        "made_with": {"jax": jax.__version__, "jaxlib": jaxlib.__version__, "device": _device()},
    }
    atomic_files.write_text(path.with_suffix(".json"), json.dumps(content, indent=1) + "\n")


def read_card(path: pathlib.Path) -> dict[str, Any]:
    """The JSON card of a clip or a track; a track's has `sections` instead of `latents`.

    Raises:
        SampleError: not such a card.
    """
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        if "sections" in card:
            card["sections"] = [arrangement.section(fields, str(path)) for fields in card["sections"]]
            of_kind = all(isinstance(card[name], (int, float)) for name in ("hold", "truncation"))
        else:
            of_kind = np.asarray(card["latents"], np.float32).ndim == 1
        whole = of_kind and card["version"] == _CARD_VERSION and isinstance(card["step"], int)
        whole = whole and all(isinstance(card[name], str) for name in ("weights", "workdir", "pcm_sha256"))
    except OSError as error:
        raise SampleError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        raise SampleError(f"{path}: expected the JSON that this command writes beside its sound")
    return card


def describe(clips: Iterable[np.ndarray]) -> str:
    """In one line: how loud, how many clipped, silent and alike; of int16 `[T, C]` clips."""
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


def sample(options: argparse.Namespace) -> None:
    """What the command line says; see `--help`."""
    step = int(options.step) if options.step.isdigit() else options.step
    trained = generator.load(options.workdir, step)
    folder = pathlib.Path(options.output or generator.folder_for(options.workdir) / "sound")
    folder.mkdir(parents=True, exist_ok=True)
    mark = "".join(f"-{name}{weight:g}" for name, weight in (options.label or {}).items())
    mark += "" if options.truncation == 1 else f"-truncation{options.truncation:g}"
    if options.minutes or options.bars or options.script:
        return _play(options, trained, folder, mark)
    if options.interpolate:
        ends = [_latent(trained, end, options.truncation, options.label) for end in options.interpolate]
        latents = generator.interpolate(*ends, options.n)
        between = [pathlib.Path(end).stem for end in options.interpolate]
        name = f"step{trained.step}-{between[0]}-to-{between[1]}{mark}"
        cards = [{"interpolate": options.interpolate, "index": index, "of": options.n} for index in range(options.n)]
    else:
        latents = generator.draw_latents(trained.gan, options.seed, range(options.n), options.truncation, options.label)
        name = f"step{trained.step}-seed{options.seed}{mark}"
        given = {"seed": options.seed, "truncation": options.truncation}
        given |= {"label": options.label} if options.label else {}
        cards = [{**given, "index": index} for index in range(options.n)]
    paths = [folder / f"{name}-{index:03d}.{options.format}" for index in range(options.n)]
    clips = write_clips(trained, latents, cards, paths)
    picture = folder / f"{name}.png"
    _draw(trained, clips, picture, options.data)
    print(describe(clips))
    print(f"in {folder}: {paths[0].name} ... with a JSON beside each; the picture: {picture}")


def _play(options: argparse.Namespace, trained: generator.Trained, folder: pathlib.Path, mark: str) -> None:
    """Writes a track."""
    bars, rate_hz = arrangement.endless(trained.gan).bars, trained.config.audio.sample_rate_hz
    bar_s = trained.config.audio.clip_samples / bars / rate_hz
    if options.script:
        sections = arrangement.read_script(options.script, options.seed, options.label)
        name = f"step{trained.step}-{pathlib.Path(options.script).stem}{mark}"
    else:
        count = options.bars or bars * max(1, round(options.minutes * 60 / bar_s / bars))
        sections = [arrangement.Section(count, options.seed, options.label)]
        name = f"step{trained.step}-seed{options.seed}{mark}-{count}bars"
    length_s = bar_s * sum(section.bars for section in sections)
    if options.format == "wav" and length_s * rate_hz * trained.config.audio.channels * 2 > _LARGEST_WAV_BYTES:
        raise SampleError(f"{length_s / 3600:.1f} hours: a wav holds 4 GB at most; shorten it or write --format flac")
    path = folder / f"{name}.{options.format}"
    begin = time.perf_counter()
    write_track(trained, sections, options.hold or -(-4 // bars) * bars, options.truncation, path)
    speed = length_s / (time.perf_counter() - begin)
    print(
        f"{path}: {length_s // 60:.0f} min {length_s % 60:.0f} s, made {speed:.0f} times as fast as it plays; a JSON beside it"
    )


def repeat(options: argparse.Namespace) -> bool:
    """Makes the sound of JSON cards again; True if all came out as it was, bit for bit."""
    same, load = True, functools.lru_cache(maxsize=1)(generator.load)
    for name in options.cards:
        path = pathlib.Path(name)
        card = read_card(path)
        trained = load(options.workdir or card["workdir"], card["step"])
        if trained.weights != card["weights"]:
            raise SampleError(
                f"{path}: made from other weights than {trained.workdir} has at step {trained.step}; "
                "name the folder of that very training with --workdir"
            )
        folder = pathlib.Path(options.output) if options.output else path.parent
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / f"{path.stem}.{options.format}"
        if "sections" in card:
            made_sha256 = write_track(trained, card["sections"], card["hold"], card["truncation"], target)
        else:
            latents = np.asarray([card["latents"]], np.float32)
            origin = {
                key: card[key] for key in ("seed", "truncation", "label", "index", "interpolate", "of") if key in card
            }
            (pcm,) = write_clips(trained, latents, [origin], [target])
            made_sha256 = hashlib.sha256(pcm.data).hexdigest()
        equal = made_sha256 == card["pcm_sha256"]
        same = same and equal
        made = card.get("made_with", {})
        difference = f"differs in some bits: it was made with jaxlib {made.get('jaxlib')} on {made.get('device')}"
        print(f"{target}: {'the same, bit for bit' if equal else difference}")
    return same


def _latent(trained: generator.Trained, end: str, truncation: float, label: dict[str, float] | None) -> np.ndarray:
    """[Z]: of a seed's first clip, or of a JSON card."""
    if not end.endswith(".json"):
        try:
            return generator.draw_latents(trained.gan, int(end), [0], truncation, label)[0]
        except ValueError:
            raise SampleError(f"--interpolate {end}: expected a seed or the .json of a clip") from None
    latent = np.asarray(read_card(pathlib.Path(end))["latents"], np.float32)
    wanted = jax.eval_shape(lambda key: trained.gan.sample_latents(key, 1), jax.random.key(0)).shape[1]
    if len(latent) != wanted:
        raise SampleError(f"{end}: expected {wanted} latents, found {len(latent)}: it is another model's")
    return latent


def _draw(trained: generator.Trained, clips: Sequence[np.ndarray], path: pathlib.Path, data: str | None) -> None:
    """A contact sheet of the first clips, below them real ones where the set is at hand."""
    drawn = [audio_files.from_int16(clip) for clip in clips[:_PICTURED]]
    titles = [f"generated {index}" for index in range(len(drawn))]
    data = data or trained.config.data.dir
    try:
        source = ClipSource(data, trained.config.data.split) if data else ()  # a generator in one file names no set
        window = trained.config.audio.clip_samples
        for index in np.linspace(0, len(source) - 1, len(drawn) if source else 0).astype(int):
            clip = source[int(index)]
            drawn.append(audio_files.from_int16(clip["audio"][:window]))
            titles.append(f"{clip['track']} @ {clip['offset'] / trained.config.audio.sample_rate_hz:.0f} s")
    except (tfrecords.RecordError, TypeError) as error:
        print(f"the picture is without real clips: {error}", file=sys.stderr)
    heading = f"step {trained.step}" + (": generated above, real below" if len(drawn) > len(clips[:_PICTURED]) else "")
    spectrogram_images.write_contact_sheet(path, drawn, trained.config.audio.sample_rate_hz, titles, heading=heading)


def _decibels(level: float) -> float:
    return 20 * float(np.log10(max(level, 1e-10)))


def _device() -> str:
    return jax.devices()[0].device_kind
