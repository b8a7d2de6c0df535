"""Tracks on disk: finding them, and decoding one into a part, its audio as 16-bit PCM at the set's rate and level."""

from __future__ import annotations

import collections
import contextlib
import functools
import hashlib
import json
import math
import os
import pathlib
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from data_prep import clips, workers
from data_prep.tracks import tempo
from technogen_jax.audio import audio_files, loudness
from technogen_jax.common import atomic_files
from technogen_jax.common.compiled import compiled
from technogen_jax.data import tfrecords

UNLABELLED = "unlabelled"
_SPOOL_BYTES = 1 << 28  # of a track's float32 audio that a worker holds in memory: 12 minutes of 44.1 kHz stereo
_PIECE_SAMPLES = 1 << 15  # audio is converted in pieces that stay in the processor's cache
_PATIENCE_S = 300  # for one block; only a hung decoder or file system needs more
_LONGEST_S = 24 * 3600  # no mix is longer, and silence of days, a small file, would fill the disk
_LOUDEST_DBFS = 200.0  # integers of 32 bits kept as floats reach 187; what is beyond is no sound


class Source(NamedTuple):
    """A file that may be a track."""

    id: str  # path below the input folder, with forward slashes, always valid UTF-8
    path: str  # to open it
    label: str
    size_bytes: int
    modified_ns: int


class Cut(NamedTuple):
    """How tracks become clips."""

    sample_rate_hz: int
    channels: int
    clip_samples: int
    stride_samples: int
    normalise: str
    target_lufs: float | None
    silence_db: float
    bars: int = 0  # of a clip; 0: clips begin anywhere, and the rest says nothing
    stride_bars: int = 0
    bpm: float = 0.0  # of the set
    sections: tuple[tempo.Section, ...] = ()  # of one track
    seconds: float = 0.0  # its length

    @property
    def bar_samples(self) -> float:
        """Length of a bar, of which only a clip's number must be whole."""
        return self.clip_samples / self.bars

    def places(self, samples: int) -> list[Place]:
        """The clips of a part that was made of so many samples; with bars, of the sections one after the other."""
        if not self.bars:
            count = clips.count_clips(samples, self.clip_samples, self.stride_samples)
            return [Place(index * self.stride_samples, index * self.stride_samples, {}) for index in range(count)]
        found, begin = [], 0
        for number, section in enumerate(self.sections):
            for index in range(clips.count_clips(section.bars, self.bars, self.stride_bars)):
                bar = index * self.stride_bars
                start = max(0, round(section.time_s(bar) * self.sample_rate_hz))
                about = {"section": number, "bar": bar, "speed": round(self.speed(section), 6)}
                found.append(Place(begin + round(bar * self.bar_samples), start, about))
            begin += section.samples(self.bar_samples)
        return found

    def part_bytes(self, samples: int) -> int:
        """Size of a part: the track as far as its last clip."""
        return (self.places(samples)[-1].offset + self.clip_samples) * 2 * self.channels

    def speed(self, section: tempo.Section) -> float:
        """How much faster than it was the section is played; below 1, slower."""
        return tempo.BEATS * 60 / section.bpm * self.sample_rate_hz / self.bar_samples


class Place(NamedTuple):
    """Where a clip is."""

    offset: int  # in the part
    start: int  # in the track, at the set's rate
    about: dict[str, Any]  # with bars: number of the section, bar in it, speed


# ------------------------------------------------------------------------------------------------- finding the tracks


def find_tracks(
    root: str | os.PathLike, skip: Sequence[str | os.PathLike] = (), labels: str = "folder"
) -> tuple[list[Source], list[dict[str, str]]]:
    """The audio files below a folder, sorted by path, and those that cannot be read.

    Links are followed, but no folder is entered twice. Names that start with a dot are left alone, and files whose
    extension is not one of `audio.AUDIO_EXTENSIONS`.

    Args:
        root: the folder.
        skip: folders that are not entered.
        labels: "folder" for the first folder's name as the label, "none" for one label.

    Returns:
        Sources, and rejections: {"path", "kind", "reason"}.
    """
    found, rejected, seen = [], [], {os.path.realpath(path) for path in skip}

    def unreadable(error: OSError):
        rejected.append(
            {"path": _id(error.filename, root)} | rejection("unreadable", f"cannot be read: {error.strerror}")
        )

    for folder, folders, names in os.walk(root, onerror=unreadable, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted((name for name in folders if not name.startswith(".")), key=os.fsencode)
        for name in names:
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in audio_files.AUDIO_EXTENSIONS:
                found.append(os.path.join(folder, name))
    sources, ids = [], collections.Counter()
    for path in sorted(found, key=os.fsencode):
        track = _id(path, root)
        ids[track] += 1
        if ids[track] > 1:  # names that differ only in how they spell a byte that is not UTF-8
            track = f"{track} ({ids[track]})"
        try:
            status = os.stat(path)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(None, "not a regular file")
        except OSError as error:
            unreadable(OSError(None, error.strerror, path))
            continue
        label = " ".join(track.split("/")[0].split()) if labels == "folder" and "/" in track else UNLABELLED
        sources.append(Source(track, path, label, status.st_size, status.st_mtime_ns))
    return sources, rejected


def _id(path: str, root: str | os.PathLike) -> str:
    return safe(os.path.relpath(path, root).replace(os.sep, "/"))


def safe(text: str) -> str:
    r"""A file name as valid Unicode: bytes that are not UTF-8 as \xNN."""
    return os.fsencode(text).decode("utf-8", "backslashreplace")


def rejection(kind: str, reason: str) -> dict[str, str]:
    """Why a file is left out; reasons of one sort have one kind."""
    return {"kind": kind, "reason": reason}


# ---------------------------------------------------------------------------------------------- from a track to a part


def find_beats(job: tuple[str, str, tuple[float, float]]) -> dict[str, Any]:
    """Looks for the beat of (path of a track, path of a part, range of tempos): PART.json, also returned.

    That is {"sections": as lists, "seconds": of the track} of a track that has a steady beat, else a rejection.

    Raises:
        JobError: the part could not be written.
    """
    path, part, range_bpm = job
    return _answered(part, _find_beats, path, range_bpm)


def decode_track(job: tuple[str, str, Cut]) -> dict[str, Any]:
    """Decodes (path of a track, path of its part, cut): PART.pcm, raw int16 `[T, C]`, and PART.json, also returned.

    That is a rejection if the track cannot be used; else what the manifest says of it and, for each clip, where it is, its
    levels and whether it is silent.

    Raises:
        JobError: the part could not be written.
    """
    path, part, cut = job
    return _answered(part, _decode, path, part, cut)


def _answered(part: str, function: Callable[..., dict[str, Any]], *args: Any) -> dict[str, Any]:
    """What a function says of a track, or why the track cannot be used; left in PART.json."""
    workers.progressing(_PATIENCE_S)  # opening can hang too
    try:
        result = function(*args)
    except audio_files.AudioError as error:
        result = rejection("not usable audio", str(error))
    except workers.JobError:
        raise
    except Exception as error:  # whatever a decoder's binding raises on a damaged file must not stop the others
        message = " ".join(f"{type(error).__name__}: {error}".split())
        result = rejection("not usable audio", f"cannot be decoded: {message}")
    finally:
        workers.progressing(None)
    with replacing(f"{part}.json") as temporary:
        temporary.write_text(json.dumps(result), encoding="utf-8")
    return result


def read_answer(part: str) -> dict[str, Any] | None:
    """What an earlier `find_beats` or `decode_track` left there; None if that is nothing or not whole."""
    try:
        return json.loads(pathlib.Path(f"{part}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def read_part(part: str, cut: Cut) -> dict[str, Any] | None:
    """What an earlier `decode_track` left there; None if that is nothing or not whole."""
    try:
        result = read_answer(part)
        if result and "hash" in result and os.path.getsize(f"{part}.pcm") != cut.part_bytes(result["samples"]):
            return None
        return result
    except OSError:
        return None


@contextlib.contextmanager
def replacing(path: str) -> Iterator[pathlib.Path]:
    """A temporary name that becomes `path` when all went well.

    Raises:
        JobError: for an OSError: a full disk stops the run, since the next file would not fit either.
    """
    try:
        with atomic_files.replacing(
            path, shared=True
        ) as temporary:  # a worker of a killed run may live a moment longer
            yield temporary
    except OSError as error:
        raise workers.JobError(f"{path}: cannot be written: {error.strerror or error}") from error


def _find_beats(path: str, range_bpm: tuple[float, float]) -> dict[str, Any]:
    meter = tempo.Meter()
    with audio_files.open_stream(path) as stream:
        stream = stream._replace(blocks=_watched(stream))
        for block in audio_files.resample_blocks(stream, tempo.RATE_HZ, 1):
            meter.add(block[:, 0])
    energies = meter.energies()
    sections, confidence = tempo.find_sections(energies, range_bpm)
    if not sections:
        return rejection(
            "no steady beat",
            f"no steady beat of {range_bpm[0]:g} to {range_bpm[1]:g} BPM in bars of four: "
            f"confidence {confidence:.2f}, {tempo.MIN_CONFIDENCE} is needed",
        )
    seconds = len(energies) / tempo.FRAMES_HZ
    return {"sections": [list(section) for section in sections], "seconds": seconds}


def _decode(path: str, part: str, cut: Cut) -> dict[str, Any]:
    digest = hashlib.sha256()
    meter = loudness.LoudnessMeter(cut.sample_rate_hz, cut.channels)
    peak, swing = 0.0, _Swing(10 ** (cut.silence_db / 20))
    with contextlib.closing(_Spool(cut.channels, part)) as spool:
        with audio_files.open_stream(path) as stream:
            digest.update(f"{stream.sample_rate_hz} Hz, {stream.channels} channels".encode())
            stream = stream._replace(blocks=swing.watch(_digested(_watched(stream), digest)))
            for block in _at_sets_rate(stream, cut):
                peak = max(peak, float(block.max()), -float(block.min()))
                meter.add(block)
                spool.add(block)
        offsets = [place.offset for place in cut.places(spool.samples)]
        if not offsets:
            seconds, clip_s = spool.samples / cut.sample_rate_hz, cut.clip_samples / cut.sample_rate_hz
            return rejection("too short", f"{seconds:.3g} s, shorter than a clip of {clip_s:g} s")
        peak_db = clips.decibels(peak)
        if peak_db < cut.silence_db or not peak:
            return rejection("silent", f"silent: its peak is {peak_db:.1f} dBFS, below {cut.silence_db:g} dB")
        if not swing.enough:
            return rejection("silent", f"silent: nothing but DC, its changes stay below {cut.silence_db:g} dB")
        if peak_db > _LOUDEST_DBFS:
            return rejection("not usable audio", f"its peak is {peak_db:.0f} dBFS, which is no sound's")
        energies = meter.energies()
        track_lufs = loudness.gated_loudness(energies)
        gain = clips.track_gain(cut.normalise, peak, track_lufs, cut.target_lufs)
        with replacing(f"{part}.pcm") as temporary:
            levels = _write_pcm(temporary, spool, offsets, gain.factor, cut)
    silent = [index for index, (_, rms_db) in enumerate(levels) if rms_db < cut.silence_db]
    if len(silent) == len(offsets):
        return rejection("silent", f"silent: all {len(offsets)} clips are below {cut.silence_db:g} dB")
    energies *= gain.factor**2
    loudnesses = [loudness.clip_loudness(energies, offset, cut.clip_samples, cut.sample_rate_hz) for offset in offsets]
    return {
        "samples": spool.samples,
        "hash": digest.hexdigest(),
        "peak_dbfs": _rounded(peak_db),
        "loudness_lufs": _rounded(track_lufs),
        "gain_db": _rounded(clips.decibels(gain.factor)),
        "gain_limited": gain.limited,
        "clip_peaks_dbfs": [_rounded(peak_db) for peak_db, _ in levels],
        "clip_loudness_lufs": [_rounded(lufs) for lufs in loudnesses],
        "silent_clips": silent,
    }


def _at_sets_rate(stream: audio_files.Stream, cut: Cut) -> Iterator[np.ndarray]:
    """What the part is made of: the whole track, or its sections at the set's tempo."""
    if cut.bars:
        return tempo.warped(stream, cut.sections, cut.bar_samples, cut.channels)
    return audio_files.resample_blocks(stream, cut.sample_rate_hz, cut.channels)


def _watched(stream: audio_files.Stream) -> Iterator[np.ndarray]:
    """The stream's blocks; this process dies if one of them is long in coming.

    Raises:
        AudioError: there is no end of them.
    """
    samples = 0
    for block in stream.blocks:
        workers.progressing(_PATIENCE_S)
        samples += len(block)
        if samples > _LONGEST_S * stream.sample_rate_hz:
            raise audio_files.AudioError(f"longer than {_LONGEST_S / 3600:g} hours")
        yield block


def _digested(blocks: Iterator[np.ndarray], digest) -> Iterator[np.ndarray]:
    """The blocks; their checksums go into the digest, which on the audio itself would cost a tenth of its decoding."""
    for block in blocks:
        digest.update(tfrecords.masked_crc(block.reshape(-1).view(np.uint8)).to_bytes(4))
        yield block


def _write_pcm(
    path: pathlib.Path, spool: _Spool, offsets: Sequence[int], gain: float, cut: Cut
) -> list[tuple[float, float]]:
    """Writes the track as far as its last clip; (peak, RMS) of each clip in dBFS as written."""
    bounds = clips.piece_bounds(offsets, cut.clip_samples, _PIECE_SAMPLES)
    scale = np.float32(gain * 32768)
    pcm = np.empty((_PIECE_SAMPLES, cut.channels), np.int16)
    peaks, energies = [], []
    with open(path, "wb") as file:
        for start, stop in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            workers.progressing(_PATIENCE_S)
            piece = pcm[: stop - start]
            peak, energy = _quantise(spool.read(start, stop).reshape(-1), scale, piece.reshape(-1))
            file.write(piece.data)
            peaks.append(peak)
            energies.append(energy)
    starts = np.asarray(offsets)
    first, last = np.searchsorted(bounds, starts), np.searchsorted(bounds, starts + cut.clip_samples)
    totals = np.concatenate([[0.0], np.cumsum(energies)])
    rms = np.sqrt(np.maximum(0, totals[last] - totals[first]) / (cut.clip_samples * cut.channels))
    return [
        (clips.decibels(max(peaks[a:b]) / 32768), clips.decibels(value / 32768))
        for a, b, value in zip(first.tolist(), last.tolist(), rms.tolist(), strict=True)
    ]


@compiled
def _quantise(samples, scale, pcm):
    """Float32 `[T]` times the scale to int16, rounded and clipped; (peak, sum of squares) of what it is then."""
    peak, energy = np.int32(0), np.int64(0)
    for i in range(len(samples)):
        value = min(max(np.rint(samples[i] * scale), np.float32(-32768)), np.float32(32767))
        level = np.int32(value)
        pcm[i] = level
        peak = max(peak, abs(level))
        energy += np.int64(level) * level
    return peak, energy


class _Swing:
    """Whether a channel's samples lie further apart than twice an amplitude: with DC alone they do not."""

    def __init__(self, amplitude: float):
        self._amplitude = amplitude
        self._low, self._high = np.inf, -np.inf
        self.enough = False

    def watch(self, blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        """The blocks `[T, C]`; music is soon known to swing, and costs nothing from there on."""
        for block in blocks:
            if not self.enough:
                self._low = np.minimum(self._low, block.min(0))
                self._high = np.maximum(self._high, block.max(0))
                self.enough = bool(np.any(self._high - self._low >= 2 * self._amplitude))
            yield block


class _Spool:
    """A track's float32 audio while its level is not known yet: in memory as far as it fits, then in a temporary file."""

    def __init__(self, channels: int, part: str):
        memory = _spool_memory()
        self._memory = memory[: len(memory) // channels * channels].reshape(-1, channels)
        self._part = part
        self._file = None
        self._held = 0
        self.samples = 0

    def add(self, block: np.ndarray) -> None:
        """Appends `[T, C]`."""
        if self._file is None and self.samples + len(block) <= len(self._memory):
            self._memory[self.samples : self.samples + len(block)] = block
            self._held += len(block)
        else:
            try:
                self._file = self._file or tempfile.TemporaryFile(dir=os.path.dirname(self._part))
                self._file.write(np.ascontiguousarray(block).data)
            except OSError as error:
                raise workers.JobError(f"{self._part}: cannot be written: {error.strerror or error}") from error
        self.samples += len(block)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Samples start to stop, `[T, C]`; valid until the next call."""
        held = self._memory[start : min(stop, self._held)]
        if stop <= self._held:
            return held
        start, width = max(start, self._held), 4 * self._memory.shape[1]
        self._file.seek((start - self._held) * width)
        data = self._file.read((stop - start) * width)
        return np.concatenate([held, np.frombuffer(data, np.float32).reshape(stop - start, -1)])

    def close(self) -> None:
        """Gives the temporary file back."""
        if self._file is not None:
            self._file.close()


@functools.cache
def _spool_memory() -> np.ndarray:
    """Kept from track to track: fresh memory costs as much as copying into it. Untouched pages cost nothing."""
    return np.empty(_SPOOL_BYTES // 4, np.float32)


def _rounded(level: float) -> float | None:
    return round(level, 3) if math.isfinite(level) else None  # JSON knows no infinity
