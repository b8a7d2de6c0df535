"""Versions of one recording, against other recordings with the same drums."""

import numpy as np
import pytest

from data_prep.tracks import decode, versions
from data_prep.tracks.clip_settings import ClipSettings
from technogen_jax.audio import audio_files

RATE = 16000


def song(seed, seconds=40, rate=44100, bpm=130):
    """Kicks that all songs share, hats and a melody of its own that comes and goes."""
    rng, t = np.random.default_rng(seed), np.arange(seconds * rate) / rate
    phase = t * bpm / 60 % 1
    kick = 0.5 * np.sin(2 * np.pi * 50 * phase) * np.exp(-8 * phase)
    bars = rng.uniform(0.1, 1, seconds)[np.minimum(t.astype(int), seconds - 1)]
    notes = rng.uniform(200, 2000, seconds * 4)[np.minimum((t * 4).astype(int), seconds * 4 - 1)]
    melody = 0.15 * bars * np.sin(2 * np.pi * notes * t)
    hats = 0.05 * bars * rng.standard_normal(len(t)) * np.exp(-20 * (2 * phase % 1))
    return np.stack([kick + melody + hats, kick + melody - 0.5 * hats], axis=1).astype(np.float32)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Three songs, and versions of the first: compressed, softer, trimmed, mono and at another rate."""
    folder = tmp_path_factory.mktemp("versions")
    first = song(0)
    files = {
        "0.wav": (first, 44100),
        "1.wav": (song(1), 44100),
        "2.flac": (song(2), 44100),
        "0.mp3": (first, 44100),
        "0.ogg": (first, 44100),
        "0 softer.wav": (0.89 * first, 44100),
        "0 trimmed.wav": (first[22050 + 777 :], 44100),
        "0 longer.flac": (np.concatenate([np.zeros((30_001, 2), np.float32), first]), 44100),
        "0 mono.opus": (first.mean(axis=1, keepdims=True)[::1], 48000),
        "0 inverted.wav": (-first, 44100),
    }
    settings = ClipSettings(RATE, 1, RATE, RATE, "peak", None, -60.0)
    found = {}
    for index, (name, (samples, rate)) in enumerate(files.items()):
        if rate != 44100:
            samples = audio_files.resample(samples, 44100, rate)
        audio_files.write(folder / name, samples, rate)
        stem = str(folder / f"part{index}")
        result = decode.decode_track((str(folder / name), stem, settings))
        found[name] = versions.Recording(f"{stem}.pcm", result["contour"], result["hash"], RATE, 1)
    return found


def test_versions_of_a_recording_are_found_and_other_songs_are_not(recordings):
    names = list(recordings)
    groups = dict(zip(names, versions.find_versions(list(recordings.values())), strict=True))
    assert groups == {name: names.index(name) if name in ("1.wav", "2.flac") else 0 for name in names}


def test_the_same_groups_in_any_order(recordings):
    names = sorted(recordings, key=lambda name: name[::-1])
    groups = versions.find_versions([recordings[name] for name in names])
    members = {name for name, group in zip(names, groups, strict=True) if names[group].startswith("0")}
    assert members == {name for name in names if name.startswith("0")}
    assert len({group for name, group in zip(names, groups, strict=True) if name.startswith("0")}) == 1


def test_equal_audio_needs_no_comparison():
    nothing = versions.encode_contour(np.zeros(0))
    alike = versions.Recording("nowhere", nothing, "x", RATE, 1)
    assert versions.find_versions([alike, alike._replace(content="y"), alike]) == [0, 1, 0]
    assert versions.find_versions([]) == []
