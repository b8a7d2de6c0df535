"""Reads and writes audio files: decode, resample, remix and encode, block by block.

All use of codecs is in this module. libsndfile reads wav, flac, mp3, ogg, opus, aiff and others.
FFmpeg's libraries, through PyAV, read formats that libsndfile does not know (m4a, aac, mp4, wma), and
mp3 files without a known length. Audio is float32 `[T, C]` in [-1, 1], channels last. soxr's "HQ"
recipe resamples; it accepts blocks.
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

from technogen_jax.audio import wav_loops
from technogen_jax.common import atomic_files

# Extensions of audio files in a folder. The decoder depends on the content, so a wrong extension of
# this list does no harm.
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
BLOCK_SAMPLES = 1 << 15  # a block fits into the processor's cache
# A file counts as truncated or damaged if a smaller share of the header's length can be decoded.
_MIN_DECODED = 0.99
# Formats that FFmpeg may open. With a playlist or a session description it would open other files or
# network addresses.
_CONTAINERS = "mov,mp4,matroska,webm,asf,mp3,aac,ogg,wav,w64,flac,aiff,caf,au,mpegts,mpeg,avi,ac3"
_RAW_FORMATS = ("mp3", "aac")  # FFmpeg estimates their length from the bitrate of the first frames
_PROTECTED = ("drms", "enca")  # tags of encrypted audio in mp4: of FairPlay, and of MPEG
_TAGS = (b"ID3", b"TAG", b"APE", b"LYR")
_MAX_CHANNELS = 64
_RATE_RANGE_HZ = (1_000, 768_000)


class AudioError(ValueError):
    """A file cannot be used as audio; the message is the reason, in one line."""


class Stream(NamedTuple):
    """A file that is being decoded."""

    sample_rate_hz: int  # of the file
    channels: int  # of the file
    blocks: Iterator[np.ndarray]  # float32 `[T, C]`; all but the last have the same length


@contextlib.contextmanager
def open_stream(path: str | os.PathLike, block_samples: int = BLOCK_SAMPLES) -> Iterator[Stream]:
    """Opens a file for decoding block by block; memory does not depend on the length of the file.

    Args:
        path: the file; its content decides the decoder, not its extension.
        block_samples: length of a block, in samples at the file's own rate.

    Raises:
        AudioError: the file is not audio, empty, protected or damaged, or has an impossible rate or
            channel count. Also raised while the blocks are read, if the data end early or contain NaN
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
        try:
            file = stack.enter_context(_SequentialFile(os.fsencode(path) if os.name == "posix" else path))
            length_known = _mp3_length_is_known(path) if file.format == "MP3" else 0 < file.frames < 1 << 62
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
        yield stream._replace(blocks=_check_blocks(stream.blocks))


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


def remix(audio: np.ndarray, channels: int) -> np.ndarray:
    """Returns `[T, C]` with another channel count.

    One channel is the mean of all channels. Two channels are the mono channel twice, or the first two of
    more: these are front left and front right in every layout of the supported formats.

    Raises:
        ValueError: channels is neither 1 nor 2 and differs from the audio's.
    """
    if audio.shape[1] == channels:
        return audio
    if channels == 1:
        # A matrix product is twenty times faster than numpy's mean over a short axis (measured).
        return audio @ np.full((audio.shape[1], 1), 1 / audio.shape[1], np.float32)
    if channels == 2:
        return np.repeat(audio, 2, axis=1) if audio.shape[1] == 1 else np.ascontiguousarray(audio[:, :2])
    raise ValueError(f"channels: expected 1 or 2, got {channels}")


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
                    soundfile.SoundFile(temporary, "w", sample_rate_hz, channels, subtype, format=file_format)
                )
                # libsndfile's Vorbis encoder copies a call's samples to the stack, which may overflow.
                for start in range(0, len(audio), BLOCK_SAMPLES):
                    block = audio[start : start + BLOCK_SAMPLES]
                    file.write(to_int16(block) if lossless else np.clip(block, -1, 1))
            if not file:
                raise ValueError(f"{path.name}: expected blocks of audio to write, got none")
            if bpm and path.suffix.lower() == ".wav":
                samples = file.frames
                file.close()
                wav_loops.append_loop(temporary, samples, sample_rate_hz, bpm)
    except soundfile.LibsndfileError as error:
        reason = f"{_one_line(error)} ({sample_rate_hz} Hz, {channels} channels)"
        raise ValueError(f"{path.name}: {reason}") from error


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
            raise AudioError(f"damaged after {decoded / file.samplerate:.1f} s: {_one_line(error)}") from error
        if not len(block):
            break
        yield block
        decoded += len(block)
    if decoded < _MIN_DECODED * promised:
        raise AudioError(
            f"truncated: the header promises {promised / file.samplerate:.1f} s, {decoded / file.samplerate:.1f} s could be decoded"
        )


def _mp3_length_is_known(path: pathlib.Path) -> bool:
    """Returns whether an mp3 file has a Xing or Info header that covers the whole file.

    Without a header, libsndfile estimates the length from the file's size and the first frame's
    bitrate, and stops there. If two files are joined into one, it reads only the first.
    """
    with open(path, "rb") as file:
        head = file.read(10)
        # An ID3v2 tag, which may contain a cover picture, stores its size in four bytes of seven bits.
        tag = 10 + sum((byte & 127) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
        start = tag if head[:3] == b"ID3" else 0
        file.seek(start)
        frame = file.read(4096)
        audio_bytes = file.seek(0, os.SEEK_END) - start
    header = frame[max(frame.find(b"Xing"), frame.find(b"Info")) :][:16]
    if len(header) < 16 or header[:4] not in (b"Xing", b"Info"):
        return False
    flags, _, promised_bytes = struct.unpack(">4xIII", header)
    return flags & 3 == 3 and promised_bytes > 0.98 * audio_bytes  # a tag at the end may follow


def _open_av(path: pathlib.Path, stack: contextlib.ExitStack, block_samples: int) -> Stream:
    """Opens a file with FFmpeg's libraries; `stack` closes it."""
    import av  # 100 MB of codecs: imported only for files that need it

    try:
        # FFmpeg gets a file object: it cannot open names that are not UTF-8, or that look like a URL.
        file = stack.enter_context(open(path, "rb"))
        # Titles that are not UTF-8 are ignored. PyAV 19 has no such argument and ignores them.
        metadata_options = {} if int(av.__version__.split(".")[0]) >= 19 else {"metadata_errors": "ignore"}
        whitelist = {"format_whitelist": _CONTAINERS}
        container = stack.enter_context(av.open(file, container_options=whitelist, **metadata_options))
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise AudioError(f"not an audio file that can be read ({_one_line(error)})") from error
    source = container.streams.audio[0] if container.streams.audio else None
    codec = source.codec_context if source is not None else None
    if codec is None or not codec.sample_rate or codec.codec_tag in _PROTECTED:
        raise AudioError("no audio in it that can be decoded (not audio, damaged, or protected by DRM)")
    return Stream(codec.sample_rate, codec.channels, _av_blocks(container, source, block_samples))


def _av_blocks(container, source, block_samples: int) -> Iterator[np.ndarray]:
    """Yields the blocks of an audio stream that FFmpeg's libraries decode."""
    import av

    rate = source.codec_context.sample_rate
    # Converts to float32; audio that is float32 already passes unchanged.
    resampler = av.AudioResampler(format="fltp", layout=source.codec_context.layout, rate=rate)
    length_unknown = container.format.name in _RAW_FORMATS or not source.duration
    promised = 0 if length_unknown else float(source.duration * source.time_base) * rate
    decoded = buffered = 0
    pending: list[np.ndarray] = []
    try:
        for frame in _av_frames(container, source):
            for piece in resampler.resample(frame):
                pending.append(piece.to_ndarray())
                buffered += pending[-1].shape[1]
            while buffered >= block_samples:
                audio = np.concatenate(pending, axis=1)
                pending, buffered = [audio[:, block_samples:]], buffered - block_samples
                decoded += block_samples
                yield np.ascontiguousarray(audio[:, :block_samples].T)
        pending += [piece.to_ndarray() for piece in resampler.resample(None)]
    except (av.error.FFmpegError, ValueError) as error:
        raise AudioError(f"damaged after {(decoded + buffered) / rate:.1f} s: {_one_line(error)}") from error
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
    """Yields the decoded frames; ignores undecodable data before the first and after the last frame.

    Raises:
        InvalidDataError: data between two frames cannot be decoded, and are not a tag between two files
            that were joined.
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


def _one_line(error: BaseException) -> str:
    """Returns the message of an error without line breaks."""
    text = getattr(error, "strerror", None) or getattr(error, "error_string", None) or error
    return " ".join(str(text).split())
