"""Requests for sounds: checks them and renders the sound. Independent of the page and the server.

A client names a model by its name, never by a path; every number is checked against bounds.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from technogen_jax.audio import audio_files, spectral
from technogen_jax.sampling import arrangement, generator, latent_directions

MOVES = 8  # latent directions that the page controls: two on the pad, the others on sliders
FARTHEST = 2.0  # largest move along a direction, in standard deviations of the latents
TEMPO_SHARES = (0.7, 1.4)  # range of tempos relative to the model's own: about half an octave each way
MOST_MINUTES = 20.0
FORMATS = ("wav", "flac")


class RequestError(ValueError):
    """A request that cannot be fulfilled; the message is one line for the client."""


class PlayableModel(NamedTuple):
    """A trained generator with what the page needs to play it.

    Attributes:
        name: name that clients use.
        trained: the generator.
        directions: `[moves, D]`, from `latent_directions.find`.
        bpm: tempo of its clips; None if they are not whole bars.
    """

    name: str
    trained: generator.Trained
    directions: np.ndarray
    bpm: float | None


class Recipe(NamedTuple):
    """The parameters of a loop.

    Attributes:
        seed: the seed of the latents; the loop is clip 0 of that seed.
        label: weight of each class; None: drawn from the seed.
        truncation: factor on the Gaussian latents, 0.01 to 1.
        moves: displacement along each latent direction.
    """

    seed: int
    label: dict[str, float] | None
    truncation: float
    moves: tuple[float, ...]


class Sound(NamedTuple):
    """A loop, or an interpolation between two.

    Attributes:
        model: the model.
        start: recipe of the first loop.
        end: recipe of the second loop; None for `start` alone.
        share: 0 for `start`, 1 for `end`.
    """

    model: PlayableModel
    start: Recipe
    end: Recipe | None = None
    share: float = 0.0


def load(workdir: str | os.PathLike, name: str, step: int | str = "latest") -> PlayableModel:
    """Loads a model from a workdir or an exported file and renders one loop, so that everything is compiled.

    Raises:
        WorkdirError: the workdir or file cannot be used.
    """
    trained = generator.load(workdir, step)
    model = PlayableModel(
        name, trained, latent_directions.find(trained.gan, trained.params, MOVES), generator.tempo_bpm(trained)
    )
    loop_of(Sound(model, Recipe(0, None, 1.0, ())))
    return model


def names_of(workdirs: Sequence[str | os.PathLike]) -> list[str]:
    """Returns a unique name for each path: its last part, with a number if that name is taken."""
    names = []
    for workdir in workdirs:
        stem = pathlib.Path(os.path.abspath(workdir)).stem
        taken = sum(name == stem or name.startswith(f"{stem} (") for name in names)
        names.append(f"{stem} ({taken + 1})" if taken else stem)
    return names


def read_sound(asked: Any, models: Mapping[str, PlayableModel]) -> Sound:
    """Returns the sound that a request describes.

    The request is {model, start, end, share}; `start` and `end` are {seed, label, truncation, moves}.

    Raises:
        RequestError: an invalid request; names the field, what was expected and what came.
    """
    fields = _fields(asked, "sound", Sound._fields)
    model = models.get(fields["model"]) if isinstance(fields["model"], str) else None
    if model is None:
        raise RequestError(f"model: expected one of {', '.join(models)}, got {_shown(fields['model'])}")
    end = None if fields["end"] is None else _recipe(fields["end"], model)
    return Sound(model, _recipe(fields["start"], model), end, number("share", fields["share"], 0, 1))


def _recipe(asked: Any, model: PlayableModel) -> Recipe:
    fields = _fields(asked, "recipe", Recipe._fields)
    label, moves = fields["label"], fields["moves"]
    if label is not None:
        known = isinstance(label, dict) and len(label) <= len(model.trained.gan.classes)
        if not known or not all(isinstance(name, str) for name in label):
            raise RequestError(
                f"label: expected weights of {', '.join(model.trained.gan.classes) or 'nothing'}, got {_shown(label)}"
            )
        label = {name: number(f"label {name[:40]}", weight, 0, 1) for name, weight in label.items()}
        try:
            generator.label_weights(model.trained.gan, label)
        except ValueError as error:
            raise RequestError(str(error)[:300]) from None
    if not isinstance(moves, list) or len(moves) > len(model.directions):
        raise RequestError(f"moves: expected a list of at most {len(model.directions)}, got {_shown(moves)}")
    seed = number("seed", fields["seed"], 0, 2**32 - 1)
    if seed != int(seed):
        raise RequestError(f"seed: expected a whole number, got {_shown(seed)}")
    truncation = number("truncation", fields["truncation"], 0.01, 1)
    return Recipe(int(seed), label, truncation, tuple(number("moves", move, -FARTHEST, FARTHEST) for move in moves))


def number(name: str, value: Any, least: float, most: float) -> float:
    """Returns the value.

    Raises:
        RequestError: not a number in [least, most].
    """
    if type(value) not in (int, float) or not least <= value <= most:  # also refuses NaN
        raise RequestError(f"{name}: expected a number from {least:g} to {most:.10g}, got {_shown(value)}")
    return value


def _fields(asked: Any, what: str, names: Sequence[str]) -> dict[str, Any]:
    """Returns a request that has exactly these fields."""
    if not isinstance(asked, dict) or set(asked) != set(names):
        raise RequestError(f"{what}: expected the fields {', '.join(sorted(names))}, got {_shown(asked)}")
    return asked


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def loop_of(sound: Sound) -> np.ndarray:
    """Returns the clip of a sound, float32 `[T, C]`."""
    trained = sound.model.trained
    return next(generator.render(trained, _mixed(sound, lambda recipe: _latent(sound.model, recipe))[None]))


def track_of(sound: Sound, bars: int) -> Iterator[np.ndarray]:
    """Yields a track of `bars` bars in the style of a sound, in blocks of float32 `[T, C]`.

    Raises:
        RequestError: the model cannot play tracks.
    """
    gan = sound.model.trained.gan
    try:
        phrase = arrangement.endless(gan).bars
    except ValueError as error:
        raise RequestError(str(error)) from None

    def rows(recipe):
        sections = [arrangement.Section(-(-bars // phrase) * phrase, recipe.seed, recipe.label)]
        latents = arrangement.latents_of(gan, sections, -(-4 // phrase) * phrase, recipe.truncation)
        return _moved(sound.model, latents, recipe)

    return arrangement.render(sound.model.trained, _mixed(sound, rows))


def write(sound: Sound, path: pathlib.Path, bpm: float | None, minutes: float | None) -> None:
    """Writes a loop or a track as a 16-bit file, WAV or FLAC by its suffix.

    Another tempo is another playback speed, as on a turntable: the pitch changes too. A loop stays a loop.

    Args:
        sound: what to write.
        path: the path of the file.
        bpm: tempo; None for the model's own, without resampling.
        minutes: length of the track; None for the loop.
    """
    model = sound.model
    rate_hz = model.trained.config.audio.sample_rate_hz
    if minutes is None:
        loop = loop_of(sound)
        if bpm is not None:
            loop = np.asarray(spectral.resample_circular(loop.T, round(len(loop) * model.bpm / bpm))).T
            loop = loop / max(1.0, np.abs(loop).max())  # resampling can raise peaks
        audio_files.write(path, loop, rate_hz)
        return
    tempo = bpm or model.bpm or 0
    blocks = track_of(sound, max(1, round(minutes * tempo / 4)))
    if bpm is not None:
        stream = audio_files.Stream(rate_hz * bpm / model.bpm, model.trained.config.audio.channels, blocks)
        blocks = audio_files.resample_blocks(stream, rate_hz, stream.channels)
    audio_files.write_blocks(path, blocks, rate_hz)


def read_tempo(bpm: Any, model: PlayableModel) -> float | None:
    """Returns the tempo that a client asks for; None for the model's own.

    Raises:
        RequestError: out of range, or the model has no tempo.
    """
    if bpm is None:
        return None
    if model.bpm is None:
        raise RequestError(f"bpm: clips of {model.name} are not whole bars, so they have no tempo")
    return number("bpm", bpm, *(share * model.bpm for share in TEMPO_SHARES))


def _mixed(sound: Sound, latents_of) -> np.ndarray:
    start = latents_of(sound.start)
    if sound.end is None:
        return start
    share = np.float32(sound.share)
    return start * (1 - share) + latents_of(sound.end) * share


def _latent(model: PlayableModel, recipe: Recipe) -> np.ndarray:
    """Returns the first latent of the recipe's seed after its moves, `[Z]`."""
    drawn = generator.draw_latents(model.trained.gan, recipe.seed, [0], recipe.truncation, recipe.label)
    return _moved(model, drawn[0], recipe)


def _moved(model: PlayableModel, latents: np.ndarray, recipe: Recipe) -> np.ndarray:
    """Returns latents `[..., Z]` after the recipe's moves."""
    moves = np.zeros(len(model.directions), np.float32)
    moves[: len(recipe.moves)] = recipe.moves
    latents[..., : model.directions.shape[1]] += moves @ model.directions
    return latents
