"""What the bytes of an audio file say that decoders pass over: lengths, and files joined into one."""

from __future__ import annotations

import mmap
import os
import pathlib
import re
import struct
from collections.abc import Iterator
from typing import BinaryIO

_WRAP_BYTES = 1 << 32  # RIFF and AIFF state lengths in 32 bits
_TRAILER_BYTES = 1 << 20  # titles and pictures after the audio are smaller (chosen)
_MOST_CHUNKS = 1000
_OGG_DATA_PAGE = re.compile(rb"OggS\0[\0\1\4\5]")  # a page that is not the first of a stream
_OGG_FIRST_PAGE = b"OggS\0\2"


class AudioError(ValueError):
    """A file cannot be used as audio; the message is the reason, in one line."""


def mp3_length_is_known(path: pathlib.Path) -> bool:
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


def is_chained_ogg(path: pathlib.Path) -> bool:
    """Returns whether streams follow one another in an Ogg file; libsndfile reads only the first."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        data = _OGG_DATA_PAGE.search(content)
        return data is not None and content.find(_OGG_FIRST_PAGE, data.end()) >= 0


def find_long_wav(path: pathlib.Path) -> int | None:
    """Returns the samples of a wav file of more than 4 GiB, whose header cannot state them; else None.

    Recorders and programs without RF64 write the length modulo 4 GiB, or the largest one.
    """
    size = path.stat().st_size
    if size <= _WRAP_BYTES:
        return None
    with open(path, "rb") as file:
        if not re.fullmatch(rb"RIFF....WAVE", file.read(12), re.DOTALL):
            return None
        block_bytes = 0
        for name, start, stated in _chunks(file, 12, size):
            if name == b"fmt ":
                file.seek(start + 12)
                (block_bytes,) = struct.unpack("<H", file.read(2))
            if name == b"data" and block_bytes:
                there = size - start
                true = stated + max(0, there - stated) // _WRAP_BYTES * _WRAP_BYTES
                if true > there or there - true > _TRAILER_BYTES or stated in (0, _WRAP_BYTES - 1):
                    true = there
                return true // block_bytes
    return None


def check_stated_length(path: pathlib.Path, stated_bytes: int) -> None:
    """Raises AudioError if a file of more than 4 GiB states a length that is 4 GiB or more too short."""
    size = path.stat().st_size
    if size - stated_bytes >= _WRAP_BYTES - _TRAILER_BYTES:
        raise AudioError(
            f"its header states {stated_bytes / 1e9:.2f} GB of audio, but the file has {size / 1e9:.2f} GB: more than the "
            "format can state; convert it to flac, w64 or RF64"
        )


def check_not_joined(path: pathlib.Path) -> None:
    """Raises AudioError if a second file follows the first one, of which decoders read the first only.

    Checked for wav, aiff and mp4, whose files state where they end.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        head = file.read(12)
        if head[:4] in (b"RIFF", b"FORM"):
            order = "<I" if head[:1] == b"R" else ">I"
            file.seek(8 + struct.unpack(order, head[4:8])[0])
            following = file.read(16)
            joined = re.match(rb"\0?(RIFF....WAVE|RF64....WAVE|FORM....AIF[FC]|fLaC|OggS)", following, re.DOTALL)
        elif head[4:8] == b"ftyp":
            joined = sum(name == b"ftyp" for name in _atoms(file, size)) > 1
        else:
            return
    if joined:
        raise AudioError("two files joined into one, of which only the first can be read; split it")


def _chunks(file: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yields (name, first byte, stated length) of the chunks of a RIFF file."""
    for _ in range(_MOST_CHUNKS):
        file.seek(start)
        header = file.read(8)
        if len(header) < 8 or start >= end:
            return
        name, length = header[:4], struct.unpack("<I", header[4:])[0]
        yield name, start + 8, length
        start += 8 + length + length % 2


def _atoms(file: BinaryIO, end: int) -> Iterator[bytes]:
    """Yields the names of the outermost atoms of an mp4 file."""
    start = 0
    for _ in range(_MOST_CHUNKS):
        file.seek(start)
        header = file.read(16)
        if len(header) < 8 or start >= end:
            return
        length = struct.unpack(">I", header[:4])[0]
        if length == 1 and len(header) == 16:  # the length is in the next eight bytes
            length = struct.unpack(">Q", header[8:])[0]
        yield header[4:8]
        if length < 8:  # 0: to the end of the file
            return
        start += length
