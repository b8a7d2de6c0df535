"""What listeners hear: real and generated loops in matched pairs, all at one length, rate, loudness and bit depth.

Besides the pairs in question there are faults that nobody can miss, so that it shows whether a listener listens at all.
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
from technogen_jax.common import array_files
from technogen_jax.data import tfrecords
from technogen_jax.evaluation import clip_sets
from technogen_jax.evaluation.clip_sets import ClipSet, ClipSetError
from technogen_jax.evaluation.features import embeddings, musical

MOST_SECONDS = 12.0  # of a clip: ITU-R BS.1534-3's limit
MOST_PAIRS = 100
_MOST_TRACKS = 200
_BPM_SHARE = 0.03  # that the tempos of a pair differ by, at most
_LOUDEST_LUFS = -14.0  # what streaming services turn music to; quieter where a clip would peak above:
_PEAK = 10 ** (-1 / 20)
_SEAM_S = 0.005
_LEAST_BARS = 2  # of a clip whose tempo can be estimated

ANCHORS = ("dull", "phases", "shuffled", "noise")
GOOD = 2  # pairs of two real clips: half of the answers are left, or something else than the sound tells
BAD = 2  # clips of a known-bad system, where there is one
# Pairs that are no targets: heard before the test, with a fault, of real clips alone, or beside the known-bad system.
SPARE = 1 + len(ANCHORS) + 2 * GOOD + BAD


class Sound(NamedTuple):
    """What a clip is, for the file of answers; listeners never learn it.

    Attributes:
        id: its name.
        source: "real", "generated", "bad" or the name of an anchor.
    """

    id: str
    source: str


class Stimuli(NamedTuple):
    """Everything that is heard.

    Attributes:
        pcm: int16 `[n, T, C]`.
        sounds: n, what each is.
        pairs: (index of a real clip, index of a generated one): the targets, the nearest pair first.
        training: one more pair, which listeners hear with its names on.
        anchors: (index of a real clip, index of a fault), one for each of `ANCHORS`.
        good: (index, index) of two real clips.
        bad: (index of a real clip, index of one of the known-bad system); may be empty.
        sample_rate_hz: of all.
        matched: the two of every pair are known to have one tempo.
        origin: what the sets are.
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
    """Sets of one rate, channel count and clip length.

    Args:
        paths: real, generated and, if there is a third, known to be bad: folders of audio; the first may be a prepared set,
            of which the test tracks are taken.
        seconds: length of a clip; the shortest file, and at most 12 s, if None.
        sample_rate_hz: what files are brought to; theirs, which must be one, if None.
        track_pattern: see `clipsets.from_folder`.

    Raises:
        ClipSetError: no audio, or rates that differ.
    """
    prepared = None
    if (pathlib.Path(paths[0]) / tfrecords.MANIFEST_FILE).is_file():
        prepared = clip_sets.from_records(paths[0], ["test"])
    folders = [clip_sets.look(path) for path in (paths[1:] if prepared else paths)]
    rates = {rate for folder in folders for rate in folder.rates_hz} | (
        {prepared.sample_rate_hz} if prepared else set()
    )
    if len(rates) > 1 and (prepared or sample_rate_hz is None):
        tell = "bring the files to that of the prepared set" if prepared else "--sample_rate brings all to one"
        raise ClipSetError(f"expected one sample rate, got {', '.join(map(str, sorted(rates)))} Hz; {tell}")
    rate = sample_rate_hz or rates.pop()
    channels = 1 if any(1 in folder.channels for folder in folders) else 2
    shortest = min(min(folder.seconds) for folder in folders)
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
    """Pairs of the two sets, one clip of a track, each real clip with the generated one that it is nearest to.

    Args:
        real: clips made by people.
        generated: the clips in question.
        bad: clips of a system that is known to be told apart, such as an early checkpoint; None without one.
        least_pairs: targets that the sessions need.
        beats: in a clip, where it is known; else the tempo of clips of two bars or more is estimated.
        seed: of which tracks, and of the faults.

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
                f"{clips.name}: expected at least {needed} tracks that are not silent, got {len(loops)}; add tracks, or name "
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
        loops.append(_spoil(name, loops[fake_index], rate, beats, seed))
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
    """Writes what is heard into one file, whole or not at all."""
    rest = {name: value for name, value in stimuli._asdict().items() if name != "pcm"}
    array_files.write(path, {"pcm": stimuli.pcm, "rest": np.array(json.dumps(rest))})


def load(path: str | os.PathLike) -> Stimuli:
    """What `save` wrote.

    Raises:
        ValueError: the file is none, or is damaged.
    """
    found = array_files.read(path)
    rest = json.loads(str(found["rest"]))
    rest["sounds"] = [Sound(*sound) for sound in rest["sounds"]]
    rest["training"] = tuple(rest["training"])
    for name in ("pairs", "anchors", "good", "bad"):
        rest[name] = [tuple(pair) for pair in rest[name]]
    return Stimuli(found["pcm"], **rest)


def _loops(clips: ClipSet, seed: int) -> tuple[list[str], list[np.ndarray]]:
    """Names and float `[T, C]` of clips that are not silent, one a track; the end leads into the start."""
    chosen = clip_sets.choose(clips, per_track=1, tracks=_MOST_TRACKS, seed=seed)
    found = [(clips.ids[i], audio_files.from_int16(pcm)) for i, pcm in zip(chosen, clips.read(chosen), strict=True)]
    found = [(name, clip) for name, clip in found if _lufs(clip, clips.sample_rate_hz) > loudness.SILENCE_LUFS]
    return [name for name, _ in found], [_join(clip, clips.sample_rate_hz) for _, clip in found]


def _join(clip: np.ndarray, rate_hz: int) -> np.ndarray:
    """The clip, its last 5 ms bent so that it ends where it starts: a click at the seam would tell a set cut elsewhere."""
    samples = min(round(_SEAM_S * rate_hz), len(clip))
    ramp = 0.5 - 0.5 * np.cos(np.pi * np.arange(1, samples + 1) / samples)
    joined = clip.copy()
    joined[len(clip) - samples :] += ramp[:, None] * (clip[0] - clip[-1])
    return joined


def _lufs(clip: np.ndarray, rate_hz: int) -> float:
    """Loudness of the clip as a loop."""
    meter = loudness.LoudnessMeter(rate_hz, clip.shape[1])
    for _ in range(2):
        meter.add(np.asarray(clip, np.float32))
    return loudness.gated_loudness(meter.energies())


def _level(loops: list[np.ndarray], rate_hz: int) -> np.ndarray:
    """int16 `[n, T, C]`: all equally loud, as loud as none of them peaks above -1 dBFS."""
    levels = np.array([_lufs(loop, rate_hz) for loop in loops])
    peaks = np.array([np.abs(loop).max() for loop in loops])
    target = min(_LOUDEST_LUFS, (levels + 20 * np.log10(_PEAK / peaks)).min())
    gains = 10 ** ((target - levels) / 20)
    return np.stack([audio_files.to_int16(np.float32(loop * gain)) for loop, gain in zip(loops, gains, strict=True)])


def _match(
    real: list[np.ndarray], fake: list[np.ndarray], rate_hz: int, beats: int | None
) -> tuple[list[tuple[int, int]], bool]:
    """(real, generated) with the least distance in all, the nearest first; and whether every pair has one tempo.

    Distance: between `tmr-v1` embeddings of equally loud clips, standardised over both sets.
    """
    equal = audio_files.from_int16(_level([*real, *fake], rate_hz))
    values = np.concatenate([embeddings.tmr(clip[None], rate_hz, loop=True) for clip in equal])
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
    # Not infinite: a matching that must leave some out is to be found all the same.
    rows, columns = scipy.optimize.linear_sum_assignment(np.where(apart, 1e3 * cost.max() + 1, cost))
    kept = sorted((cost[i, j], int(i), int(j)) for i, j in zip(rows, columns, strict=True) if not apart[i, j])
    pairs = [(i, j) for _, i, j in kept]
    known = bpm is None or all(np.isfinite([bpm[i], bpm[len(real) + j]]).all() for i, j in pairs)
    return pairs, bool(known)


def _bpm(clip: np.ndarray, rate_hz: int) -> float:
    """Estimated tempo, NaN where the clip is too short for one."""
    found = musical.measure(clip, rate_hz, loop=True)
    long = found["tempo_bars"] is not None and found["tempo_bars"] >= _LEAST_BARS - 0.1
    return found["tempo_bpm"] if long else np.nan


def _spoil(name: str, loop: np.ndarray, rate_hz: int, beats: int | None, seed: int) -> np.ndarray:
    """The loop with a fault of `ANCHORS`."""
    if name == "dull":
        return corruptions.add_noise(corruptions.low_pass(loop, rate_hz, min(3500, 0.4 * rate_hz)), 20, seed)
    if name == "phases":
        return corruptions.randomise_phase(loop, rate_hz, 1.0, seed)
    if name == "shuffled":
        pieces = 4 * beats if beats else max(8, round(len(loop) / rate_hz / (60 / 130 / 4)))  # sixteenths of techno
        return corruptions.shuffle(loop, rate_hz, pieces, seed)
    # Of the loop's spectrum, and without any time: what a generator makes before it has learnt.
    spectrum = np.fft.rfft(loop, axis=0)
    angles = np.random.default_rng(seed).uniform(-np.pi, np.pi, len(spectrum))[:, None]
    return np.fft.irfft(spectrum * np.exp(1j * angles), len(loop), axis=0)
