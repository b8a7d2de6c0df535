"""The chunks of a WAV file from which music software knows that it is a loop, and how fast it is.

libsndfile reads these chunks and writes no tempo, so they are appended to a finished file.

Reference: for `smpl`: Microsoft, "Multimedia Data Standards Update", 1994, as most samplers read it.
`acid` was never published; its layout is that of libsndfile, `src/wav.c`.
"""

from __future__ import annotations

import os
import pathlib
import struct

_STRETCHED = 4  # flag of acid: not a one-shot; its tempo may be changed
_UNITY_NOTE = 60  # middle C: played back at its own pitch
_BEATS_PER_BAR, _BEAT_UNIT = 4, 4
_FOREVER = 0


def append_loop(path: str | os.PathLike, samples: int, sample_rate_hz: int, bpm: float) -> None:
    """Appends tempo and loop points of audio that loops as a whole to a WAV file.

    Args:
        path: a WAV file that is complete; it is changed.
        samples: its length.
        sample_rate_hz: its sampling rate.
        bpm: its tempo; its length is a whole number of beats.
    """
    beats = round(samples * bpm / 60 / sample_rate_hz)
    acid = struct.pack("<IHHfIHHf", _STRETCHED, _UNITY_NOTE, 0x8000, 0.0, beats, _BEAT_UNIT, _BEATS_PER_BAR, bpm)
    loop = struct.pack("<6I", 0, 0, 0, samples - 1, 0, _FOREVER)  # id, forward, first and last sample, fraction
    sampler = struct.pack("<9I", 0, 0, round(1e9 / sample_rate_hz), _UNITY_NOTE, 0, 0, 0, 1, 0) + loop
    with open(pathlib.Path(path), "rb+") as file:
        end = file.seek(0, os.SEEK_END)
        chunks = b"\0" * (end % 2) + _chunk(b"acid", acid) + _chunk(b"smpl", sampler)
        file.write(chunks)
        file.seek(4)
        file.write(struct.pack("<I", end + len(chunks) - 8))


def _chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content
