"""Finding tracks in an untidy folder, and the part that one becomes."""

import json
import os
import signal

import numpy as np
import pytest
import soundfile

from data_prep import workers
from data_prep.tracks import decode as tracks
from data_prep.tracks import tempo
from technogen_jax.audio import audio_files

RATE = 16000


def cut(**changes):
    fields = dict(
        sample_rate_hz=RATE,
        channels=1,
        clip_samples=RATE,
        stride_samples=RATE,
        normalise="peak",
        target_lufs=None,
        silence_db=-60.0,
    )
    return tracks.Cut(**(fields | changes))


def noise(seconds, rate=RATE, channels=1, seed=0):
    rng = np.random.default_rng(seed)
    return (0.2 * rng.uniform(-1, 1, (round(seconds * rate), channels))).astype(np.float32)


def decode(tmp_path, samples, how, rate=RATE):
    """Writes float samples exactly, decodes them; (what decode_track says, the part's PCM)."""
    soundfile.write(tmp_path / "track.wav", samples, rate, subtype="FLOAT")
    part = str(tmp_path / "part")
    result = tracks.decode_track((str(tmp_path / "track.wav"), part, how))
    assert result == json.loads((tmp_path / "part.json").read_text()) == tracks.read_part(part, how)
    if "hash" not in result:
        return result, None
    return result, np.fromfile(f"{part}.pcm", np.int16).reshape(-1, how.channels)


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX only")
def test_finding(tmp_path):
    names = [
        "b.WAV",
        "a/x.mp3",
        "a/deep/er/y.flac",
        "a b\n/z.m4a",
        "note.txt",
        ".hidden.wav",
        ".h/x.wav",
        "c/d.wav.part",
    ]
    for name in [*names, "old/x.wav"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    with open(os.fsencode(tmp_path) + b"/a/\xe9.ogg", "wb"):
        pass
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "linked").symlink_to(tmp_path / "a" / "deep")
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "gone.wav").symlink_to("nowhere")
    (tmp_path / "self.wav").symlink_to("self.wav")
    os.mkfifo(tmp_path / "pipe.wav")
    found, rejected = tracks.find_tracks(tmp_path, [tmp_path / "old"])
    assert [(source.id, source.label) for source in found] == [
        ("a b\n/z.m4a", "a b"),
        ("a/deep/er/y.flac", "a"),
        ("a/x.mp3", "a"),
        ("a/\\xe9.ogg", "a"),
        ("b.WAV", "unlabelled"),
    ]
    assert all(os.path.samefile(source.path, os.path.join(tmp_path, source.path)) for source in found)
    assert sorted(entry["path"] for entry in rejected) == ["gone.wav", "pipe.wav", "self.wav"]
    assert {entry["kind"] for entry in rejected} == {"unreadable"}
    assert {source.label for source in tracks.find_tracks(tmp_path, labels="none")[0]} == {"unlabelled"}


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("stride", [RATE, 3000, 25000])
@pytest.mark.parametrize("spool_bytes", [1 << 28, 100_000, 0])
def test_a_part_is_the_normalised_track_as_far_as_its_last_clip(tmp_path, monkeypatch, channels, stride, spool_bytes):
    monkeypatch.setattr(tracks, "_SPOOL_BYTES", spool_bytes)  # beyond it, a temporary file holds the audio
    tracks._spool_memory.cache_clear()
    samples = noise(10.3, channels=channels)
    result, pcm = decode(tmp_path, samples, cut(channels=channels, stride_samples=stride))
    tracks._spool_memory.cache_clear()
    count = 1 + (len(samples) - RATE) // stride
    want = audio_files.to_int16(samples * np.float32(32767 / 32768 / np.abs(samples).max()))
    np.testing.assert_array_equal(pcm, want[: (count - 1) * stride + RATE])
    assert np.abs(want).max() == 32767
    clips = [pcm[index * stride :][:RATE].astype(np.float64) / 32768 for index in range(count)]
    peaks = [20 * np.log10(np.abs(clip).max()) for clip in clips]
    np.testing.assert_allclose(result["clip_peaks_dbfs"], peaks, atol=1e-3)
    assert result["samples"] == len(samples) and len(result["clip_loudness_lufs"]) == count
    assert sorted(os.listdir(tmp_path)) == ["part.json", "part.pcm", "track.wav"]


def test_levels(tmp_path):
    samples = 4 * noise(3)  # peaks at 0.8
    loud = np.concatenate([samples, 3 * samples])
    np.testing.assert_array_equal(decode(tmp_path, loud, cut(normalise="none"))[1], audio_files.to_int16(loud))
    result, pcm = decode(tmp_path, samples, cut(normalise="loudness", target_lufs=-20.0))
    assert not result["gain_limited"]
    assert result["loudness_lufs"] + result["gain_db"] == pytest.approx(-20, abs=0.01)
    assert np.mean(result["clip_loudness_lufs"]) == pytest.approx(-20, abs=0.2)
    result, pcm = decode(tmp_path, samples, cut(normalise="loudness", target_lufs=-1.0))
    assert result["gain_limited"] and np.abs(pcm.astype(int)).max() == 32767


def test_samples_are_rounded_and_clipped_and_what_they_are_then_is_measured():
    samples = np.float32([0.1, -0.1, 1.5 / 32768, 2.5 / 32768, 1, -1, 3e38, -3e38, 0.99999])
    pcm = np.empty(len(samples), np.int16)
    peak, energy = tracks._quantise(samples, np.float32(32768), pcm)
    assert pcm.tolist() == [3277, -3277, 2, 2, 32767, -32768, 32767, -32768, 32767]
    assert peak == 32768 and energy == sum(int(value) ** 2 for value in pcm)


def test_dc_alone_is_silence_and_music_on_dc_is_not(tmp_path):
    dither = np.sign(noise(3)) / 32768
    for name, samples in (("dc", 0.5 + dither), ("two", np.repeat(dither, 2, 1) + (0.3, -0.2))):
        result, _ = decode(tmp_path, samples, cut(channels=2), rate=44100)  # at the ends, resampled DC is a click
        assert result["reason"] == "silent: nothing but DC, its changes stay below -60 dB", name
    assert "hash" in decode(tmp_path, 0.5 + noise(3), cut())[0]
    assert "hash" in decode(tmp_path, 0.5 + dither, cut(silence_db=-100.0))[0]


def test_no_sounds_level_is_named(tmp_path):
    assert decode(tmp_path, 1e30 * noise(3), cut())[0]["reason"] == "its peak is 586 dBFS, which is no sound's"
    assert "hash" in decode(tmp_path, 2.0**31 * noise(3), cut())[0]


def test_a_track_without_an_end_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(tracks, "_LONGEST_S", 2)
    assert decode(tmp_path, noise(2.5), cut())[0]["reason"].startswith("longer than ")
    assert "hash" in decode(tmp_path, noise(2), cut())[0]


@pytest.mark.skipif(not hasattr(signal, "alarm"), reason="needs SIGALRM")
def test_opening_a_file_is_watched_too(tmp_path, monkeypatch):
    left_s = []
    monkeypatch.setattr(audio_files, "open_stream", lambda path: left_s.append(signal.getitimer(signal.ITIMER_REAL)[0]))
    tracks.decode_track(("x.wav", str(tmp_path / "part"), cut()))
    tracks.find_beats(("x.wav", str(tmp_path / "part"), (100.0, 180.0)))
    assert len(left_s) == 2 and all(0 < left <= tracks._PATIENCE_S for left in left_s)
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_silence_is_gated_by_each_clips_rms(tmp_path):
    samples = noise(6)
    samples[RATE : 2 * RATE] = 0
    samples[4 * RATE : 5 * RATE] *= 10 ** (-55 / 20)  # -55 dB below the rest, whose RMS at peak 1 is -4.8 dBFS
    assert decode(tmp_path, samples, cut())[0]["silent_clips"] == [1]
    assert decode(tmp_path, samples, cut(silence_db=-58.0))[0]["silent_clips"] == [1, 4]
    assert decode(tmp_path, 4 * samples, cut(silence_db=-3.0))[0]["reason"] == "silent: all 6 clips are below -3 dB"
    assert decode(tmp_path, 0 * samples, cut())[0]["kind"] == "silent"
    assert decode(tmp_path, 1e-4 * samples, cut())[0]["kind"] == "silent"


def test_reasons(tmp_path):
    assert decode(tmp_path, noise(0.9), cut())[0] == {
        "kind": "too short",
        "reason": "0.9 s, shorter than a clip of 1 s",
    }
    (tmp_path / "bad.wav").write_text("no audio")
    result = tracks.decode_track((str(tmp_path / "bad.wav"), str(tmp_path / "part"), cut()))
    assert result["kind"] == "not usable audio"
    with pytest.raises(workers.JobError, match="cannot be written"):
        decode(tmp_path, noise(3), cut())  # to have a good file
        tracks.decode_track((str(tmp_path / "track.wav"), str(tmp_path / "nowhere" / "part"), cut()))


def test_the_hash_is_of_the_decoded_audio(tmp_path):
    samples = audio_files.from_int16(audio_files.to_int16(noise(9, 44100, 2)))
    files = {
        "a.wav": samples,
        "b.flac": samples,
        "c.wav": samples[::-1],
        "d.wav": samples[:, :1],
        "e.wav": samples[:-1],
    }
    hashes = {}
    for name, content in files.items():
        audio_files.write(tmp_path / name, content, 44100)
        for how in (cut(), cut(channels=2, sample_rate_hz=44100, stride_samples=5000)):
            hashes.setdefault(name, set()).add(
                tracks.decode_track((str(tmp_path / name), str(tmp_path / "part"), how))["hash"]
            )
    assert all(len(values) == 1 for values in hashes.values())  # whatever the options
    assert hashes["a.wav"] == hashes["b.flac"]
    assert len(set.union(*hashes.values())) == 4


def test_a_part_that_is_not_whole_is_none(tmp_path):
    part = str(tmp_path / "part")
    assert tracks.read_part(part, cut()) is None
    decode(tmp_path, noise(3), cut())
    assert tracks.read_part(part, cut()) is not None
    with open(f"{part}.pcm", "ab") as file:
        file.truncate(file.tell() - 2)
    assert tracks.read_part(part, cut()) is None
    (tmp_path / "part.json").write_text('{"hash": ')
    assert tracks.read_part(part, cut()) is None


def test_places_of_bars():
    sections = (
        tempo.Section(0.5, 7, 120, 1, 1),
        tempo.Section(20.25, 2, 125, 1, 1),
        tempo.Section(-0.001, 3, 118, 1, 1),
    )
    how = cut(clip_samples=60_001, bars=2, stride_bars=3, bpm=127.9979, sections=sections)
    about = [
        (place.offset, place.about["section"], place.about["bar"], place.about["speed"]) for place in how.places(0)
    ]
    bar = 60_001 / 2
    assert about == [
        (0, 0, 0, pytest.approx(RATE * 2 / bar)),
        (round(3 * bar), 0, 3, pytest.approx(RATE * 2 / bar)),
        (round(7 * bar), 1, 0, pytest.approx(RATE * 240 / 125 / bar)),
        (round(7 * bar) + round(2 * bar), 2, 0, pytest.approx(RATE * 240 / 118 / bar)),
    ]
    assert [place.start for place in how.places(0)] == [RATE // 2, round(6.5 * RATE), round(20.25 * RATE), 0]
    assert how.part_bytes(0) == 2 * (round(7 * bar) + round(2 * bar) + 60_001)
