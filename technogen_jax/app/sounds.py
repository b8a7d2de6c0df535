"""Requests for sounds: checks them and renders the sound. Independent of the page and the server.

A request is a set of flat, optional parameters, which are also the page's address:

    model        name of the model; without it the first one
    seed         0 to 4294967295; without it one is drawn
    label        a name, or weights: acid:0.7,industrial:0.3; without it the seed decides
    truncation   0.01 to 1, default 1: smaller is safer, nearer to a typical sound
    moves        numbers from -2 to 2: how far along each direction of the model
    to_seed, to_label, to_truncation, to_moves
                 the other end of a morph; what is not given is as at the start
    share        0 (start) to 1 (end): where the morph is; default 0.5
    bpm          tempo, 0.7 to 1.4 times the model's; without it the model's own

A client names a model by its name, never by a path; every number is checked against bounds.
"""

from __future__ import annotations

import hashlib
import math
import pathlib
import re
import secrets
import tempfile
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import scipy.signal

from technogen_jax.audio import audio_files
from technogen_jax.sampling import arrangement, generator

FARTHEST = 2.0  # largest move along a direction, in standard deviations of the latents
TEMPO_SHARES = (0.7, 1.4)  # range of tempos relative to the model's own: about half an octave each way
MINUTES = (0.1, 20.0)  # of a track
FORMATS = ("wav", "flac")
RECIPE_PARAMETERS = ("seed", "label", "truncation", "moves")
PARAMETERS = ("model", *RECIPE_PARAMETERS, *(f"to_{name}" for name in RECIPE_PARAMETERS), "share", "bpm")
_SEEDS = 2**32
_NEW_SEEDS = 2**16  # short enough to remember (chosen)
_NUMBER_LETTERS = 40


class RequestError(ValueError):
    """A request that cannot be fulfilled; the message is one line for the client."""


class PlayableModel(NamedTuple):
    """A trained generator with what the page needs to play it.

    Attributes:
        name: name that clients use.
        trained: the generator.
        directions: `[moves, D]`, from `latent_directions.find`; `[0, D]` before they are known.
        effects: for each direction what its two ends do to the sound, as ("darker", "brighter").
        bpm: tempo of its clips; None if they are not whole bars.
    """

    name: str
    trained: generator.Trained
    directions: np.ndarray
    effects: tuple[tuple[str, str], ...]
    bpm: float | None


class Recipe(NamedTuple):
    """The parameters of a loop.

    Attributes:
        seed: of the latents; the loop is clip 0 of that seed.
        label: weight of each class; None: drawn from the seed.
        truncation: factor on the Gaussian latents, 0.01 to 1.
        moves: displacement along each latent direction.
    """

    seed: int
    label: dict[str, float] | None = None
    truncation: float = 1.0
    moves: tuple[float, ...] = ()


class Sound(NamedTuple):
    """A loop, or an interpolation between two.

    Attributes:
        model: the model.
        start: recipe of the first loop.
        end: recipe of the second loop; None for `start` alone.
        share: 0 for `start`, 1 for `end`.
        bpm: tempo; None for the model's own.
    """

    model: PlayableModel
    start: Recipe
    end: Recipe | None = None
    share: float = 0.0
    bpm: float | None = None


def without_directions(name: str, trained: generator.Trained) -> PlayableModel:
    """Returns a model that can be played, but not yet moved along its directions."""
    return PlayableModel(name, trained, np.zeros((0, 0), np.float32), (), generator.tempo_bpm(trained))


def read_sound(asked: Mapping[str, str], models: Mapping[str, PlayableModel]) -> Sound:
    """Returns the sound that the parameters of a request describe, see the module.

    Raises:
        RequestError: an invalid request; names the parameter, what was expected and what came.
    """
    for name in asked:
        if name not in PARAMETERS:
            raise RequestError(f"{_shown(name)}: no such parameter; expected some of {', '.join(PARAMETERS)}")
    name = asked.get("model", next(iter(models), ""))
    if name not in models:
        raise RequestError(f"model: expected one of {', '.join(models) or 'none yet'}, got {_shown(name)}")
    model = models[name]
    start = _read_recipe(asked, "", model, Recipe(secrets.randbelow(_NEW_SEEDS)))
    end, share = None, 0.0
    if any(f"to_{name}" in asked for name in RECIPE_PARAMETERS):
        end = _read_recipe(asked, "to_", model, start)
        share = read_number("share", asked.get("share", "0.5"), 0, 1)
    elif "share" in asked:
        raise RequestError("share: expected the other end of a morph, as to_seed")
    return Sound(model, start, end, share, _read_tempo(asked.get("bpm"), model))


def _read_recipe(asked: Mapping[str, str], prefix: str, model: PlayableModel, default: Recipe) -> Recipe:
    given = {name: asked[prefix + name] for name in RECIPE_PARAMETERS if prefix + name in asked}
    values = default._asdict()
    if "seed" in given:
        seed = given["seed"]
        if not re.fullmatch("[0-9]{1,10}", seed) or int(seed) >= _SEEDS:
            raise RequestError(f"{prefix}seed: expected a whole number from 0 to {_SEEDS - 1}, got {_shown(seed)}")
        values["seed"] = int(seed)
    if "label" in given:
        values["label"] = _read_label(f"{prefix}label", given["label"], model)
    if "truncation" in given:
        values["truncation"] = read_number(f"{prefix}truncation", given["truncation"], 0.01, 1)
    if "moves" in given:
        moves = given["moves"].split(",") if given["moves"] else []
        if len(moves) > len(model.directions):
            raise RequestError(
                f"{prefix}moves: expected at most {len(model.directions)} numbers, got {len(moves)}"
                + ("" if len(model.directions) else "; the directions of this model are not known yet")
            )
        values["moves"] = tuple(read_number(f"{prefix}moves", move, -FARTHEST, FARTHEST) for move in moves)
    return Recipe(**values)


def _read_label(name: str, text: str, model: PlayableModel) -> dict[str, float] | None:
    """Returns weights of labels, in which `,` `:` and `%` are written as in addresses; None for ""."""
    classes = model.trained.gan.classes
    if not text:
        return None
    if text in classes:
        return {text: 1.0}
    label = {}
    for part in text.split(",")[: len(classes) + 1]:
        found, colon, weight = part.rpartition(":")
        found = urllib.parse.unquote(found if colon else part)
        if found not in classes:
            raise RequestError(f"{name}: expected some of {', '.join(classes) or 'no label'}, got {_shown(found)}")
        label[found] = read_number(f"{name} {found}"[:60], weight, 0, 1) if colon else 1.0
    if not any(label.values()):
        raise RequestError(f"{name}: expected a weight above 0, got {_shown(text)}")
    return label


def read_number(name: str, text: str, least: float, most: float) -> float:
    """Returns the number that a text is.

    Raises:
        RequestError: no number, or not in [least, most].
    """
    try:
        value = float(text) if len(text) <= _NUMBER_LETTERS else math.nan
    except ValueError:
        value = math.nan
    if not least <= value <= most:  # also refuses NaN
        raise RequestError(f"{name}: expected a number from {least:g} to {most:.10g}, got {_shown(text)}")
    return value


def _read_tempo(bpm: str | None, model: PlayableModel) -> float | None:
    if bpm is None:
        return None
    if model.bpm is None:
        raise RequestError(f"bpm: clips of {model.name} are not whole bars, so they have no tempo")
    return read_number("bpm", bpm, *(share * model.bpm for share in TEMPO_SHARES))


def _shown(value: str) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def parameters_of(sound: Sound) -> dict[str, str]:
    """Returns the parameters that ask for a sound; `read_sound` of them returns it."""
    asked = {"model": sound.model.name} | _recipe_parameters(sound.start, "", Recipe(-1))
    if sound.end:
        asked |= _recipe_parameters(sound.end, "to_", sound.start) or {"to_seed": str(sound.end.seed)}
        asked["share"] = f"{sound.share:.10g}"
    return asked if sound.bpm is None else asked | {"bpm": f"{sound.bpm:.10g}"}


def _recipe_parameters(recipe: Recipe, prefix: str, default: Recipe) -> dict[str, str]:
    written = {
        "seed": str(recipe.seed),
        "label": ",".join(
            f"{urllib.parse.quote(name, safe='')}:{weight:.10g}" for name, weight in (recipe.label or {}).items()
        ),
        "truncation": f"{recipe.truncation:.10g}",
        "moves": ",".join(f"{move:.10g}" for move in recipe.moves),
    }
    return {prefix + name: text for name, text in written.items() if getattr(recipe, name) != getattr(default, name)}


def file_name(sound: Sound, minutes: float | None, extension: str) -> str:
    """Returns a name for a file of a sound; different sounds have different names."""
    start, end = sound.start, sound.end
    label = sorted(start.label or {}, key=(start.label or {}).get)[-1:]
    tempo = sound.bpm or sound.model.bpm
    parts = [sound.model.name, *label, *([f"{tempo:.0f}bpm"] if tempo else []), str(start.seed)]
    parts += [f"to-{end.seed}"] if end else []
    parts += [f"{minutes:g}min"] if minutes else []
    plain = sound._replace(start=Recipe(start.seed, dict.fromkeys(label, 1.0) or None), end=None, share=0.0, bpm=None)
    if sound != plain:
        parts.append(hashlib.sha256(urllib.parse.urlencode(parameters_of(sound)).encode()).hexdigest()[:6])
    return "-".join(re.sub(r"[^\w.]+", "_", part).strip("_") for part in parts) + f".{extension}"


def loop_of(sound: Sound) -> np.ndarray:
    """Returns the clip of a sound at the model's tempo, float32 `[T, C]`."""
    trained = sound.model.trained
    latents = _mixed(sound, lambda recipe: _latent(sound.model, recipe))
    # In this thread: a pool of threads for each loop would give memory to more and more threads.
    return generator.render_batches(trained.gan, trained.params, latents[None], 1)[0]


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


def write(
    sound: Sound, path: pathlib.Path, minutes: float | None, report: Callable[[float], None] = lambda share: None
) -> None:
    """Writes a loop or a track as a 16-bit file, WAV or FLAC by its suffix.

    Another tempo is another playback speed, as on a turntable: the pitch changes too. A loop stays a loop.

    Args:
        sound: what to write.
        path: of the file.
        minutes: length of the track; None for the loop.
        report: called with the share of the track that is done, before each block; what it raises ends the work.
    """
    model, audio = sound.model, sound.model.trained.config.audio
    if minutes is None:
        audio_files.write(path, _loop_at_tempo(sound), audio.sample_rate_hz, sound.bpm or model.bpm)
        return
    bars = max(1, round(minutes * (sound.bpm or model.bpm or 0) / 4))
    blocks = _reporting(track_of(sound, bars), bars * audio.sample_rate_hz * 240 / (model.bpm or 240), report)
    if sound.bpm is not None:
        stream = audio_files.Stream(audio.sample_rate_hz * sound.bpm / model.bpm, audio.channels, blocks)
        blocks = audio_files.resample_blocks(stream, audio.sample_rate_hz, stream.channels)
    audio_files.write_blocks(path, blocks, audio.sample_rate_hz, sound.bpm or model.bpm)


def encode(sound: Sound, extension: str) -> bytes:
    """Returns the bytes of the file that `write` writes of a loop; `extension` is one of `FORMATS`."""
    with tempfile.TemporaryDirectory(prefix="technogen-loop-") as folder:
        path = pathlib.Path(folder) / f"loop.{extension}"
        write(sound, path, None)
        return path.read_bytes()


def _loop_at_tempo(sound: Sound) -> np.ndarray:
    loop = loop_of(sound)
    if sound.bpm is None:
        return loop
    loop = scipy.signal.resample(loop, round(len(loop) * sound.model.bpm / sound.bpm))  # of a periodic signal
    return loop / max(1.0, np.abs(loop).max())  # resampling can raise peaks


def most_bytes(sound: Sound, minutes: float | None) -> int:
    """Returns an upper bound for the size of a file that `write` writes."""
    audio = sound.model.trained.config.audio
    seconds = minutes * 60 + 10 if minutes else 2 * audio.clip_samples / audio.sample_rate_hz
    return round(seconds * audio.sample_rate_hz) * audio.channels * 2 + 4096


def _reporting(blocks: Iterator[np.ndarray], samples: float, report: Callable[[float], None]) -> Iterator[np.ndarray]:
    done = 0
    for block in blocks:
        report(min(done / samples, 1.0))
        yield block
        done += len(block)


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
    if recipe.moves:
        moves = np.zeros(len(model.directions), np.float32)
        moves[: len(recipe.moves)] = recipe.moves
        latents[..., : model.directions.shape[1]] += moves @ model.directions
    return latents
