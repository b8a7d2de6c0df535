"""Tracks of any length, for models that play without end: sections to latents of each bar, latents to sound in blocks.

A phrase is as many bars as a clip of the model has. It is played over and over until its anchors are held no longer: inside
that time it is the loop that a clip would be, around its ends one loop leads into the next. A track as a whole is a loop too.

The sequence of each clip is made by itself, from the latents of a few bars around it; sound is decoded in blocks, half a clip
on either side being thrown away. Memory is that of a block, and about seven kilobytes a bar for latents.

*Source* of the style that stays and the anchors that change: Pasini, Schlüter 2022 (arXiv:2208.08706).
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
from technogen_jax.models.technogan.layout import CROSSOVER_HZ, STEPS_PER_BAR
from technogen_jax.sampling import generator

_BLOCK_BARS = 16  # decoded at once, of which those of one clip are thrown away
_KICK_HZ = CROSSOVER_HZ  # a filter's slope: what is below goes first when a section has little energy
_TREBLE_HZ = (3000.0, 6000.0)  # and what is above this one at last: hats and the edge of the rest
_RAMP_S = 0.005  # of a level that changes at a bar line: no click, and over when the kick begins


class ScriptError(ValueError):
    """A script that cannot be played; names the section and the field."""


class Section(NamedTuple):
    """A part of a track.

    Attributes:
        bars: its length; a multiple of the model's.
        seed: of the style and the anchors. The same seed later in a track is the same style with other anchors.
        label: weight of each label; None: the one that the seed draws, and where the model has none.
        energy: at its beginning and its end, 0 to 1. Up to 0.5 the treble opens, from 0.5 to 1 the kick comes in.
        crossfade: bars over which its latents take over from those of the section before; 0: in that one's last bar.
    """

    bars: int
    seed: int = 0
    label: dict[str, float] | None = None
    energy: tuple[float, float] = (1.0, 1.0)
    crossfade: int = 0


def read_script(path: str | os.PathLike, seed: int = 0, label: dict[str, float] | None = None) -> list[Section]:
    """The sections of a TOML file: a `[[section]]` each, its fields those of `Section`.

    A label is a name or a table of weights, an energy one number or two, of its beginning and its end.

    Args:
        path: the file.
        seed: of the sections before the first that has one; later ones without go on with the last.
        label: likewise.

    Raises:
        ScriptError: no such file, no TOML, or a section with an unknown field or a value that cannot be.
    """
    try:
        with open(path, "rb") as file:
            script = tomllib.load(file)
    except OSError as error:
        raise ScriptError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ScriptError(f"{path}: no TOML: {error}") from error
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
    """A section from fields as they stand in a script or a card.

    Raises:
        ScriptError: see `read_script`; begins with `where`.
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
        "0 to 1, or two such, as [0.2, 1]",
    )
    label = values["label"]
    label = {label: 1.0} if isinstance(label, str) else label
    weights = isinstance(label, dict) and all(map(_number, label.values())) and sum(label.values()) > 0
    expect("label", label is None or weights, "a name, or weights as { acid = 0.7, industrial = 0.3 }")
    return Section(values["bars"], values["seed"], label, tuple(map(float, energy)), values["crossfade"])


def endless(gan: models.GAN) -> models.contract.Endless:
    """How the model is played without end.

    Raises:
        ValueError: it cannot be.
    """
    if gan.endless is None:
        raise ValueError(
            "this model makes clips of one length and no tracks: those come from a model of bars, as configs/technogan.py"
        )
    return gan.endless


def latents_of(gan: models.GAN, sections: Sequence[Section], hold: int, truncation: float = 1.0) -> np.ndarray:
    """`[bars, style + anchor + labels]`: latents of each bar of a track, float32.

    Those of a bar follow from its section's seed, its number in the track, and, while they cross over, those of the section before.
    The anchors of the first phrase are those of the seed's clip 0, as the style is, those of the next of clip 1, and so on.

    Args:
        gan: the model.
        sections: of the track, in order.
        hold: bars until anchors change, a multiple of the model's bars.
        truncation: see `generate.draw_latents`.

    Raises:
        ValueError: the model has no bars; bars of a section or of `hold` that are no multiple of the model's; a label unknown to it.
    """
    bars, _, style_size, _ = endless(gan)
    if hold < 1 or hold % bars:
        raise ValueError(
            f"anchors are held for whole phrases: expected a multiple of the model's {bars} bars, got {hold}"
        )

    def drawn(part, first, last):
        """Latents of the bars from first to last, as a section has them."""
        number = np.arange(first, last)
        phrase = number // hold
        indices = [0, *range(phrase[0], phrase[-1] + 1)]
        clips = generator.draw_latents(gan, part.seed, indices, truncation, part.label)
        clips, labels = np.split(clips, [clips.shape[1] - len(gan.classes)], 1)
        anchors = clips[1:, style_size:].reshape(len(indices) - 1, bars, -1)[phrase - phrase[0], number % bars]
        style, labels = (np.tile(kept[:1], (len(number), 1)) for kept in (clips[:, :style_size], labels))
        return np.concatenate([style, anchors, labels], 1)

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
    """A track's sound in blocks, float32 `[T, C]`; a block is rendered when it is asked for.

    Args:
        trained: the generator.
        latents: `[bars, style + anchor + labels]`.
        energy: `[bars, 2]`, at each bar's beginning and end; see `Section`. None: all of it everywhere.
        block_bars: decoded at once; sets memory and time, and changes the sound by no more than rounding does.
    """
    rate_hz, clip_samples = trained.config.audio.sample_rate_hz, trained.config.audio.clip_samples
    bars = endless(trained.gan).bars
    count = len(latents) // bars
    block = min(max(1, block_bars // bars - 1), count)
    decode, sequence = _programs(trained.gan).decode, sequences(trained, latents)
    half = clip_samples // 2

    def parts():
        """Of each block its first sample, which of its samples are kept, and the sequences to decode.

        They are of `block` clips and the one before them. Half a clip at either end is thrown away.
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

    return generator.ahead(sound_of, parts())


def sequences(trained: generator.Trained, latents: np.ndarray) -> Callable[[int], np.ndarray]:
    """A function from the number of a clip of a track to its sequence on the grid, `[bars * 16, K]`.

    Each is made by the same program from its own surroundings, so it is the same to the last bit whenever it is made: decoding
    draws noise from those bits.
    """
    bars, reach_bars = endless(trained.gan)[:2]
    around, make = -(-reach_bars // bars), _programs(trained.gan).make

    def sequence(clip):
        rows = np.arange((clip - around) * bars, (clip + around + 1) * bars) % len(latents)
        return np.asarray(make(trained.params, latents[rows]))

    return sequence


class _Programs(NamedTuple):
    """Compiled functions: parameters and latents of a clip and those around it to its sequence; sequences to sound."""

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
    """`[bars, 2]`, the energy at the beginning and the end of each bar; None where it is 1 throughout."""
    if all(part.energy == (1.0, 1.0) for part in sections):
        return None
    ends = [np.linspace(*part.energy, part.bars + 1) for part in sections]
    return np.concatenate([np.stack([values[:-1], values[1:]], 1) for values in ends])


def _levels(energy: np.ndarray, samples: np.ndarray, bar_samples: float, rate_hz: int) -> list[np.ndarray]:
    """Levels of the kick and of the treble, `[T]` each, at samples of a track; at a bar line they change just before it."""
    starts = np.arange(len(energy) + 1) * bar_samples
    places = np.stack([starts[:-1], starts[1:] - _RAMP_S * rate_hz], 1)
    along = np.interp(samples, np.append(places, starts[-1]), np.append(energy, energy[0, 0]))
    return [np.float32(np.clip(2 * along - 1, 0, 1)), np.float32(np.clip(2 * along, 0, 1))]


@functools.partial(jax.jit, static_argnums=3)
def _shape(sound: jax.Array, low: jax.Array, high: jax.Array, rate_hz: int) -> jax.Array:
    """`[T, C]` with levels `[T]` for what is below the kick's edge and above the treble's, within [-1, 1]; no delay."""
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
