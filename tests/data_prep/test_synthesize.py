import json
import os

import numpy as np
import pytest
from scipy import signal

from data_prep import synthesize
from data_prep.corpus import compose, render
from technogen_jax.audio import audio_files

RATE_HZ = 22050


def _run(output, *options):
    common = ["--output", str(output), "--minutes", "0.2,0.25", "--sample_rate", "16000", "--workers", "1"]
    return synthesize.main([*common, *options])


def _files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_mp3_has_the_same_length_and_alignment(tmp_path):
    sound = render.render(compose.compose(7, 0, (0.3, 0.4)), RATE_HZ)
    audio_files.write(tmp_path / "track.mp3", sound, RATE_HZ)
    decoded, rate_hz = audio_files.read(tmp_path / "track.mp3")
    assert rate_hz == RATE_HZ and decoded.shape == sound.shape
    lags = signal.correlation_lags(len(sound), len(sound))
    correlation = signal.correlate(decoded[:, 0], sound[:, 0])
    assert lags[np.argmax(correlation)] == 0


def test_command_writes_a_corpus_once(tmp_path, capsys):
    assert _run(tmp_path / "a", "--tracks", "6") == 0
    out = capsys.readouterr().out
    assert "6 tracks" in out and "data_prep.prepare" in out
    names = sorted(_files(tmp_path / "a"))
    assert names == [
        "acid/acid-0000.json",
        "acid/acid-0000.wav",
        "acid/acid-0002.json",
        "acid/acid-0002.mp3",
        "acid/acid-0004.flac",
        "acid/acid-0004.json",
        "industrial/industrial-0001.flac",
        "industrial/industrial-0001.json",
        "industrial/industrial-0003.json",
        "industrial/industrial-0003.wav",
        "industrial/industrial-0005.json",
        "industrial/industrial-0005.mp3",
    ]
    for path in (tmp_path / "a").rglob("*.json"):
        fields = json.loads(path.read_text())
        sound, rate_hz = audio_files.read(path.with_name(fields["file"]))
        assert rate_hz == fields["sample_rate_hz"] == 16000
        assert sound.shape == (fields["samples"], fields["channels"])
        assert np.abs(sound).max() > 0.5
        assert fields["genre"] == path.parent.name
        assert fields["downbeats_s"][0] == fields["first_downbeat_s"]
        np.testing.assert_allclose(np.diff(fields["downbeats_s"]), 240 / fields["bpm"], atol=1e-8)
        assert fields["parts"][-1]["end_s"] <= fields["samples"] / rate_hz
        assert any("kick" in part["instruments"] for part in fields["parts"])

    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*.*")}
    assert _run(tmp_path / "a", "--tracks", "6") == 0
    assert "6 of 6 tracks are there already" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*.*")}


def test_tracks_do_not_depend_on_count_workers_or_interruptions(tmp_path):
    assert _run(tmp_path / "a", "--tracks", "3") == 0
    assert _run(tmp_path / "b", "--tracks", "2", "--workers", "2") == 0
    # As a run leaves it that was stopped between a track and its description, and in the middle of another's writing.
    os.unlink(tmp_path / "b/acid/acid-0000.json")
    (tmp_path / "b/industrial/industrial-0001.flac").write_bytes(b"half")
    (tmp_path / "b/industrial/.industrial-0001.flac.1.tmp").write_bytes(b"ha")
    assert _run(tmp_path / "b", "--tracks", "3") == 0
    assert _files(tmp_path / "a") == _files(tmp_path / "b")


def test_another_corpus_in_the_folder_is_an_error(tmp_path, capsys):
    assert _run(tmp_path, "--tracks", "1") == 0
    before = _files(tmp_path)
    assert _run(tmp_path, "--tracks", "1", "--seed", "1") == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("synthesize: --output") and "seed was 0, is 1" in error
    assert _files(tmp_path) == before


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--tracks", "0"], "--tracks: expected 1 to 10000, got 0"),
        (["--minutes", "3,1"], "--minutes: expected the shortest and the longest"),
        (["--minutes", "x"], "--minutes: expected numbers with commas between, got x"),
        (["--genres", "acid,house"], "--genres: expected some of acid,industrial, once each, got acid,house"),
        (["--formats", "ogg"], "--formats: expected some of wav,flac,mp3, once each, got ogg"),
        (["--sample_rate", "96000"], "add --formats wav,flac"),
        (["--sample_rate", "1000", "--formats", "wav"], "--sample_rate: expected 8000 to 192000"),
        (["--seed", "-1"], "--seed: expected 0 to 4294967295, got -1"),
        (["--workers", "0"], "--workers: expected 1 to 1024, got 0"),
        (["--bars", "4"], "unrecognized arguments"),
    ],
)
def test_invalid_options_are_one_line_errors(tmp_path, capsys, options, reason):
    with pytest.raises(SystemExit) as stop:
        synthesize.main(["--output", str(tmp_path / "a"), *options])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert reason in error and error.count("\n") == 1
    assert not (tmp_path / "a").exists()


def test_a_file_as_output_is_an_error(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert _run(tmp_path / "file") == 2
    assert "is a file" in capsys.readouterr().err
