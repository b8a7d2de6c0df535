"""The corpus of human music: licences from copyright files, and tracks from packages."""

import csv
import shutil
import subprocess
import zipfile

import numpy as np
import pytest

from experiments.human_music import __main__ as human_music
from experiments.human_music import ears
from experiments.human_music.licences import UNKNOWN, find_licence
from technogen_jax.evaluation.metrics.embedded_set import EmbeddedSet

COPYRIGHT = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: Game

Files: *
Copyright: 2001-2009, The Team <team@example.org>
 2010 Others
License: GPL-3+

Files: data/*
Copyright: 2011 The Team
License: GPL-2

Files: ./data/music/a.ogg
 data/music/b*.ogg
Copyright: Ann
License: GPL-3 or CC-BY-3.0

Files: data/music/deep/*
Copyright: Bob
License: CC-BY-SA-4.0
 the licence's text
 .
 Files: *

Files: debian/*
Copyright: Cyd
License: MIT

License: GPL-3+
 On Debian systems see elsewhere.
"""


@pytest.mark.parametrize(
    ("path", "name", "holders", "scope", "permissive"),
    [
        ("usr/share/games/game/data/music/a.ogg", "GPL-3 or CC-BY-3.0", "Ann", "file", True),
        ("usr/share/game/music/b 1.ogg", "GPL-3 or CC-BY-3.0", "Ann", "file", True),  # installed without data/
        ("usr/share/game/data/music/deep/down/c.ogg", "CC-BY-SA-4.0", "Bob", "file", False),
        ("usr/share/game/data/music/c.ogg", "GPL-2", "2011 The Team", "package", False),
        ("usr/share/game/c.ogg", "GPL-3+", "2001-2009, The Team <team@example.org>; 2010 Others", "package", False),
    ],
)
def test_the_last_paragraph_that_names_a_file_gives_its_licence(path, name, holders, scope, permissive):
    found = find_licence(COPYRIGHT, path)
    assert found == (name, holders, scope)
    assert found.is_permissive == permissive


@pytest.mark.parametrize(
    ("text", "name", "holders"),
    [
        (
            "Copyright: 2002 Ann Ant. All rights reserved.\n\nRedistribution and use in source and\nbinary forms ...\n"
            "The packaging is under the GNU General Public License",
            "BSD-2-Clause",
            "2002 Ann Ant",
        ),
        (
            "Game is © 2002 - 2009 Team.\n\nThe GNU General Public License\nas published by the Free Software Foundation; "
            "either version 2\nof the License",
            "GPL-2+",
            "2002 - 2009 Team",
        ),
        ("Copyright (C) 2007 Max\n\nDo what is right.", UNKNOWN, "2007 Max"),
    ],
)
def test_known_sentences_give_the_licence_of_plain_text(text, name, holders):
    assert find_licence(text, "usr/share/game/a.ogg") == (name, holders, "package")


@pytest.mark.parametrize(
    ("name", "permissive"),
    [("CC0-1.0", True), ("BSD-2-Clause", True), ("CC-BY-SA-3.0", False), ("GPL-2+ OR CC-BY-SA", False), ("PD", True)],
)
def test_a_permissive_licence_asks_for_a_credit_at_most(name, permissive):
    assert find_licence(f"Format: 1\n\nFiles: *\nLicense: {name}\n", "a.ogg").is_permissive == permissive


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg")
def test_tracks_come_out_of_a_package_with_their_licences(tmp_path, monkeypatch, capsys):
    source, music = tmp_path / "source", tmp_path / "source/usr/share/game/data/music"
    (source / "DEBIAN").mkdir(parents=True)
    (source / "DEBIAN/control").write_text(
        "Package: game-data\nVersion: 1:1.2\nArchitecture: all\nMaintainer: A <a@b>\nDescription: x\n"
    )
    (source / "usr/share/doc/game-data").mkdir(parents=True)
    (source / "usr/share/doc/game-data/copyright").write_text(COPYRIGHT)
    for name in ("a.ogg", "a_fast.ogg", "deep/c.ogg", "../sfx/bang.ogg"):
        (music / name).parent.mkdir(parents=True, exist_ok=True)
        (music / name).write_bytes(bytes(human_music.LEAST_BYTES))
    (music / "short.ogg").write_bytes(b"short")
    with zipfile.ZipFile(music / "more.pk3", "w") as archive:
        archive.writestr("cd/z.ogg", bytes(human_music.LEAST_BYTES))
    output = tmp_path / "human"
    (output / "packages").mkdir(parents=True)
    subprocess.run(["dpkg-deb", "--build", source, output / "packages/game-data_1%3a1.2_all.deb"], check=True)

    monkeypatch.setattr("sys.argv", ["x", "--output", str(output), "--packages", "game-data", "--no_prepare"])
    human_music.main()
    assert "3 tracks of 1 package:" in capsys.readouterr().out
    with open(output / "tracks.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    below = "game-data/usr/share/game/data/music/"
    found = {row["file"].removeprefix(below): row["licence"] for row in rows}
    assert found == {"a.ogg": "GPL-3 or CC-BY-3.0", "deep/c.ogg": "CC-BY-SA-4.0", "more.pk3.d/cd/z.ogg": "GPL-2"}
    assert {row["version"] for row in rows} == {"1:1.2"}
    assert (output / "copyright/game-data").read_text() == COPYRIGHT
    assert all((output / "tracks" / row["file"]).stat().st_size == human_music.LEAST_BYTES for row in rows)
    assert [path.name for path in (output / "tracks").iterdir() if path.name.startswith(".")] == []


def test_level_differences_are_in_decibels():
    random = np.random.default_rng(0)
    clips = np.int16(3000 * random.standard_normal((2, 48_000, 2)))
    assert ears.level_differences_db(clips, clips, 16_000) == [0, 0, 0, 0]
    np.testing.assert_allclose(ears.level_differences_db(clips, clips // 2, 16_000), 6.02, atol=0.05)


def test_the_classifier_is_tested_on_other_tracks():
    """Clips of a track are alike, and nothing else tells the sets apart: by clips it would be nearly always right."""
    random = np.random.default_rng(0)
    tracks = np.arange(240) // 4
    values = (random.standard_normal((60, 8))[tracks] + 0.01 * random.standard_normal((240, 8))).astype(np.float64)
    first, second = (EmbeddedSet(values[rows], tracks[rows]) for rows in (tracks < 40, tracks >= 40))
    assert 0.35 < ears.classify(first, second) < 0.65
    assert ears.classify(first, second._replace(values=second.values + 10)) == 1
