"""Finds the audio files below a folder."""

from __future__ import annotations

import collections
import os
import stat
from collections.abc import Sequence
from typing import NamedTuple

from technogen_jax.audio import audio_files
from technogen_jax.data.manifest import UNLABELLED


class TrackFile(NamedTuple):
    """An audio file that was found."""

    id: str  # path below the input folder, with forward slashes, always valid UTF-8
    path: str  # for opening the file
    label: str
    size_bytes: int
    modified_ns: int


def find_tracks(
    root: str | os.PathLike, skip: Sequence[str | os.PathLike] = (), labels: str = "folder"
) -> tuple[list[TrackFile], list[dict[str, str]]]:
    """Returns the audio files below a folder, sorted by path, and those that cannot be read.

    Links are followed, but no folder is entered twice. Names that start with a dot are skipped, and so
    are files whose extension is not one of `audio_files.AUDIO_EXTENSIONS`.

    Args:
        root: the folder.
        skip: folders that are not entered.
        labels: "folder" for the first folder's name as the label, "none" for one label.

    Returns:
        The files, and the rejected ones: {"path", "kind", "reason"}.
    """
    found, rejected, seen = [], [], {os.path.realpath(path) for path in skip}

    def unreadable(error: OSError):
        rejected.append(
            {"path": _make_id(error.filename, root)} | make_rejection("unreadable", f"cannot be read: {error.strerror}")
        )

    for folder, folders, names in os.walk(root, onerror=unreadable, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted((name for name in folders if not name.startswith(".")), key=os.fsencode)
        for name in names:
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in audio_files.AUDIO_EXTENSIONS:
                found.append(os.path.join(folder, name))
    files, ids = [], collections.Counter()
    for path in sorted(found, key=os.fsencode):
        track = _make_id(path, root)
        ids[track] += 1
        if ids[track] > 1:  # two names became equal when their bytes that are not UTF-8 were escaped
            track = f"{track} ({ids[track]})"
        try:
            status = os.stat(path)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(None, "not a regular file")
        except OSError as error:
            unreadable(OSError(None, error.strerror, path))
            continue
        label = " ".join(track.split("/")[0].split()) if labels == "folder" and "/" in track else UNLABELLED
        files.append(TrackFile(track, path, label, status.st_size, status.st_mtime_ns))
    return files, rejected


def _make_id(path: str, root: str | os.PathLike) -> str:
    return escape_name(os.path.relpath(path, root).replace(os.sep, "/"))


def escape_name(text: str) -> str:
    r"""Returns a file name as valid Unicode, with bytes that are not UTF-8 as \xNN."""
    return os.fsencode(text).decode("utf-8", "backslashreplace")


def make_rejection(kind: str, reason: str) -> dict[str, str]:
    """Returns an entry for a file that is left out; similar reasons share a kind."""
    return {"kind": kind, "reason": reason}
