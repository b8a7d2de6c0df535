"""Finds the audio files in a folder, and what looks like audio but cannot be taken.

All commands that read a folder of audio use `find_audio_files`, so that they take the same files.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from typing import NamedTuple

# Extensions of files that the decoders read. The content decides the decoder, not the extension.
AUDIO_EXTENSIONS = frozenset(
    """
    .wav .wave .w64 .rf64 .bw64 .bwf .flac .mp3 .mp2 .mp1 .mpga .mpa .m2a .ogg .oga .ogx .ogv .opus .spx
    .aif .aiff .aifc .au .snd .caf .m4a .m4b .m4p .m4r .m4v .mp4 .mov .qt .3gp .3g2 .aac .adts .loas
    .wma .wmv .asf .mka .mkv .webm .weba .avi .flv .mpg .mpeg .ts .mts .m2ts .ac3 .eac3 .ec3 .dts .dtshd .thd
    .wv .tta .dsf .dff .ape .mpc .tak .amr
    """.split()
)
# Audio and music that no library here decodes, with the reason.
_NOT_DECODED = {
    **dict.fromkeys((".aa", ".aax", ".aaxc"), "an audiobook protected by DRM"),
    **dict.fromkeys(
        (".ofr", ".ofs", ".la", ".shn", ".rka", ".optimfrog"), "no decoder for this format; convert it to flac"
    ),
    **dict.fromkeys(
        (".ra", ".rm", ".ram", ".rmvb", ".at3", ".aa3", ".oma"), "no decoder for this format; convert it to flac"
    ),
    **dict.fromkeys((".rx2", ".rex", ".rcy", ".sf2", ".sfz", ".sd2", ".nki"), "a sampler's format; export it as wav"),
    **dict.fromkeys((".mid", ".midi", ".kar"), "notes without sound; render it to wav"),
    **dict.fromkeys((".mod", ".xm", ".it", ".s3m"), "a tracker's module; render it to wav"),
}
_UNFINISHED = (".part", ".partial", ".crdownload", ".download", ".opdownload", ".tmp", ".!ut", ".icloud")
# Copies and indexes that operating systems and storage boxes make.
_SYSTEM_FOLDERS = frozenset(
    ("__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "RECYCLER", "System Volume Information", "lost+found")
)
# How the files of common formats begin.
_AUDIO_CONTENT = re.compile(
    rb"(?:RIFF|RIFX|RF64|BW64)....WAVE|FORM....AIF[FC]|fLaC|OggS|ID3[\2-\4]|caff\0|wvpk|TTA1|DSD |FRM8|MAC |\.snd|"
    rb"\xff[\xfa\xfb\xf1\xf9]|....ftyp(?:M4A|M4B|M4P)",
    re.DOTALL,
)


class AudioFolder(NamedTuple):
    """What a folder holds, as paths below it; each list is sorted by the bytes of the path."""

    files: list[str]  # to be decoded
    unreadable: list[tuple[str, str]]  # files and folders that cannot be opened, with the reason
    passed_over: list[tuple[str, str]]  # what looks like audio and is not taken, with the reason


def find_audio_files(root: str | os.PathLike, skip: Sequence[str | os.PathLike] = ()) -> AudioFolder:
    """Returns the audio files in a folder and below it.

    Links are followed, but no folder is entered twice. Hidden files and folders, whose name begins with
    a dot, are skipped, and so are the folders of the operating system (`__MACOSX`, `@eaDir`, ...).

    Args:
        root: the folder; its own name may begin with a dot.
        skip: folders that are not entered.
    """
    files, passed_over, seen = [], [], {os.path.realpath(path) for path in skip}
    unreadable: list[tuple[str, str]] = []

    def below(path):
        return os.path.relpath(path, root)

    def note(error: OSError):
        unreadable.append((below(error.filename), f"cannot be read: {error.strerror}"))

    for folder, folders, names in os.walk(root, onerror=note, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(
            (name for name in folders if not name.startswith(".") and name not in _SYSTEM_FOLDERS), key=os.fsencode
        )
        for name in names:
            path = os.path.join(folder, name)
            if not name.startswith(".") and _extension(name) in AUDIO_EXTENSIONS:
                if reason := _why_unreadable(path):
                    unreadable.append((below(path), reason))
                else:
                    files.append(below(path))
            elif reason := _why_passed_over(path, name):
                passed_over.append((below(path), reason))
    files.sort(key=os.fsencode)
    for entries in (unreadable, passed_over):
        entries.sort(key=lambda entry: os.fsencode(entry[0]))
    return AudioFolder(files, unreadable, passed_over)


def _extension(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _why_unreadable(path: str) -> str | None:
    """Returns why a file cannot be opened, None if it can."""
    try:
        if stat.S_ISREG(os.stat(path).st_mode):
            return None
        return "cannot be read: not a regular file"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _why_passed_over(path: str, name: str) -> str | None:
    """Returns why a file that looks like audio is not taken, None for other files."""
    extension = _extension(name)
    inner = _extension(os.path.splitext(name)[0])
    if extension in _UNFINISHED and inner in AUDIO_EXTENSIONS:
        where = "not downloaded from iCloud" if extension == ".icloud" else "not completely downloaded"
        return where  # .name.mp3.icloud is hidden, and still a track of the user
    if name.startswith("."):
        return None
    if extension in _NOT_DECODED:
        return _NOT_DECODED[extension]
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return None
        with open(path, "rb") as file:
            looks_like_audio = _AUDIO_CONTENT.match(file.read(16))
    except OSError:
        return None
    return "audio under another extension; rename it to be read" if looks_like_audio else None
