"""Reads sets of clips once, as streams, and keeps what the figures need of each clip.

That is its embeddings, its musical features and its fingerprint: about 20 kB for a clip of one
second, so that a hundred thousand clips fit into memory.
"""

from __future__ import annotations

import collections
import concurrent.futures
import hashlib
import itertools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import threadpoolctl

from technogen_jax.audio import audio_files, corruptions
from technogen_jax.common import progress
from technogen_jax.evaluation.clip_sets import ClipSet, ClipSetError, choose
from technogen_jax.evaluation.features import musical
from technogen_jax.evaluation.features.embedding import Embedding
from technogen_jax.evaluation.features.tmr import TMR_V1
from technogen_jax.evaluation.memorisation.fingerprints import Fingerprints, make_fingerprints

MIN_TRACKS = 10  # chosen: with fewer tracks of real or generated clips no figure is meaningful
LEAST_TRACKS_A_DRAW = 6  # so that each clip has five neighbours
CONTROL_SNR_DB = 40.0  # of the control's noise, which a sensitive two-sample test detects
_MATCHED_LUFS = -23.0  # of the loudness-matched clips: the level of EBU R 128
_BATCH = 32
_SILENT_PEAK = 10 ** (-60 / 20)
_NO_PATTERN = np.full((musical.STEPS, len(musical.BANDS_HZ)), np.nan)
_MOST_FIT_TRACKS = 500


class Options(NamedTuple):
    """Options of a comparison.

    Attributes:
        seed: the seed of the draws, permutations and classifiers.
        per_track: real clips of a track that are used at most, spread evenly over it.
        draws: number of draws at most; fewer where a draw is large.
        permutations: the number of permutations of tracks, for p-values.
        train_clips: training clips searched for copies at most.
        loop: whether the clips are loops: their end continues at their start.
        beats: beats in a clip of a dataset cut to a grid; None: from its estimated tempo.
    """

    seed: int = 0
    per_track: int = 8
    draws: int = 20
    permutations: int = 999
    train_clips: int = 20_000
    loop: bool = False
    beats: int | None = None


class ClipFeatures(NamedTuple):
    """Embeddings, features and fingerprints of the clips of a set.

    Attributes:
        clips: the clips to read.
        indices: `[n]`, which of its clips.
        tracks: `[n]`, their tracks.
        values: embedding's name -> `[n, D]`.
        matched: `[n, D]`, tmr-v1 of the clips at one loudness; None where not asked for.
        features: name -> `[n]`, NaN where a feature is not defined; empty where not asked for.
        bands_db: `[n, L]`, long-term spectra; None where not asked for.
        pattern: `[n, 16, 3]`, onsets on the sixteenths; None where not asked for.
        trivial: `[n, K]`, properties of the file that a classifier should not need; None where not
            asked for.
        fingerprints: for the memorisation panel; None where not asked for.
        silent: number of clips below -60 dBFS.
        hashes: SHA-256 of the audio of each clip that is not silent.
        pcm_sha256: SHA-256 of all the audio.
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
    fingerprints: Fingerprints | None
    silent: int
    hashes: frozenset[bytes]
    pcm_sha256: str


class Comparison(NamedTuple):
    """The features of every set of an evaluation.

    Attributes:
        reference: real clips, held out.
        other: real clips of other tracks, for the floor: half of the training tracks, or the
            reference itself.
        generated: the generated clips.
        fit: real clips that the projection is fitted to: the other half, or the reference.
        train: the training clips; None where they are not known.
        train_fingerprints: the fingerprints of all training clips; None where they are not known.
        noisy: real clips of other tracks with noise 40 dB below them, a control that a test must
            distinguish from the reference.
        earlier: clips of an earlier checkpoint; None without one.
    """

    reference: ClipFeatures
    other: ClipFeatures
    generated: ClipFeatures
    fit: ClipFeatures
    train: ClipFeatures | None
    train_fingerprints: Fingerprints | None
    noisy: ClipFeatures
    earlier: ClipFeatures | None


def extract_comparison(
    reference: ClipSet,
    generated: ClipSet,
    train: ClipSet | None,
    earlier: ClipSet | None,
    embeddings: dict[str, Embedding],
    options: Options,
) -> Comparison:
    """Returns the features of every set of an evaluation.

    Args:
        reference: real clips, held out.
        generated: the generated clips.
        train: the real clips that the model was trained on; None where they are not known.
        earlier: clips of an earlier checkpoint, a control; None without one.
        embeddings: the embeddings, by name.
        options: options of the comparison.

    Raises:
        ClipSetError: sets that cannot be compared, or too few clips.
    """
    _check_sets(reference, generated, train, earlier)

    def extract(clips: ClipSet, per_track: int, tracks: int | None = None, **what) -> ClipFeatures:
        indices = choose(clips, per_track=per_track, tracks=tracks, seed=options.seed)
        return extract_features(clips, indices, what.pop("embeddings", embeddings), options, **what)

    real = extract(reference, options.per_track, features=True, fingerprints=True)
    fake = extract(generated, options.per_track, features=True, fingerprints=True)
    _check_different(real, fake)
    other = fit = real
    trained_on = train_fingerprints = None
    noised = _second_half(reference, options.seed)
    if train is not None:
        noised = train
        trained_on = extract(train, options.per_track, _MOST_FIT_TRACKS, features=True)
        per_track = max(1, options.train_clips // len(np.unique(train.tracks)))
        searched = extract(train, per_track, options.train_clips, fingerprints=True, embeddings={})
        _check_different(real, searched)
        train_fingerprints = searched.fingerprints
        # In the projection, the clips that it was fitted to look further apart than other clips.
        # So the floor is computed from the half of the tracks that it was not fitted to.
        many = len(np.unique(trained_on.tracks)) >= 2 * MIN_TRACKS
        fit, other = split_tracks(trained_on, options.seed) if many else (trained_on, trained_on)
    elif len(np.unique(real.tracks)) < 2 * LEAST_TRACKS_A_DRAW:
        raise ClipSetError(
            f"{reference.name}: expected at least {2 * LEAST_TRACKS_A_DRAW} tracks, one half to be compared with the other, "
            f"got {len(np.unique(real.tracks))}; name the clips that were trained on too, or add tracks"
        )

    def add_noise(clip: np.ndarray, number: int) -> np.ndarray:
        return corruptions.add_noise(clip, CONTROL_SNR_DB, seed=number) if clip.any() else clip

    return Comparison(
        reference=real,
        other=other,
        generated=fake,
        fit=fit,
        train=trained_on,
        train_fingerprints=train_fingerprints,
        noisy=extract(noised, 1, len(np.unique(reference.tracks)), alter=add_noise, least=LEAST_TRACKS_A_DRAW),
        earlier=extract(earlier, 1) if earlier else None,
    )


class _Rows:
    """Collects the results of batches of clips, and joins them."""

    def __init__(self, embeddings: dict[str, Embedding], sample_rate_hz: int, options: Options, features: bool):
        self._embeddings, self._rate, self._options = embeddings, sample_rate_hz, options
        self._features = features
        self._values, self._matched = collections.defaultdict(list), []
        self._rows = collections.defaultdict(list)

    def add(self, batch: np.ndarray, pool: concurrent.futures.Executor) -> None:
        """Adds clips `[B, T, C]`."""
        loop = self._options.loop
        for name, embedding in self._embeddings.items():
            self._values[name].append(embedding.embed(batch, self._rate, loop=loop))
        if not self._features:
            return
        found = list(pool.map(self._measure, batch))
        for row in found:
            for name, value in row.items():
                self._rows[name].append(value)
        levels = [row["measured"]["loudness_lufs"] for row in found]
        gains = [1.0 if level is None else 10 ** ((_MATCHED_LUFS - level) / 20) for level in levels]
        self._matched.append(TMR_V1.embed(batch * np.array(gains, np.float32)[:, None, None], self._rate, loop=loop))

    def _measure(self, clip: np.ndarray) -> dict[str, Any]:
        found = musical.describe(clip, self._rate, beats=self._options.beats, loop=self._options.loop)
        pattern = _NO_PATTERN if found.onset_pattern is None else found.onset_pattern
        trivial = _measure_file(clip)
        return {"measured": found.features, "bands": found.ltas_db, "pattern": pattern, "trivial": trivial}

    def join(self) -> dict[str, Any]:
        """Returns the fields of `ClipFeatures` that were collected."""
        return {
            "values": {name: np.concatenate(parts) for name, parts in self._values.items()},
            "matched": np.concatenate(self._matched) if self._matched else None,
            "features": _columns(self._rows["measured"]),
            "bands_db": np.stack(self._rows["bands"]) if self._features else None,
            "pattern": np.stack(self._rows["pattern"]) if self._features else None,
            "trivial": np.stack(self._rows["trivial"]) if self._features else None,
        }


def extract_features(
    clips: ClipSet,
    indices: Sequence[int],
    embeddings: dict[str, Embedding],
    options: Options,
    *,
    features: bool = False,
    fingerprints: bool = False,
    alter: Callable[[np.ndarray, int], np.ndarray] | None = None,
    least: int = MIN_TRACKS,
) -> ClipFeatures:
    """Reads clips once and returns what the figures need.

    Args:
        clips: the clips to read.
        indices: sorted, which of its clips.
        embeddings: the embeddings, by name.
        options: loop and beats.
        features: whether to compute musical features, spectra, and properties of the files.
        fingerprints: whether to compute what the memorisation panel needs.
        alter: (audio `[T, C]`, number of the clip) -> audio, applied before all else.
        least: least number of tracks that are not silent.

    Raises:
        ClipSetError: NaN or Inf, or fewer tracks.
    """
    rate, indices = clips.sample_rate_hz, np.asarray(indices)
    tracks, ids = clips.tracks[indices], [clips.ids[index] for index in indices]
    silent, hashes = np.zeros(len(indices), bool), []
    rows = _Rows(embeddings, rate, options, features)

    def read() -> Iterator[np.ndarray]:
        """The clips; all but the fingerprints is computed on the way."""
        with (
            progress.bar(f"reading {clips.name}", len(indices), " clips") as bar,
            concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool,
            threadpoolctl.threadpool_limits(1),  # the pool uses all cores; more threads would wait for each other
        ):
            stream = enumerate(clips.read(indices))
            while some := list(itertools.islice(stream, _BATCH)):
                batch = []
                for number, pcm in some:
                    hashes.append(hashlib.sha256(np.ascontiguousarray(pcm).data).digest())
                    clip = audio_files.from_int16(pcm)
                    silent[number] = np.abs(clip).max() < _SILENT_PEAK
                    batch.append(clip if alter is None else np.asarray(alter(clip, number), np.float32))
                rows.add(np.stack(batch), pool)
                yield from batch
                bar.update(len(batch))

    found = None
    if fingerprints:
        found = make_fingerprints(read(), tracks, ids, rate, seconds=clips.clip_samples / rate)
    else:
        collections.deque(read(), maxlen=0)
    sounding = len(np.unique(tracks[~silent]))
    if sounding < least:
        raise ClipSetError(
            f"{clips.name}: expected at least {least} tracks that are not silent, got {sounding} of "
            f"{len(np.unique(tracks))}"
        )
    return ClipFeatures(
        clips=clips,
        indices=indices,
        tracks=tracks,
        fingerprints=found,
        silent=int(silent.sum()),
        hashes=frozenset(name for name, quiet in zip(hashes, silent, strict=True) if not quiet),
        pcm_sha256=hashlib.sha256(b"".join(hashes)).hexdigest(),
        **rows.join(),
    )


def split_tracks(clips: ClipFeatures, seed: int) -> tuple[ClipFeatures, ClipFeatures]:
    """Returns the clips of half the tracks, drawn by the seed, and those of the other half."""
    tracks = np.random.default_rng(seed).permutation(np.unique(clips.tracks))
    first = np.isin(clips.tracks, tracks[: len(tracks) // 2])
    return _select_rows(clips, first), _select_rows(clips, ~first)


def _select_rows(clips: ClipFeatures, rows: np.ndarray) -> ClipFeatures:
    """Some of the clips, without their fingerprints."""

    def select(values):
        return None if values is None else values[rows]

    return clips._replace(
        indices=clips.indices[rows],
        tracks=clips.tracks[rows],
        values={name: values[rows] for name, values in clips.values.items()},
        features={name: values[rows] for name, values in clips.features.items()},
        matched=select(clips.matched),
        bands_db=select(clips.bands_db),
        pattern=select(clips.pattern),
        trivial=select(clips.trivial),
        fingerprints=None,
    )


def _second_half(clips: ClipSet, seed: int) -> ClipSet:
    """The clips of the tracks that `split_tracks` returns second."""
    tracks = np.random.default_rng(seed).permutation(np.unique(clips.tracks))
    kept = np.flatnonzero(np.isin(clips.tracks, tracks[len(tracks) // 2 :]))
    return clips._replace(
        tracks=clips.tracks[kept],
        ids=[clips.ids[index] for index in kept],
        labels=None if clips.labels is None else clips.labels[kept],
        read=lambda indices: clips.read(kept[indices]),
    )


def _check_sets(reference: ClipSet, generated: ClipSet, train: ClipSet | None, earlier: ClipSet | None) -> None:
    geometry = [(s.sample_rate_hz, s.channels, s.clip_samples) for s in (reference, generated, train, earlier) if s]
    if len(set(geometry)) > 1:
        raise ClipSetError(f"expected one rate, channel count and clip length, got {sorted(set(geometry))}")
    shared = set(reference.tracks) & (set(train.tracks) if train else set())
    if shared:
        raise ClipSetError(
            f"{len(shared)} tracks of {reference.name} were trained on, such as {min(shared)}; evaluate on other tracks"
        )


def _check_different(real: ClipFeatures, others: ClipFeatures) -> None:
    if same := real.hashes & others.hashes:
        raise ClipSetError(
            f"{len(same)} clips are the same, bit for bit, in {real.clips.name} and {others.clips.name}; "
            "remove them from one"
        )


def _columns(rows: list[dict[str, float | None]]) -> dict[str, np.ndarray]:
    """Name -> values `[n]`, NaN where one is None."""
    return {
        name: np.array([math.nan if row[name] is None else row[name] for row in rows]) for name in (rows or [{}])[0]
    }


def _measure_file(clip: np.ndarray) -> np.ndarray:
    """`[6]`: DC offset, peak, share of odd samples, silence at either end, energy of the top band.

    They distinguish files without any music.
    """
    pcm = np.rint(clip * 32768).astype(np.int64)
    used = np.flatnonzero(pcm.any(axis=1))
    lead, tail = (used[0], len(pcm) - 1 - used[-1]) if len(used) else (len(pcm), len(pcm))
    spectrum = np.abs(np.fft.rfft(clip.mean(axis=1))) ** 2
    top = spectrum[int(0.95 * len(spectrum)) :].sum() / max(spectrum.sum(), 1e-12)
    return np.array([clip.mean(), np.abs(clip).max(), (pcm & 1).mean(), lead, tail, 10 * np.log10(top + 1e-12)])
