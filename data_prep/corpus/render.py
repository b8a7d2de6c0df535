"""Renders a composed track: plays its patterns into buses, then mixes and masters the buses."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from data_prep.corpus import drums, effects, filters, synthesizer
from data_prep.corpus.compose import LEVELS_DB, STEPS, Track

_MONO_BELOW_HZ = 150  # lower notes of a chord are the same in both channels
_MIX_PARAMETERS = {"pattern", "pan", "send", "echo", "kind"}  # not part of a sound


class _Mix:
    """The buses of a track that is being rendered, and the positions of its steps.

    Attributes:
        kick, centre: mono `[T]`, so that the bass is the same in both channels.
        drums, music: stereo `[2, T]`.
        send, echo: inputs `[T]` of the reverb and the echo.
        duck: gain `[T]` of `centre` and `music`; each bass drum lowers it.
        starts: first sample of each step, int64 `[bars, STEPS]`.
        downbeats: first sample of each bar, and the end of the last, int64 `[bars + 1]`.
    """

    def __init__(self, track: Track, rate_hz: int):
        """Creates silent buses of the track's length."""
        self.track, self.rate_hz = track, rate_hz
        self.samples = round(track.seconds * rate_hz)
        self.kick, self.centre, self.send, self.echo = (np.zeros(self.samples, np.float32) for _ in range(4))
        self.drums, self.music = (np.zeros((2, self.samples), np.float32) for _ in range(2))
        self.duck = np.ones(self.samples, np.float32)
        self._events: list[tuple[int, np.ndarray, np.ndarray, np.float32]] = []
        steps = np.arange(STEPS)
        swung = (steps + (steps % 2) * (2 * track.swing - 1)) / STEPS
        places = track.time_s(np.arange(track.bars)[:, None] + swung)
        self.starts = np.round(places * rate_hz).astype(np.int64)
        self.downbeats = np.round(track.time_s(np.arange(track.bars + 1)) * rate_hz).astype(np.int64)

    def add(self, bus: np.ndarray, sound: np.ndarray, start: int, level: float) -> None:
        """Schedules a sound to be added to a bus; it is cut at the end of the track."""
        self._events.append((int(start), np.atleast_2d(bus), np.atleast_2d(sound), np.float32(level)))

    def play(self) -> None:
        """Adds the scheduled sounds to the buses, in order of time, which uses the cache well."""
        for start, bus, sound, level in sorted(self._events, key=lambda event: event[0]):
            effects.add(bus, sound, start, level)
        self._events.clear()


def render(track: Track, rate_hz: int) -> np.ndarray:
    """Returns the track's audio, float32 `[T, 2]`, with its peak at the parameter `ceiling_db`.

    Args:
        track: from `compose`.
        rate_hz: sampling rate, 8000 to 192000.
    """
    mix = _Mix(track, rate_hz)
    # Each layer has its own generator, so that no layer changes another's random numbers.
    sounds = {
        layer: np.random.default_rng([track.seed, track.index, place]) for place, layer in enumerate(LEVELS_DB, 1)
    }
    kick = _render_kick(mix, sounds["kick"])
    if "rumble" in track.levels:
        _render_rumble(mix, kick, sounds["rumble"])
    _render_drums(mix, sounds)
    _render_fills(mix, sounds)
    _render_metal(mix, sounds)
    for layer in ("bass", "acid", "second_acid"):
        if layer in track.levels:
            _render_bass_line(mix, layer)
    _render_chords(mix, sounds)
    _render_noise(mix, sounds)
    mix.play()
    return _master(mix)


def _level(mix: _Mix, layer: str) -> float:
    """Returns the level of a layer in the mix, as an amplitude."""
    return 10 ** (mix.track.parameters["levels_db"][layer] / 20)


def _iterate_hits(
    mix: _Mix, layer: str, pattern: Sequence[Sequence[float]], draw: np.random.Generator
) -> Iterator[tuple[int, int, int, float]]:
    """Yields (bar, step, first sample, level) of a layer's hits.

    Levels vary a little at random, as a person's would; those of the bass drum do not.
    """
    levels = mix.track.levels[layer]
    for bar in np.flatnonzero(levels):
        for step, level in enumerate(pattern[bar % len(pattern)]):
            if level:
                variation = 1 + 0.08 * float(np.clip(draw.standard_normal(), -2, 2)) if layer != "kick" else 1.0
                yield bar, step, int(mix.starts[bar, step]), level * levels[bar] * variation


def _sound(parameters: dict[str, Any]) -> dict[str, Any]:
    """Returns the parameters of a layer's instrument, without those of pattern and mix."""
    return {name: value for name, value in parameters.items() if name not in _MIX_PARAMETERS}


def _pan(sound: np.ndarray, pan: float) -> np.ndarray:
    """Returns a mono sound as `[2, T]`, panned with constant power from -1, left, to 1, right."""
    angle = (pan + 1) * math.pi / 4
    return np.stack([sound * np.float32(math.cos(angle) * 2**0.5), sound * np.float32(math.sin(angle) * 2**0.5)])


def _fills(track: Track) -> dict[int, str]:
    """Returns the kind of fill by bar: one at the end of each phrase, and one before each drop."""
    fills, kinds = {}, track.parameters["fills"]
    for place, part in enumerate(track.parts):
        if part.name in ("build", "drop"):
            phrase = 8 if part.bars >= 8 else 4
            for bar in range(part.start_bar + phrase - 1, part.start_bar + part.bars, phrase):
                fills[bar] = kinds[bar // phrase % len(kinds)]
        following = track.parts[place + 1].name if place + 1 < len(track.parts) else None
        if following == "drop" and part.bars > 1:
            fills[part.start_bar + part.bars - 1] = "kick out" if kinds[0] == "none" else "snare roll"
    return fills


def _render_kick(mix: _Mix, draw: np.random.Generator) -> np.ndarray:
    """Renders the bass drum and the gain that it imposes on other buses; returns one hit `[T]`."""
    track, rate_hz = mix.track, mix.rate_hz
    p, duck, fills = track.parameters["kick"], track.parameters["duck"], _fills(track)
    sound = drums.kick(draw, rate_hz, drums.KickParameters(**_sound(p)))
    t = np.arange(round(duck["release_s"] * rate_hz)) / (duck["release_s"] * rate_hz)
    dip = (1 - duck["depth"] * (1 - t) ** 1.5).astype(np.float32)

    def add_hit(start: int, level: float):
        mix.add(mix.kick, sound, start, level * _level(mix, "kick"))
        gain = mix.duck[start : start + len(dip)]
        np.minimum(gain, 1 - np.float32(level) * (1 - dip[: len(gain)]), out=gain)

    silent_from = {"kick out": 8, "snare roll": 12}  # step of the bar
    for bar, step, start, level in _iterate_hits(mix, "kick", p["pattern"], draw):
        if step < silent_from.get(fills.get(bar), STEPS):
            add_hit(start, level)
    for bar, kind in fills.items():
        if kind == "kick roll" and track.levels["kick"][bar]:
            for step in (13, 14, 15):
                add_hit(int(mix.starts[bar, step]), 0.7)
    return sound


def _render_drums(mix: _Mix, sounds: dict[str, np.random.Generator]) -> None:
    """Renders the hi-hats, the clap and the ride cymbal."""
    track, rate_hz, fills = mix.track, mix.rate_hz, _fills(mix.track)
    for layer in ("closed_hat", "open_hat"):
        if layer in track.levels:
            p, draw = track.parameters[layer], sounds[layer]
            variants = [
                _pan(drums.hat(np.random.default_rng(draw.integers(2**32)), rate_hz, **_sound(p)), p["pan"])
                for _ in range(2)
            ]
            for bar, step, start, level in _iterate_hits(mix, layer, p["pattern"], draw):
                if not (fills.get(bar) == "hats out" and step >= 8):
                    mix.add(mix.drums, variants[step // 2 % 2], start, level * _level(mix, layer))
    for layer, instrument in (("clap", drums.clap), ("ride", drums.cymbal)):
        if layer in track.levels:
            p = track.parameters[layer]
            stereo = instrument(sounds[layer], rate_hz, **_sound(p))
            mono = stereo.mean(axis=0)
            for _, _, start, level in _iterate_hits(mix, layer, p["pattern"], sounds[layer]):
                mix.add(mix.drums, stereo, start, level * _level(mix, layer))
                if "send" in p:
                    mix.add(mix.send, mono, start, level * _level(mix, layer) * p["send"])


def _render_fills(mix: _Mix, sounds: dict[str, np.random.Generator]) -> None:
    """Renders snare rolls and toms at the ends of phrases, and crashes at the starts of parts."""
    track, rate_hz = mix.track, mix.rate_hz
    snare = drums.snare(sounds["snare"], rate_hz, **track.parameters["snare"])
    tom = drums.tom(sounds["tom"], rate_hz, **track.parameters["tom"])
    for bar, kind in _fills(track).items():
        if kind == "snare roll":
            first = 8 if bar % 16 != 15 else 0
            for step in range(first, STEPS):
                level = _level(mix, "snare") * (0.3 + 0.7 * (step - first + 1) / (STEPS - first))
                mix.add(mix.drums, _pan(snare, 0), int(mix.starts[bar, step]), level)
                mix.add(mix.send, snare, int(mix.starts[bar, step]), 0.2 * level)
        elif kind == "toms":
            for step in sounds["tom"].choice(np.arange(8, STEPS), size=4, replace=False):
                mix.add(mix.kick, tom, int(mix.starts[bar, step]), _level(mix, "tom"))
                mix.add(mix.send, tom, int(mix.starts[bar, step]), 0.2 * _level(mix, "tom"))
    crash = drums.cymbal(sounds["crash"], rate_hz, **track.parameters["crash"])
    for part in track.parts:
        if part.name in ("drop", "break"):
            start, level = int(mix.downbeats[part.start_bar]), _level(mix, "crash")
            mix.add(mix.drums, crash, start, level if part.name == "drop" else 0.6 * level)
            mix.add(mix.send, crash.mean(axis=0), start, 0.2 * level)


def _render_rumble(mix: _Mix, kick_sound: np.ndarray, draw: np.random.Generator) -> None:
    """Renders the rumble, which repeats the bass drum's pattern without its fills."""
    p, pattern = mix.track.parameters["rumble"], mix.track.parameters["kick"]["pattern"]
    loop_bars = len(pattern)
    samples = math.ceil(loop_bars * 240 / mix.track.bpm * mix.rate_hz)
    hits = [
        (round((bar + step / STEPS) * samples / loop_bars), level)
        for bar, levels in enumerate(pattern)
        for step, level in enumerate(levels)
        if level
    ]
    loop = effects.rumble(kick_sound, hits, samples, mix.rate_hz, draw, **p)
    for bar in np.flatnonzero(mix.track.levels["rumble"]):
        start, stop = mix.downbeats[bar], min(mix.downbeats[bar + 1], mix.samples)
        offset = int(mix.downbeats[bar % loop_bars] - mix.downbeats[0])
        piece = loop[offset : offset + stop - start]
        mix.add(mix.centre, piece, start, _level(mix, "rumble") * mix.track.levels["rumble"][bar])


def _render_metal(mix: _Mix, sounds: dict[str, np.random.Generator]) -> None:
    """Renders the layers of metallic percussion."""
    for layer in ("perc", "metal"):
        if layer not in mix.track.levels:
            continue
        for p in mix.track.parameters[layer]:
            sound = drums.METAL[p["kind"]](sounds[layer], mix.rate_hz, **_sound(p))
            stereo = _pan(sound, p["pan"])
            for _, _, start, level in _iterate_hits(mix, layer, p["pattern"], sounds[layer]):
                level *= _level(mix, layer)
                mix.add(mix.music if layer == "metal" else mix.drums, stereo, start, level)
                mix.add(mix.send, sound, start, level * p["send"])
                if p["echo"]:
                    mix.add(mix.echo, sound, start, level * p["echo"])


def _find_playing_ranges(levels: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yields (first bar, end) of each range of bars in which a layer plays."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], levels > 0, [False]]).astype(int)))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)


def _render_bass_line(mix: _Mix, layer: str) -> None:
    """Renders a bass line: an oscillator through the ladder filter, for each range of bars."""
    track, rate_hz, p = mix.track, mix.rate_hz, mix.track.parameters[layer]
    level = _level(mix, layer)
    for first, end in _find_playing_ranges(track.levels[layer]):
        starts = np.concatenate([mix.starts[first:end].ravel(), [min(mix.downbeats[end], mix.samples)]])
        notes = [note for bar in range(first, end) for note in p["patterns"][bar // 2 % 2]]
        playing = np.array([note[0] is not None for note in notes])
        accent = np.array([note[1] for note in notes], np.float32)
        tied = np.array([note[2] for note in notes]) & playing & np.roll(playing, -1)
        tied[-1] = False
        slides = np.concatenate([[False], tied[:-1]])
        # A rest keeps the pitch of the previous note, which may still be decaying.
        pitches = np.array([p["root"] + note[0] if note[0] is not None else np.nan for note in notes])
        held = np.maximum.accumulate(np.where(playing, np.arange(len(notes)), -1))
        pitches = np.where(held >= 0, pitches[held], p["root"])
        wave = synthesizer.oscillator(
            starts, 440 * 2 ** ((pitches - 69) / 12), slides, p["glide_s"], p["shape"], float(rate_hz)
        )

        # Envelopes, one value per `CONTROL_SAMPLES` samples.
        at = starts[0] + filters.CONTROL_SAMPLES * np.arange(len(wave) // filters.CONTROL_SAMPLES + 2)
        step = np.clip(np.searchsorted(starts, at, side="right") - 1, 0, len(notes) - 1)
        attack_step = np.maximum.accumulate(np.where(playing & ~slides, np.arange(len(notes)), 0))[step]
        since_s = ((at - starts[attack_step]) / rate_hz).astype(np.float32)
        lengths = np.diff(starts)
        released = np.where(tied, starts[1:], starts[:-1] + p["gate"] * lengths)
        released = np.where(playing, released, starts[0])[np.maximum(held, 0)][step]
        released_s = (np.maximum(at - released, 0) / rate_hz).astype(np.float32)
        accented = accent[attack_step]
        decay_s = np.where(accented > 0, min(p["decay_s"], 0.12), p["decay_s"]).astype(np.float32)
        bars = ((at / rate_hz - track.first_downbeat_s) * track.bpm / 240).astype(np.float32)
        octaves = (
            _cutoff_octaves(track, p, bars)
            + p["wobble_octaves"] * np.sin(2 * np.pi * bars / p["wobble_bars"]).astype(np.float32)
            + p["envelope_octaves"] * np.exp(-since_s / decay_s)
            + p["accent_octaves"] * accented * (1 - np.exp(-since_s / 0.008)) * np.exp(-since_s / 0.1)
        )
        cutoff_hz = np.clip(p["cutoff_hz"] * np.exp2(octaves), 60, 11000).astype(np.float32)
        resonance = np.full(len(at), p["resonance"], np.float32)
        amplitude = (
            (1 - np.exp(-since_s / 0.002)) * np.exp(-since_s / 1.5) * np.exp(-released_s / 0.008) * (1 + 0.7 * accented)
        )
        if layer != "bass":
            resonance += np.float32(0.12) * accented
        amplitude[: np.searchsorted(at, starts[int(np.argmax(playing))])] = 0

        gain = np.float32(0.5 * (1 + 0.35 * p["resonance"]))  # feedback attenuates the bass
        sound = synthesizer.ladder(gain * wave, cutoff_hz, resonance, float(rate_hz))
        sound *= _interpolate(amplitude.astype(np.float32), len(sound))
        sound = synthesizer.saturate(sound, p["drive"])
        loud = np.float32(np.sqrt(np.mean(np.square(sound)) + 1e-12) * 3)
        sound *= np.float32(level) / loud * _interpolate(_bar_levels(track, layer, bars), len(sound))
        place = slice(starts[0], starts[0] + len(sound))
        mix.centre[place] += sound
        for bus, share in ((mix.send, p["send"]), (mix.echo, p["echo"])):
            if share:
                bus[place] += np.float32(share) * sound


def _cutoff_octaves(track: Track, p: dict[str, Any], bars: np.ndarray) -> np.ndarray:
    """Returns a bass line's cutoff in octaves, interpolated between each part's ends."""
    places = [edge for part in track.parts for edge in (part.start_bar, part.start_bar + part.bars - 0.01)]
    return np.interp(bars, places, np.ravel(p["opening_octaves"])).astype(np.float32)


def _bar_levels(track: Track, layer: str, bars: np.ndarray) -> np.ndarray:
    """Returns the level of a layer at positions in bars."""
    return track.levels[layer][np.clip(np.floor(bars + 1e-3).astype(int), 0, track.bars - 1)]


def _interpolate(control: np.ndarray, samples: int) -> np.ndarray:
    """Returns a control's value at each sample, interpolated linearly."""
    between = np.arange(filters.CONTROL_SAMPLES, dtype=np.float32) / filters.CONTROL_SAMPLES
    return (control[:-1, None] + np.diff(control)[:, None] * between).ravel()[:samples]


def _chord(notes: Sequence[float], samples: int, detune: float, rate_hz: int, draw: np.random.Generator) -> np.ndarray:
    """Returns a chord of saw waves `[2, samples]`.

    The pitch of a note differs a little between channels, except below `_MONO_BELOW_HZ`.

    Args:
        notes: MIDI notes.
        samples: length.
        detune: largest change of a frequency, as a share of it.
        rate_hz: sampling rate.
        draw: generator of the changes.
    """
    starts, still = np.array([0, samples], np.int64), np.zeros(1, bool)
    out = np.zeros((2, samples), np.float32)
    for channel in range(2):
        for note in notes:
            hz, change = 440 * 2 ** ((note - 69) / 12), detune * draw.uniform(-1, 1)
            hz *= 1 + change if hz > _MONO_BELOW_HZ else 1
            out[channel] += synthesizer.oscillator(starts, np.array([hz]), still, 0.01, 0.0, float(rate_hz))
    return out / np.float32(len(notes))


def _render_chords(mix: _Mix, sounds: dict[str, np.random.Generator]) -> None:
    """Renders the stab, a short chord in a pattern, and the drone, a long chord."""
    track, rate_hz = mix.track, mix.rate_hz
    if "stab" in track.levels:
        p = track.parameters["stab"]
        samples = round(6 * p["decay_s"] * rate_hz)
        at_s = np.arange(samples // filters.CONTROL_SAMPLES + 2) * filters.CONTROL_SAMPLES / rate_hz
        level = np.exp(-at_s / p["decay_s"]).astype(np.float32)
        cutoff_hz = (p["cutoff_hz"] * 2 ** (p["sweep_octaves"] * level)).astype(np.float32)
        resonance = np.full(len(at_s), 1.5, np.float32)
        stab = _chord(p["notes"], samples, p["detune"], rate_hz, sounds["stab"])
        for channel in range(2):
            stab[channel] = synthesizer.ladder(stab[channel], cutoff_hz, resonance, float(rate_hz))
        stab = filters.high_pass(synthesizer.saturate(stab * _interpolate(level, samples), p["drive"]), 180, rate_hz)
        stab /= np.abs(stab).max()
        mono = stab.mean(axis=0)
        for _, _, start, hit in _iterate_hits(mix, "stab", p["pattern"], sounds["stab"]):
            hit *= _level(mix, "stab")
            mix.add(mix.music, stab, start, hit)
            mix.add(mix.send, mono, start, hit * p["send"])
            mix.add(mix.echo, mono, start, hit * p["echo"])
    for first, end in _find_playing_ranges(track.levels.get("drone", np.zeros(0))):
        p = track.parameters["drone"]
        start, stop = mix.downbeats[first], min(mix.downbeats[end], mix.samples)
        samples = int(stop - start)
        share = np.linspace(0, 1, samples // filters.CONTROL_SAMPLES + 2, dtype=np.float32)
        wobble = np.sin(2 * np.pi * share * (end - first) / p["wobble_bars"])
        cutoff_hz = (p["cutoff_hz"] * 2 ** (p["rise_octaves"] * share + 0.5 * wobble)).astype(np.float32)
        # The level rises over the first half and falls over the last three percent.
        level = np.minimum(1, np.minimum(share / 0.5, (1 - share) / 0.03)).astype(np.float32)
        pad = _chord(p["notes"], samples, p["detune"], rate_hz, sounds["drone"])
        for channel in range(2):
            pad[channel] = synthesizer.sweep(pad[channel], cutoff_hz, p["q"], 1.0, 0.0, 0.0, float(rate_hz))
        pad = synthesizer.saturate(pad, 2 * p["drive"])
        pad *= _interpolate(level, samples) * np.float32(_level(mix, "drone") / (pad.std() + 1e-6))
        mix.music[:, start:stop] += pad
        mix.send[start:stop] += 0.2 * pad[0]


def _render_noise(mix: _Mix, sounds: dict[str, np.random.Generator]) -> None:
    """Renders the texture, and the risers before drops."""
    track, rate_hz = mix.track, mix.rate_hz
    if "texture" in track.levels:
        loop = effects.texture(sounds["texture"], rate_hz, **track.parameters["texture"])
        for first, end in _find_playing_ranges(track.levels["texture"]):
            stop = min(mix.downbeats[end], mix.samples)
            for start in range(mix.downbeats[first], stop, loop.shape[1]):
                mix.add(
                    mix.music, loop[:, : stop - start], start, _level(mix, "texture") * track.levels["texture"][first]
                )
    p = track.parameters["riser"]
    for part, following in zip(track.parts, track.parts[1:], strict=False):
        if following.name != "drop":
            continue
        end = following.start_bar
        start, stop = mix.downbeats[end - min(8, part.bars)], mix.downbeats[end]
        share = np.linspace(0, 1, (stop - start) // filters.CONTROL_SAMPLES + 2, dtype=np.float32)
        cutoff_hz = (p["low_hz"] * (p["high_hz"] / p["low_hz"]) ** share).astype(np.float32)
        noise = sounds["riser"].standard_normal((2, stop - start), np.float32)
        level = _interpolate(share**2, stop - start) * np.float32(3 * _level(mix, "riser"))
        for bus, channel in zip(mix.music, noise, strict=True):
            bus[start:stop] += level * synthesizer.sweep(channel, cutoff_hz, p["q"], 0.0, 1.0, 0.0, float(rate_hz))


def _master(mix: _Mix) -> np.ndarray:
    """Returns the finished track `[T, 2]`: effects, filters, ducking, loudness and limiting.

    It changes the buses of `mix` in place.
    """
    track, rate_hz, parameters = mix.track, mix.rate_hz, mix.track.parameters
    if mix.echo.any():
        delay = max(1, round(parameters["echo"]["steps"] * 15 / track.bpm * rate_hz))
        feedback = parameters["echo"]["feedback"]
        mix.music += effects.ping_pong(mix.echo, rate_hz, delay_samples=delay, feedback=feedback)
        mix.echo *= np.float32(0.2)
        mix.send += mix.echo
    mix.send *= np.float32(0.5)
    mix.music += effects.reverb(mix.send, rate_hz, **parameters["reverb"])
    _filter_parts(mix)
    mix.music *= mix.duck
    mix.centre *= mix.duck
    mix.kick += mix.centre
    out = mix.drums
    out += mix.music
    out += filters.high_pass(mix.kick, 24, rate_hz)

    drop = next(part for part in track.parts if part.name == "drop")
    loudest = out[:, mix.downbeats[drop.start_bar] : mix.downbeats[drop.start_bar + drop.bars]]
    rms = math.sqrt(sum(float(np.vdot(channel, channel)) for channel in loudest) / loudest.size)
    gain = 10 ** (parameters["loudness_db"] / 20) / rms
    peak = effects.limit(out, np.float32(gain), np.float32(1 - 2 * math.pi * 5 / rate_hz))
    out *= np.float32(10 ** (parameters["ceiling_db"] / 20) / peak)
    # Sounds that still decay at the end of the track are faded out.
    fade = min(out.shape[1], round(0.4 * rate_hz))
    out[:, -fade:] *= np.linspace(1, 0, fade, dtype=np.float32)
    return out.T


def _filter_parts(mix: _Mix) -> None:
    """Filters parts as a DJ does: opens a low-pass in the intro, removes bass in a build."""
    track = mix.track
    for place, part in enumerate(track.parts):
        start, stop = (int(mix.downbeats[bar]) for bar in (part.start_bar, part.start_bar + part.bars))
        if part.name == "intro" and track.parameters["filter_intro"]:
            ends_hz, low, high = (300, 16000), 1.0, 0.0
            buses = [mix.centre, *mix.drums, *mix.music]
        elif part.name == "build" and track.parameters["filter_build"] and track.parts[place + 1].name == "drop":
            start = (start + stop) // 2
            ends_hz, low, high = (25, 350), 0.0, 1.0
            buses = [mix.kick, mix.centre]
        else:
            continue
        share = np.linspace(0, 1, (stop - start) // filters.CONTROL_SAMPLES + 2, dtype=np.float32)
        cutoff_hz = (ends_hz[0] * (ends_hz[1] / ends_hz[0]) ** share).astype(np.float32)
        for bus in buses:
            bus[start:stop] = synthesizer.sweep(bus[start:stop], cutoff_hz, 0.9, low, 0.0, high, float(mix.rate_hz))
