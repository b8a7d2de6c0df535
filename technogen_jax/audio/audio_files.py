"""Reads and writes audio files: decode, resample, remix and encode, block by block.

All use of codecs is in this module. Files are read by libsndfile (wav, flac, mp3, ogg, opus, aiff, ...) and,
where that does not know the format (m4a, aac, mp4, wma) or an mp3's length, by FFmpeg's libraries through PyAV. Audio is
float32 `[T, C]` in [-1, 1], channels last; resampling is soxr's "HQ" recipe, which accepts blocks.
"""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import soundfile
import soxr

from technogen_jax.common import atomic_files

# Extensions that count as audio in a folder. The content decides the decoder, so a wrong one of these still decodes.
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
BLOCK_SAMPLES = 1 << 15  # a block stays in the processor's cache
# If less than this share of the header's length can be decoded, the file is truncated or damaged.
_MIN_DECODED = 0.99
# Formats that FFmpeg may open. A playlist or a session description would make it open other files or the network.
_CONTAINERS = "mov,mp4,matroska,webm,asf,mp3,aac,ogg,wav,w64,flac,aiff,caf,au,mpegts,mpeg,avi,ac3"
_RAW_FORMATS = ("mp3", "aac")  # FFmpeg estimates their length from the bitrate of the first frames
_PROTECTED = ("drms", "enca")  # encrypted audio in mp4: FairPlay's tag, and MPEG's
_TAGS = (b"ID3", b"TAG", b"APE", b"LYR")
_MAX_CHANNELS = 64
_RATE_RANGE_HZ = (1_000, 768_000)


class AudioError(ValueError):
    """A file that cannot be used as audio; the message is the reason, in one line."""


class Stream(NamedTuple):
    """A file being decoded: its own rate and channel count, and its audio in blocks `[T, C]`, float32.

    All blocks but the last are equally long.
    """

    sample_rate_hz: int
    channels: int
    blocks: Iterator[np.ndarray]


@contextlib.contextmanager
def open_stream(path: str | os.PathLike, block_samples: int = BLOCK_SAMPLES) -> Iterator[Stream]:
    """Opens a file for decoding; memory stays bounded by one block however long the file is.

    Args:
        path: the file; its content decides the decoder, not its extension.
        block_samples: length of a block, in samples at the file's own rate.

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
            file = stack.enter_context(_ForwardOnly(os.fsencode(path) if os.name == "posix" else path))
            length_known = _says_its_length(path) if file.format == "MP3" else 0 < file.frames < 1 << 62
        except (soundfile.LibsndfileError, RuntimeError, OSError):
            length_known = False
        if length_known:
            stream = Stream(file.samplerate, file.channels, _soundfile_blocks(file, block_samples))
        else:
            stream = _open_av(path, stack, block_samples)
        low, high = _RATE_RANGE_HZ
        if not low <= stream.sample_rate_hz <= high:
            raise AudioError(f"sample rate {stream.sample_rate_hz} Hz; expected {low} to {high}")
        if not 1 <= stream.channels <= _MAX_CHANNELS:
            raise AudioError(f"{stream.channels} channels; expected 1 to {_MAX_CHANNELS}")
        yield stream._replace(blocks=_checked(stream.blocks))


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


def remix(audio: np.ndarray, channels: int) -> np.ndarray:
    """Returns `[T, C]` with another channel count.

    To one channel: the mean of all. To two: a mono channel twice; of more than two, the first two, which are front
    left and front right in every layout that the formats here define.

    Raises:
        ValueError: channels is neither 1 nor 2 and differs from the audio's.
    """
    if audio.shape[1] == channels:
        return audio
    if channels == 1:
        # A matrix product: numpy's mean over an axis this short is twenty times slower.
        return audio @ np.full((audio.shape[1], 1), 1 / audio.shape[1], np.float32)
    if channels == 2:
        return np.repeat(audio, 2, axis=1) if audio.shape[1] == 1 else np.ascontiguousarray(audio[:, :2])
    raise ValueError(f"channels: expected 1 or 2, got {channels}")


def read(
    path: str | os.PathLike, sample_rate_hz: int | None = None, channels: int | None = None
) -> tuple[np.ndarray, int]:
    """Returns the whole file and its rate: float32 `[T, C]`, at `sample_rate_hz` and `channels` where given.

    Raises:
        AudioError: the file cannot be opened or decoded, as in `open_stream`.
    """
    with open_stream(path) as stream:
        rate = sample_rate_hz or stream.sample_rate_hz
        blocks = list(resample_blocks(stream, rate, channels or stream.channels))
    return np.concatenate(blocks) if blocks else np.zeros((0, channels or stream.channels), np.float32), rate


def write(path: str | os.PathLike, audio: np.ndarray, sample_rate_hz: int) -> None:
    """Writes `[T, C]` (or `[T]`) audio in [-1, 1] by the path's extension; wav, flac and aiff as 16-bit PCM.

    The file is written completely or not at all. Values outside [-1, 1] are clipped.

    Raises:
        ValueError: an extension that cannot be written, audio of another shape, or NaN or Inf in it.
    """
    audio = np.asarray(audio, np.float32)
    write_blocks(path, [audio[:, None] if audio.ndim == 1 else audio], sample_rate_hz)


def write_blocks(path: str | os.PathLike, blocks: Iterable[np.ndarray], sample_rate_hz: int) -> None:
    """Writes audio given in blocks `[T, C]`, float32, as `write` does; memory stays bounded by one of them.

    Raises:
        ValueError: see `write`; also no blocks at all, or one of another shape than the first.
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
                    soundfile.SoundFile(temporary, "w", sample_rate_hz, channels, subtype, format=file_format)
                )
                # libsndfile's Vorbis encoder puts a whole write on the stack: never hand it more than a block.
                for start in range(0, len(audio), BLOCK_SAMPLES):
                    block = audio[start : start + BLOCK_SAMPLES]
                    file.write(to_int16(block) if lossless else np.clip(block, -1, 1))
            if not file:
                raise ValueError(f"{path.name}: expected blocks of audio to write, got none")
    except soundfile.LibsndfileError as error:
        reason = f"{_one_line(error)} ({sample_rate_hz} Hz, {channels} channels)"
        raise ValueError(f"{path.name}: {reason}") from error


def encode(pcm: np.ndarray, sample_rate_hz: int, extension: str) -> bytes:
    """The bytes of a lossless file (".wav" or ".flac") of int16 `[T, C]`."""
    content = io.BytesIO()
    file_format, subtype = WRITE_FORMATS[extension]
    soundfile.write(content, pcm, sample_rate_hz, subtype, format=file_format)
    return content.getvalue()


def to_int16(audio: np.ndarray) -> np.ndarray:
    """[-1, 1] to 16-bit PCM, rounded and clipped; 16-bit files decoded by libsndfile come back unchanged."""
    scaled = audio * np.float32(32768)
    np.rint(scaled, out=scaled)  # in place: fresh memory costs more than the arithmetic
    return np.clip(scaled, -32768, 32767, out=scaled).astype(np.int16)


def from_int16(pcm: np.ndarray) -> np.ndarray:
    """16-bit PCM to float32 in [-1, 1)."""
    return pcm.astype(np.float32) / np.float32(32768)


class _ForwardOnly(soundfile.SoundFile):
    """A file that is read from its start to its end.

    After each read soundfile seeks to where the decoder is already, if the file can be sought. An mp3's frames use bits of earlier
    ones, more of them than libsndfile goes back for: of 262 tracks five came with errors, one of them with clicks at nearly every
    block, and all took a twentieth longer. In a damaged ogg the seek jumped over what was missing, which then nobody missed.
    """

    def seekable(self) -> bool:
        """No, so that it does not."""
        return False


def _soundfile_blocks(file: soundfile.SoundFile, block_samples: int) -> Iterator[np.ndarray]:
    promised, decoded = file.frames, 0
    while True:
        try:
            block = file.read(block_samples, dtype="float32", always_2d=True)
        except (soundfile.LibsndfileError, RuntimeError) as error:
            raise AudioError(f"damaged after {decoded / file.samplerate:.1f} s: {_one_line(error)}") from error
        if not len(block):
            break
        yield block
        decoded += len(block)
    if decoded < _MIN_DECODED * promised:
        raise AudioError(
            f"truncated: the header promises {promised / file.samplerate:.1f} s, {decoded / file.samplerate:.1f} s could be decoded"
        )


def _says_its_length(path: pathlib.Path) -> bool:
    """Whether an mp3 file has a Xing or Info header that covers the whole of it.

    Without one libsndfile takes the length that the file's size and the first frame's bitrate suggest, and stops there;
    of two files joined into one it reads the first.
    """
    with open(path, "rb") as file:
        head = file.read(10)
        # An ID3v2 tag, with the cover picture, says its size in four times seven bits.
        tag = 10 + sum((byte & 127) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
        start = tag if head[:3] == b"ID3" else 0
        file.seek(start)
        frame = file.read(4096)
        audio_bytes = file.seek(0, os.SEEK_END) - start
    header = frame[max(frame.find(b"Xing"), frame.find(b"Info")) :][:16]
    if len(header) < 16 or header[:4] not in (b"Xing", b"Info"):
        return False
    flags, _, promised_bytes = struct.unpack(">4xIII", header)
    return flags & 3 == 3 and promised_bytes > 0.98 * audio_bytes  # the rest may be another tag


def _open_av(path: pathlib.Path, stack: contextlib.ExitStack, block_samples: int) -> Stream:
    import av  # 100 MB of codecs: loaded for the files that need it

    try:
        # A file object: a name that is not UTF-8, or looks like an address, is nothing to FFmpeg.
        file = stack.enter_context(open(path, "rb"))
        # Titles that are not UTF-8: PyAV 19 has no such argument, and opens those files without it.
        lenient = {} if int(av.__version__.split(".")[0]) >= 19 else {"metadata_errors": "ignore"}
        only = {"format_whitelist": _CONTAINERS}
        container = stack.enter_context(av.open(file, container_options=only, **lenient))
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise AudioError(f"not an audio file that can be read ({_one_line(error)})") from error
    source = container.streams.audio[0] if container.streams.audio else None
    codec = source.codec_context if source is not None else None
    if codec is None or not codec.sample_rate or codec.codec_tag in _PROTECTED:
        raise AudioError("no audio in it that can be decoded (not audio, damaged, or protected by DRM)")
    return Stream(codec.sample_rate, codec.channels, _av_blocks(container, source, block_samples))


def _av_blocks(container, source, block_samples: int) -> Iterator[np.ndarray]:
    import av

    rate = source.codec_context.sample_rate
    resampler = av.AudioResampler(
        format="fltp", layout=source.codec_context.layout, rate=rate
    )  # audio in this format passes unchanged
    guessed = container.format.name in _RAW_FORMATS or not source.duration
    promised = 0 if guessed else float(source.duration * source.time_base) * rate
    decoded = held = 0
    pending: list[np.ndarray] = []
    try:
        for frame in _av_frames(container, source):
            for piece in resampler.resample(frame):
                pending.append(piece.to_ndarray())
                held += pending[-1].shape[1]
            while held >= block_samples:
                audio = np.concatenate(pending, axis=1)
                pending, held = [audio[:, block_samples:]], held - block_samples
                decoded += block_samples
                yield np.ascontiguousarray(audio[:, :block_samples].T)
        pending += [piece.to_ndarray() for piece in resampler.resample(None)]
    except (av.error.FFmpegError, ValueError) as error:
        raise AudioError(f"damaged after {(decoded + held) / rate:.1f} s: {_one_line(error)}") from error
    if pending:
        audio = np.ascontiguousarray(np.concatenate(pending, axis=1).T)
        decoded += len(audio)
        if len(audio):
            yield audio
    if decoded < _MIN_DECODED * promised - 0.1 * rate:  # the encoder's delay is removed from the decoded audio
        raise AudioError(
            f"truncated: the header promises {promised / rate:.1f} s, {decoded / rate:.1f} s could be decoded"
        )


def _av_frames(container, source) -> Iterator:
    """Yields the decoded frames. Data that cannot be decoded before the first or after the last frame are ignored.

    Raises:
        InvalidDataError: data between two frames cannot be decoded and are no tag of joined files.
    """
    import av

    decoded, failure = False, None
    for packet in container.demux(source):
        try:
            frames = packet.decode()
        except av.error.InvalidDataError as error:
            if decoded and bytes(packet)[:3] not in _TAGS:
                failure = error
            continue
        if frames and failure:
            raise failure
        decoded = decoded or bool(frames)
        yield from frames


def _checked(blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    decoded = 0
    for block in blocks:
        # One pass: a sum of squares is NaN or Inf when any part of it is, and numpy hands it to BLAS.
        if not np.isfinite(np.vdot(block, block)) and not np.isfinite(block).all():
            raise AudioError("holds NaN or Inf")
        decoded += len(block)
        yield block
    if not decoded:
        raise AudioError("no audio samples in it")


def _one_line(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or getattr(error, "error_string", None) or error
    return " ".join(str(text).split())
