"""Fetches human music from packages of Debian or Ubuntu, lists its licences, and prepares it.

    python -m experiments.human_music --output human

Needs about 4 GB of disk, and 2.4 GB of downloads. Packages come through the system's own apt-get, from the sources that it
is configured for; nothing is installed. It writes

    human/packages/     the packages
    human/tracks/       their music, a folder a package
    human/copyright/    the packages' copyright files
    human/tracks.csv    every track with its package, licence and copyright holders
    human/records/      loops of two bars, in stereo, at one tempo, split by track

Steps that are done are not repeated.
"""

from __future__ import annotations

import argparse
import collections
import csv
import fnmatch
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import zipfile

from data_prep import prepare
from experiments.human_music.licences import find_licence

# Game soundtracks in Debian 12's main archive, and so under free licences.
PACKAGES = (
    "a7xpg-data frozen-bubble-data gunroar-data hedgewars-data hyperrogue-music marsshooter-data mu-cade-data naev-data "
    "nexuiz-music noiz2sa-data parsec47-data powermanga-data redeclipse-data rrootage-data singularity-music "
    "starfighter-data supertuxkart-data titanion-data torus-trooper-data tumiki-fighters-data val-and-rick-data"
).split()
LEAST_BYTES = 400_000  # shorter files are sound effects
# Other sounds, and faster versions of tracks that are there too: they would be in another split.
NO_MUSIC = ("*/sfx/*", "*/ambience/*", "*/steamLocomotive.ogg", "*_fast.ogg", "*/farm_f.ogg")
PREPARE = "--channels 2 --grid bars --bars 2 --bpm 140 --max_speed 12 --split 0.7,0.1,0.2 --labels none".split()


def fetch_package(name: str, folder: pathlib.Path) -> pathlib.Path:
    """Returns the package's file in a folder; downloads it if it is not there."""
    if not (found := sorted(folder.glob(f"{name}_*.deb"))):
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", "-q", name], cwd=folder, check=True)
        found = sorted(folder.glob(f"{name}_*.deb"))
    return found[-1]


def is_music(path: pathlib.Path, root: pathlib.Path) -> bool:
    """Returns whether a file below a root is a track."""
    if path.suffix != ".ogg" or path.is_symlink() or path.stat().st_size < LEAST_BYTES:
        return False
    return not any(fnmatch.fnmatchcase(f"/{path.relative_to(root)}", pattern) for pattern in NO_MUSIC)


def unpack_music(package: pathlib.Path, tracks: pathlib.Path, copyright_file: pathlib.Path) -> None:
    """Writes a package's tracks to a folder, which appears complete or not at all.

    The tracks keep their paths in the package. Music in .pk3 archives (zip files) is included.
    """
    with tempfile.TemporaryDirectory(dir=tracks.parent, prefix=".unpacking-") as temporary:
        root, kept = pathlib.Path(temporary, "root"), pathlib.Path(temporary, "kept")
        subprocess.run(["dpkg", "-x", package, root], check=True)
        for archive in sorted(root.rglob("*.pk3")):
            zipfile.ZipFile(archive).extractall(f"{archive}.d")
        kept.mkdir()
        for path in sorted(path for path in root.rglob("*.ogg") if is_music(path, root)):
            target = kept / path.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(path, target)
        name = package.name.split("_")[0]
        copyright_file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / "usr/share/doc" / name / "copyright", copyright_file)
        kept.rename(tracks)


def list_tracks(output: pathlib.Path, versions: dict[str, str]) -> list[dict[str, str]]:
    """Returns package, version, file, licence, its scope and the copyright holders of each track."""
    rows = []
    for name, version in versions.items():
        folder, text = output / "tracks" / name, (output / "copyright" / name).read_text(encoding="utf-8")
        for path in sorted(folder.rglob("*.ogg")):
            licence = find_licence(text, path.relative_to(folder).as_posix())
            file = path.relative_to(output / "tracks").as_posix()
            rows.append({"package": name, "version": version, "file": file, "licence": licence.name})
            rows[-1] |= {"scope": licence.scope, "permissive": licence.is_permissive, "holders": licence.holders}
    return rows


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, metavar="DIR", help="where everything goes")
    parser.add_argument(
        "--packages", default=PACKAGES, nargs="+", metavar="NAME", help="other packages with .ogg files"
    )
    parser.add_argument("--no_prepare", action="store_true", help="only fetch and list the tracks")
    options = parser.parse_args()
    if missing := [tool for tool in ("apt-get", "dpkg") if shutil.which(tool) is None]:
        sys.exit(f"expected Debian or Ubuntu, with {' and '.join(missing)}")
    output, versions = pathlib.Path(options.output), {}
    (output / "tracks").mkdir(parents=True, exist_ok=True)
    for name in options.packages:
        try:
            package = fetch_package(name, output / "packages")
            versions[name] = package.name.split("_")[1].replace("%3a", ":")
            if not (output / "tracks" / name).exists():
                unpack_music(package, output / "tracks" / name, output / "copyright" / name)
        except subprocess.CalledProcessError as error:
            sys.exit(f"{name}: {' '.join(map(str, error.cmd))} failed; sudo apt-get update may help")
    rows = list_tracks(output, versions)
    if not rows:
        sys.exit(f"no .ogg file above {LEAST_BYTES} bytes in {', '.join(options.packages)}")
    with open(output / "tracks.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    print(f"{len(rows)} tracks of {len(versions)} package{'s' * (len(versions) > 1)}: {output / 'tracks.csv'}")
    for name, count in collections.Counter(row["licence"] for row in rows).most_common():
        print(f"{count:>5}  {name}")
    if not options.no_prepare:
        sys.exit(
            prepare.main(["--input", os.fspath(output / "tracks"), "--output", os.fspath(output / "records"), *PREPARE])
        )


if __name__ == "__main__":
    main()
