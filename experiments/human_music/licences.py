"""Reads the licence of a file from a Debian package's copyright file.

Most copyright files are machine-readable: paragraphs that name files by patterns, a licence and the
copyright holders. Older ones are plain text; known sentences identify their licence.

Reference: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
"""

from __future__ import annotations

import email.parser
import fnmatch
import re
from typing import NamedTuple

# Sentences of licences in plain text; the first that is found counts. The packaging itself is often
# under the GPL, so the GPL comes last.
_SENTENCES = {
    "BSD-2-Clause": "Redistribution and use in source and binary forms",
    "CC-BY-SA": "license attributes as selected by Licensor .{,60}: Attribution, ShareAlike",
    "GPL-2+": "GNU General Public License as published by the Free Software Foundation; either version 2",
}
UNKNOWN = "see the copyright file"
_PERMISSIVE = re.compile(r"(CC0|CC-BY-\d|BSD|MIT|Expat|ISC|zlib|PD$|public-domain)", re.IGNORECASE)


class Licence(NamedTuple):
    """The licence of a file.

    Attributes:
        name: its short name, such as "CC-BY-SA-3.0".
        holders: who holds the copyright.
        scope: "file" if the copyright file names the file or its folder; "package" if only a rule
            for the whole package applies.
    """

    name: str
    holders: str
    scope: str

    @property
    def is_permissive(self) -> bool:
        """Whether it asks for no more than a credit; of several licences one may be chosen."""
        return any(_PERMISSIVE.match(choice) for choice in re.split(r"\s+or\s+", self.name, flags=re.IGNORECASE))


def find_licence(copyright_text: str, path: str) -> Licence:
    """Returns the licence of an installed file.

    A package installs its sources' files under other folders. A pattern, or a pattern without its
    first folder, therefore matches a file if it matches the end of its path. As the format says, the
    last paragraph that matches counts.

    Args:
        copyright_text: the package's copyright file.
        path: the file's path in the package, such as "usr/share/games/hyperrogue/music/a.ogg".
    """
    if not copyright_text.startswith("Format:"):
        return _find_in_plain_text(copyright_text)
    parts = path.removeprefix("./").split("/")
    ends = ["/".join(parts[first:]) for first in range(len(parts))]
    found = Licence(UNKNOWN, "", "package")
    for paragraph in re.split(r"\n\s*\n", copyright_text):
        fields = email.parser.HeaderParser().parsestr(paragraph.strip("\n"))
        patterns = fields.get("Files", "").split()
        matching = [pattern for pattern in patterns if _matches(pattern.removeprefix("./"), ends)]
        if matching:
            name = fields.get("License", UNKNOWN).strip().splitlines()[0]
            holders = "; ".join(line.strip() for line in fields.get("Copyright", "").strip().splitlines())
            found = Licence(name, holders, "file" if any(map(_names_files, matching)) else "package")
    return found


def _names_files(pattern: str) -> bool:
    """Whether a pattern names files, or a folder below another one, and not a whole package."""
    return pattern.count("/") >= 2 or not pattern.endswith("*")


def _matches(pattern: str, ends: list[str]) -> bool:
    shorter = pattern.partition("/")[2]
    patterns = [pattern, shorter] if "/" in shorter else [pattern]
    return any(fnmatch.fnmatchcase(end, pattern) for pattern in patterns for end in ends)


def _find_in_plain_text(text: str) -> Licence:
    words = " ".join(text.split())
    name = next((name for name, sentence in _SENTENCES.items() if re.search(sentence, words)), UNKNOWN)
    holders = re.search(
        r"(?:Copyright:?(?: \([Cc]\)| ©)?|©)\s+((?:19|20)\d\d[^\n]*?)\.?(?: All rights reserved\.)?\n", text
    )
    return Licence(name, holders[1] if holders else "", "package")
