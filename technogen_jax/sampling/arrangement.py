"""Tracks of any length, for models that play without end: sections to latents of each bar, latents to sound in blocks.

A phrase has as many bars as a clip of the model. It repeats until its anchors change: within that time it is the same loop as
a clip, and at the change one loop leads into the next. A whole track is a loop, too.

The sequence of each clip is generated from the latents of a few bars around it. Sound is decoded in blocks, of which half a
clip on each side is dropped. Memory is that of one block, and about seven kilobytes a bar for latents.

Reference: for a style that is constant and anchors that change: Pasini, Schlüter 2022 (arXiv:2208.08706).
"""

from __future__ import annotations

import functools
import os
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from technogen_jax import models
from technogen_jax.audio import spectral
from technogen_jax.common.command_line import MOST_BARS
from technogen_jax.models.technogan.layout import CROSSOVER_HZ, STEPS_PER_BAR
from technogen_jax.sampling import generator

_BLOCK_BARS = 16  # decoded at once; those of one clip are dropped (chosen)
_KICK_HZ = CROSSOVER_HZ  # slope of a filter: below it is the kick, which a section of little energy lacks
_TREBLE_HZ = (3000.0, 6000.0)  # above it is the treble, mostly hats, which a section of no energy lacks
_RAMP_S = 0.005  # a level changes this long before a bar line: without a click, and before the kick begins (chosen)


class ScriptError(ValueError):
    """A script that is not valid; the message names the section and the field."""


class Section(NamedTuple):
    """A part of a track.

    Attributes:
        bars: its length; a multiple of the model's.
        seed: seed of the style and the anchors. The same seed later in a track gives the same
            style with other anchors.
        label: weight of each label; None: the seed draws one, if the model has labels.
        energy: at its start and its end, 0 to 1. From 0 to 0.5 the treble fades in, from 0.5 to 1 the kick.
        crossfade: bars in which the latents move from those of the section before to its own; 0: in the last bar of
            the section before.
    """

    bars: int
    seed: int = 0
    label: dict[str, float] | None = None
    energy: tuple[float, float] = (1.0, 1.0)
    crossfade: int = 0


def read_script(path: str | os.PathLike, seed: int = 0, label: dict[str, float] | None = None) -> list[Section]:
    """Returns the sections of a TOML file: one `[[section]]` each, with the fields of `Section`.

    A label is a name or a table of weights. An energy is one number, or two for the start and the end.

    Args:
        path: the file.
        seed: seed of the first section; a section without a seed has that of the section before.
        label: label of the first section; a section without a label has that of the section before.

    Raises:
        ScriptError: no such file, no TOML, or a section with an unknown field or an invalid value.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:  # editors on Windows begin a file with a byte-order mark
            script = tomllib.loads(file.read())
    except OSError as error:
        raise ScriptError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ScriptError(f"{path}: not valid TOML: {error}") from error
    found = script.get("section")
    if set(script) != {"section"} or not isinstance(found, list) or not found:
        raise ScriptError(
            f"{path}: expected a [[section]] for each part of the track and nothing else, found {', '.join(script) or 'nothing'}"
        )
    sections = []
    for number, fields in enumerate(found, 1):
        fields = dict(seed=seed, label=label) | fields
        sections.append(section(fields, f"{path}: section {number}"))
        seed, label = sections[-1].seed, sections[-1].label
    return sections


def section(fields: Mapping[str, Any], where: str) -> Section:
    """Returns a section from the fields of a script or a recipe.

    Raises:
        ScriptError: an unknown field or an invalid value; the message begins with `where`.
    """

    def expect(field, ok, expected):
        if not ok:
            raise ScriptError(f"{where}, {field}: expected {expected}, got {fields.get(field)!r}")

    def whole(value, least):
        return type(value) is int and least <= value < 2**32

    for field in fields:
        if field not in Section._fields:
            raise ScriptError(f"{where}: has no field {field}; expected some of {', '.join(Section._fields)}")
    values = Section._field_defaults | fields
    expect("bars", whole(values.get("bars"), 1), "a whole number of at least 1")
    expect("seed", whole(values["seed"], 0), "a whole number from 0 to 4294967295")
    expect(
        "crossfade",
        whole(values["crossfade"], 0) and values["crossfade"] <= values["bars"],
        "a whole number from 0 to its bars",
    )
    energy = values["energy"]
    energy = energy if isinstance(energy, (list, tuple)) else [energy, energy]
    expect(
        "energy",
        len(energy) == 2 and all(_number(value) and value <= 1 for value in energy),
        "a number from 0 to 1, or two, as [0.2, 1]",
    )
    label = values["label"]
    label = {label: 1.0} if isinstance(label, str) else label
    weights = isinstance(label, dict) and all(map(_number, label.values())) and sum(label.values()) > 0
    expect("label", label is None or weights, "a name, or weights as { acid = 0.7, industrial = 0.3 }")
    return Section(values["bars"], values["seed"], label, tuple(map(float, energy)), values["crossfade"])


def endless(gan: models.GAN) -> models.contract.Endless:
    """Returns how the model plays without end.

    Raises:
        ValueError: it does not.
    """
    if gan.endless is None:
        raise ValueError(
            "this model generates clips of one length, not tracks; tracks need a model of whole bars, as configs/technogan.py"
        )
    return gan.endless


def latents_of(gan: models.GAN, sections: Sequence[Section], hold: int, truncation: float = 1.0) -> np.ndarray:
    """Returns `[bars, style + anchor + labels]`, float32: the latents of each bar of a track.

    The latents of a bar depend on its section's seed, on its number in the track, and in a crossfade on the section before.
    Style and anchors of the first phrase are those of the seed's clip 0; the next phrase has the anchors of clip 1, and so on.

    Args:
        gan: the model.
        sections: the sections of the track, in order.
        hold: bars until anchors change, a multiple of the model's bars.
        truncation: scale of the latents, in (0, 1].

    Raises:
        ValueError: the model has no bars; the track is too long; `hold` or the bars of a section are no multiple of the model's; or the model does
            not have the label.
    """
    bars, _, style_size, _ = endless(gan)
    if hold < 1 or hold % bars:
        raise ValueError(
            f"--hold: anchors change after whole phrases: expected a multiple of the model's {bars} bars, got {hold}"
        )

    def drawn(part, first, last):
        """Returns the latents of the bars first to last - 1 with the seed and label of a section."""
        number = np.arange(first, last)
        phrase = number // hold
        indices = [0, *range(phrase[0], phrase[-1] + 1)]
        clips = generator.draw_latents(gan, part.seed, indices, truncation, part.label)
        clips, labels = np.split(clips, [clips.shape[1] - len(gan.classes)], 1)
        anchors = clips[1:, style_size:].reshape(len(indices) - 1, bars, -1)[phrase - phrase[0], number % bars]
        style, labels = (np.tile(kept[:1], (len(number), 1)) for kept in (clips[:, :style_size], labels))
        return np.concatenate([style, anchors, labels], 1)

    if (total := sum(part.bars for part in sections)) > MOST_BARS:
        raise ScriptError(f"a track of {total} bars: expected at most {MOST_BARS}; make it in parts")
    rows, first, before = [], 0, None
    for number, part in enumerate(sections, 1):
        if part.bars % bars:
            raise ScriptError(f"section {number}, bars: expected a multiple of the model's {bars}, got {part.bars}")
        try:
            latents = drawn(part, first, first + part.bars)
        except ValueError as error:
            raise ScriptError(f"section {number}, label: {error}") from error
        if before and part.crossfade:
            share = np.arange(part.crossfade, dtype=np.float32)[:, None] / np.float32(part.crossfade)
            left = drawn(before, first, first + part.crossfade)
            latents[: part.crossfade] = left + share * (latents[: part.crossfade] - left)
        rows.append(latents)
        first, before = first + part.bars, part
    return np.concatenate(rows)


def render(
    trained: generator.Trained, latents: np.ndarray, energy: np.ndarray | None = None, block_bars: int = _BLOCK_BARS
) -> Iterator[np.ndarray]:
    """Yields a track's sound in blocks, float32 `[T, C]`, each rendered when it is asked for.

    Args:
        trained: the generator.
        latents: `[bars, style + anchor + labels]`.
        energy: `[bars, 2]`, at the start and end of each bar; None: 1 everywhere.
        block_bars: bars decoded at once; decides memory and time, and changes the sound only by rounding.
    """
    rate_hz, clip_samples = trained.config.audio.sample_rate_hz, trained.config.audio.clip_samples
    bars = endless(trained.gan).bars
    count = len(latents) // bars
    block = min(max(1, block_bars // bars - 1), count)
    decode, sequence = _programs(trained.gan).decode, sequences(trained, latents)
    half = clip_samples // 2

    def parts():
        """Yields for each block its first sample, which of its samples are kept, and the sequences to decode.

        A block has `block` clips and the one before them. Half a clip at each end is dropped.
        """
        before = sequence(-1)
        for first in range(0, count + 1, block):
            begin, end = (first - 1) * clip_samples, (first + block) * clip_samples
            kept = slice(max(first * clip_samples - half, 0) - begin, min(end - half, count * clip_samples) - begin)
            if kept.start < kept.stop:
                clips = [before, *(sequence(clip) for clip in range(first, first + block))]
                before = clips[-1]
                yield begin, kept, np.concatenate(clips)

    def sound_of(part):
        begin, kept, clips = part
        sound = decode(clips)
        if energy is not None:
            places = np.arange(begin, begin + len(sound)) % (count * clip_samples)
            sound = _shape(sound, *_levels(energy, places, clip_samples / bars, rate_hz), rate_hz)
        return np.asarray(sound)[kept]

    return generator.compute_ahead(sound_of, parts())


def sequences(trained: generator.Trained, latents: np.ndarray) -> Callable[[int], np.ndarray]:
    """Returns a function from the number of a clip in a track to its sequence on the grid, `[bars * 16, K]`.

    Each sequence is generated by the same program from the latents around it, so that its bits are always the same: decoding
    draws its noise from these bits.
    """
    bars, reach_bars = endless(trained.gan)[:2]
    around, make = -(-reach_bars // bars), _programs(trained.gan).make

    def sequence(clip):
        rows = np.arange((clip - around) * bars, (clip + around + 1) * bars) % len(latents)
        return np.asarray(make(trained.params, latents[rows]))

    return sequence


class _Programs(NamedTuple):
    """Compiled functions: `make`, parameters and latents around a clip to its sequence; `decode`, sequences to sound."""

    make: Callable[..., jax.Array]
    decode: Callable[[np.ndarray], jax.Array]


@functools.lru_cache(maxsize=4)
def _programs(gan: models.GAN) -> _Programs:
    bars, reach_bars = endless(gan)[:2]
    around, steps = -(-reach_bars // bars), bars * STEPS_PER_BAR
    return _Programs(
        make=jax.jit(lambda params, z: gan.generate(params, z[None])[0, around * steps : (around + 1) * steps]),
        decode=jax.jit(lambda x: gan.decode(x[None])[0]),
    )


def energy_of(sections: Sequence[Section]) -> np.ndarray | None:
    """Returns `[bars, 2]`, the energy at the start and the end of each bar; None if it is 1 throughout."""
    if all(part.energy == (1.0, 1.0) for part in sections):
        return None
    ends = [np.linspace(*part.energy, part.bars + 1) for part in sections]
    return np.concatenate([np.stack([values[:-1], values[1:]], 1) for values in ends])


def _levels(energy: np.ndarray, samples: np.ndarray, bar_samples: float, rate_hz: int) -> list[np.ndarray]:
    """Returns levels of the kick and of the treble, `[T]` each, at samples of a track; they change just before a bar line."""
    starts = np.arange(len(energy) + 1) * bar_samples
    places = np.stack([starts[:-1], starts[1:] - _RAMP_S * rate_hz], 1)
    along = np.interp(samples, np.append(places, starts[-1]), np.append(energy, energy[0, 0]))
    return [np.float32(np.clip(2 * along - 1, 0, 1)), np.float32(np.clip(2 * along, 0, 1))]


@functools.partial(jax.jit, static_argnums=3)
def _shape(sound: jax.Array, low: jax.Array, high: jax.Array, rate_hz: int) -> jax.Array:
    """Returns `[T, C]` within [-1, 1], with levels `[T]` for the kick's and the treble's frequencies; without delay."""
    frequencies_hz = np.fft.rfftfreq(len(sound), 1 / rate_hz)
    spectrum = jnp.fft.rfft(sound, axis=0)

    def above(edge_hz):
        return jnp.fft.irfft(spectrum * np.float32(spectral.rise(frequencies_hz, edge_hz))[:, None], len(sound), axis=0)

    without_kick, treble = above(_KICK_HZ), above(_TREBLE_HZ)
    kick = sound - without_kick
    shaped = low[:, None] * kick + (without_kick - treble) + high[:, None] * treble
    return spectral.limit_circular(shaped[None], rate_hz)[0]  # a part of a sound can have higher peaks than the whole


def _number(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < float("inf")
