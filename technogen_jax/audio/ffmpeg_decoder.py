"""Decodes with FFmpeg's libraries, through PyAV, what libsndfile does not read or not to the end.

The rate, the layout and the format of samples may change within a stream: recordings of radio, files
joined by `cat`. Each frame is converted by what it states itself to the rate and channels of the first.
"""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator

import numpy as np
import soxr

from technogen_jax.audio.channels import remix
from technogen_jax.audio.containers import AudioError, check_not_joined

# Formats that FFmpeg may open. With a playlist or a session description it would open other files or
# network addresses.
_CONTAINERS = (
    "mov,mp4,matroska,webm,asf,mp3,aac,loas,ogg,wav,w64,flac,aiff,caf,au,mpegts,mpeg,avi,flv,ac3,eac3,dts,dtshd,"
    "wv,tta,dsf,iff,ape,mpc,mpc8,tak,amr,truehd"
)
_RAW_FORMATS = ("mp3", "aac", "ogg", "ac3", "eac3", "dts", "loas", "truehd", "amr")  # their length is an estimate
_PROTECTED = ("drms", "enca")  # tags of encrypted audio in mp4: of FairPlay, and of MPEG
_TAGS = (b"ID3", b"TAG", b"APE", b"LYR")
# A file counts as truncated if a smaller share of the header's length can be decoded.
MIN_DECODED = 0.99
_WHOLE = {"u8": 1 << 7, "s16": 1 << 15, "s32": 1 << 31, "s64": 1 << 63}  # full scale of formats of integers


def open_blocks(
    path: pathlib.Path, stack: contextlib.ExitStack, block_samples: int, ignore_length: bool = False
) -> tuple[int, int, Iterator[np.ndarray]]:
    """Opens a file for decoding.

    Args:
        path: the file.
        stack: closes the file.
        block_samples: length of a block.
        ignore_length: of a wav file: read to the end of the file, whatever the header states.

    Returns:
        The rate; 1 or 2 channels; the blocks, float32 `[T, C]`. More than two channels are mixed to two.

    Raises:
        AudioError: the file cannot be decoded; also while the blocks are read.
    """
    import av  # 100 MB of codecs: imported only for files that need it

    try:
        check_not_joined(path)
        # FFmpeg gets a file object: it cannot open names that are not UTF-8, or that look like a URL.
        file = stack.enter_context(open(path, "rb"))
        # Titles that are not UTF-8 are ignored. PyAV 19 has no such argument and ignores them.
        metadata_options = {} if int(av.__version__.split(".")[0]) >= 19 else {"metadata_errors": "ignore"}
        options = {"format_whitelist": _CONTAINERS} | ({"ignore_length": "1"} if ignore_length else {})
        container = stack.enter_context(av.open(file, container_options=options, **metadata_options))
    except AudioError:
        raise
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise AudioError(f"not an audio file that can be read ({one_line(error)})") from error
    source = container.streams.audio[0] if container.streams.audio else None
    codec = source.codec_context if source is not None else None
    if codec is None or codec.codec_tag in _PROTECTED:
        raise AudioError("no audio in it that can be decoded (not audio, damaged, or protected by DRM)")
    if not codec.sample_rate or not codec.channels:
        raise AudioError(f"its audio ({codec.name}) cannot be decoded (a damaged file, or a codec that FFmpeg lacks)")
    rate, channels = codec.sample_rate, min(2, codec.channels)
    length_unknown = container.format.name in _RAW_FORMATS or ignore_length or not source.duration
    promised = 0 if length_unknown else float(source.duration * source.time_base) * rate
    return rate, channels, _blocks(container, source, (rate, channels), block_samples, promised)


def _blocks(container, source, target: tuple[int, int], block_samples: int, promised: float) -> Iterator[np.ndarray]:
    """Yields the blocks of a stream; `target` is their rate and channels, `promised` samples were stated."""
    import av

    rate, decoded, buffered = target[0], 0, 0
    pending: list[np.ndarray] = []
    try:
        for piece in _convert(_frames(container, source), *target):
            pending.append(piece)
            buffered += len(piece)
            while buffered >= block_samples:
                audio = np.concatenate(pending)
                pending, buffered = [audio[block_samples:]], buffered - block_samples
                decoded += block_samples
                yield np.ascontiguousarray(audio[:block_samples])
    except av.error.PatchWelcomeError as error:
        if not decoded + buffered:
            raise AudioError(one_line(error)) from error
        seconds = (decoded + buffered) / rate
        raise AudioError(
            f"its rate, channels or codec change after {seconds:.1f} s, which FFmpeg does not follow; split it there"
        ) from error
    except (av.error.FFmpegError, ValueError) as error:
        raise AudioError(f"damaged after {(decoded + buffered) / rate:.1f} s: {one_line(error)}") from error
    if buffered:
        decoded += buffered
        yield np.ascontiguousarray(np.concatenate(pending))
    if decoded < MIN_DECODED * promised - 0.1 * rate:  # the encoder's delay is removed from the decoded audio
        raise AudioError(
            f"truncated: the header promises {promised / rate:.1f} s, {decoded / rate:.1f} s could be decoded"
        )


def _convert(frames: Iterator, rate: int, channels: int) -> Iterator[np.ndarray]:
    """Yields the frames' audio at one rate, float32 `[T, channels]`."""
    resampler, from_rate = None, rate
    for frame in frames:
        if frame.sample_rate != from_rate:
            if resampler:
                yield resampler.resample_chunk(np.zeros((0, channels), np.float32), last=True)
            from_rate, resampler = frame.sample_rate, None
            if from_rate != rate:
                resampler = soxr.ResampleStream(from_rate, rate, channels, dtype="float32", quality="HQ")
        audio = remix(_to_float(frame), channels, _channel_names(frame))
        yield resampler.resample_chunk(np.ascontiguousarray(audio)).reshape(-1, channels) if resampler else audio
    if resampler:
        yield resampler.resample_chunk(np.zeros((0, channels), np.float32), last=True).reshape(-1, channels)


def _to_float(frame) -> np.ndarray:
    """Returns the samples of a frame, float32 `[T, C]`, 1 for full scale."""
    samples, kind = frame.to_ndarray(), frame.format.name.removesuffix("p")
    # Planar formats have a row a channel; the others one row, in which the channels alternate.
    samples = samples.T if frame.format.is_planar else samples.reshape(-1, frame.layout.nb_channels)
    if kind not in _WHOLE:
        return samples.astype(np.float32, copy=False)
    samples = samples.astype(np.float32) - (128 if kind == "u8" else 0)
    return samples * np.float32(1 / _WHOLE[kind])


def _channel_names(frame) -> list[str] | None:
    """Returns the names of a frame's channels, None if the file does not tell them."""
    names = [channel.name for channel in frame.layout.channels]
    return names if all(name.isalpha() and name.isupper() and name != "NONE" for name in names) else None


def _frames(container, source) -> Iterator:
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


def one_line(error: BaseException) -> str:
    """Returns the message of an error without line breaks."""
    text = getattr(error, "strerror", None) or getattr(error, "error_string", None) or str(error)
    if "patches welcome" in text:
        text = "a kind of audio that FFmpeg does not decode; convert it to flac or wav"
    return " ".join(text.split())
