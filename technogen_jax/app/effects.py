"""Directions of a model with a known effect on its sound, and words for their two ends.

The directions that change a model's output the most are combined, so that each combination changes one
feature of the sound as much as possible and is orthogonal to those before it. Loops are moved along
it, and it gets its words only if the feature then rises all the way, in most of the loops.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from technogen_jax.common import array_files
from technogen_jax.sampling import generator, latent_directions

PRETRAINED = pathlib.Path(__file__).parent.parent / "pretrained"
FEATURES = {  # of `measure`, in the order of the page: what less and more of it is called
    "kick_db": ("less kick", "more kick"),
    "bright_db": ("darker", "brighter"),
    "busy_db": ("sparser", "busier"),
    "width_db": ("narrower", "wider"),
    "noise_db": ("more tonal", "noisier"),
    "hats_db": ("fewer hats", "more hats"),
    "punch_db": ("softer kick", "punchier kick"),
}
UNNAMED = ("−", "+")  # the ends of a direction that no feature follows
_BASES = 12  # directions that are combined (chosen)
_STEPS = (-2.0, -1.0, 0.0, 1.0, 2.0)  # along a direction, as far as the page goes
_SEEDS = range(12)  # of the loops that are moved (chosen)
_LEAST_EFFECT = 0.5  # chosen: change from end to end, in standard deviations of the feature among loops
_LEAST_AGREEMENT = 0.75  # chosen: share of the loops that change in the right direction
_MOST_BACK = 0.1  # chosen: of the whole change, that a step may go back
_KICK_HZ, _TREBLE_HZ, _HATS_HZ = 120.0, 2000.0, 6000.0
_FRAMES = 64  # of a loop's envelope: 32nd notes of two bars
_FORMAT = 1


class Controls(NamedTuple):
    """The directions of a model: `[moves, D]`, and the words for their ends."""

    directions: np.ndarray
    effects: tuple[tuple[str, str], ...]


def find(trained: generator.Trained) -> Controls:
    """Returns the directions of a model and their effects, from a file if they have been measured before.

    They are measured once for each model, which takes about a minute on two CPU cores. The files are
    beside the model that comes with TechnoGen, and in the user's cache folder.
    """
    name = f"controls-{trained.weights[:16]}.npz"
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    own = pathlib.Path(cache) / "technogen" / name
    for path in (PRETRAINED / name, own):
        if (found := read(path)) is not None:
            return found
    controls = _measure_controls(trained)
    try:
        own.parent.mkdir(parents=True, exist_ok=True)
        write(own, controls)
    except OSError:
        pass  # measured again at the next start
    return controls


def write(path: pathlib.Path, controls: Controls) -> None:
    """Writes controls to a file."""
    words = np.array([list(ends) for ends in controls.effects])
    array_files.write(path, {"format": np.array(_FORMAT), "directions": controls.directions, "words": words})


def read(path: pathlib.Path) -> Controls | None:
    """Returns the controls of a file; None if there is no such file, or it cannot be used."""
    try:
        content = array_files.read(path)
        if int(content["format"]) != _FORMAT:
            return None
        words = tuple((str(less), str(more)) for less, more in content["words"])
        return Controls(np.float32(content["directions"]), words)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _measure_controls(trained: generator.Trained) -> Controls:
    bases = latent_directions.find(trained.gan, trained.params, _BASES)
    still = measure_moved(trained, bases[0], [0.0])[0]  # [seeds, features]
    spread = still.std(axis=0) + 1e-6
    ends = [measure_moved(trained, base, [_STEPS[0], _STEPS[-1]]) for base in bases]
    slopes = np.array([(high - low).mean(axis=0) for low, high in ends]) / spread  # [bases, features]
    found: list[np.ndarray] = []
    effects = []
    for feature, words in enumerate(FEATURES.values()):
        weights = slopes[:, feature].copy()
        for other in found:
            weights -= (weights @ other) * other
        if not (length := np.linalg.norm(weights)) > 1e-6:
            continue
        weights /= length
        moved = measure_moved(trained, np.float32(weights @ bases), _STEPS)[:, :, feature]
        if is_effect(moved / spread[feature]):
            found.append(weights)
            effects.append(words)
    if not found:
        return Controls(bases, (UNNAMED,) * len(bases))
    return Controls(np.float32(found @ bases), tuple(effects))


def measure_moved(trained: generator.Trained, direction: np.ndarray, steps: Sequence[float]) -> np.ndarray:
    """Returns `[steps, seeds, features]`: the features of some loops, moved by each step along a direction `[D]`."""
    latents = generator.draw_latents(trained.gan, 0, list(_SEEDS))
    measured = []
    for step in steps:
        rows = latents.copy()
        rows[:, : len(direction)] += np.float32(step) * direction
        loops = (generator.render_batches(trained.gan, trained.params, row[None], 1)[0] for row in rows)
        measured.append([list(measure(loop, trained.config.audio.sample_rate_hz).values()) for loop in loops])
    return np.array(measured)


def is_effect(moved: np.ndarray) -> bool:
    """Whether a feature rises along a direction: enough, all the way, and in most of the loops.

    Args:
        moved: `[steps, seeds]`, the feature in standard deviations among loops.
    """
    change = moved[-1] - moved[0]
    steps = np.diff(moved.mean(axis=1))
    enough = change.mean() >= _LEAST_EFFECT and steps.min() >= -_MOST_BACK * change.mean()
    return bool(enough and (change > 0).mean() >= _LEAST_AGREEMENT)


def measure(loop: np.ndarray, rate_hz: int) -> dict[str, float]:
    """Returns the features of a loop, float32 `[T, C]`, that `FEATURES` names.

    Levels are in dB relative to another band of the same loop, so that none depends on its loudness.
    """
    spectrum = np.fft.rfft(loop, axis=0)
    hz = np.fft.rfftfreq(len(loop), 1 / rate_hz)
    mono = spectrum.mean(axis=1)
    power = np.abs(mono) ** 2
    low, above = hz < _KICK_HZ, hz >= _KICK_HZ
    treble, hats = hz >= _TREBLE_HZ, hz >= _HATS_HZ

    def envelope(band: np.ndarray) -> np.ndarray:
        samples = np.fft.irfft(np.where(band, mono, 0), len(loop))
        whole = len(loop) // _FRAMES * _FRAMES
        return (samples[:whole].reshape(_FRAMES, -1) ** 2).mean(axis=1)

    kick, rest = envelope(low), envelope(above)
    noise = power[(hz >= 2 * _KICK_HZ) & (hz < _HATS_HZ)] + 1e-9
    side = 0.0
    if loop.shape[1] == 2:
        side = (np.abs(spectrum[:, 0] - spectrum[:, 1]) ** 2)[above].sum() / 4
    return {
        "kick_db": _db(power[low].sum(), power[above].sum()),
        "bright_db": _db(power[treble].sum(), power[above & ~treble].sum()),
        "busy_db": _db(rest.mean(), rest.max()),
        "width_db": _db(side, power[above].sum()),
        "noise_db": float(10 * np.mean(np.log10(noise))) - _db(noise.mean(), 1.0),
        "hats_db": _db(power[hats].sum(), power[above & ~hats].sum()),
        "punch_db": _db(kick.max(), kick.mean()),
    }


def _db(energy: float, reference: float) -> float:
    return 10 * float(np.log10((energy + 1e-9) / (reference + 1e-9)))
