"""What a client may ask for, checked, and the sound of it. Nothing here knows of a page or a server.

A client names a model by its name, never by a path; every number has bounds.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from technogen_jax.audio import audio_files, spectral
from technogen_jax.sampling import arrangement, generator, latent_directions

MOVES = 8  # directions under the fingers: two on the pad, the others on sliders
FARTHEST = 2.0  # of a move, in deviations of the latents: beyond it sounds leave what the model was trained for
TEMPO_SHARES = (0.7, 1.4)  # of the model's own tempo: about half an octave to either side
MOST_MINUTES = 20.0
FORMATS = ("wav", "flac")


class AskError(ValueError):
    """Something that cannot be made; the message is for whoever asked, in one line."""


class Voice(NamedTuple):
    """A model that can be played.

    Attributes:
        name: what clients call it.
        trained: the generator.
        directions: `[moves, D]`, see `directions.find`.
        bpm: the tempo of its clips; None where they are not whole bars.
    """

    name: str
    trained: generator.Trained
    directions: np.ndarray
    bpm: float | None


class Recipe(NamedTuple):
    """What a loop is made of.

    Attributes:
        seed: of the latents; the loop is that seed's clip 0.
        label: weight of each class; None: what the seed draws.
        truncation: see `generate.draw_latents`.
        moves: along each direction from where the seed is.
    """

    seed: int
    label: dict[str, float] | None
    truncation: float
    moves: tuple[float, ...]


class Sound(NamedTuple):
    """A loop, or one on the way from one to another.

    Attributes:
        voice: the model.
        start: its recipe.
        end: that of the other; None for `start` alone.
        share: 0 for `start`, 1 for `end`.
    """

    voice: Voice
    start: Recipe
    end: Recipe | None = None
    share: float = 0.0


def load(workdir: str | os.PathLike, name: str, step: int | str = "latest") -> Voice:
    """A model from a run's folder or a file of `technogen_jax.export`, warm: its first loop comes as fast as the next.

    Raises:
        WorkdirError: see `generate.load`.
    """
    trained = generator.load(workdir, step)
    voice = Voice(
        name, trained, latent_directions.find(trained.gan, trained.params, MOVES), generator.tempo_bpm(trained)
    )
    loop_of(Sound(voice, Recipe(0, None, 1.0, ())))
    return voice


def names_of(workdirs: Sequence[str | os.PathLike]) -> list[str]:
    """A name for each: the last part of its path, with a number where that is taken."""
    names = []
    for workdir in workdirs:
        stem = pathlib.Path(os.path.abspath(workdir)).stem
        taken = sum(name == stem or name.startswith(f"{stem} (") for name in names)
        names.append(f"{stem} ({taken + 1})" if taken else stem)
    return names


def read_sound(asked: Any, voices: Mapping[str, Voice]) -> Sound:
    """What a client asks for: {model, start, end, share}, `start` and `end` being {seed, label, truncation, moves}.

    Raises:
        AskError: anything else; names the field, what was expected and what came.
    """
    fields = _fields(asked, "sound", Sound._fields[1:], also="model")
    voice = voices.get(fields["model"]) if isinstance(fields["model"], str) else None
    if voice is None:
        raise AskError(f"model: expected one of {', '.join(voices)}, got {_shown(fields['model'])}")
    end = None if fields["end"] is None else _recipe(fields["end"], voice)
    return Sound(voice, _recipe(fields["start"], voice), end, number("share", fields["share"], 0, 1))


def _recipe(asked: Any, voice: Voice) -> Recipe:
    fields = _fields(asked, "recipe", Recipe._fields)
    label, moves = fields["label"], fields["moves"]
    if label is not None:
        known = isinstance(label, dict) and len(label) <= len(voice.trained.gan.classes)
        if not known or not all(isinstance(name, str) for name in label):
            raise AskError(
                f"label: expected weights of {', '.join(voice.trained.gan.classes) or 'nothing'}, got {_shown(label)}"
            )
        label = {name: number(f"label {name[:40]}", weight, 0, 1) for name, weight in label.items()}
        try:
            generator.label_weights(voice.trained.gan, label)
        except ValueError as error:
            raise AskError(str(error)[:300]) from None
    if not isinstance(moves, list) or len(moves) > len(voice.directions):
        raise AskError(f"moves: expected a list of at most {len(voice.directions)}, got {_shown(moves)}")
    seed = number("seed", fields["seed"], 0, 2**32 - 1)
    if seed != int(seed):
        raise AskError(f"seed: expected a whole number, got {_shown(seed)}")
    truncation = number("truncation", fields["truncation"], 0.01, 1)
    return Recipe(int(seed), label, truncation, tuple(number("moves", move, -FARTHEST, FARTHEST) for move in moves))


def number(name: str, value: Any, least: float, most: float) -> float:
    """The value.

    Raises:
        AskError: it is no number, or not between the two.
    """
    if type(value) not in (int, float) or not least <= value <= most:  # a NaN is in no bounds
        raise AskError(f"{name}: expected a number from {least:g} to {most:.10g}, got {_shown(value)}")
    return value


def _fields(asked: Any, what: str, names: Sequence[str], also: str = "") -> dict[str, Any]:
    names = {*names, *([also] if also else [])}
    if not isinstance(asked, dict) or set(asked) != names:
        raise AskError(f"{what}: expected the fields {', '.join(sorted(names))}, got {_shown(asked)}")
    return asked


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def loop_of(sound: Sound) -> np.ndarray:
    """Its clip: float32 `[T, C]`, a loop where the model's clips are such."""
    trained = sound.voice.trained
    return next(generator.render(trained, _mixed(sound, lambda recipe: _latent(sound.voice, recipe))[None]))


def track_of(sound: Sound, bars: int) -> Iterator[np.ndarray]:
    """A track of so many bars in that style, its bars changing: blocks, float32 `[T, C]`.

    Raises:
        AskError: the model plays no tracks.
    """
    gan = sound.voice.trained.gan
    try:
        phrase = arrangement.endless(gan).bars
    except ValueError as error:
        raise AskError(str(error)) from None

    def rows(recipe):
        sections = [arrangement.Section(-(-bars // phrase) * phrase, recipe.seed, recipe.label)]
        latents = arrangement.latents_of(gan, sections, -(-4 // phrase) * phrase, recipe.truncation)
        return _moved(sound.voice, latents, recipe)

    return arrangement.render(sound.voice.trained, _mixed(sound, rows))


def write(sound: Sound, path: pathlib.Path, bpm: float | None, minutes: float | None) -> None:
    """Writes the loop, or a track of so many minutes, as a file of 16 bits, WAV or FLAC by its name.

    Another tempo is another speed, as on a turntable: the pitch moves with it. A loop stays one.

    Args:
        sound: what to write.
        path: of the file.
        bpm: wanted; None for the model's own, which leaves every sample as it is.
        minutes: of the track; None for the loop.
    """
    voice = sound.voice
    rate_hz = voice.trained.config.audio.sample_rate_hz
    if minutes is None:
        loop = loop_of(sound)
        if bpm is not None:
            loop = np.asarray(spectral.resample_circular(loop.T, round(len(loop) * voice.bpm / bpm))).T
            loop = loop / max(1.0, np.abs(loop).max())  # between the old samples the wave can be higher
        audio_files.write(path, loop, rate_hz)
        return
    tempo = bpm or voice.bpm or 0
    blocks = track_of(sound, max(1, round(minutes * tempo / 4)))
    if bpm is not None:
        stream = audio_files.Stream(rate_hz * bpm / voice.bpm, voice.trained.config.audio.channels, blocks)
        blocks = audio_files.resample_blocks(stream, rate_hz, stream.channels)
    audio_files.write_blocks(path, blocks, rate_hz)


def read_tempo(bpm: Any, voice: Voice) -> float | None:
    """The tempo that a client asks for; None for the model's own.

    Raises:
        AskError: see `number`; or the model has no tempo.
    """
    if bpm is None:
        return None
    if voice.bpm is None:
        raise AskError(f"bpm: clips of {voice.name} are not whole bars and have no tempo of their own")
    return number("bpm", bpm, *(share * voice.bpm for share in TEMPO_SHARES))


def _mixed(sound: Sound, latents_of) -> np.ndarray:
    start = latents_of(sound.start)
    if sound.end is None:
        return start
    share = np.float32(sound.share)
    return start * (1 - share) + latents_of(sound.end) * share


def _latent(voice: Voice, recipe: Recipe) -> np.ndarray:
    """`[Z]`: the first latent of the seed, moved."""
    drawn = generator.draw_latents(voice.trained.gan, recipe.seed, [0], recipe.truncation, recipe.label)
    return _moved(voice, drawn[0], recipe)


def _moved(voice: Voice, latents: np.ndarray, recipe: Recipe) -> np.ndarray:
    """Latents `[..., Z]` with the recipe's moves."""
    moves = np.zeros(len(voice.directions), np.float32)
    moves[: len(recipe.moves)] = recipe.moves
    latents[..., : voice.directions.shape[1]] += moves @ voice.directions
    return latents
