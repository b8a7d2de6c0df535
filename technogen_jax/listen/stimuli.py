"""The sounds of a listening test: real and generated loops in matched pairs.

All have one length, sample rate, loudness and bit depth. Besides the pairs that count there are
controls: loops with faults that nobody can miss, which show whether a listener pays attention.
"""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.optimize

from technogen_jax.audio import audio_files, corruptions, loudness
from technogen_jax.common import array_files, json_files
from technogen_jax.data.manifest import MANIFEST_FILE
from technogen_jax.evaluation import clip_sets
from technogen_jax.evaluation.clip_sets import ClipSet, ClipSetError
from technogen_jax.evaluation.features import musical, tmr

MOST_SECONDS = 12.0  # of a clip: ITU-R BS.1534-3's limit
MOST_PAIRS = 100
_MOST_TRACKS = 200
_BPM_SHARE = 0.03  # that the tempos of a pair differ by, at most
_LOUDEST_LUFS = -14.0  # the level of streaming services; lower if a clip would exceed this peak:
_PEAK = 10 ** (-1 / 20)
_SEAM_S = 0.005
_LEAST_BARS = 2  # of a clip whose tempo can be estimated

ANCHORS = ("dull", "phases", "shuffled", "noise")
GOOD = 2  # pairs of two real clips: unless half of the answers are "left", something besides sound decides
BAD = 2  # clips of a system that is known to be bad, if one is given
# Pairs that do not count: for training, with a fault, of two real clips, or with the known-bad system.
SPARE = 1 + len(ANCHORS) + 2 * GOOD + BAD


class Sound(NamedTuple):
    """The identity of a clip, for the file of answers; listeners never see it.

    Attributes:
        id: name of the clip.
        source: "real", "generated", "bad" or the name of an anchor.
    """

    id: str
    source: str


class Stimuli(NamedTuple):
    """All sounds of a test.

    Attributes:
        pcm: int16 `[n, T, C]`.
        sounds: identity of each of the n sounds.
        pairs: (index of a real clip, index of a generated clip) that count, the most similar pair first.
        training: one more pair, played before the test with the right answer shown.
        anchors: (index of a real clip, index of a clip with a fault), one for each of `ANCHORS`.
        good: (index, index) of two real clips.
        bad: (index of a real clip, index of a clip of the known-bad system); may be empty.
        sample_rate_hz: the sample rate of all sounds.
        matched: both clips of every pair are known to have the same tempo.
        origin: where the clips come from.
    """

    pcm: np.ndarray
    sounds: list[Sound]
    pairs: list[tuple[int, int]]
    training: tuple[int, int]
    anchors: list[tuple[int, int]]
    good: list[tuple[int, int]]
    bad: list[tuple[int, int]]
    sample_rate_hz: int
    matched: bool
    origin: dict[str, Any]


def open_sets(
    paths: Sequence[str | os.PathLike],
    *,
    seconds: float | None = None,
    sample_rate_hz: int | None = None,
    track_pattern: str | None = None,
) -> list[ClipSet]:
    """Returns clip sets with one sample rate, channel count and clip length.

    Args:
        paths: folders of audio: real, generated and, if there is a third, known to be bad. The first may
            be a prepared dataset; then its test tracks are the real clips.
        seconds: length of a clip; None: that of the shortest file, at most 12 s.
        sample_rate_hz: rate to which files are resampled; None: their own, which must be one.
        track_pattern: regular expression whose first group, found in a path, names the track.

    Raises:
        ClipSetError: no audio, or rates that differ.
    """
    prepared = None
    if (pathlib.Path(paths[0]) / MANIFEST_FILE).is_file():
        prepared = clip_sets.from_records(paths[0], ["test"])
    folders = [clip_sets.find_files(path) for path in (paths[1:] if prepared else paths)]
    rates = {rate for folder in folders for rate in folder.rates_hz} | (
        {prepared.sample_rate_hz} if prepared else set()
    )
    if len(rates) > 1 and (prepared or sample_rate_hz is None):
        advice = (
            "resample the files to the rate of the prepared dataset"
            if prepared
            else "--sample_rate resamples all files"
        )
        raise ClipSetError(f"expected one sample rate, got {', '.join(map(str, sorted(rates)))} Hz; {advice}")
    rate = sample_rate_hz or rates.pop()
    channels = 1 if any(1 in folder.channels for folder in folders) else 2
    shortest = MOST_SECONDS if seconds else clip_sets.shortest_seconds(folders)
    if prepared:
        channels, shortest = prepared.channels, min(shortest, prepared.clip_samples / rate)
    cut = {
        "sample_rate_hz": rate,
        "channels": channels,
        "clip_samples": round((seconds or min(shortest, MOST_SECONDS)) * rate),
    }
    if prepared:
        prepared = clip_sets.from_records(paths[0], ["test"], cut["clip_samples"])
    sides = ("generated", "bad") if prepared else ("real", "generated", "bad")
    found = [
        clip_sets.from_folder(folder, side, **cut, track_pattern=track_pattern)
        for folder, side in zip(folders, sides, strict=False)
    ]
    return [prepared, *found] if prepared else found


def prepare(
    real: ClipSet, generated: ClipSet, bad: ClipSet | None, *, least_pairs: int, beats: int | None, seed: int
) -> Stimuli:
    """Returns the sounds of a test: one clip a track, each real clip paired with a similar generated clip.

    Args:
        real: clips made by people.
        generated: the clips under test.
        bad: clips of a system that listeners must recognize, such as an early checkpoint; or None.
        least_pairs: pairs that the sessions need.
        beats: beats in a clip, if known; None: the tempo of clips of two bars or more is estimated.
        seed: decides which tracks are used, and the faults.

    Raises:
        ClipSetError: sets of different geometry, too few clips that are not silent, or too few pairs of one tempo.
    """
    geometry = {(s.sample_rate_hz, s.channels, s.clip_samples) for s in (real, generated, bad) if s}
    if len(geometry) > 1:
        raise ClipSetError(f"expected one rate, channel count and clip length, got {sorted(geometry)}")
    rate = real.sample_rate_hz
    sides = [_loops(clips, seed) for clips in (real, generated)]
    needed = least_pairs + SPARE
    for clips, (_, loops) in zip((real, generated), sides, strict=True):
        if len(loops) < needed:
            raise ClipSetError(
                f"{clips.name}: expected at least {needed} tracks that are not silent, got {len(loops)}; add tracks, or choose "
                "fewer --pairs and --singles"
            )
    order, matched = _match(*(loops for _, loops in sides), rate, beats)
    if len(order) < needed:
        raise ClipSetError(
            f"expected at least {needed} pairs of one tempo (within {_BPM_SHARE:.0%}), got {len(order)}; add tracks of the same "
            "tempo, or name fewer --pairs and --singles"
        )
    order = order[: MOST_PAIRS + SPARE]
    (real_ids, real_loops), (fake_ids, fake_loops) = sides
    sounds = [Sound(real_ids[i], "real") for i, _ in order] + [Sound(fake_ids[j], "generated") for _, j in order]
    loops = [real_loops[i] for i, _ in order] + [fake_loops[j] for _, j in order]
    pairs = [(number, len(order) + number) for number in range(len(order))]
    pairs, spare = pairs[:-SPARE], pairs[-SPARE:]  # the nearest pairs are the targets
    training, spare = spare[0], spare[1:]

    anchors = []
    for name, (real_index, fake_index) in zip(ANCHORS, spare, strict=False):
        anchors.append((real_index, len(loops)))
        sounds.append(Sound(f"{sounds[fake_index].id} ({name})", name))
        loops.append(_add_fault(name, loops[fake_index], rate, beats, seed))
    reals = [real_index for real_index, _ in spare[len(ANCHORS) :]]
    good, reals = list(zip(reals[:GOOD], reals[GOOD : 2 * GOOD], strict=True)), reals[2 * GOOD :]
    known = []
    if bad is not None:
        bad_ids, bad_loops = _loops(bad, seed)
        if len(bad_loops) < BAD:
            raise ClipSetError(f"{bad.name}: expected at least {BAD} tracks that are not silent, got {len(bad_loops)}")
        for index in range(BAD):
            known.append((reals[index], len(loops)))
            sounds.append(Sound(bad_ids[index], "bad"))
            loops.append(bad_loops[index])
    return Stimuli(
        pcm=_level(loops, rate),
        sounds=sounds,
        pairs=pairs,
        training=training,
        anchors=anchors,
        good=good,
        bad=known,
        sample_rate_hz=rate,
        matched=matched,
        origin={
            name: s and {"name": s.name, **s.origin}
            for name, s in (("real", real), ("generated", generated), ("bad", bad))
        },
    )


def save(path: str | os.PathLike, stimuli: Stimuli) -> None:
    """Writes the sounds into one file, whole or not at all."""
    rest = {name: value for name, value in stimuli._asdict().items() if name != "pcm"}
    array_files.write(path, {"pcm": stimuli.pcm, "rest": np.array(json.dumps(rest))})


def load(path: str | os.PathLike) -> Stimuli:
    """Returns what `save` wrote.

    Raises:
        ValueError: the file is something else, or is damaged.
    """
    found = array_files.read(path)
    rest = json_files.parse(str(found["rest"]))
    rest["sounds"] = [Sound(*sound) for sound in rest["sounds"]]
    rest["training"] = tuple(rest["training"])
    for name in ("pairs", "anchors", "good", "bad"):
        rest[name] = [tuple(pair) for pair in rest[name]]
    return Stimuli(found["pcm"], **rest)


def _loops(clips: ClipSet, seed: int) -> tuple[list[str], list[np.ndarray]]:
    """Returns names and audio `[T, C]` of clips that are not silent, one a track, as loops without a click."""
    chosen = clip_sets.choose(clips, per_track=1, tracks=_MOST_TRACKS, seed=seed)
    found = [(clips.ids[i], audio_files.from_int16(pcm)) for i, pcm in zip(chosen, clips.read(chosen), strict=True)]
    found = [(name, clip) for name, clip in found if _lufs(clip, clips.sample_rate_hz) > loudness.SILENCE_LUFS]
    return [name for name, _ in found], [_join(clip, clips.sample_rate_hz) for _, clip in found]


def _join(clip: np.ndarray, rate_hz: int) -> np.ndarray:
    """Returns the clip with its last 5 ms bent to end where it starts.

    Otherwise a click at the seam would reveal which clips were cut from longer audio.
    """
    samples = min(round(_SEAM_S * rate_hz), len(clip))
    ramp = 0.5 - 0.5 * np.cos(np.pi * np.arange(1, samples + 1) / samples)
    joined = clip.copy()
    joined[len(clip) - samples :] += ramp[:, None] * (clip[0] - clip[-1])
    return joined


def _lufs(clip: np.ndarray, rate_hz: int) -> float:
    """Returns the loudness of the clip played as a loop."""
    meter = loudness.LoudnessMeter(rate_hz, clip.shape[1])
    for _ in range(2):
        meter.add(np.asarray(clip, np.float32))
    return loudness.gated_loudness(meter.energies())


def _level(loops: list[np.ndarray], rate_hz: int) -> np.ndarray:
    """Returns int16 `[n, T, C]`, all equally loud: as loud as possible without a peak above -1 dBFS."""
    levels = np.array([_lufs(loop, rate_hz) for loop in loops])
    peaks = np.array([np.abs(loop).max() for loop in loops])
    target = min(_LOUDEST_LUFS, (levels + 20 * np.log10(_PEAK / peaks)).min())
    gains = 10 ** ((target - levels) / 20)
    return np.stack([audio_files.to_int16(np.float32(loop * gain)) for loop, gain in zip(loops, gains, strict=True)])


def _match(
    real: list[np.ndarray], fake: list[np.ndarray], rate_hz: int, beats: int | None
) -> tuple[list[tuple[int, int]], bool]:
    """Returns index pairs (real, generated) of least total distance, nearest first, and whether each has one tempo.

    The distance is that of `tmr-v1` embeddings of equally loud clips, standardized over both sets.
    """
    equal = audio_files.from_int16(_level([*real, *fake], rate_hz))
    values = np.concatenate([tmr.embed(clip[None], rate_hz, loop=True) for clip in equal])
    deviation = values.std(axis=0)
    values = (values - values.mean(axis=0)) / np.maximum(deviation, 1e-3 * deviation.max())
    squares = (values**2).sum(axis=1)
    near = squares[: len(real), None] + squares[len(real) :] - 2 * values[: len(real)] @ values[len(real) :].T
    cost = np.sqrt(np.maximum(near, 0))
    bpm = None if beats else np.array([_bpm(clip, rate_hz) for clip in equal])
    apart = np.zeros(cost.shape, bool)
    if bpm is not None:
        a, b = bpm[: len(real), None], bpm[None, len(real) :]
        apart = np.abs(a - b) > _BPM_SHARE * np.minimum(a, b)  # False where one is not known
    # A large finite cost, since an infinite one would make the problem infeasible.
    rows, columns = scipy.optimize.linear_sum_assignment(np.where(apart, 1e3 * cost.max() + 1, cost))
    kept = sorted((cost[i, j], int(i), int(j)) for i, j in zip(rows, columns, strict=True) if not apart[i, j])
    pairs = [(i, j) for _, i, j in kept]
    known = bpm is None or all(np.isfinite([bpm[i], bpm[len(real) + j]]).all() for i, j in pairs)
    return pairs, bool(known)


def _bpm(clip: np.ndarray, rate_hz: int) -> float:
    """Returns the estimated tempo; NaN if the clip is too short to estimate it."""
    found = musical.measure(clip, rate_hz, loop=True)
    long = found["tempo_bars"] is not None and found["tempo_bars"] >= _LEAST_BARS - 0.1
    return found["tempo_bpm"] if long else np.nan


def _add_fault(name: str, loop: np.ndarray, rate_hz: int, beats: int | None, seed: int) -> np.ndarray:
    """Returns the loop with one of the faults of `ANCHORS`."""
    if name == "dull":
        return corruptions.add_noise(corruptions.low_pass(loop, rate_hz, min(3500, 0.4 * rate_hz)), 20, seed)
    if name == "phases":
        return corruptions.randomise_phase(loop, rate_hz, 1.0, seed)
    if name == "shuffled":
        pieces = 4 * beats if beats else max(8, round(len(loop) / rate_hz / (60 / 130 / 4)))  # sixteenths of techno
        return corruptions.shuffle(loop, rate_hz, pieces, seed)
    # The loop's spectrum without its rhythm: what an untrained generator sounds like.
    spectrum = np.fft.rfft(loop, axis=0)
    angles = np.random.default_rng(seed).uniform(-np.pi, np.pi, len(spectrum))[:, None]
    return np.fft.irfft(spectrum * np.exp(1j * angles), len(loop), axis=0)
