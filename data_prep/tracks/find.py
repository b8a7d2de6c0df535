"""Finds the audio files below a folder."""

from __future__ import annotations

import collections
import os
import unicodedata
from collections.abc import Sequence
from typing import Any, NamedTuple

from technogen_jax.audio import audio_folders
from technogen_jax.data.manifest import UNLABELLED


class TrackFile(NamedTuple):
    """An audio file that was found."""

    id: str  # path below the input folder, with forward slashes, always valid UTF-8, composed (NFC)
    path: str  # for opening the file
    label: str
    size_bytes: int
    modified_ns: int

    def rejected(self, reason: dict[str, str]) -> dict[str, Any]:
        """Returns the entry of the manifest for this file, which is left out; see `make_rejection`."""
        return {"path": self.id, "size_bytes": self.size_bytes, "modified_ns": self.modified_ns} | reason


def find_tracks(
    root: str | os.PathLike, skip: Sequence[str | os.PathLike] = (), labels: str = "folder"
) -> tuple[list[TrackFile], list[dict[str, str]]]:
    """Returns the audio files below a folder, sorted by path, and those that cannot be used.

    Args:
        root: the folder; see `audio_folders.find_audio_files`.
        skip: folders that are not entered.
        labels: "folder" for the first folder's name as the label, "none" for one label.

    Returns:
        The files, and the rejected ones: {"path", "kind", "reason"}.
    """
    folder = audio_folders.find_audio_files(root, skip)
    rejected = [{"path": _make_id(path)} | make_rejection("unreadable", reason) for path, reason in folder.unreadable]
    rejected += [{"path": _make_id(path)} | make_rejection("not taken", reason) for path, reason in folder.passed_over]
    files, ids = [], collections.Counter()
    for below in folder.files:
        path = os.path.join(root, below)
        track = _make_id(below)
        ids[track] += 1
        if ids[track] > 1:  # two spellings of one name
            track = f"{track} ({ids[track]})"
        try:
            status = os.stat(path)
        except OSError as error:  # deleted since
            reason = f"cannot be read: {error.strerror}"
            rejected.append({"path": track} | make_rejection("unreadable", reason))
            continue
        label = " ".join(track.split("/")[0].split()) if labels == "folder" and "/" in track else UNLABELLED
        files.append(TrackFile(track, path, label, status.st_size, status.st_mtime_ns))
    return files, rejected


def _make_id(below: str) -> str:
    """Returns a path with forward slashes; macOS and Linux spell an accent differently, the result is one."""
    return unicodedata.normalize("NFC", escape_name(below.replace(os.sep, "/")))


def escape_name(text: str) -> str:
    r"""Returns a file name as valid Unicode, with bytes that are not UTF-8 as \xNN."""
    return os.fsencode(text).decode("utf-8", "backslashreplace")


def make_rejection(kind: str, reason: str) -> dict[str, str]:
    """Returns an entry for a file that is left out; similar reasons share a kind."""
    return {"kind": kind, "reason": reason}
