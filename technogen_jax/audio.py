"""Waveform files in and out: decode, resample, remix and write, block by block.

Everything that touches a codec is here. Files are read by libsndfile (wav, flac, mp3, ogg, opus, aiff, ...) and,
where that does not know the format (m4a, aac, mp4, wma), by FFmpeg's libraries through PyAV. Audio is float32
`[T, C]` in [-1, 1], channels last; resampling is soxr's "HQ" recipe, which may be fed in blocks.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import soundfile
import soxr

# What is looked for in a folder. The decoders go by content, so a wrong extension from this list still decodes.
AUDIO_EXTENSIONS = frozenset(
    ".wav .wave .w64 .rf64 .flac .mp3 .mp2 .ogg .oga .opus .aif .aiff .aifc .au .caf .m4a .m4b .m4p .aac .mp4 .wma .webm".split()
)
WRITE_FORMATS = {
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
    ".ogg": ("OGG", "VORBIS"),
    ".opus": ("OGG", "OPUS"),
    ".aiff": ("AIFF", "PCM_16"),
}
BLOCK_SAMPLES = 1 << 17  # three seconds at 44.1 kHz: large enough to be fast, small enough to bound memory
# A decoder that delivers less than this share of what the header promises met a truncated or damaged file.
_MIN_DECODED = 0.99
_MAX_CHANNELS = 64
_RATE_RANGE_HZ = (1_000, 768_000)


class AudioError(ValueError):
    """A file that cannot be used as audio; the message is the reason, in one line."""


class Stream(NamedTuple):
    """A file being decoded: its own rate and channel count, and its audio in blocks `[T, C]`, float32."""

    sample_rate_hz: int
    channels: int
    blocks: Iterator[np.ndarray]


@contextlib.contextmanager
def open_stream(path: str | os.PathLike, block_samples: int = BLOCK_SAMPLES) -> Iterator[Stream]:
    """Opens a file for decoding; memory stays bounded by one block however long the file is.

    Args:
        path: the file; its content decides the decoder, not its extension.
        block_samples: the largest block, in samples at the file's own rate.

    Raises:
        AudioError: not audio, empty, protected, damaged, or with an impossible rate or channel count; also while the
            blocks are read, when the data end early or hold NaN or Inf.
    """
    path = pathlib.Path(path)
    try:
        size = path.stat().st_size
    except OSError as error:
        raise AudioError(f"cannot be read: {error.strerror or error}") from error
    if size == 0:
        raise AudioError("the file is empty (0 bytes)")
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(soundfile.SoundFile(path))
        except (soundfile.LibsndfileError, RuntimeError, OSError) as first:
            stream = _open_av(path, stack, _one_line(first))
        else:
            stream = Stream(file.samplerate, file.channels, _soundfile_blocks(file, block_samples))
        low, high = _RATE_RANGE_HZ
        if not low <= stream.sample_rate_hz <= high:
            raise AudioError(f"sample rate {stream.sample_rate_hz} Hz; expected {low} to {high}")
        if not 1 <= stream.channels <= _MAX_CHANNELS:
            raise AudioError(f"{stream.channels} channels; expected 1 to {_MAX_CHANNELS}")
        yield stream._replace(blocks=_checked(stream.blocks))


def resample_blocks(stream: Stream, sample_rate_hz: int, channels: int) -> Iterator[np.ndarray]:
    """The stream's blocks at another rate and channel count.

    The channels are remixed before or after resampling, whichever leaves fewer to resample.

    Args:
        stream: from `open_stream`.
        sample_rate_hz: rate of what comes out.
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


def remix(audio: np.ndarray, channels: int) -> np.ndarray:
    """`[T, C]` with another channel count.

    To one channel: the mean of all. To two: a mono channel twice; of more than two, the first two, which are front
    left and front right in every layout that the formats here define.

    Raises:
        ValueError: channels is neither 1 nor 2 and differs from the audio's.
    """
    if audio.shape[1] == channels:
        return audio
    if channels == 1:
        return audio.mean(axis=1, dtype=np.float32, keepdims=True)
    if channels == 2:
        return np.repeat(audio, 2, axis=1) if audio.shape[1] == 1 else np.ascontiguousarray(audio[:, :2])
    raise ValueError(f"channels: expected 1 or 2, got {channels}")


def read(path: str | os.PathLike, sample_rate_hz: int | None = None, channels: int | None = None) -> tuple[np.ndarray, int]:
    """The whole file and its rate: float32 `[T, C]`, at `sample_rate_hz` and `channels` where given.

    Raises:
        AudioError: see `open_stream`.
    """
    with open_stream(path) as stream:
        rate = sample_rate_hz or stream.sample_rate_hz
        blocks = list(resample_blocks(stream, rate, channels or stream.channels))
    return np.concatenate(blocks) if blocks else np.zeros((0, channels or stream.channels), np.float32), rate


def write(path: str | os.PathLike, audio: np.ndarray, sample_rate_hz: int) -> None:
    """Writes `[T, C]` (or `[T]`) audio in [-1, 1] by the path's extension; wav, flac and aiff as 16-bit PCM.

    The file appears whole or not at all. Values outside [-1, 1] are clipped.

    Raises:
        ValueError: an extension that cannot be written, audio of another shape, or NaN or Inf in it.
    """
    path = pathlib.Path(path)
    if path.suffix.lower() not in WRITE_FORMATS:
        raise ValueError(f"{path.name}: cannot write {path.suffix or 'a file without extension'}; expected one of {' '.join(WRITE_FORMATS)}")
    audio = np.asarray(audio, np.float32)
    audio = audio[:, None] if audio.ndim == 1 else audio
    if audio.ndim != 2:
        raise ValueError(f"{path.name}: expected audio [T, C], got shape {audio.shape}")
    if not np.isfinite(audio).all():
        raise ValueError(f"{path.name}: the audio holds NaN or Inf")
    file_format, subtype = WRITE_FORMATS[path.suffix.lower()]
    lossless = subtype == "PCM_16"
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with soundfile.SoundFile(temporary, "w", sample_rate_hz, audio.shape[1], subtype, format=file_format) as file:
            # libsndfile's Vorbis encoder puts a whole write on the stack: never hand it more than a block.
            for start in range(0, len(audio), BLOCK_SAMPLES):
                block = audio[start : start + BLOCK_SAMPLES]
                file.write(to_int16(block) if lossless else np.clip(block, -1, 1))
        os.replace(temporary, path)
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{path.name}: {_one_line(error)} ({sample_rate_hz} Hz, {audio.shape[1]} channels)") from error
    finally:
        temporary.unlink(missing_ok=True)


def to_int16(audio: np.ndarray) -> np.ndarray:
    """[-1, 1] to 16-bit PCM, rounded and clipped; 16-bit files decoded by libsndfile come back unchanged."""
    return np.clip(np.rint(audio * np.float32(32768)), -32768, 32767).astype(np.int16)


def from_int16(pcm: np.ndarray) -> np.ndarray:
    """16-bit PCM to float32 in [-1, 1)."""
    return pcm.astype(np.float32) / np.float32(32768)


def _soundfile_blocks(file: soundfile.SoundFile, block_samples: int) -> Iterator[np.ndarray]:
    promised, decoded = file.frames, 0
    while True:
        try:
            block = file.read(block_samples, dtype="float32", always_2d=True)
        except (soundfile.LibsndfileError, RuntimeError) as error:
            raise AudioError(f"damaged after {decoded / file.samplerate:.1f} s: {_one_line(error)}") from error
        if not len(block):
            break
        decoded += len(block)
        yield block
    if decoded < _MIN_DECODED * promised:
        raise AudioError(
            f"truncated: the header promises {promised / file.samplerate:.1f} s, {decoded / file.samplerate:.1f} s could be decoded"
        )


def _open_av(path: pathlib.Path, stack: contextlib.ExitStack, first_reason: str) -> Stream:
    import av  # 100 MB of codecs: loaded for the formats that need it

    try:
        # Demuxer errors are logged to stderr by default; ours go into the report instead.
        container = stack.enter_context(av.open(str(path), metadata_errors="ignore"))
        source = container.streams.audio[0] if container.streams.audio else None
        rate = source.codec_context.sample_rate if source is not None else 0
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise AudioError(f"not a readable audio file: {first_reason} {_one_line(error)}") from error
    if source is None:
        raise AudioError("no audio stream that can be decoded (not audio, or protected by DRM)")
    if not rate:
        raise AudioError("an audio stream without a sample rate (damaged, or protected by DRM)")
    return Stream(rate, source.codec_context.channels, _av_blocks(container, source))


def _av_blocks(container, source) -> Iterator[np.ndarray]:
    import av

    resampler = av.AudioResampler(format="flt", layout=source.codec_context.layout, rate=source.codec_context.sample_rate)
    channels, seconds = source.codec_context.channels, 0.0
    promised_s = float(source.duration * source.time_base) if source.duration else 0.0
    pending: list[np.ndarray] = []
    try:
        for frame in container.decode(source):
            for piece in resampler.resample(frame):
                pending.append(piece.to_ndarray().reshape(-1, channels))
                seconds += len(pending[-1]) / source.codec_context.sample_rate
            if sum(map(len, pending)) >= BLOCK_SAMPLES:
                yield np.concatenate(pending)
                pending = []
        pending += [piece.to_ndarray().reshape(-1, channels) for piece in resampler.resample(None)]
    except (av.error.FFmpegError, ValueError) as error:
        raise AudioError(f"damaged after {seconds:.1f} s: {_one_line(error)}") from error
    if pending:
        yield np.concatenate(pending)
    if seconds < _MIN_DECODED * promised_s - 0.1:  # the encoder's delay is cut from what is decoded
        raise AudioError(f"truncated: the header promises {promised_s:.1f} s, {seconds:.1f} s could be decoded")


def _checked(blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    decoded = 0
    for block in blocks:
        # One pass: a sum is NaN or Inf when any part of it is.
        if not np.isfinite(np.add.reduce(block, axis=None)) and not np.isfinite(block).all():
            raise AudioError("holds NaN or Inf")
        decoded += len(block)
        yield block
    if not decoded:
        raise AudioError("no audio samples in it")


def _one_line(error: BaseException) -> str:
    text = getattr(error, "error_string", None) or str(error)
    return " ".join(str(text).split())
