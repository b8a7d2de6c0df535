"""A folder full of broken and odd files: `prepare` neither crashes nor hangs, and what is good comes out untouched."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from helpers import zoo
from helpers.beats import beat_times, drums

from technogen_jax.audio import audio_files
from technogen_jax.data import tfrecords
from technogen_jax.data.clip_source import ClipSource
from technogen_jax.data.manifest import MANIFEST_FILE, read_manifest

HALF_SECONDS = ("--hop_size", "0.5")
BARS = ("--grid", "bars", "--bars", "1", "--bpm", "128")


def prepare(source, output, how):
    """What the command printed; it ended well and in time."""
    argv = [sys.executable, "-m", "data_prep.prepare", "--input", source, "--output", output, "--workers", "2"]
    argv += ["--sample_rate", zoo.RATE_HZ, *how]
    done = subprocess.run(list(map(str, argv)), cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def add_good(folder):
    """Five files of music, 128 beats a minute, in a folder of their own."""
    (folder / "good").mkdir(parents=True)
    for number, suffix in enumerate((".wav", ".flac", ".mp3", ".ogg", ".aiff")):
        kicks = beat_times(128, 15, 0.1 * number)
        audio_files.write(
            folder / "good" / f"{number}{suffix}", drums(16, zoo.RATE_HZ, kicks, kicks + 0.234), zoo.RATE_HZ
        )


def good_clips(folder):
    """(track, offset) -> PCM of all clips of the good files."""
    clips = [clip for split in tfrecords.SPLITS for clip in ClipSource(folder, split)]
    good = {(clip["track"], clip["offset"]): clip["audio"].tobytes() for clip in clips}
    return {where: pcm for where, pcm in good.items() if where[0].startswith("good/")}


def check_zoo(folder, seed, how=HALF_SECONDS):
    """Prepares a zoo and five good files; how many of its files were left out and how many are tracks."""
    add_good(folder / "alone")
    add_good(folder / "zoo")
    made = zoo.fill(folder / "zoo", seed)
    prepare(folder / "alone", folder / "alone_set", how)
    printed = prepare(folder / "zoo", folder / "zoo_set", how)
    manifest = read_manifest(folder / "zoo_set")
    tracks = [entry["id"] for entry in manifest.tracks]
    rejected = {entry["path"]: entry["reason"] for entry in manifest.rejected}
    # Each file once, in one of the two lists; those that can be no track with a reason, in one line.
    assert sorted([*tracks, *rejected]) == sorted(
        [*made, *(f"good/{name}" for name in os.listdir(folder / "zoo/good"))]
    )
    assert len(rejected) == len(manifest.rejected)
    assert not [name for name in tracks if made.get(name) == zoo.BAD]
    assert all(reason.strip() and "\n" not in reason for reason in rejected.values())
    assert f"{len(rejected)} files left out" in printed
    assert all(line.isprintable() for line in printed.splitlines())
    json.loads((folder / "zoo_set" / MANIFEST_FILE).read_text(), parse_constant=pytest.fail)
    good = good_clips(folder / "alone_set")
    assert good == good_clips(folder / "zoo_set") and len({track for track, _ in good}) == 5
    assert sorted(os.listdir(folder)) == ["alone", "alone_set", "zoo", "zoo_set"]
    return len(rejected), len(tracks) - 5


@pytest.mark.skipif(os.name != "posix", reason="names as bytes, links and pipes")
def test_no_file_stops_the_others_and_each_is_accounted_for(tmp_path):
    left_out, odd = check_zoo(tmp_path, 0)
    assert left_out >= 200 and odd >= 80 and len(zoo.KINDS) == 21


def test_files_differ_by_seed_and_not_by_run():
    a, b, c = (next(zoo.cut_in_the_middle(np.random.default_rng(seed))) for seed in (0, 0, 1))
    assert a == b != c
