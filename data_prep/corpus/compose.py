"""Draws the tempo, form, layers, patterns and sounds of a track from a seed; `render` plays it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

GENRES = ("acid", "industrial")
STEPS = 16  # in a bar
SHORTEST_MINUTES = 0.2  # one bar of each part at the slowest tempo


class Part(NamedTuple):
    """A part of the arrangement, such as the intro or a drop."""

    name: str
    start_bar: int
    bars: int


class Track(NamedTuple):
    """A composed track, before it is rendered."""

    genre: str
    seed: int
    index: int
    bpm: float
    swing: float  # share of an eighth note that its first sixteenth takes; 0.5 is straight
    first_downbeat_s: float
    seconds: float
    parts: list[Part]
    levels: dict[str, np.ndarray]  # of each layer in each bar, 0 where it is silent
    parameters: dict[str, Any]

    @property
    def bars(self) -> int:
        """The length of the arrangement in bars."""
        return self.parts[-1].start_bar + self.parts[-1].bars

    def time_s(self, bar: float | np.ndarray) -> float | np.ndarray:
        """Returns the time of a bar, or of a position within one."""
        return self.first_downbeat_s + bar * 240 / self.bpm


_FORMS = (
    ("intro", "build", "drop", "break", "build", "drop", "outro"),
    ("intro", "build", "drop", "break", "drop", "outro"),
    ("intro", "drop", "break", "build", "drop", "outro"),
    ("intro", "build", "drop", "break", "drop"),
)
_SHARES = {"intro": 2.0, "build": 1.5, "drop": 4.0, "break": 2.0, "outro": 1.5}  # of the bars

# For each layer: the probability that a track of each genre has it. Then, for each kind of part,
# the probability that the layer plays and the share of the part after which it starts (outro: stops).
_LAYERS = {  # acid, industrial, intro, build, drop, break, outro
    "kick": (1.0, 1.0, (1.0, 0.0), (1.0, 0.0), (1.0, 0.0), (0.12, 0.5), (1.0, 1.0)),
    "rumble": (0.25, 0.9, (0.8, 0.5), (1.0, 0.0), (1.0, 0.0), (0.0, 0.0), (0.9, 0.75)),
    "bass": (0.45, 0.2, (0.4, 0.5), (0.8, 0.0), (1.0, 0.0), (0.0, 0.0), (0.4, 0.5)),
    "closed_hat": (1.0, 0.92, (0.9, 0.25), (1.0, 0.0), (1.0, 0.0), (0.5, 0.5), (1.0, 0.75)),
    "open_hat": (0.92, 0.75, (0.5, 0.5), (0.7, 0.25), (0.95, 0.0), (0.0, 0.0), (0.5, 0.5)),
    "clap": (0.85, 0.5, (0.35, 0.75), (0.8, 0.25), (0.95, 0.0), (0.25, 0.5), (0.5, 0.5)),
    "ride": (0.5, 0.5, (0.0, 0.0), (0.3, 0.5), (0.9, 0.5), (0.15, 0.5), (0.0, 0.0)),
    "perc": (0.7, 0.7, (0.7, 0.25), (0.9, 0.0), (0.9, 0.0), (0.5, 0.25), (0.7, 0.75)),
    "metal": (0.1, 1.0, (0.7, 0.5), (0.8, 0.0), (1.0, 0.0), (0.7, 0.0), (0.6, 0.5)),
    "acid": (1.0, 0.12, (0.55, 0.5), (1.0, 0.0), (1.0, 0.0), (0.75, 0.0), (0.6, 0.5)),
    "second_acid": (0.4, 0.0, (0.0, 0.0), (0.3, 0.5), (0.9, 0.5), (0.4, 0.0), (0.0, 0.0)),
    "stab": (0.35, 0.4, (0.0, 0.0), (0.5, 0.5), (0.8, 0.25), (0.6, 0.0), (0.0, 0.0)),
    "drone": (0.55, 0.8, (0.6, 0.0), (0.4, 0.0), (0.3, 0.5), (1.0, 0.0), (0.4, 1.0)),
    "texture": (0.5, 0.9, (1.0, 0.0), (1.0, 0.0), (1.0, 0.0), (1.0, 0.0), (1.0, 1.0)),
}
_PARTS = tuple(_SHARES)
# Level of each layer in dB relative to the peak of the bass drum; chosen by the balance of the
# spectrum over octaves, not by listening. The position of a layer in this list seeds its random
# generator in `render`, so new layers go to the end.
LEVELS_DB = {
    "kick": 0.0,
    "rumble": -11.5,
    "bass": -7.5,
    "closed_hat": -10.0,
    "open_hat": -10.0,
    "clap": -7.5,
    "snare": -9.0,
    "tom": -9.0,
    "ride": -14.0,
    "crash": -9.0,
    "perc": -12.5,
    "metal": -9.5,
    "acid": -6.0,
    "second_acid": -9.5,
    "stab": -10.0,
    "drone": -18.0,
    "texture": -31.0,
    "riser": -18.0,
}
_SCALES = {
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "phrygian": (0, 1, 3, 5, 7, 8, 10),
    "blues": (0, 3, 5, 6, 7, 10),
    "harmonic minor": (0, 2, 3, 5, 7, 8, 11),
    "chromatic": (0, 1, 3, 6, 7, 11),
}
_METAL = ("fm", "ring", "comb")  # keys of `drums.METAL`
_FILLS = ("kick out", "snare roll", "toms", "kick roll", "hats out", "none")


def compose(seed: int, index: int, minutes: Sequence[float] = (1.0, 3.0), genres: Sequence[str] = GENRES) -> Track:
    """Returns track number `index` of a corpus.

    Args:
        seed: seed of the corpus.
        index: number of the track; genres alternate with it.
        minutes: shortest and longest length of a track.
        genres: some of `GENRES`.
    """
    draw = np.random.default_rng([seed, index])
    genre = genres[index % len(genres)]
    low, high, usual = (124.5, 142.5, 133) if genre == "acid" else (129.5, 150.5, 140)
    bpm = float(np.clip(round(draw.triangular(low, usual, high)), 125, 150))
    if draw.random() < 0.2:  # as from a turntable whose speed is not exactly zero percent
        bpm = float(np.clip(round(bpm + draw.uniform(-0.5, 0.5), 2), 125, 150))
    first_downbeat_s = round(float(draw.uniform(0, 0.5)), 3)
    bars, seconds = _draw_length(draw, bpm, first_downbeat_s, minutes)
    parts = _divide_into_parts(draw, bars)
    layers = [layer for layer, row in _LAYERS.items() if draw.random() < row[GENRES.index(genre)]]
    levels = _arrange(draw, parts, layers)
    return Track(
        genre=genre,
        seed=seed,
        index=index,
        bpm=bpm,
        swing=0.5 if draw.random() < 0.4 else _draw_uniform(draw, 0.51, 0.6 if genre == "acid" else 0.55),
        first_downbeat_s=first_downbeat_s,
        seconds=seconds,
        parts=parts,
        levels=levels,
        parameters=_parameters(draw, genre, parts, layers),
    )


def _draw_length(
    draw: np.random.Generator, bpm: float, first_downbeat_s: float, minutes: Sequence[float]
) -> tuple[int, float]:
    """Returns the length of a track in bars and in seconds.

    The number of bars is a multiple of eight if one fits into the range, else of four, two or one.
    """
    bar_s = 240 / bpm
    tail_s = float(draw.uniform(0.5, 3.0))
    shortest, longest = 60 * minutes[0], 60 * minutes[1]
    most = math.floor((longest - first_downbeat_s) / bar_s)
    choice = draw.random()
    for unit in (8, 4, 2, 1):
        fitting = [
            bars
            for bars in range(unit, most + 1, unit)
            if shortest <= first_downbeat_s + bars * bar_s + tail_s <= longest
        ]
        if fitting:
            bars = fitting[int(choice * len(fitting))]
            return bars, first_downbeat_s + bars * bar_s + tail_s
    return most, longest


def _divide_into_parts(draw: np.random.Generator, bars: int) -> list[Part]:
    """Returns the parts of a random form; their lengths are multiples of 8, 4, 2 or 1 bars."""
    forms = [form for form in _FORMS if len(form) <= bars]
    form = forms[draw.integers(len(forms))]
    unit = next(unit for unit in (8, 4, 2, 1) if unit == 1 or (bars % unit == 0 and bars // unit >= len(form) + 1))
    shares = np.array([_SHARES[name] for name in form]) * np.exp(draw.normal(0, 0.25, len(form)))
    units = np.ones(len(form), int)
    for _ in range(bars // unit - len(form)):
        units[np.argmax(shares / (units + 0.5))] += 1
    starts = np.concatenate([[0], np.cumsum(units)]) * unit
    return [Part(name, int(start), int(count * unit)) for name, start, count in zip(form, starts, units, strict=False)]


def _arrange(draw: np.random.Generator, parts: list[Part], layers: list[str]) -> dict[str, np.ndarray]:
    """Returns the level of each layer in each bar."""
    bars = parts[-1].start_bar + parts[-1].bars
    levels = {layer: np.zeros(bars, np.float32) for layer in layers}
    for part in parts:
        phrase = 4 if part.bars >= 8 else 2 if part.bars >= 4 else 1
        for layer in layers:
            chance, share = _LAYERS[layer][len(GENRES) + _PARTS.index(part.name)]
            if draw.random() >= chance:
                continue
            early_or_late = draw.choice([-0.25, 0, 0, 0.25]) if 0 < share < 1 else 0
            bar = part.start_bar + round((share + early_or_late) * part.bars / phrase) * phrase
            playing = slice(part.start_bar, bar) if part.name == "outro" else slice(bar, part.start_bar + part.bars)
            levels[layer][playing] = draw.uniform(0.8, 1.1)
        if part.name == "drop":  # sometimes a layer is silent for two or four bars
            others = [layer for layer in layers if layer not in ("kick", "rumble")]
            for bar in range(part.start_bar + 4, part.start_bar + part.bars, 4):
                if draw.random() < 0.5:
                    levels[str(draw.choice(others))][bar : bar + int(draw.choice([2, 4]))] = 0
    levels["kick"][levels["kick"] > 0] = 1.0
    return levels


def _parameters(draw: np.random.Generator, genre: str, parts: list[Part], layers: list[str]) -> dict[str, Any]:
    """Returns the sounds and patterns of each layer, as numbers, strings and lists.

    The order of the draws must not change: another order gives other tracks for the same seed.
    """
    hard = genre == "industrial"
    root = int(draw.integers(28, 40))  # MIDI: E1 to D#2
    scale = str(draw.choice(list(_SCALES)))
    closed, opened = _hat_patterns(draw)
    kick_pattern = _kick_pattern(draw, hard)
    parameters = {
        "root": root,
        "scale": scale,
        "loudness_db": _draw_uniform(draw, -13.0, -7.5) if hard else _draw_uniform(draw, -14.0, -8.5),
        "ceiling_db": _draw_uniform(draw, -1.0, -0.3),
        "duck": {"depth": _draw_uniform(draw, 0.35, 0.9), "release_s": _draw_uniform(draw, 0.09, 0.24)},
        "reverb": {
            "size_s": _draw_uniform(draw, 0.03, 0.11),
            "decay_s": _draw_log_uniform(draw, 0.6, 4.0),
            "damping_hz": _draw_log_uniform(draw, 2500, 9000),
        },
        "echo": {"steps": int(draw.choice([2, 3, 3, 3, 4, 5, 6])), "feedback": _draw_uniform(draw, 0.2, 0.65)},
        **_drum_parameters(draw, hard, kick_pattern, closed, opened),
        **_chord_parameters(draw, hard, root),
        "bass": _bass_line(draw, parts, root, _SCALES[scale], calm=True, hard=hard),
        "acid": _bass_line(draw, parts, root + 12, _SCALES[scale], calm=False, hard=hard),
        "second_acid": _bass_line(draw, parts, root + 24, _SCALES[scale], calm=False, hard=hard),
        "riser": {
            "low_hz": _draw_log_uniform(draw, 200, 600),
            "high_hz": _draw_log_uniform(draw, 5000, 12000),
            "q": _draw_uniform(draw, 1, 5),
        },
        "filter_intro": bool(draw.random() < 0.35),
        "filter_build": bool(draw.random() < 0.5),
        "fills": [str(draw.choice(_FILLS)) for _ in range(4)],
        "levels_db": {layer: round(level + float(draw.normal(0, 1.5)), 2) for layer, level in LEVELS_DB.items()},
    }
    return {name: value for name, value in parameters.items() if name in layers or name not in _LAYERS}


def _drum_parameters(
    draw: np.random.Generator,
    hard: bool,
    kick_pattern: list[list[float]],
    closed: list[list[float]],
    opened: list[list[float]],
) -> dict[str, Any]:
    """Returns the sounds and patterns of drums, metal and noise."""
    return {
        "kick": {
            "pattern": kick_pattern,
            "tune_hz": _draw_uniform(draw, 42, 58),
            "sweep_hz": _draw_log_uniform(draw, 90, 300),
            "sweep_s": _draw_log_uniform(draw, 0.014, 0.045),
            "zap_hz": _draw_log_uniform(draw, 300, 3000),
            "hold_s": _draw_uniform(draw, 0.02, 0.09),
            "decay_s": _draw_log_uniform(draw, 0.07, 0.2),
            "click": _draw_uniform(draw, 0.1, 0.8),
            "drive": _draw_log_uniform(draw, 4.0, 25.0) if hard else _draw_log_uniform(draw, 1.0, 4.0),
            "bias": _draw_uniform(draw, 0.0, 0.4) if hard else _draw_uniform(draw, 0.0, 0.1),
            "tone_hz": _draw_log_uniform(draw, 1500, 9000) if hard else _draw_log_uniform(draw, 3000, 12000),
        },
        "closed_hat": {"pattern": closed, "pan": _draw_uniform(draw, -0.25, 0.25)} | _hat_sound(draw, 0.012, 0.045),
        "open_hat": {"pattern": opened, "pan": _draw_uniform(draw, -0.2, 0.2)} | _hat_sound(draw, 0.07, 0.22),
        "clap": {
            "pattern": _clap_pattern(draw),
            "send": _draw_log_uniform(draw, 0.08, 0.5),
            "centre_hz": _draw_log_uniform(draw, 900, 2200),
            "bandwidth": _draw_uniform(draw, 1.2, 3.0),
            "bursts": int(draw.integers(2, 5)),
            "spacing_s": _draw_uniform(draw, 0.008, 0.014),
            "decay_s": _draw_log_uniform(draw, 0.05, 0.18),
            "drive": _draw_log_uniform(draw, 0.7, 5.0 if hard else 2.0),
        },
        "ride": {
            "pattern": [_pattern_levels(draw.choice(["x...", "..x.", "x.x.", "x.xx", "xxxx"]) * 4, draw)],
            "base_hz": _draw_log_uniform(draw, 350, 800),
            "spread": _draw_uniform(draw, 6, 14),
            "metal": _draw_uniform(draw, 0.4, 0.9),
            "cut_hz": _draw_log_uniform(draw, 2500, 6000),
            "decay_s": _draw_log_uniform(draw, 0.15, 0.5),
            "ping": _draw_uniform(draw, 0.2, 1.2),
        },
        "crash": {
            "base_hz": _draw_log_uniform(draw, 250, 600),
            "spread": _draw_uniform(draw, 8, 16),
            "metal": _draw_uniform(draw, 0.2, 0.6),
            "cut_hz": _draw_log_uniform(draw, 1500, 4000),
            "decay_s": _draw_log_uniform(draw, 0.5, 1.2),
            "ping": _draw_uniform(draw, 0.1, 0.5),
        },
        "snare": {
            "tune_hz": _draw_log_uniform(draw, 150, 260),
            "snap": _draw_uniform(draw, 0.4, 0.85),
            "cut_hz": _draw_log_uniform(draw, 1000, 4000),
            "decay_s": _draw_log_uniform(draw, 0.05, 0.14),
        },
        "tom": {"tune_hz": _draw_log_uniform(draw, 70, 130), "decay_s": _draw_log_uniform(draw, 0.08, 0.22)},
        "perc": [_metal(draw, 0.02, 0.1, 400, 2500, euclid=True) for _ in range(draw.integers(1, 4))],
        "metal": [_metal(draw, 0.06, 0.5, 120, 1500, euclid=False) for _ in range(draw.integers(2, 5))],
        "rumble": {
            "decay_s": _draw_log_uniform(draw, 0.12, 0.6),
            "cut_hz": _draw_log_uniform(draw, 70, 160),
            "drive": _draw_log_uniform(draw, 0.7, 4.0),
        },
        "texture": {"centre_hz": _draw_log_uniform(draw, 500, 8000), "tilt": _draw_uniform(draw, 0.5, 2.0)},
    }


def _chord_parameters(draw: np.random.Generator, hard: bool, root: int) -> dict[str, Any]:
    """Returns the notes and sounds of the drone and the stab."""
    return {
        "drone": {
            "notes": [root + 12 + step for step in ((0, 7, 12), (0, 1, 7), (0, 3, 7), (0, 6, 12))[draw.integers(4)]],
            "detune": _draw_log_uniform(draw, 0.002, 0.012),
            "cutoff_hz": _draw_log_uniform(draw, 250, 1500),
            "q": _draw_log_uniform(draw, 0.7, 5.0),
            "rise_octaves": _draw_uniform(draw, 0.5, 3.0),
            "wobble_bars": int(draw.choice([1, 2, 4, 8])),
            "drive": _draw_log_uniform(draw, 0.8, 4.0 if hard else 1.5),
        },
        "stab": {
            "notes": [root + 24 + step for step in ((0, 3, 7), (0, 3, 10), (0, 7, 12), (0, 5, 10))[draw.integers(4)]],
            "pattern": _sparse_pattern(draw, 2, 2, 5),
            "detune": _draw_log_uniform(draw, 0.003, 0.012),
            "cutoff_hz": _draw_log_uniform(draw, 400, 1500),
            "sweep_octaves": _draw_uniform(draw, 1.0, 3.0),
            "decay_s": _draw_log_uniform(draw, 0.06, 0.3),
            "drive": _draw_log_uniform(draw, 0.8, 3.0),
            "send": _draw_uniform(draw, 0.2, 0.6),
            "echo": _draw_uniform(draw, 0.2, 0.7),
        },
    }


def _hat_sound(draw: np.random.Generator, shortest_s: float, longest_s: float) -> dict[str, float]:
    """Returns the sound of a hi-hat with a decay time in a range."""
    return {
        "base_hz": _draw_log_uniform(draw, 300, 900),
        "spread": _draw_uniform(draw, 3, 10),
        "metal": _draw_uniform(draw, 0.1, 0.85),
        "cut_hz": _draw_log_uniform(draw, 5000, 9000),
        "decay_s": _draw_log_uniform(draw, shortest_s, longest_s),
        "drive": _draw_log_uniform(draw, 0.3, 2.5),
    }


def _metal(
    draw: np.random.Generator, shortest_s: float, longest_s: float, low_hz: float, high_hz: float, euclid: bool
) -> dict[str, Any]:
    """Returns the pattern and sound of a metallic instrument; decay and pitch are in ranges."""
    return {
        "kind": str(draw.choice(_METAL)),
        "pattern": _euclidean_pattern(draw) if euclid else _sparse_pattern(draw, int(draw.choice([1, 2, 4])), 1, 6),
        "pan": _draw_uniform(draw, -0.8, 0.8),
        "send": _draw_log_uniform(draw, 0.05, 0.7),
        "echo": _draw_uniform(draw, 0.1, 0.6) if draw.random() < 0.4 else 0.0,
        "tune_hz": _draw_log_uniform(draw, low_hz, high_hz),
        "ratio": _draw_uniform(draw, 1.2, 3.7),
        "index": _draw_log_uniform(draw, 0.7, 6.0),
        "decay_s": _draw_log_uniform(draw, shortest_s, longest_s),
        "drive": _draw_log_uniform(draw, 0.7, 8.0),
    }


def _bass_line(
    draw: np.random.Generator, parts: list[Part], root: int, scale: Sequence[int], calm: bool, hard: bool
) -> dict[str, Any]:
    """Returns a bass line: two patterns of sixteen steps, the sound, and its cutoff in each part.

    Args:
        draw: random generator.
        parts: the parts of the arrangement.
        root: MIDI note.
        scale: semitones above the root.
        calm: a plain bass; else an acid line with accents and slides.
        hard: the genre is industrial.
    """
    pattern = _draw_notes(draw, scale, calm)
    other = [
        note if draw.random() < 0.7 else new for note, new in zip(pattern, _draw_notes(draw, scale, calm), strict=True)
    ]
    opening = []
    for part in parts:
        low, high = {"intro": (-1.6, -0.6), "build": (-0.8, 0.6), "drop": (0.0, 1.0), "break": (-1.0, 0.8)}.get(
            part.name, (-1.5, 0.2)
        )
        ends = sorted(_draw_uniform(draw, low, high) for _ in range(2))
        falls = part.name in ("break", "outro") and draw.random() < 0.6
        opening.append(ends[::-1] if falls else ends)
    return {
        "root": root,
        "patterns": [pattern, other],  # [step][semitones above root or None, accent, slide to the next note]
        "shape": 0.0 if draw.random() < 0.6 else 1.0,
        "cutoff_hz": _draw_log_uniform(draw, 120, 260) if calm else _draw_log_uniform(draw, 280, 700),
        "resonance": _draw_uniform(draw, 0.3, 1.5) if calm else _draw_uniform(draw, 2.6, 3.8),
        "envelope_octaves": _draw_uniform(draw, 0.5, 1.5) if calm else _draw_uniform(draw, 1.0, 3.2),
        "accent_octaves": 0.3 if calm else _draw_uniform(draw, 0.5, 1.8),
        "decay_s": _draw_log_uniform(draw, 0.06, 0.5),
        "glide_s": _draw_uniform(draw, 0.015, 0.04),
        "gate": _draw_uniform(draw, 0.45, 0.9),
        "drive": _draw_log_uniform(draw, 0.8, 2.0) if calm else _draw_log_uniform(draw, 1.0, 14.0 if hard else 8.0),
        "opening_octaves": opening,
        "wobble_octaves": 0.0 if calm else _draw_uniform(draw, 0.0, 0.7),
        "wobble_bars": int(draw.choice([2, 4, 8])),
        "send": 0.0 if calm else _draw_log_uniform(draw, 0.03, 0.25),
        "echo": 0.0 if calm or draw.random() < 0.3 else _draw_uniform(draw, 0.08, 0.4),
    }


def _draw_notes(draw: np.random.Generator, scale: Sequence[int], calm: bool) -> list[tuple[int | None, bool, bool]]:
    """Returns sixteen steps of (semitones or None for a rest, accent, slide)."""
    if calm:  # off the beat, or on several steps between the bass drums
        places = ((2,), (2,), (2,), (1, 2, 3), (2, 3), (1, 3))[draw.integers(6)]
        playing = [step % 4 in places for step in range(STEPS)]
        return [
            (0 if draw.random() < 0.9 else 12, False, False) if plays else (None, False, False) for plays in playing
        ]
    rests, roots = draw.uniform(0.08, 0.35), draw.uniform(0.35, 0.65)
    favourites = draw.choice(scale, size=3)
    accents, slides = draw.uniform(0.15, 0.4), draw.uniform(0.1, 0.4)
    notes = []
    for _ in range(STEPS):
        semitones = 0 if draw.random() < roots else int(draw.choice(favourites))
        semitones += int(draw.choice([0, 0, 0, 0, 12, 12, -12]))
        rest, accent, slide = draw.random() < rests, draw.random() < accents, draw.random() < slides
        notes.append((None, False, False) if rest else (semitones, bool(accent), bool(slide)))
    return notes


def _kick_pattern(draw: np.random.Generator, hard: bool) -> list[list[float]]:
    """Returns two bars of levels; the first step always plays."""
    bars = [[1.0 if step % 4 == 0 else 0.0 for step in range(STEPS)] for _ in range(2)]
    choice = draw.random()
    if hard and choice < 0.2:  # not on all four beats
        hits = draw.choice(["x..x..x.x..x..x.", "x.....x.x.x...x.", "x...x..x..x.x...", "x..x..x...x.x..."])
        bars = [[float(letter == "x") for letter in hits]] * 2
    elif choice < (0.65 if hard else 0.25):
        for step in draw.choice([3, 6, 7, 10, 11, 14, 15], size=draw.integers(1, 4)):
            bars[1 if draw.random() < 0.6 else 0][step] = round(float(draw.uniform(0.4, 0.8)), 2)
    return bars


def _hat_patterns(draw: np.random.Generator) -> tuple[list[list[float]], list[list[float]]]:
    """Returns the patterns of the closed and the open hi-hat, which seldom play together."""
    opened = draw.choice(["..x.", "..x.", "..x.", "...x", "..x...x...x...xx", "..x.....", "..xx"])
    closed = draw.choice(["xxxx", "xxxx", "x.xx", "x.x.", "xx.x", ".xxx", "x..xx.x.", "xx.xxx.x"])
    opened, closed = opened * (STEPS // len(opened)), closed * (STEPS // len(closed))
    choked = "".join("." if o == "x" and draw.random() < 0.8 else c for o, c in zip(opened, closed, strict=True))
    return [_pattern_levels(choked, draw)], [_pattern_levels(opened, draw)]


def _clap_pattern(draw: np.random.Generator) -> list[list[float]]:
    """Returns two bars of claps, on the second and fourth beat with a few changes."""
    bars = [[float(step in (4, 12)) for step in range(STEPS)] for _ in range(2)]
    choice = draw.random()
    if choice < 0.2:
        bars[0][4] = bars[1][4] = 0.0
    if choice > 0.5:
        bars[1][int(draw.choice([7, 9, 10, 14, 15]))] = round(float(draw.uniform(0.3, 0.8)), 2)
    return bars


def _euclidean_pattern(draw: np.random.Generator) -> list[list[float]]:
    """Returns a Euclidean rhythm: hits spread evenly over sixteen steps, rotated at random."""
    hits, rotation = int(draw.integers(3, 10)), int(draw.integers(STEPS))
    return [_pattern_levels("".join(".x"[(step + rotation) * hits % STEPS < hits] for step in range(STEPS)), draw)]


def _sparse_pattern(draw: np.random.Generator, bars: int, fewest: int, most: int) -> list[list[float]]:
    """Returns bars with a few hits at random steps, or with one hit every 3, 5 or 7 steps."""
    levels = np.zeros(bars * STEPS)
    if draw.random() < 0.3:
        levels[draw.integers(3) :: int(draw.choice([3, 5, 7]))] = 1
    else:
        levels[draw.choice(len(levels), size=draw.integers(fewest, most + 1) * max(1, bars // 2), replace=False)] = 1
    levels *= draw.uniform(0.5, 1.0, len(levels))
    return np.round(levels, 2).reshape(bars, STEPS).tolist()


def _pattern_levels(letters: str, draw: np.random.Generator) -> list[float]:
    """Returns the levels of a pattern such as "x.x."; each beat has the same accents."""
    accents = draw.uniform(0.45, 1.0, 4)
    accents[draw.integers(4)] = 1.0
    return [round(float(accents[step % 4]), 2) if letter == "x" else 0.0 for step, letter in enumerate(letters)]


def _draw_uniform(draw: np.random.Generator, low: float, high: float) -> float:
    """Returns a number from a uniform distribution, rounded to four digits."""
    return float(f"{draw.uniform(low, high):.4g}")


def _draw_log_uniform(draw: np.random.Generator, low: float, high: float) -> float:
    """Returns a number whose logarithm is uniformly distributed, rounded to four digits."""
    return float(f"{math.exp(draw.uniform(math.log(low), math.log(high))):.4g}")
