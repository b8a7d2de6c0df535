"""Tempo and loop points in WAV files, read by libsndfile and, where it is installed, by wavinfo."""

import struct

import numpy as np
import pytest
import soundfile

from technogen_jax.audio import audio_files

LOOP_INFO, INSTRUMENT = 0x10E0, 0x10D0  # SFC_GET_LOOP_INFO, SFC_GET_INSTRUMENT of sndfile.h
LOOP_FORWARD = 801


def ask_libsndfile(path, command, layout):
    """The values of a struct that libsndfile fills with what it found in a file."""
    with soundfile.SoundFile(path) as file:
        content = soundfile._ffi.new("char[]", 1024)
        assert soundfile._snd.sf_command(file._file, command, content, struct.calcsize(layout))
        return struct.unpack(layout, bytes(soundfile._ffi.buffer(content, struct.calcsize(layout))))


@pytest.mark.parametrize("samples, rate_hz, bpm", [(155648, 44100, 240 * 2 * 44100 / 155648), (48000, 16000, 160.0)])
def test_a_wav_carries_tempo_beats_and_loop_points_and_the_same_audio(tmp_path, samples, rate_hz, bpm):
    audio = np.random.default_rng(0).uniform(-1, 1, (samples, 2)).astype(np.float32)
    audio_files.write(tmp_path / "plain.wav", audio, rate_hz)
    audio_files.write(tmp_path / "loop.wav", audio, rate_hz, bpm)
    info = ask_libsndfile(tmp_path / "loop.wav", LOOP_INFO, "<hhiifi24x")
    numerator, denominator, _, beats, tempo, _ = info
    assert (numerator, denominator, beats) == (4, 4, 8) and tempo == np.float32(bpm)
    assert abs(beats * 60 / tempo * rate_hz - samples) < 0.05
    loop = ask_libsndfile(tmp_path / "loop.wav", INSTRUMENT, "<i6bxxi4I240x")[7:]
    assert loop[:4] == (1, LOOP_FORWARD, 0, samples)  # one loop; its end is the sample after the last
    plain, looped = (soundfile.read(tmp_path / name, dtype="int16")[0] for name in ("plain.wav", "loop.wav"))
    np.testing.assert_array_equal(looped, plain)
    again, _ = audio_files.read(tmp_path / "loop.wav")
    assert len(again) == samples
    content = (tmp_path / "loop.wav").read_bytes()
    assert struct.unpack("<I", content[4:8])[0] == len(content) - 8


def test_wavinfo_reads_the_same_loop(tmp_path):
    wavinfo = pytest.importorskip("wavinfo")
    audio_files.write(tmp_path / "loop.wav", np.zeros((44100, 1), np.float32), 44100, 120)
    (loop,) = wavinfo.WavInfoReader(str(tmp_path / "loop.wav")).smpl.sample_loops
    assert (loop.start, loop.end, loop.repetition_count) == (0, 44099, 0)


def test_other_formats_and_sounds_without_a_tempo_are_as_before(tmp_path):
    audio = np.zeros((100, 1), np.float32)
    for name in ("a.flac", "a.aiff"):
        audio_files.write(tmp_path / name, audio, 8000, 120)
        assert soundfile.info(tmp_path / name).frames == 100
    audio_files.write(tmp_path / "a.wav", audio, 8000)
    assert b"acid" not in (tmp_path / "a.wav").read_bytes()
