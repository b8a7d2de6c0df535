"""Listening to sets of clips, once and as a stream: what stays of a clip is its embedding, its features and its prints.

That is about 20 kB a clip of one second, so that a hundred thousand clips fit.
"""

from __future__ import annotations

import collections
import concurrent.futures
import hashlib
import itertools
import math
import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import threadpoolctl

from technogen_jax.audio import audio_files, corruptions
from technogen_jax.common import progress
from technogen_jax.evaluation.clip_sets import ClipSet, ClipSetError, choose
from technogen_jax.evaluation.features import embeddings, musical
from technogen_jax.evaluation.memorisation import detection

MIN_TRACKS = 10  # of real and of generated clips: with fewer, no figure means anything
LEAST_TRACKS_A_DRAW = 6  # each has five neighbours then
CONTROL_SNR_DB = 40.0  # of the noise that the two-sample test must hear, or it has no power
_MATCHED_LUFS = -23.0  # what the loudness-matched variant brings every clip to: EBU R 128's level
_BATCH = 32
_SILENT_PEAK = 10 ** (-60 / 20)
_NO_PATTERN = np.full((musical.STEPS, len(musical.BANDS_HZ)), np.nan)
_MOST_FIT_TRACKS = 500


class Options(NamedTuple):
    """How to score.

    Attributes:
        seed: of the draws, permutations and classifiers.
        per_track: real clips of a track that are heard at most, spread evenly.
        draws: at most so many; fewer where a draw is large.
        permutations: of tracks, for p-values.
        train_clips: training clips searched for copies at most.
        loop: clips are loops: their end goes on at their start.
        beats: beats in a clip where it is cut to a grid; None: from its tempo.
    """

    seed: int = 0
    per_track: int = 8
    draws: int = 20
    permutations: int = 999
    train_clips: int = 20_000
    loop: bool = False
    beats: int | None = None


class Heard(NamedTuple):
    """What stays of the clips of a set that was listened to.

    Attributes:
        clips: the set.
        indices: `[n]` which of its clips.
        tracks: `[n]` their tracks.
        values: embedding's name -> `[n, D]`.
        matched: `[n, D]`, tmr-v1 of the clips brought to one loudness; empty where not asked for.
        features: name -> `[n]`, NaN where a feature is not defined; empty where not asked for.
        bands_db: `[n, L]` long-term spectra.
        pattern: `[n, 16, 3]` onsets on the sixteenths.
        trivial: `[n, K]`: what a classifier must not tell the sets apart by.
        prints: for the memorisation panel, or None.
        silent: number of clips below -60 dBFS.
        hashes: SHA-256 of the audio of each clip that is not silent.
        pcm_sha256: of all the audio.
    """

    clips: ClipSet
    indices: np.ndarray
    tracks: np.ndarray
    values: dict[str, np.ndarray]
    matched: np.ndarray | None
    features: dict[str, np.ndarray]
    bands_db: np.ndarray | None
    pattern: np.ndarray | None
    trivial: np.ndarray | None
    prints: detection.Prints | None
    silent: int
    hashes: frozenset[bytes]
    pcm_sha256: str


class Sides(NamedTuple):
    """Everything that was listened to.

    Attributes:
        reference: real clips, held out.
        other: real clips of other tracks, for the floor: half of what was trained on; else the reference itself.
        generated: the clips in question.
        fit: real clips that the projection is fitted to, the other half; else the reference.
        train: the clips that were trained on, or None where they are not known.
        train_prints: of all of them, or None.
        noisy: real clips of other tracks with noise 40 dB below them, which a test must tell from the reference.
        earlier: clips of an earlier checkpoint, or None.
    """

    reference: Heard
    other: Heard
    generated: Heard
    fit: Heard
    train: Heard | None
    train_prints: detection.Prints | None
    noisy: Heard
    earlier: Heard | None


def listen_to_all(
    reference: ClipSet,
    generated: ClipSet,
    train: ClipSet | None,
    earlier: ClipSet | None,
    chosen: dict[str, embeddings.Embedding],
    options: Options,
) -> Sides:
    """Listens to every set of an evaluation.

    Args:
        reference: real clips, held out.
        generated: the clips in question.
        train: the real clips that were trained on; None where they are not known.
        earlier: clips of an earlier checkpoint, a control; None without one.
        chosen: the embeddings, by name.
        options: how many clips, and how.

    Raises:
        ClipSetError: sets that do not go together, or too few clips.
    """
    geometry = [(s.sample_rate_hz, s.channels, s.clip_samples) for s in (reference, generated, train, earlier) if s]
    if len(set(geometry)) > 1:
        raise ClipSetError(f"expected one rate, channel count and clip length, got {sorted(set(geometry))}")
    shared = set(reference.tracks) & (set(train.tracks) if train else set())
    if shared:
        raise ClipSetError(
            f"{len(shared)} tracks of {reference.name} were trained on, such as {min(shared)}; judge by other tracks"
        )

    def hear(clips: ClipSet, per_track: int, tracks: int | None = None, **what) -> Heard:
        indices = choose(clips, per_track=per_track, tracks=tracks, seed=options.seed)
        return listen(clips, indices, what.pop("by", chosen), options, **what)

    real = hear(reference, options.per_track, features=True, prints=True)
    fake = hear(generated, options.per_track, features=True, prints=True)
    _check_different(real, fake)
    other = fit = real
    trained_on = prints = None
    noised = _half_of_tracks(reference, options.seed)
    if train is not None:
        noised = train
        trained_on = hear(train, options.per_track, _MOST_FIT_TRACKS, features=True)
        per_track = max(1, options.train_clips // len(np.unique(train.tracks)))
        printed = hear(train, per_track, options.train_clips, prints=True, by={})
        _check_different(real, printed)
        prints = printed.prints
        # The floor had better not be of clips that the projection was fitted to: they look farther than others.
        many = len(np.unique(trained_on.tracks)) >= 2 * MIN_TRACKS
        fit, other = halves(trained_on, options.seed) if many else (trained_on, trained_on)
    elif len(np.unique(real.tracks)) < 2 * LEAST_TRACKS_A_DRAW:
        raise ClipSetError(
            f"{reference.name}: expected at least {2 * LEAST_TRACKS_A_DRAW} tracks, one half to be compared with the other, "
            f"got {len(np.unique(real.tracks))}; name the clips that were trained on too, or add tracks"
        )

    def with_noise(clip: np.ndarray, number: int) -> np.ndarray:
        return corruptions.add_noise(clip, CONTROL_SNR_DB, seed=number) if clip.any() else clip

    return Sides(
        reference=real,
        other=other,
        generated=fake,
        fit=fit,
        train=trained_on,
        train_prints=prints,
        noisy=hear(noised, 1, len(np.unique(reference.tracks)), alter=with_noise, least=LEAST_TRACKS_A_DRAW),
        earlier=hear(earlier, 1) if earlier else None,
    )


def listen(
    clips: ClipSet,
    indices: Sequence[int],
    chosen: dict[str, embeddings.Embedding],
    options: Options,
    *,
    features: bool = False,
    prints: bool = False,
    alter=None,
    least: int = MIN_TRACKS,
) -> Heard:
    """Reads clips once and keeps what the scores need.

    Args:
        clips: the set.
        indices: sorted, which of its clips.
        chosen: the embeddings, by name.
        options: loop and beats.
        features: measure what musicians can act on, spectra and what a classifier must not hear.
        prints: keep what the memorisation panel needs.
        alter: (audio `[T, C]`, number of the clip) -> audio, put between reading and listening.
        least: tracks that are not silent.

    Raises:
        ClipSetError: NaN or Inf, or fewer tracks.
    """
    rate, indices = clips.sample_rate_hz, np.asarray(indices)
    names, ids = clips.tracks[indices], [clips.ids[index] for index in indices]
    silent, hashes = np.zeros(len(indices), bool), []
    values, matched, rows = collections.defaultdict(list), [], collections.defaultdict(list)

    def measure(clip: np.ndarray) -> dict[str, Any]:
        found = musical.describe(clip, rate, beats=options.beats, loop=options.loop)
        pattern = _NO_PATTERN if found.onset_pattern is None else found.onset_pattern
        return {"measured": found.features, "bands": found.ltas_db, "pattern": pattern, "trivial": _trivial(clip)}

    def keep(batch: list[np.ndarray], pool: concurrent.futures.Executor) -> None:
        stacked = np.stack(batch)
        for name, embedding in chosen.items():
            values[name].append(embedding.embed(stacked, rate, loop=options.loop))
        if features:
            found = list(pool.map(measure, batch))
            for row in found:
                for name, value in row.items():
                    rows[name].append(value)
            levels = [row["measured"]["loudness_lufs"] for row in found]
            gains = [1.0 if level is None else 10 ** ((_MATCHED_LUFS - level) / 20) for level in levels]
            tmr = embeddings.EMBEDDINGS["tmr-v1"]
            matched.append(tmr.embed(stacked * np.array(gains, np.float32)[:, None, None], rate, loop=options.loop))

    def passing() -> Iterator[np.ndarray]:
        """The clips, all else done with them on the way."""
        with (
            progress.bar(f"listening to {clips.name}", len(indices), " clips") as bar,
            concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool,
            threadpoolctl.threadpool_limits(1),  # the pool's threads are enough: more only wait for one another
        ):
            stream = enumerate(clips.read(indices))
            while some := list(itertools.islice(stream, _BATCH)):
                batch = []
                for number, pcm in some:
                    hashes.append(hashlib.sha256(np.ascontiguousarray(pcm).data).digest())
                    clip = audio_files.from_int16(pcm)
                    silent[number] = np.abs(clip).max() < _SILENT_PEAK
                    batch.append(clip if alter is None else np.asarray(alter(clip, number), np.float32))
                keep(batch, pool)
                yield from batch
                bar.update(len(batch))

    if prints:
        printed = detection.prints(passing(), names, ids, rate, seconds=clips.clip_samples / rate)
    else:
        printed = None
        collections.deque(passing(), maxlen=0)
    sounding = len(np.unique(names[~silent]))
    if sounding < least:
        raise ClipSetError(
            f"{clips.name}: expected at least {least} tracks that are not silent, got {sounding} of "
            f"{len(np.unique(names))}"
        )
    return Heard(
        clips=clips,
        indices=indices,
        tracks=names,
        values={name: np.concatenate(parts) for name, parts in values.items()},
        matched=np.concatenate(matched) if matched else None,
        features=_columns(rows["measured"]),
        bands_db=np.stack(rows["bands"]) if features else None,
        pattern=np.stack(rows["pattern"]) if features else None,
        trivial=np.stack(rows["trivial"]) if features else None,
        prints=printed,
        silent=int(silent.sum()),
        hashes=frozenset(name for name, quiet in zip(hashes, silent, strict=True) if not quiet),
        pcm_sha256=hashlib.sha256(b"".join(hashes)).hexdigest(),
    )


def halves(heard: Heard, seed: int) -> tuple[Heard, Heard]:
    """Half the tracks, and the other half."""
    tracks = np.random.default_rng(seed).permutation(np.unique(heard.tracks))
    first = np.isin(heard.tracks, tracks[: len(tracks) // 2])
    return _rows(heard, first), _rows(heard, ~first)


def _rows(heard: Heard, rows: np.ndarray) -> Heard:
    """Some of the clips, without their prints."""

    def of(values):
        return None if values is None else values[rows]

    return heard._replace(
        indices=heard.indices[rows],
        tracks=heard.tracks[rows],
        values={name: values[rows] for name, values in heard.values.items()},
        features={name: values[rows] for name, values in heard.features.items()},
        matched=of(heard.matched),
        bands_db=of(heard.bands_db),
        pattern=of(heard.pattern),
        trivial=of(heard.trivial),
        prints=None,
    )


def _half_of_tracks(clips: ClipSet, seed: int) -> ClipSet:
    """The set with the clips of half its tracks only: those that `halves` puts second."""
    tracks = np.random.default_rng(seed).permutation(np.unique(clips.tracks))
    kept = np.flatnonzero(np.isin(clips.tracks, tracks[len(tracks) // 2 :]))
    return clips._replace(
        tracks=clips.tracks[kept],
        ids=[clips.ids[index] for index in kept],
        labels=None if clips.labels is None else clips.labels[kept],
        read=lambda indices: clips.read(kept[indices]),
    )


def _check_different(real: Heard, others: Heard) -> None:
    if same := real.hashes & others.hashes:
        raise ClipSetError(
            f"{len(same)} clips are the same, bit for bit, in {real.clips.name} and {others.clips.name}; take them out of one"
        )


def _columns(rows: list[dict[str, float | None]]) -> dict[str, np.ndarray]:
    """Name -> values, NaN where there is none."""
    return {
        name: np.array([math.nan if row[name] is None else row[name] for row in rows]) for name in (rows or [{}])[0]
    }


def _trivial(clip: np.ndarray) -> np.ndarray:
    """What gives a file away without its music: offset, peak, use of the lowest bit, silence at the ends, the top band."""
    pcm = np.rint(clip * 32768).astype(np.int64)
    used = np.flatnonzero(pcm.any(axis=1))
    lead, tail = (used[0], len(pcm) - 1 - used[-1]) if len(used) else (len(pcm), len(pcm))
    spectrum = np.abs(np.fft.rfft(clip.mean(axis=1))) ** 2
    top = spectrum[int(0.95 * len(spectrum)) :].sum() / max(spectrum.sum(), 1e-12)
    return np.array([clip.mean(), np.abs(clip).max(), (pcm & 1).mean(), lead, tail, 10 * np.log10(top + 1e-12)])
