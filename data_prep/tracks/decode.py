"""Decodes one track to a file of 16-bit PCM at the dataset's rate and level, or finds its beats.

Both run in worker processes and leave their result in a JSON file, so that a run that was stopped is
resumed. STEM in this package is the path of these files without extension.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import math
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from data_prep import clips, workers
from data_prep.tracks import levels, tempo, varispeed, versions
from data_prep.tracks.clip_settings import ClipSettings
from data_prep.tracks.find import make_rejection
from technogen_jax.audio import audio_files, loudness
from technogen_jax.common import atomic_files, json_files
from technogen_jax.common.compiled import compiled
from technogen_jax.data import tfrecords

_BUFFER_BYTES = 1 << 28  # audio of a track in memory, for each worker: 12 minutes of 44.1 kHz stereo
_PIECE_SAMPLES = 1 << 15  # audio is converted in pieces that fit into the processor's cache
_PATIENCE_S = 300  # for one block; only a decoder or file system that hangs takes longer
_LONGEST_S = 24 * 3600  # chosen: no mix is longer, and a small file of days of silence would fill the disk
_LOUDEST_DBFS = 200.0  # 32-bit integers stored as floats reach 187 dBFS; no sound is louder


def find_beats(job: tuple[str, str, tuple[float, float]]) -> dict[str, Any]:
    """Finds the beats of a track.

    Args:
        job: path of the track, stem of the result file, slowest and fastest tempo.

    Returns:
        {"sections": as lists, "seconds": of the track} if the track has a steady beat, else a rejection.
        It is also written to STEM.json.

    Raises:
        JobError: the file could not be written.
    """
    path, stem, range_bpm = job
    return _run_and_save(stem, _find_beats, path, range_bpm)


def decode_track(job: tuple[str, str, ClipSettings]) -> dict[str, Any]:
    """Decodes a track to STEM.pcm, raw int16 `[T, C]` at the dataset's rate and level.

    Args:
        job: path of the track, stem of its decoded files, settings.

    Returns:
        A rejection if the track cannot be used; else the track's entries for the manifest, the levels of
        each clip and the numbers of silent clips. It is also written to STEM.json.

    Raises:
        JobError: a file could not be written.
    """
    path, stem, settings = job
    return _run_and_save(stem, _decode, path, stem, settings)


def _run_and_save(stem: str, function: Callable[..., dict[str, Any]], *args: Any) -> dict[str, Any]:
    """Returns the function's result, or a rejection if it fails on the track; writes it to STEM.json."""
    workers.set_time_limit(_PATIENCE_S)  # opening can hang too
    try:
        result = function(*args)
    except audio_files.AudioError as error:
        result = make_rejection("not usable audio", str(error))
    except workers.JobError:
        raise
    except Exception as error:  # one damaged file must not stop the others, whatever the decoder raises
        message = " ".join(f"{type(error).__name__}: {error}".split())
        result = make_rejection("not usable audio", f"cannot be decoded: {message}")
    finally:
        workers.set_time_limit(None)
    save_result(stem, result)
    return result


def save_result(stem: str, result: dict[str, Any]) -> None:
    """Writes STEM.json.

    Raises:
        JobError: the file could not be written.
    """
    with replacing(f"{stem}.json") as temporary:
        temporary.write_text(json.dumps(result), encoding="utf-8")


def read_result(stem: str) -> dict[str, Any] | None:
    """Returns what an earlier run wrote to STEM.json, None if there is no complete file."""
    try:
        return json_files.read(f"{stem}.json")
    except (OSError, ValueError):
        return None


def read_decoded(stem: str, settings: ClipSettings) -> dict[str, Any] | None:
    """Returns the result of an earlier `decode_track`, None if one of its files is missing or incomplete."""
    try:
        result = read_result(stem)
        if result and "hash" in result and os.path.getsize(f"{stem}.pcm") != settings.decoded_bytes(result["samples"]):
            return None
        return result
    except OSError:
        return None


@contextlib.contextmanager
def replacing(path: str) -> Iterator[pathlib.Path]:
    """Gives a temporary file name, which becomes `path` if nothing fails.

    Raises:
        JobError: instead of an OSError: on a full disk the next track would fail too.
    """
    try:
        # shared: a worker of a run that was killed may still be writing.
        with atomic_files.replacing(path, shared=True) as temporary:
            yield temporary
    except OSError as error:
        raise workers.JobError(f"{path}: cannot be written: {error.strerror or error}") from error


def _find_beats(path: str, range_bpm: tuple[float, float]) -> dict[str, Any]:
    energies, mono_db = _band_energies(path, 2)
    if mono_db < levels.CANCELLED_DB:
        energies, _ = _band_energies(path, 1)
    sections, confidence = tempo.find_sections(energies, range_bpm)
    if not sections:
        return _without_beat(energies, range_bpm, confidence)
    seconds = len(energies) / tempo.FRAME_RATE_HZ
    return {"sections": [list(section) for section in sections], "seconds": seconds}


def _band_energies(path: str, channels: int) -> tuple[np.ndarray, float]:
    """Returns the energies that the beat is found in, and the level of the mono mix, see `StreamMeter.mono_db`.

    Args:
        path: of the track.
        channels: 2 for the mean of left and right, 1 for left alone.
    """
    analyzer, meter = tempo.BandEnergyAnalyzer(), levels.StreamMeter(0.0)
    with audio_files.open_stream(path) as stream:
        blocks = meter.watch(_with_time_limit(stream))
        if channels == 1:
            stream = stream._replace(channels=1)
            blocks = (np.ascontiguousarray(block[:, :1]) for block in blocks)
        for block in audio_files.resample_blocks(stream._replace(blocks=blocks), tempo.RATE_HZ, 1):
            analyzer.add(block[:, 0])
    return analyzer.energies(), meter.mono_db()


def _without_beat(energies: np.ndarray, range_bpm: tuple[float, float], confidence: float) -> dict[str, Any]:
    """Returns the rejection of a track without a steady beat in the range; names a tempo outside it."""
    low, high = range_bpm
    for slower, faster in ((max(40.0, low / 1.9), low), (high, min(300.0, 1.9 * high))):
        sections, _ = tempo.find_sections(energies, (slower, faster)) if slower < faster else ((), 0)
        if sections:
            bpm = max(sections, key=lambda section: section.bars).bpm
            return make_rejection(
                "other tempo", f"{bpm:.2f} BPM, outside --bpm_range {low:g},{high:g}: choose another range"
            )
    return make_rejection(
        "no steady beat",
        f"no steady beat of {low:g} to {high:g} BPM (--bpm_range) in bars of four: "
        f"confidence {confidence:.2f}, {tempo.MIN_CONFIDENCE} is needed",
    )


class _Reading(NamedTuple):
    """A track at the dataset's rate, and what was measured while it was decoded."""

    digest: str  # of the audio in the file
    peak: float
    loudness_meter: loudness.LoudnessMeter
    stream_meter: levels.StreamMeter
    offset_meter: levels.OffsetMeter
    padding_samples: int


def _read(path: str, audio: _AudioBuffer, settings: ClipSettings, limit: float | None) -> _Reading:
    """Decodes a track into `audio`; samples beyond `limit` are limited."""
    digest = hashlib.sha256()
    meter = loudness.LoudnessMeter(settings.sample_rate_hz, settings.channels)
    own, offset = levels.StreamMeter(10 ** (settings.silence_db / 20)), levels.OffsetMeter(settings.sample_rate_hz)
    peak, padding_samples = 0.0, 0
    with audio_files.open_stream(path) as stream:
        digest.update(f"{stream.sample_rate_hz} Hz, {stream.channels} channels".encode())
        blocks = own.watch(_with_digest(_with_time_limit(stream), digest))
        if limit is not None:
            blocks = (block.clip(-limit, limit) for block in blocks)
        for block in _resample(stream._replace(blocks=blocks), settings):
            peak = max(peak, float(block.max()), -float(block.min()))
            meter.add(block)
            offset.add(block)
            audio.add(block)
    if settings.pad and 0 < audio.samples < settings.clip_samples:
        padding_samples = settings.clip_samples - audio.samples
        padding = np.zeros((padding_samples, settings.channels), np.float32)
        meter.add(padding)
        audio.add(padding)
    return _Reading(digest.hexdigest(), peak, meter, own, offset, padding_samples)


def _decode(path: str, stem: str, settings: ClipSettings) -> dict[str, Any]:
    with contextlib.closing(_AudioBuffer(settings.channels, stem)) as audio:
        reading = _read(path, audio, settings, None)
        limit = reading.stream_meter.wild_samples()[2]
        if math.isfinite(limit):  # again: a wild sample spreads when the rate is changed
            audio.clear()
            limited = _read(path, audio, settings, limit)
            reading = limited._replace(stream_meter=reading.stream_meter)
        return _cut(stem, audio, reading, settings)


def _cut(stem: str, audio: _AudioBuffer, reading: _Reading, settings: ClipSettings) -> dict[str, Any]:
    """Writes a decoded track to STEM.pcm; returns the result of `decode_track`."""
    rate, silence_db = settings.sample_rate_hz, settings.silence_db
    offsets = [position.offset for position in settings.find_clips(audio.samples)]
    if not offsets:
        clip_s = settings.clip_samples / rate
        hint = "" if settings.bars else "; --pad keeps it, with silence after it"
        return make_rejection("too short", f"{audio.samples / rate:.3g} s, shorter than a clip of {clip_s:g} s{hint}")
    mono_db = reading.stream_meter.mono_db() if settings.channels == 1 else 0.0
    if reading.stream_meter.passed and mono_db < levels.CANCELLED_DB:
        return make_rejection(
            "channels cancel",
            f"left and right cancel: mono is {-mono_db:.0f} dB softer; use --channels 2, or invert one of them",
        )
    peak = reading.peak
    dc = reading.offset_meter.offset(peak)
    if dc is not None:
        starts = range(0, audio.samples, _PIECE_SAMPLES)
        pieces = (audio.read(start, min(start + _PIECE_SAMPLES, audio.samples)) for start in starts)
        peak = max(float(np.abs(piece - dc).max()) for piece in pieces)
    peak_db = clips.decibels(peak)
    if not reading.stream_meter.passed and clips.decibels(reading.peak) >= silence_db:
        return make_rejection("silent", f"silent: nothing but DC, its changes stay below {silence_db:g} dB")
    if peak_db < silence_db or not peak:
        return make_rejection("silent", f"silent: its peak is {peak_db:.1f} dBFS, below {silence_db:g} dB")
    if peak_db > _LOUDEST_DBFS:
        return make_rejection("not usable audio", f"its peak is {peak_db:.0f} dBFS, higher than any sound's")
    bandwidth_hz = levels.measure_bandwidth(audio.read, audio.samples, rate)
    if bandwidth_hz < (settings.min_bandwidth_hz or 0):
        return make_rejection(
            "no treble",
            f"no sound above {bandwidth_hz / 1000:.1f} kHz, less than --min_bandwidth {settings.min_bandwidth_hz:g}",
        )
    energies = reading.loudness_meter.energies()
    track_lufs = loudness.gated_loudness(energies)
    gain = clips.track_gain(settings.normalise, peak, track_lufs, settings.target_lufs)
    with replacing(f"{stem}.pcm") as temporary:
        clip_levels, clipped = _write_pcm(temporary, audio, offsets, gain.factor, dc, settings)
    silent = [index for index, (_, rms_db) in enumerate(clip_levels) if rms_db < silence_db]
    if len(silent) == len(offsets):
        return make_rejection("silent", f"silent: all {len(offsets)} clips are below {silence_db:g} dB")
    energies *= gain.factor**2
    loudnesses = [loudness.clip_loudness(energies, offset, settings.clip_samples, rate) for offset in offsets]
    notes = levels.describe(reading.stream_meter, settings.channels, dc, clipped)
    return {
        "samples": audio.samples,
        "padding_samples": reading.padding_samples,
        "hash": reading.digest,
        "peak_dbfs": _rounded(peak_db),
        "loudness_lufs": _rounded(track_lufs),
        "gain_db": _rounded(clips.decibels(gain.factor)),
        "gain_limited": gain.limited,
        "bandwidth_hz": round(bandwidth_hz),
        "clip_peaks_dbfs": [_rounded(peak_db) for peak_db, _ in clip_levels],
        "clip_loudness_lufs": [_rounded(lufs) for lufs in loudnesses],
        "silent_clips": silent,
        "contour": versions.encode_contour(energies),
        "notes": notes,
    }


def _resample(stream: audio_files.Stream, settings: ClipSettings) -> Iterator[np.ndarray]:
    """Yields the whole track at the dataset's rate, or its sections at the dataset's tempo."""
    if settings.bars:
        return varispeed.resample_sections(stream, settings.sections, settings.bar_samples, settings.channels)
    return audio_files.resample_blocks(stream, settings.sample_rate_hz, settings.channels)


def _with_time_limit(stream: audio_files.Stream) -> Iterator[np.ndarray]:
    """Yields the stream's blocks; the process ends if one of them takes minutes.

    Raises:
        AudioError: the track is too long.
    """
    samples = 0
    for block in stream.blocks:
        workers.set_time_limit(_PATIENCE_S)
        samples += len(block)
        if samples > _LONGEST_S * stream.sample_rate_hz:
            raise audio_files.AudioError(f"longer than {_LONGEST_S / 3600:g} hours")
        yield block


def _with_digest(blocks: Iterator[np.ndarray], digest) -> Iterator[np.ndarray]:
    """Yields the blocks and adds their checksums to the digest.

    Hashing the audio itself would take a tenth of the time that decoding it takes.
    """
    for block in blocks:
        digest.update(tfrecords.masked_crc(block.reshape(-1).view(np.uint8)).to_bytes(4))
        yield block


def _write_pcm(
    path: pathlib.Path,
    audio: _AudioBuffer,
    offsets: Sequence[int],
    gain: float,
    dc: np.ndarray | None,
    settings: ClipSettings,
) -> tuple[list[tuple[float, float]], float]:
    """Writes the track up to the end of its last clip, without the DC offset `dc`.

    Returns:
        (peak, RMS without the mean) in dBFS of each clip, after rounding to 16 bits; the share of samples
        that were clipped.
    """
    bounds = clips.piece_bounds(offsets, settings.clip_samples, _PIECE_SAMPLES)
    scale = np.float32(gain * 32768)
    pcm = np.empty((_PIECE_SAMPLES, settings.channels), np.int16)
    peaks, energies, sums, clipped = [], [], [], 0
    with open(path, "wb") as file:
        for start, stop in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            workers.set_time_limit(_PATIENCE_S)
            piece, samples = pcm[: stop - start], audio.read(start, stop)
            peak, energy, beyond = _quantize(
                (samples if dc is None else samples - dc).reshape(-1), scale, piece.reshape(-1)
            )
            file.write(piece.data)
            peaks.append(peak)
            energies.append(energy)
            sums.append(_sum_channels(piece))
            clipped += beyond
    starts = np.asarray(offsets)
    first, last = np.searchsorted(bounds, starts), np.searchsorted(bounds, starts + settings.clip_samples)
    totals = np.concatenate([[0.0], np.cumsum(energies)])
    totals_by_channel = np.concatenate([np.zeros((1, settings.channels)), np.cumsum(sums, axis=0)])
    means = (totals_by_channel[last] - totals_by_channel[first]) / settings.clip_samples
    squares = (totals[last] - totals[first]) / (settings.clip_samples * settings.channels)
    rms = np.sqrt(np.maximum(0, squares - np.square(means).mean(axis=1)))
    clip_levels = [
        (clips.decibels(max(peaks[a:b]) / 32768), clips.decibels(value / 32768))
        for a, b, value in zip(first.tolist(), last.tolist(), rms.tolist(), strict=True)
    ]
    return clip_levels, clipped / (int(bounds[-1]) * settings.channels)


@compiled
def _quantize(samples, scale, pcm):
    """Writes `samples * scale` to `pcm`, rounded and clipped to int16.

    Returns the peak, the sum of squares, and how many samples were clipped.
    """
    peak, energy, clipped = np.int32(0), np.int64(0), np.int64(0)
    for i in range(len(samples)):
        scaled = np.rint(samples[i] * scale)
        value = min(max(scaled, np.float32(-32768)), np.float32(32767))
        level = np.int32(value)
        pcm[i] = level
        peak = max(peak, abs(level))
        energy += np.int64(level) * level
        clipped += value != scaled
    return peak, energy, clipped


@compiled
def _sum_channels(pcm):
    """Returns the sum of each channel of int16 `[T, C]`."""
    sums = np.zeros(pcm.shape[1], np.int64)
    for channel in range(pcm.shape[1]):
        total = np.int64(0)
        for i in range(len(pcm)):
            total += pcm[i, channel]
        sums[channel] = total
    return sums


class _AudioBuffer:
    """A track's float32 audio, kept until its level is known: first in memory, the rest in a temporary file."""

    def __init__(self, channels: int, stem: str):
        memory = _buffer_memory()
        self._memory = memory[: len(memory) // channels * channels].reshape(-1, channels)
        self._stem = stem
        self._file = None
        self._in_memory = 0
        self.samples = 0

    def add(self, block: np.ndarray) -> None:
        """Appends `[T, C]`."""
        if self._file is None and self.samples + len(block) <= len(self._memory):
            self._memory[self.samples : self.samples + len(block)] = block
            self._in_memory += len(block)
        else:
            try:
                self._file = self._file or tempfile.TemporaryFile(dir=os.path.dirname(self._stem))
                self._file.write(np.ascontiguousarray(block).data)
            except OSError as error:
                raise workers.JobError(f"{self._stem}: cannot be written: {error.strerror or error}") from error
        self.samples += len(block)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Returns samples start to stop, `[T, C]`; they are valid until the next call."""
        first = self._memory[start : min(stop, self._in_memory)]
        if stop <= self._in_memory:
            return first
        start, width = max(start, self._in_memory), 4 * self._memory.shape[1]
        self._file.seek((start - self._in_memory) * width)
        data = self._file.read((stop - start) * width)
        return np.concatenate([first, np.frombuffer(data, np.float32).reshape(stop - start, -1)])

    def clear(self) -> None:
        """Forgets the audio."""
        self.close()
        self._file, self._in_memory, self.samples = None, 0, 0

    def close(self) -> None:
        """Deletes the temporary file."""
        if self._file is not None:
            self._file.close()


@functools.cache
def _buffer_memory() -> np.ndarray:
    """Returns one array for all tracks: new memory would take as long as copying into it. Unused pages take none."""
    return np.empty(_BUFFER_BYTES // 4, np.float32)


def _rounded(level: float) -> float | None:
    return round(level, 3) if math.isfinite(level) else None  # JSON has no infinity
