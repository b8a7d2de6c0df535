"""Reads and writes audio files: decode, resample, remix and encode, block by block.

libsndfile reads wav, flac, mp3, ogg, opus, aiff and others. FFmpeg's libraries, in `ffmpeg_decoder`,
read formats that libsndfile does not know (m4a, aac, mkv, wv, ...), and files that libsndfile would
read in part or without their layout. Audio is float32 `[T, C]` in [-1, 1], channels last. soxr's "HQ"
recipe resamples; it accepts blocks.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import pathlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import soundfile
import soxr

from technogen_jax.audio import containers, ffmpeg_decoder, wav_loops
from technogen_jax.audio.channels import remix
from technogen_jax.audio.containers import AudioError
from technogen_jax.audio.ffmpeg_decoder import MIN_DECODED, one_line
from technogen_jax.common import atomic_files

WRITE_FORMATS = {
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
    ".ogg": ("OGG", "VORBIS"),
    ".opus": ("OGG", "OPUS"),
    ".aiff": ("AIFF", "PCM_16"),
}
BLOCK_SAMPLES = 1 << 15  # a block fits into the processor's cache
_MAX_CHANNELS = 64
_RATE_RANGE_HZ = (1_000, 3_000_000)  # the largest is that of DSD512, in bytes
# Of formats without compression.
_SAMPLE_BYTES = {"PCM_S8": 1, "PCM_U8": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8}


class Stream(NamedTuple):
    """A file that is being decoded."""

    sample_rate_hz: int  # of the file
    channels: int  # 1 or 2; of a file with more, which are mixed to left and right, 2
    blocks: Iterator[np.ndarray]  # float32 `[T, C]`; all but the last have the same length


@contextlib.contextmanager
def open_stream(path: str | os.PathLike, block_samples: int = BLOCK_SAMPLES) -> Iterator[Stream]:
    """Opens a file for decoding block by block; memory does not depend on the length of the file.

    Args:
        path: the file; its content decides the decoder, not its extension.
        block_samples: length of a block, in samples at the file's own rate.

    Raises:
        AudioError: the file is not audio, empty, protected or damaged, has an impossible rate or channel
            count, or is two files joined of which only one can be read. Also raised while the blocks are read, if the data end early or contain NaN
            or Inf.
    """
    path = pathlib.Path(path)
    try:
        size = path.stat().st_size
    except OSError as error:
        raise AudioError(f"cannot be read: {error.strerror or error}") from error
    if size == 0:
        raise AudioError("the file is empty (0 bytes)")
    with contextlib.ExitStack() as stack:
        stream = _open(path, stack, block_samples)
        low, high = _RATE_RANGE_HZ
        if not low <= stream.sample_rate_hz <= high:
            raise AudioError(f"sample rate {stream.sample_rate_hz} Hz; expected {low} to {high}")
        yield stream._replace(blocks=_check_blocks(stream.blocks))


def _open(path: pathlib.Path, stack: contextlib.ExitStack, block_samples: int) -> Stream:
    """Opens a file with the library that reads all of it; `stack` closes it."""
    samples = containers.find_long_wav(path)
    if samples is not None:
        rate, channels, blocks = ffmpeg_decoder.open_blocks(path, stack, block_samples, ignore_length=True)
        return Stream(rate, channels, _first_samples(blocks, samples))
    try:
        file = stack.enter_context(_SequentialFile(_plain(path)))
    except (soundfile.LibsndfileError, RuntimeError, OSError):
        return Stream(*ffmpeg_decoder.open_blocks(path, stack, block_samples))
    if not 1 <= file.channels <= _MAX_CHANNELS:
        raise AudioError(f"{file.channels} channels; expected 1 to {_MAX_CHANNELS}")
    if file.format == "MP3":
        complete = containers.mp3_length_is_known(path)
    elif file.format == "OGG":
        complete = not containers.is_chained_ogg(path)
    else:
        complete = 0 < file.frames < 1 << 62
        containers.check_not_joined(path)
        if complete and file.subtype in _SAMPLE_BYTES:
            containers.check_stated_length(path, file.frames * file.channels * _SAMPLE_BYTES[file.subtype])
    if not complete:
        return Stream(*ffmpeg_decoder.open_blocks(path, stack, block_samples))
    if file.channels > 2:  # FFmpeg knows the layout, libsndfile does not tell it
        with contextlib.suppress(AudioError):
            return Stream(*ffmpeg_decoder.open_blocks(path, stack, block_samples))
    return Stream(file.samplerate, min(2, file.channels), _soundfile_blocks(file, block_samples))


def resample_blocks(stream: Stream, sample_rate_hz: int, channels: int) -> Iterator[np.ndarray]:
    """Yields the stream's blocks at another rate and channel count.

    The channels are remixed before or after resampling, whichever leaves fewer to resample.

    Args:
        stream: from `open_stream`.
        sample_rate_hz: rate of the result.
        channels: 1 or 2; see `remix`.
    """
    if stream.sample_rate_hz == sample_rate_hz:
        for block in stream.blocks:
            yield remix(block, channels)
        return
    inner = min(channels, stream.channels)
    resampler = soxr.ResampleStream(stream.sample_rate_hz, sample_rate_hz, inner, dtype="float32", quality="HQ")
    for block in stream.blocks:
        out = resampler.resample_chunk(remix(block, inner))
        if len(out):
            yield remix(out.reshape(-1, inner), channels)
    out = resampler.resample_chunk(np.zeros((0, inner), np.float32), last=True)
    if len(out):
        yield remix(out.reshape(-1, inner), channels)


def resample(audio: np.ndarray, sample_rate_hz: int, new_rate_hz: int) -> np.ndarray:
    """Returns audio `[T, C]` at another rate: ceil(T new_rate_hz / sample_rate_hz) samples, like librosa's."""
    if sample_rate_hz == new_rate_hz:
        return audio
    out = soxr.resample(audio, sample_rate_hz, new_rate_hz, quality="HQ")
    samples = -(-len(audio) * new_rate_hz // sample_rate_hz)
    return np.pad(out[:samples], ((0, max(0, samples - len(out))), (0, 0)))


def read(
    path: str | os.PathLike, sample_rate_hz: int | None = None, channels: int | None = None
) -> tuple[np.ndarray, int]:
    """Returns the audio of a whole file, float32 `[T, C]`, and its sampling rate.

    Args:
        path: the file.
        sample_rate_hz: rate of the result; None keeps the file's rate.
        channels: channel count of the result; None keeps the file's.

    Raises:
        AudioError: the file cannot be opened or decoded, as in `open_stream`.
    """
    with open_stream(path) as stream:
        rate = sample_rate_hz or stream.sample_rate_hz
        blocks = list(resample_blocks(stream, rate, channels or stream.channels))
    return np.concatenate(blocks) if blocks else np.zeros((0, channels or stream.channels), np.float32), rate


def write(path: str | os.PathLike, audio: np.ndarray, sample_rate_hz: int, bpm: float | None = None) -> None:
    """Writes audio `[T, C]` or `[T]` to a file whose extension gives the format.

    Wav, flac and aiff files are 16-bit PCM. Values outside [-1, 1] are clipped. The file is written
    completely or not at all. With `bpm`, see `write_blocks`.

    Raises:
        ValueError: the extension is unknown, or the audio has a wrong shape or contains NaN or Inf.
    """
    audio = np.asarray(audio, np.float32)
    write_blocks(path, [audio[:, None] if audio.ndim == 1 else audio], sample_rate_hz, bpm)


def write_blocks(
    path: str | os.PathLike, blocks: Iterable[np.ndarray], sample_rate_hz: int, bpm: float | None = None
) -> None:
    """Writes audio in blocks, float32 `[T, C]`, to a file whose extension gives the format.

    This is `write` for audio that need not fit into memory.

    Args:
        path: the file.
        blocks: of the audio, in order.
        sample_rate_hz: sampling rate.
        bpm: tempo of audio that loops as a whole. A wav file then carries tempo and loop points.

    Raises:
        ValueError: the extension is unknown, a block has a wrong shape or another channel count than the
            first, a block contains NaN or Inf, or there are no blocks.
    """
    path = pathlib.Path(path)
    if path.suffix.lower() not in WRITE_FORMATS:
        raise ValueError(
            f"{path.name}: cannot write {path.suffix or 'a file without extension'}; expected one of {' '.join(WRITE_FORMATS)}"
        )
    file_format, subtype = WRITE_FORMATS[path.suffix.lower()]
    lossless = subtype == "PCM_16"
    try:
        with atomic_files.replacing(path, shared=True) as temporary, contextlib.ExitStack() as stack:
            file = None
            for audio in blocks:
                if audio.ndim != 2 or (file and audio.shape[1] != file.channels):
                    wanted = f"[T, {file.channels}]" if file else "[T, C]"
                    raise ValueError(f"{path.name}: expected audio {wanted}, got shape {audio.shape}")
                if not np.isfinite(audio).all():
                    raise ValueError(f"{path.name}: the audio holds NaN or Inf")
                channels = audio.shape[1]
                file = file or stack.enter_context(
                    soundfile.SoundFile(_plain(temporary), "w", sample_rate_hz, channels, subtype, format=file_format)
                )
                # libsndfile's Vorbis encoder copies a call's samples to the stack, which may overflow.
                for start in range(0, len(audio), BLOCK_SAMPLES):
                    block = audio[start : start + BLOCK_SAMPLES]
                    try:
                        file.write(to_int16(block) if lossless else np.clip(block, -1, 1))
                    except soundfile.LibsndfileError as error:
                        _raise_why_not_written(temporary, path)
                        raise error
            if not file:
                raise ValueError(f"{path.name}: expected blocks of audio to write, got none")
            if bpm and path.suffix.lower() == ".wav":
                samples = file.frames
                file.close()
                wav_loops.append_loop(temporary, samples, sample_rate_hz, bpm)
    except soundfile.LibsndfileError as error:
        reason = f"{one_line(error)} ({sample_rate_hz} Hz, {channels} channels)"
        raise ValueError(f"{path.name}: {reason}") from error


def _plain(path: str | os.PathLike) -> str | bytes:
    """Returns a path as libsndfile takes it, whatever characters are in it."""
    return os.fsencode(path) if os.name == "posix" else os.fspath(path)


def _raise_why_not_written(temporary: pathlib.Path, path: pathlib.Path) -> None:
    """Raises the OSError of a file that cannot grow: libsndfile only says "System error", of a full disk too."""
    try:
        with open(temporary, "ab", buffering=0) as file:
            if file.write(bytes(1 << 16)) < 1 << 16:  # the disk takes a part
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file.fileno())
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def encode(pcm: np.ndarray, sample_rate_hz: int, extension: str) -> bytes:
    """Returns the bytes of a lossless file with int16 samples `[T, C]`.

    Args:
        pcm: the samples.
        sample_rate_hz: sampling rate.
        extension: ".wav" or ".flac".
    """
    content = io.BytesIO()
    file_format, subtype = WRITE_FORMATS[extension]
    soundfile.write(content, pcm, sample_rate_hz, subtype, format=file_format)
    return content.getvalue()


def to_int16(audio: np.ndarray) -> np.ndarray:
    """Returns audio in [-1, 1] as 16-bit PCM, rounded and clipped.

    Audio that libsndfile decoded from a 16-bit file gives the file's values again.
    """
    scaled = audio * np.float32(32768)
    np.rint(scaled, out=scaled)  # in place: new memory would take longer than the arithmetic
    return np.clip(scaled, -32768, 32767, out=scaled).astype(np.int16)


def from_int16(pcm: np.ndarray) -> np.ndarray:
    """Returns 16-bit PCM as float32 in [-1, 1)."""
    return pcm.astype(np.float32) / np.float32(32768)


class _SequentialFile(soundfile.SoundFile):
    """A file that is read from start to end, without seeking.

    If a file is seekable, soundfile seeks to the current position after each read. This causes errors:

    - An mp3 frame uses bits of earlier frames, of more frames than libsndfile decodes again after a
      seek. Measured on 262 tracks: five had errors, one of these with clicks at nearly every block, and
      decoding took five percent longer.
    - In a damaged ogg file the seek skips missing data, so the damage is not detected.
    """

    def seekable(self) -> bool:
        """Returns False, which prevents these seeks."""
        return False


def _soundfile_blocks(file: soundfile.SoundFile, block_samples: int) -> Iterator[np.ndarray]:
    """Yields the blocks of a file that libsndfile decodes."""
    promised, decoded = file.frames, 0
    while True:
        try:
            block = file.read(block_samples, dtype="float32", always_2d=True)
        except (soundfile.LibsndfileError, RuntimeError) as error:
            raise AudioError(f"damaged after {decoded / file.samplerate:.1f} s: {one_line(error)}") from error
        if not len(block):
            break
        yield remix(block, 2) if file.channels > 2 else block
        decoded += len(block)
    if decoded < MIN_DECODED * promised:
        raise AudioError(
            f"truncated: the header promises {promised / file.samplerate:.1f} s, {decoded / file.samplerate:.1f} s could be decoded"
        )


def _first_samples(blocks: Iterator[np.ndarray], count: int) -> Iterator[np.ndarray]:
    """Yields the first `count` samples of a stream."""
    for block in blocks:
        if count > 0:
            yield block[:count]
        count -= len(block)


def _check_blocks(blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Yields the blocks; raises AudioError if they contain NaN or Inf, or no samples at all."""
    decoded = 0
    for block in blocks:
        # The sum of squares is fast, and is NaN or Inf if any sample is. It may also overflow.
        if not np.isfinite(np.vdot(block, block)) and not np.isfinite(block).all():
            raise AudioError("holds NaN or Inf")
        decoded += len(block)
        yield block
    if not decoded:
        raise AudioError("no audio samples in it")
