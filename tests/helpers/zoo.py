"""Broken and odd files, as people's folders hold them: made from a seed.

`fill` makes them, `KINDS` names them. A kind is BAD where no file of it can be a track: each must be left out with a
reason. It is ODD where some can: each must be a track or be left out.
"""

import io
import os
import pathlib
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import av
import numpy as np
import soundfile

BAD, ODD = "bad", "odd"
RATE_HZ = 16000
# extension: format and subtype of libsndfile, or container and codec of FFmpeg
_FORMATS = {
    "wav": ("WAV", "PCM_16"),
    "w64": ("W64", "PCM_16"),
    "rf64": ("RF64", "PCM_16"),
    "aiff": ("AIFF", "PCM_16"),
    "au": ("AU", "PCM_16"),
    "caf": ("CAF", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "m4a": ("ipod", "aac"),
    "aac": ("adts", "aac"),
    "wma": ("asf", "wmav2"),
    "webm": ("webm", "libopus"),
}
_WITH_A_LENGTH = ("flac", "mp3", "m4a")  # what is cut short in the middle is known to be


class File(NamedTuple):
    """One of them: where it lies below the folder, and what is in it, as bytes or as a function that makes it there."""

    path: str | bytes
    content: bytes | Callable[[bytes], object]


def noise(rng: np.random.Generator, seconds: float = 1.2, rate_hz: int = RATE_HZ, channels: int = 1) -> np.ndarray:
    """Audio `[T, channels]` that no two files share."""
    return rng.uniform(-0.4, 0.4, (round(seconds * rate_hz), channels)).astype(np.float32)


def encoded(samples: np.ndarray, rate_hz: int, extension: str, subtype: str | None = None) -> bytes:
    """A whole file of `[T, C]`."""
    file_format, codec = _FORMATS[extension]
    buffer = io.BytesIO()
    if extension not in ("m4a", "aac", "wma", "webm"):
        soundfile.write(buffer, samples, rate_hz, subtype or codec, format=file_format)
        return buffer.getvalue()
    with av.open(buffer, "w", format=file_format) as file:
        stream = file.add_stream(codec, rate=48000, layout="mono", bit_rate=64_000)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[:, :1].T), format="fltp", layout="mono")
        frame.sample_rate = rate_hz
        stream.codec_context.open()
        size = stream.codec_context.frame_size or 1024
        fit = av.AudioResampler(stream.codec_context.format.name, "mono", 48000, frame_size=size)
        for piece in [*fit.resample(frame), *fit.resample(None), None]:
            file.mux(stream.encode(piece))
    return buffer.getvalue()


def _wav(data: bytes, *, fmt: bytes | None = None, data_bytes: int | None = None, riff_bytes: int | None = None, **how):
    """A wav file whose header says what it is told to."""
    how = dict(tag=1, channels=1, rate=RATE_HZ, byte_rate=2 * RATE_HZ, align=2, bits=16) | how
    fmt = struct.pack("<HHIIHH", *how.values()) if fmt is None else fmt
    chunks = b"WAVEfmt " + struct.pack("<I", len(fmt)) + fmt
    chunks += b"data" + struct.pack("<I", len(data) if data_bytes is None else data_bytes) + data
    return b"RIFF" + struct.pack("<I", len(chunks) if riff_bytes is None else riff_bytes) + chunks


def _wholes(rng) -> dict[str, bytes]:
    return {extension: encoded(noise(rng), RATE_HZ, extension) for extension in _FORMATS}


# ---------------------------------------------------------------------------------------------------------------- kinds


def cut_in_the_header(rng):
    for extension, whole in _wholes(rng).items():
        for end in (1, 4, 11, 20, 27):
            yield File(f"{end}.{extension}", whole[:end])


def cut_in_the_middle(rng):
    for extension in _WITH_A_LENGTH:
        whole = encoded(noise(rng, 4), RATE_HZ, extension)
        for share in rng.uniform(0.3, 0.9, 3):
            yield File(f"{share:.3f}.{extension}", whole[: int(share * len(whole))])


def cut_where_the_length_is_not_known(rng):
    for extension, whole in _wholes(rng).items():
        if extension not in _WITH_A_LENGTH:
            for share in (0.1, 0.5, 0.95):
                yield File(f"{share:g}.{extension}", whole[: int(share * len(whole))])


def not_audio(rng):
    contents = {
        "empty": b"",
        "byte": b"\0",
        "zeros": bytes(5000),
        "noise": rng.bytes(5000),
        "text": b"All the music that was here has gone.\n" * 50,
        "jpeg": b"\xff\xd8\xff\xe0\0\x10JFIF\0" + rng.bytes(3000),
        "png": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + rng.bytes(3000),
        "zip": b"PK\3\4" + rng.bytes(3000),
        "elf": b"\x7fELF" + rng.bytes(3000),
        "html": b"<!doctype html><html><body>404 Not Found</body></html>",
        "cue": b'FILE "0.wav" WAVE\n  TRACK 01 AUDIO\n    INDEX 01 00:00:00\n',
        "m3u": b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n../good.wav\n#EXT-X-ENDLIST\n",
        "midi": b"MThd\0\0\0\6\0\0\0\1\0\x60MTrk\0\0\0\4\0\xff\x2f\0",
        "subtitles": b"1\n00:00:00,000 --> 00:00:01,000\nkick\n",
        "gzip": b"\x1f\x8b\x08\0" + zlib.compress(bytes(9999)),
    }
    for name, content in contents.items():
        for extension in ("wav", "mp3", "m4a"):
            yield File(f"{name}.{extension}", content)


def sends_elsewhere(rng):
    """Texts that make FFmpeg open another file, or listen to the network; the other file is sound under no name of audio."""
    whole = encoded(noise(rng), RATE_HZ, "wav")
    yield File("other", lambda path: pathlib.Path(os.fsdecode(path)).write_bytes(whole))
    contents = {
        "playlist": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nother\n#EXT-X-ENDLIST\n",
        "concat": "ffconcat version 1.0\nfile other\n",
        "session": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
    }
    for name, content in contents.items():
        yield File(f"{name}.mp3", content.encode())


def wrong_extension(rng):
    wholes = _wholes(rng)
    for extension, other in zip(wholes, [*list(wholes)[1:], "wav"], strict=True):
        yield File(f"{extension}.{other}", wholes[extension])


def header_of_nothing(rng):
    for extension, (_, _) in list(_FORMATS.items())[:9]:
        yield File(f"no_samples.{extension}", encoded(noise(rng, 0), RATE_HZ, extension))
    yield File("three_samples.wav", _wav(rng.bytes(6)))


def header_that_lies(rng):
    data = rng.integers(-9999, 9999, 20000, np.int16).tobytes()
    huge = 2**32 - 1
    for name, how in {
        "data_longer": dict(data_bytes=2 * len(data)),
        "data_shorter": dict(data_bytes=len(data) // 2),
        "data_zero": dict(data_bytes=0),
        "data_largest": dict(data_bytes=huge),
        "hundred_hours": dict(data_bytes=4_000_000_000, riff_bytes=4_000_000_036),
        "riff_zero": dict(riff_bytes=0),
        "riff_largest": dict(riff_bytes=huge),
        "bits_8": dict(bits=8),
        "align_odd": dict(align=3),
        "byte_rate_zero": dict(byte_rate=0),
        "two_channels": dict(channels=2, align=4),
        "rate_high": dict(rate=192_000),
    }.items():
        yield File(f"{name}.wav", _wav(data, **how))
    flac = bytearray(encoded(noise(rng), RATE_HZ, "flac"))
    for name, samples in {"short": 100, "long": 2**36 - 1, "unknown": 0}.items():
        flac[21:26] = bytes([flac[21] & 0xF0 | samples >> 32]) + struct.pack(">I", samples & huge)
        yield File(f"{name}.flac", bytes(flac))
    mp3 = bytearray(encoded(noise(rng), RATE_HZ, "mp3"))
    start = max(mp3.find(b"Xing"), mp3.find(b"Info"))
    for frames in (0, 1, 13_800_000):  # the last: 100 hours
        mp3[start + 8 : start + 12] = struct.pack(">I", frames)
        yield File(f"{frames}_frames.mp3", bytes(mp3))
    au = bytearray(encoded(noise(rng), RATE_HZ, "au"))
    for offset in (0, 8, huge):
        au[4:8] = struct.pack(">I", offset)
        yield File(f"offset_{offset}.au", bytes(au))
    w64 = bytearray(encoded(noise(rng), RATE_HZ, "w64"))
    w64[16:24] = struct.pack("<Q", 2**63)
    yield File("size.w64", bytes(w64))


def impossible_header(rng):
    data = rng.integers(-9999, 9999, 40000, np.int16).tobytes()
    for name, how in {
        "rate_zero": dict(rate=0),
        "rate_one": dict(rate=1),
        "rate_largest": dict(rate=2**32 - 1),
        "channels_zero": dict(channels=0),
        "channels_65": dict(channels=65, align=130),
        "channels_255": dict(channels=255, align=510),
        "channels_65535": dict(channels=65535, align=65534),
        "bits_255": dict(bits=255),
        "unknown_codec": dict(tag=0x4242),
        "no_format": dict(fmt=b""),
        "format_cut": dict(fmt=b"\1\0\1\0"),
    }.items():
        yield File(f"{name}.wav", _wav(data, **how))
    yield File("no_chunks.wav", b"RIFF\4\0\0\0WAVE")
    yield File("only_chunks.wav", b"RIFF\xff\xff\0\0WAVE" + b"LIST\0\0\0\0" * 5000)
    yield File("chunk_of_itself.wav", b"RIFF\xff\xff\0\0WAVE" + b"fmt \xff\xff\xff\xff" * 2000)


def not_finite(rng):
    for name, value in {"nan": np.nan, "inf": np.inf, "-inf": -np.inf}.items():
        for place in (0, 9000, -1):
            samples = noise(rng)
            samples[place] = value
            yield File(f"{name}_{place}.wav", encoded(samples, RATE_HZ, "wav", "FLOAT"))
            yield File(f"{name}_{place}.caf", encoded(samples, RATE_HZ, "caf", "DOUBLE"))
    beyond = noise(rng).astype(np.float64) * 1e300
    yield File("beyond_float32.wav", encoded(beyond, RATE_HZ, "wav", "DOUBLE"))


def silent(rng):
    shape = (2 * RATE_HZ, 1)
    for name, samples in {
        "zero": np.zeros(shape, np.float32),
        "dc": np.full(shape, 0.5, np.float32),
        "dc_full": np.full(shape, -1.0, np.float32),
        "denormal": np.full(shape, 1e-40, np.float32),
        "dither": np.sign(rng.standard_normal(shape)).astype(np.float32) / 32768,
        "dc_and_dither": 0.25 + np.sign(rng.standard_normal(shape)).astype(np.float32) / 32768,
    }.items():
        for extension, subtype in (("wav", "FLOAT"), ("flac", "PCM_24")):
            yield File(f"{name}.{extension}", encoded(samples, RATE_HZ, extension, subtype))
    stereo = np.repeat(np.full(shape, 0.3, np.float32), 2, axis=1) * (1, -1)
    yield File("dc_of_opposite_sign.wav", encoded(stereo, 44100, "wav", "FLOAT"))
    yield File("opposite_channels.wav", encoded(noise(rng) * (1, -1), RATE_HZ, "wav", "FLOAT"))


def unusual_levels(rng):
    for name, gain, offset in (("loud", 1e30, 0), ("quiet", 1e-30, 0), ("offset", 1, 0.5), ("largest", 8e38, 0)):
        samples = (noise(rng).astype(np.float64) * gain + offset).astype(np.float32)
        yield File(f"{name}.wav", encoded(samples, RATE_HZ, "wav", "FLOAT"))
    click = np.zeros((2 * RATE_HZ, 1), np.float32)
    click[RATE_HZ // 2] = 1
    yield File("click.wav", encoded(click, RATE_HZ, "wav"))


def rates(rng):
    for rate_hz in (1000, 8000, 11025, 12345, 22050, 88200, 96000, 176_400, 192_000):
        yield File(f"{rate_hz}.wav", encoded(noise(rng, rate_hz=rate_hz), rate_hz, "wav"))
    for rate_hz in (200, 999, 800_000):
        yield File(f"{rate_hz}.wav", encoded(noise(rng, rate_hz=16000), rate_hz, "wav"))


def channel_counts(rng):
    for channels in (2, 3, 5, 6, 7, 8, 16, 31, 32, 64, 65):
        yield File(f"{channels}.wav", encoded(noise(rng, channels=channels), RATE_HZ, "wav"))
    for channels in (3, 6, 8):
        yield File(f"{channels}.flac", encoded(noise(rng, channels=channels), RATE_HZ, "flac"))


def codecs_in_wav(rng):
    for subtype in ("PCM_U8", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW", "IMA_ADPCM", "MS_ADPCM", "GSM610"):
        rate_hz = 8000 if subtype == "GSM610" else RATE_HZ
        yield File(f"{subtype}.wav", encoded(noise(rng, rate_hz=rate_hz), rate_hz, "wav", subtype))


def tags(rng):
    whole = encoded(noise(rng), RATE_HZ, "mp3")

    def tag(size, body, flags=0):
        return b"ID3\4\0" + bytes([flags, *(size >> shift & 127 for shift in (21, 14, 7, 0))]) + body

    frame = b"COMM" + bytes([0x0F, 0x7F, 0x7F, 0x7F]) + b"\0\x0d" + b"\x0f\x7f\x7f\x7f" + zlib.compress(bytes(10**6))
    for name, content in {
        "promises_256_mb": tag(2**28 - 1, b"") + whole,
        "many": tag(0, b"") * 3000 + whole,
        "many_frames": tag(11 * 5000, b"TXXX\0\0\0\1\0\0\0" * 5000) + whole,
        "zeros": tag(10**6, bytes(10**6)) + whole,
        "compressed": tag(len(frame), frame) + whole,
        "nested": tag(len(whole) + 20, tag(10, bytes(10)) + whole) + whole,
        "unsynchronised": tag(4000, b"\xff\0" * 2000, 0x80) + whole,
        "footer": tag(100, bytes(100), 0x10) + whole,
        "at_the_end": whole + tag(2**28 - 1, b""),
        "only_a_tag": tag(1000, bytes(1000)),
        "picture_of_audio": tag(len(whole) + 24, b"APIC" + struct.pack(">I", len(whole) + 14) + bytes(16) + whole),
    }.items():
        yield File(f"{name}.mp3", content)
    block = b"\x04" + (2**24 - 1).to_bytes(3, "big")
    flac = encoded(noise(rng), RATE_HZ, "flac")
    yield File("comment_of_16_mb.flac", flac[:42] + block + flac[42:])


def damaged(rng):
    """Bytes changed, left out, doubled, and stretches of other files in between."""
    wholes = _wholes(rng)
    for extension, whole in wholes.items():
        for how in range(4):
            content = bytearray(whole)
            for place in rng.integers(0, min(len(content), 200 if how == 0 else len(content)), 5):
                length = int(rng.integers(1, 40))
                other = wholes[list(wholes)[rng.integers(len(wholes))]]
                content[place : place + (1, length, 0, length)[how]] = (
                    rng.bytes(1),
                    b"",
                    content[place : place + 50 * length],
                    other[place : place + 50 * length],
                )[how]
            yield File(f"{how}.{extension}", bytes(content))


def names(rng):
    for number, name in enumerate(
        [
            b"new\nline",
            b"\xff\xfe\x80",
            b"\xe9t\xe9",
            "träck 日本 🎹".encode(),
            b"x" * 250,
            b"-rf",
            b"%s%n{}",
            b"\x1b[31mred",
            "\u202egnp".encode(),
            b"'\"`$(reboot)",
            b"http:host:80?x#y",
            b"tab\tbell\a",
            b" ",
            b"con",
            b"\xed\xa0\x80",
        ]
    ):
        content = encoded(noise(rng), RATE_HZ, "wav") if number % 2 else b"no audio"
        yield File(name + b".wav", content)
        yield File(name[:200] + b"/x.flac", content)


def links_and_devices(rng):
    def link(target):
        return lambda path: os.symlink(target, path)

    yield File("circle/a.wav", link(b"b.wav"))
    yield File("circle/b.wav", link(b"a.wav"))
    yield File("itself.wav", link(b"itself.wav"))
    yield File("gone.wav", link(b"nowhere"))
    yield File("endless.wav", link(b"/dev/zero"))
    yield File("nothing.wav", link(b"/dev/null"))
    yield File("pipe.wav", os.mkfifo)
    if os.geteuid():  # to root all is readable
        yield File("secret.wav", lambda path: (pathlib.Path(os.fsdecode(path)).write_bytes(b"RIFF"), os.chmod(path, 0)))


def folders(rng):
    yield File("up", lambda path: os.symlink(b"..", path))
    yield File("a folder.wav", os.mkdir)
    yield File("a folder.flac/x.wav", encoded(noise(rng), RATE_HZ, "wav"))
    yield File("/".join("deep" * 5 for _ in range(30)) + "/x.wav", encoded(noise(rng), RATE_HZ, "wav"))


def too_short(rng):
    for samples in (1, 2, 100, RATE_HZ // 2 - 1):
        yield File(f"{samples}.wav", encoded(noise(rng, samples / RATE_HZ), RATE_HZ, "wav"))


KINDS: dict[Callable[[np.random.Generator], Iterator[File]], str] = {
    cut_in_the_header: BAD,
    cut_in_the_middle: BAD,
    cut_where_the_length_is_not_known: ODD,
    not_audio: BAD,
    sends_elsewhere: BAD,
    wrong_extension: ODD,
    header_of_nothing: BAD,
    header_that_lies: ODD,
    impossible_header: BAD,
    not_finite: BAD,
    silent: BAD,
    unusual_levels: ODD,
    rates: ODD,
    channel_counts: ODD,
    codecs_in_wav: ODD,
    tags: ODD,
    damaged: ODD,
    names: ODD,
    links_and_devices: BAD,
    folders: ODD,
    too_short: BAD,
}


def fill(folder: pathlib.Path, seed: int) -> dict[str, str]:
    """Makes a folder a kind; path below `folder`, as `prepare` names it, -> BAD or ODD, of every file with audio's name."""
    made = {}
    for number, (kind, sort) in enumerate(KINDS.items()):
        for file in kind(np.random.default_rng([seed, number])):
            name = os.fsencode(file.path)
            if kind is not names:  # which are the names of labels too
                name = os.fsencode(kind.__name__) + b"/" + name
            path = os.fsencode(folder) + b"/" + name
            os.makedirs(os.path.dirname(path), exist_ok=True)
            if callable(file.content):
                file.content(path)
            else:
                with open(path, "wb") as opened:
                    opened.write(file.content)
            # What is audio, and has no name of it, is reported too.
            is_audio = file.path == "other"
            if not os.path.isdir(path) and (is_audio or b"." in os.path.basename(path)):
                made[name.decode("utf-8", "backslashreplace")] = sort
    return made
