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
from typing import Any

import numpy as np

from data_prep import clips, workers
from data_prep.tracks import tempo, varispeed
from data_prep.tracks.clip_settings import ClipSettings
from data_prep.tracks.find import make_rejection
from technogen_jax.audio import audio_files, loudness
from technogen_jax.common import atomic_files
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
        return json.loads(pathlib.Path(f"{stem}.json").read_text(encoding="utf-8"))
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
    analyzer = tempo.BandEnergyAnalyzer()
    with audio_files.open_stream(path) as stream:
        stream = stream._replace(blocks=_with_time_limit(stream))
        for block in audio_files.resample_blocks(stream, tempo.RATE_HZ, 1):
            analyzer.add(block[:, 0])
    energies = analyzer.energies()
    sections, confidence = tempo.find_sections(energies, range_bpm)
    if not sections:
        return make_rejection(
            "no steady beat",
            f"no steady beat of {range_bpm[0]:g} to {range_bpm[1]:g} BPM in bars of four: "
            f"confidence {confidence:.2f}, {tempo.MIN_CONFIDENCE} is needed",
        )
    seconds = len(energies) / tempo.FRAME_RATE_HZ
    return {"sections": [list(section) for section in sections], "seconds": seconds}


def _decode(path: str, stem: str, settings: ClipSettings) -> dict[str, Any]:
    digest = hashlib.sha256()
    meter = loudness.LoudnessMeter(settings.sample_rate_hz, settings.channels)
    peak, signal_check = 0.0, _SignalCheck(10 ** (settings.silence_db / 20))
    with contextlib.closing(_AudioBuffer(settings.channels, stem)) as audio:
        with audio_files.open_stream(path) as stream:
            digest.update(f"{stream.sample_rate_hz} Hz, {stream.channels} channels".encode())
            stream = stream._replace(blocks=signal_check.watch(_with_digest(_with_time_limit(stream), digest)))
            for block in _resample(stream, settings):
                peak = max(peak, float(block.max()), -float(block.min()))
                meter.add(block)
                audio.add(block)
        offsets = [position.offset for position in settings.find_clips(audio.samples)]
        if not offsets:
            seconds, clip_s = audio.samples / settings.sample_rate_hz, settings.clip_samples / settings.sample_rate_hz
            return make_rejection("too short", f"{seconds:.3g} s, shorter than a clip of {clip_s:g} s")
        peak_db = clips.decibels(peak)
        if peak_db < settings.silence_db or not peak:
            return make_rejection("silent", f"silent: its peak is {peak_db:.1f} dBFS, below {settings.silence_db:g} dB")
        if not signal_check.passed:
            return make_rejection(
                "silent", f"silent: nothing but DC, its changes stay below {settings.silence_db:g} dB"
            )
        if peak_db > _LOUDEST_DBFS:
            return make_rejection("not usable audio", f"its peak is {peak_db:.0f} dBFS, higher than any sound's")
        energies = meter.energies()
        track_lufs = loudness.gated_loudness(energies)
        gain = clips.track_gain(settings.normalise, peak, track_lufs, settings.target_lufs)
        with replacing(f"{stem}.pcm") as temporary:
            levels = _write_pcm(temporary, audio, offsets, gain.factor, settings)
    silent = [index for index, (_, rms_db) in enumerate(levels) if rms_db < settings.silence_db]
    if len(silent) == len(offsets):
        return make_rejection("silent", f"silent: all {len(offsets)} clips are below {settings.silence_db:g} dB")
    energies *= gain.factor**2
    loudnesses = [
        loudness.clip_loudness(energies, offset, settings.clip_samples, settings.sample_rate_hz) for offset in offsets
    ]
    return {
        "samples": audio.samples,
        "hash": digest.hexdigest(),
        "peak_dbfs": _rounded(peak_db),
        "loudness_lufs": _rounded(track_lufs),
        "gain_db": _rounded(clips.decibels(gain.factor)),
        "gain_limited": gain.limited,
        "clip_peaks_dbfs": [_rounded(peak_db) for peak_db, _ in levels],
        "clip_loudness_lufs": [_rounded(lufs) for lufs in loudnesses],
        "silent_clips": silent,
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
    path: pathlib.Path, audio: _AudioBuffer, offsets: Sequence[int], gain: float, settings: ClipSettings
) -> list[tuple[float, float]]:
    """Writes the track up to the end of its last clip.

    Returns:
        (peak, RMS) in dBFS of each clip, after rounding to 16 bits.
    """
    bounds = clips.piece_bounds(offsets, settings.clip_samples, _PIECE_SAMPLES)
    scale = np.float32(gain * 32768)
    pcm = np.empty((_PIECE_SAMPLES, settings.channels), np.int16)
    peaks, energies = [], []
    with open(path, "wb") as file:
        for start, stop in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            workers.set_time_limit(_PATIENCE_S)
            piece = pcm[: stop - start]
            peak, energy = _quantize(audio.read(start, stop).reshape(-1), scale, piece.reshape(-1))
            file.write(piece.data)
            peaks.append(peak)
            energies.append(energy)
    starts = np.asarray(offsets)
    first, last = np.searchsorted(bounds, starts), np.searchsorted(bounds, starts + settings.clip_samples)
    totals = np.concatenate([[0.0], np.cumsum(energies)])
    rms = np.sqrt(np.maximum(0, totals[last] - totals[first]) / (settings.clip_samples * settings.channels))
    return [
        (clips.decibels(max(peaks[a:b]) / 32768), clips.decibels(value / 32768))
        for a, b, value in zip(first.tolist(), last.tolist(), rms.tolist(), strict=True)
    ]


@compiled
def _quantize(samples, scale, pcm):
    """Writes `samples * scale` to `pcm`, rounded and clipped to int16; returns its peak and sum of squares."""
    peak, energy = np.int32(0), np.int64(0)
    for i in range(len(samples)):
        value = min(max(np.rint(samples[i] * scale), np.float32(-32768)), np.float32(32767))
        level = np.int32(value)
        pcm[i] = level
        peak = max(peak, abs(level))
        energy += np.int64(level) * level
    return peak, energy


class _SignalCheck:
    """Checks that a channel's samples span more than twice an amplitude: with DC alone they do not."""

    def __init__(self, amplitude: float):
        self._amplitude = amplitude
        self._low, self._high = np.inf, -np.inf
        self.passed = False

    def watch(self, blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        """Yields the blocks `[T, C]`; once the check has passed, further blocks are not examined."""
        for block in blocks:
            if not self.passed:
                self._low = np.minimum(self._low, block.min(0))
                self._high = np.maximum(self._high, block.max(0))
                self.passed = bool(np.any(self._high - self._low >= 2 * self._amplitude))
            yield block


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
