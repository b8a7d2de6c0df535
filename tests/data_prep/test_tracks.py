"""Finding tracks in an untidy folder, and decoding them."""

import json
import os
import signal

import numpy as np
import pytest
import soundfile
from helpers.beats import beat_times, drums

from data_prep import workers
from data_prep.tracks import decode, find, tempo
from data_prep.tracks.clip_settings import ClipSettings
from technogen_jax.audio import audio_files

RATE = 16000


def make_settings(**changes):
    fields = dict(
        sample_rate_hz=RATE,
        channels=1,
        clip_samples=RATE,
        stride_samples=RATE,
        normalise="peak",
        target_lufs=None,
        silence_db=-60.0,
    )
    return ClipSettings(**(fields | changes))


def noise(seconds, rate=RATE, channels=1, seed=0):
    rng = np.random.default_rng(seed)
    return (0.2 * rng.uniform(-1, 1, (round(seconds * rate), channels))).astype(np.float32)


def decode_samples(tmp_path, samples, settings, rate=RATE):
    """Writes float samples exactly, decodes them; returns (result of decode_track, PCM)."""
    soundfile.write(tmp_path / "track.wav", samples, rate, subtype="FLOAT")
    part = str(tmp_path / "part")
    result = decode.decode_track((str(tmp_path / "track.wav"), part, settings))
    assert result == json.loads((tmp_path / "part.json").read_text()) == decode.read_decoded(part, settings)
    if "hash" not in result:
        return result, None
    return result, np.fromfile(f"{part}.pcm", np.int16).reshape(-1, settings.channels)


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX only")
def test_find_tracks_returns_audio_files_and_rejects_unreadable_ones(tmp_path):
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
    found, rejected = find.find_tracks(tmp_path, [tmp_path / "old"])
    assert [(source.id, source.label) for source in found] == [
        ("a b\n/z.m4a", "a b"),
        ("a/deep/er/y.flac", "a"),
        ("a/x.mp3", "a"),
        ("a/\\xe9.ogg", "a"),
        ("b.WAV", "unlabelled"),
    ]
    assert all(os.path.samefile(source.path, os.path.join(tmp_path, source.path)) for source in found)
    kinds = {entry["path"]: entry["kind"] for entry in rejected}
    assert kinds == dict.fromkeys(["gone.wav", "pipe.wav", "self.wav"], "unreadable") | {"c/d.wav.part": "not taken"}
    assert {source.label for source in find.find_tracks(tmp_path, labels="none")[0]} == {"unlabelled"}


def test_accents_are_spelled_one_way(tmp_path):
    """macOS writes e and an accent, others one letter: two labels that look alike, of one genre."""
    for folder, name in (("de\u0301tente", "e\u0301.wav"), ("d\xe9tente", "b.wav"), ("d\xe9tente", "\xe9.wav")):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / name).write_bytes(b"x")
    found, _ = find.find_tracks(tmp_path)
    assert {source.label for source in found} == {"d\xe9tente"}
    assert sorted(source.id for source in found) == [
        "d\xe9tente/b.wav",
        "d\xe9tente/\xe9.wav",
        "d\xe9tente/\xe9.wav (2)",
    ]
    assert all(os.path.exists(source.path) for source in found)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("stride", [RATE, 3000, 25000])
@pytest.mark.parametrize("buffer_bytes", [1 << 28, 100_000, 0])
def test_decode_track_writes_the_normalised_track_up_to_its_last_clip(
    tmp_path, monkeypatch, channels, stride, buffer_bytes
):
    monkeypatch.setattr(decode, "_BUFFER_BYTES", buffer_bytes)  # beyond it, a temporary file holds the audio
    decode._buffer_memory.cache_clear()
    samples = noise(10.3, channels=channels)
    result, pcm = decode_samples(tmp_path, samples, make_settings(channels=channels, stride_samples=stride))
    decode._buffer_memory.cache_clear()
    count = 1 + (len(samples) - RATE) // stride
    want = audio_files.to_int16(samples * np.float32(32767 / 32768 / np.abs(samples).max()))
    np.testing.assert_array_equal(pcm, want[: (count - 1) * stride + RATE])
    assert np.abs(want).max() == 32767
    clips = [pcm[index * stride :][:RATE].astype(np.float64) / 32768 for index in range(count)]
    peaks = [20 * np.log10(np.abs(clip).max()) for clip in clips]
    np.testing.assert_allclose(result["clip_peaks_dbfs"], peaks, atol=1e-3)
    assert result["samples"] == len(samples) and len(result["clip_loudness_lufs"]) == count
    assert sorted(os.listdir(tmp_path)) == ["part.json", "part.pcm", "track.wav"]


def test_decode_track_applies_the_wanted_level(tmp_path):
    samples = 4 * noise(3)  # peaks at 0.8
    loud = np.concatenate([samples, 3 * samples])
    np.testing.assert_array_equal(
        decode_samples(tmp_path, loud, make_settings(normalise="none"))[1], audio_files.to_int16(loud)
    )
    result, pcm = decode_samples(tmp_path, samples, make_settings(normalise="loudness", target_lufs=-20.0))
    assert not result["gain_limited"]
    assert result["loudness_lufs"] + result["gain_db"] == pytest.approx(-20, abs=0.01)
    assert np.mean(result["clip_loudness_lufs"]) == pytest.approx(-20, abs=0.2)
    result, pcm = decode_samples(tmp_path, samples, make_settings(normalise="loudness", target_lufs=-1.0))
    assert result["gain_limited"] and np.abs(pcm.astype(int)).max() == 32767


def test_quantize_rounds_clips_and_measures_the_result():
    samples = np.float32([0.1, -0.1, 1.5 / 32768, 2.5 / 32768, 1, -1, 3e38, -3e38, 0.99999])
    pcm = np.empty(len(samples), np.int16)
    peak, energy, clipped = decode._quantize(samples, np.float32(32768), pcm)
    assert pcm.tolist() == [3277, -3277, 2, 2, 32767, -32768, 32767, -32768, 32767]
    assert peak == 32768 and energy == sum(int(value) ** 2 for value in pcm) and clipped == 4


def test_decode_track_rejects_dc_but_not_music_with_dc(tmp_path):
    dither = np.sign(noise(3)) / 32768
    for name, samples in (("dc", 0.5 + dither), ("two", np.repeat(dither, 2, 1) + (0.3, -0.2))):
        result, _ = decode_samples(
            tmp_path, samples, make_settings(channels=2), rate=44100
        )  # at the ends, resampled DC is a click
        assert result["reason"] == "silent: nothing but DC, its changes stay below -60 dB", name
    assert "hash" in decode_samples(tmp_path, 0.5 + noise(3), make_settings())[0]
    assert "hash" in decode_samples(tmp_path, 0.5 + dither, make_settings(silence_db=-100.0))[0]


def test_a_dc_offset_is_removed_and_is_no_sound(tmp_path):
    """Of 1 % of full scale, which is far above the level of silence."""
    samples = noise(12, channels=2)
    samples[2 * RATE : 8 * RATE] *= 1e-5
    want, plain = decode_samples(tmp_path, samples, make_settings(channels=2))
    got, pcm = decode_samples(tmp_path, samples + np.float32([0.01, -0.02]), make_settings(channels=2))
    assert want["silent_clips"] == got["silent_clips"] == [2, 3, 4, 5, 6, 7] and want["notes"] == []
    assert got["notes"] == ["a DC offset of 2 % of full scale was removed"]
    assert np.abs(pcm - plain).max() <= 0.01 * 32768 and abs(pcm[3 * RATE : 7 * RATE].mean()) < 20
    result, _ = decode_samples(tmp_path, samples[: 3 * RATE // 2] * 1e-5 + 0.3, make_settings(channels=2), rate=44100)
    assert result["kind"] in ("silent", "too short")
    hit = np.zeros((3 * RATE, 1), np.float32)  # its mean is no offset
    hit[:RATE, 0] = np.exp(-np.arange(RATE) / 2000)
    assert decode_samples(tmp_path, hit, make_settings())[0]["notes"] == []


@pytest.mark.parametrize("times", [10, 1000])
@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("normalise", ["peak", "loudness"])
def test_single_wild_samples_do_not_decide_the_level(tmp_path, times, count, normalise):
    samples = 4 * noise(6, 44100)
    settings = make_settings(normalise=normalise, target_lufs=-20.0 if normalise == "loudness" else None)
    want, plain = decode_samples(tmp_path, samples, settings, 44100)
    samples[1000 : 1000 + 40_000 * count : 40_000] = times
    got, pcm = decode_samples(tmp_path, samples, settings, 44100)
    assert got["notes"] == [
        f"{count} wild samples, up to {20 * np.log10(times / 0.8):.0f} dB above all others, were limited"
    ]
    assert got["gain_db"] == pytest.approx(want["gain_db"], abs=0.6) and not got["silent_clips"]
    assert np.mean(np.abs(pcm.astype(float) - plain) > 3000) < 0.001
    assert want["notes"] == [] and want["hash"] != got["hash"]


def test_clicks_that_are_the_music_are_not_wild(tmp_path):
    clicks = 1e-3 * noise(20, 44100)
    clicks[::5000] = 0.9
    assert decode_samples(tmp_path, clicks, make_settings(), 44100)[0]["notes"] == []


def test_a_hot_mix_that_is_clipped_is_named(tmp_path):
    samples = 6 * noise(3)  # a sixth is above full scale
    result, _ = decode_samples(tmp_path, samples, make_settings(normalise="none"))
    assert result["notes"] == ["17 % of its samples are above full scale and were clipped: see --normalise"]
    assert decode_samples(tmp_path, samples, make_settings())[0]["notes"] == []


def test_channels_that_cancel_are_named_not_amplified(tmp_path):
    left = noise(3)
    hiss = 1e-3 * noise(3, seed=1)
    samples = np.concatenate([left + hiss, -left + hiss], axis=1) + 0.01
    result, _ = decode_samples(tmp_path, samples, make_settings())
    assert result["kind"] == "channels cancel" and "--channels 2" in result["reason"] and "60 dB" in result["reason"]
    assert "hash" in decode_samples(tmp_path, samples, make_settings(channels=2))[0]
    weak = np.concatenate([left, -0.6 * left], axis=1)
    [note] = decode_samples(tmp_path, weak, make_settings())[0]["notes"]
    assert note.startswith("left and right partly cancel: mono is 12 dB softer")
    wide = np.concatenate([left, noise(3, seed=1)], axis=1)
    assert decode_samples(tmp_path, wide, make_settings())[0]["notes"] == []


def test_beats_are_found_where_left_and_right_cancel(tmp_path):
    mono = drums(30, RATE, beat_times(130, 30), beat_times(130, 29) + 30 / 130)
    found = []
    for right in (mono, -mono):
        soundfile.write(tmp_path / "a.wav", np.stack([mono, right], axis=1), RATE, subtype="FLOAT")
        found.append(decode.find_beats((str(tmp_path / "a.wav"), str(tmp_path / "part"), (100.0, 180.0))))
    assert found[1]["sections"][0][2] == pytest.approx(130, abs=0.05)
    assert found[0]["sections"] == found[1]["sections"]


@pytest.mark.parametrize("bpm,named", [(92, "92.0"), (190, "190.0")])
def test_a_tempo_outside_the_range_is_named(tmp_path, bpm, named):
    audio_files.write(tmp_path / "a.wav", drums(40, RATE, beat_times(bpm, 40), beat_times(bpm, 39) + 30 / bpm), RATE)
    result = decode.find_beats((str(tmp_path / "a.wav"), str(tmp_path / "part"), (100.0, 180.0)))
    assert "--bpm_range" in result["reason"], result
    if result["kind"] == "other tempo":
        assert result["reason"].startswith(named)


@pytest.mark.parametrize("channels", [1, 2])
def test_pad_makes_a_clip_of_a_short_track(tmp_path, channels):
    hit = noise(0.05, channels=channels)
    result, pcm = decode_samples(tmp_path, hit, make_settings(pad=True, channels=channels))
    assert len(pcm) == RATE and np.abs(pcm.astype(int)).max() == 32767 and not pcm[len(hit) :].any()
    assert result["samples"] == RATE and result["padding_samples"] == RATE - len(hit)
    same, _ = decode_samples(tmp_path, noise(2.5), make_settings(pad=True))
    assert same["samples"] == 2.5 * RATE and same["padding_samples"] == 0 and len(same["clip_peaks_dbfs"]) == 2


def test_bandwidth_is_measured_and_a_limit_leaves_tracks_out(tmp_path):
    for own_rate, want in ((8000, 4000), (11025, 5512), (16000, 8000), (44100, 8000)):
        result, _ = decode_samples(tmp_path, noise(6, own_rate), make_settings(), rate=own_rate)
        assert result["bandwidth_hz"] == pytest.approx(want, rel=0.04)
    result, _ = decode_samples(tmp_path, noise(6, 8000), make_settings(min_bandwidth_hz=6000), rate=8000)
    assert result["kind"] == "no treble" and "less than --min_bandwidth 6000" in result["reason"]
    assert "hash" in decode_samples(tmp_path, noise(6), make_settings(min_bandwidth_hz=6000))[0]


def test_decode_track_rejects_impossible_levels(tmp_path):
    assert (
        decode_samples(tmp_path, 1e30 * noise(3), make_settings())[0]["reason"]
        == "its peak is 586 dBFS, higher than any sound's"
    )
    assert "hash" in decode_samples(tmp_path, 2.0**31 * noise(3), make_settings())[0]


def test_decode_track_rejects_endless_tracks(tmp_path, monkeypatch):
    monkeypatch.setattr(decode, "_LONGEST_S", 2)
    assert decode_samples(tmp_path, noise(2.5), make_settings())[0]["reason"].startswith("longer than ")
    assert "hash" in decode_samples(tmp_path, noise(2), make_settings())[0]


@pytest.mark.skipif(not hasattr(signal, "alarm"), reason="needs SIGALRM")
def test_decode_track_ends_the_process_if_opening_hangs(tmp_path, monkeypatch):
    left_s = []
    monkeypatch.setattr(audio_files, "open_stream", lambda path: left_s.append(signal.getitimer(signal.ITIMER_REAL)[0]))
    decode.decode_track(("x.wav", str(tmp_path / "part"), make_settings()))
    decode.find_beats(("x.wav", str(tmp_path / "part"), (100.0, 180.0)))
    assert len(left_s) == 2 and all(0 < left <= decode._PATIENCE_S for left in left_s)
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_clips_with_a_low_rms_are_silent(tmp_path):
    samples = noise(6)
    samples[RATE : 2 * RATE] = 0
    samples[4 * RATE : 5 * RATE] *= 10 ** (-55 / 20)  # -55 dB below the rest, whose RMS at peak 1 is -4.8 dBFS
    assert decode_samples(tmp_path, samples, make_settings())[0]["silent_clips"] == [1]
    assert decode_samples(tmp_path, samples, make_settings(silence_db=-58.0))[0]["silent_clips"] == [1, 4]
    assert (
        decode_samples(tmp_path, 4 * samples, make_settings(silence_db=-3.0))[0]["reason"]
        == "silent: all 6 clips are below -3 dB"
    )
    assert decode_samples(tmp_path, 0 * samples, make_settings())[0]["kind"] == "silent"
    assert decode_samples(tmp_path, 1e-4 * samples, make_settings())[0]["kind"] == "silent"


def test_decode_track_gives_the_reason_of_a_rejection(tmp_path):
    assert decode_samples(tmp_path, noise(0.9), make_settings())[0] == {
        "kind": "too short",
        "reason": "0.9 s, shorter than a clip of 1 s; --pad keeps it, with silence after it",
    }
    (tmp_path / "bad.wav").write_text("no audio")
    result = decode.decode_track((str(tmp_path / "bad.wav"), str(tmp_path / "part"), make_settings()))
    assert result["kind"] == "not usable audio"
    with pytest.raises(workers.JobError, match="cannot be written"):
        decode_samples(tmp_path, noise(3), make_settings())  # to have a good file
        decode.decode_track((str(tmp_path / "track.wav"), str(tmp_path / "nowhere" / "part"), make_settings()))


def test_the_hash_depends_on_the_decoded_audio_alone(tmp_path):
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
        for settings in (make_settings(), make_settings(channels=2, sample_rate_hz=44100, stride_samples=5000)):
            hashes.setdefault(name, set()).add(
                decode.decode_track((str(tmp_path / name), str(tmp_path / "part"), settings))["hash"]
            )
    assert all(len(values) == 1 for values in hashes.values())  # whatever the options
    assert hashes["a.wav"] == hashes["b.flac"]
    assert len(set.union(*hashes.values())) == 4


def test_read_decoded_returns_none_for_incomplete_files(tmp_path):
    part = str(tmp_path / "part")
    assert decode.read_decoded(part, make_settings()) is None
    decode_samples(tmp_path, noise(3), make_settings())
    assert decode.read_decoded(part, make_settings()) is not None
    with open(f"{part}.pcm", "ab") as file:
        file.truncate(file.tell() - 2)
    assert decode.read_decoded(part, make_settings()) is None
    (tmp_path / "part.json").write_text('{"hash": ')
    assert decode.read_decoded(part, make_settings()) is None


def test_find_clips_returns_bars_of_each_section():
    sections = (
        tempo.Section(0.5, 7, 120, 1, 1),
        tempo.Section(20.25, 2, 125, 1, 1),
        tempo.Section(-0.001, 3, 118, 1, 1),
    )
    settings = make_settings(clip_samples=60_001, bars=2, stride_bars=3, bpm=127.9979, sections=sections)
    about = [
        (position.offset, position.bar_info["section"], position.bar_info["bar"], position.bar_info["speed"])
        for position in settings.find_clips(0)
    ]
    bar = 60_001 / 2
    assert about == [
        (0, 0, 0, pytest.approx(RATE * 2 / bar)),
        (round(3 * bar), 0, 3, pytest.approx(RATE * 2 / bar)),
        (round(7 * bar), 1, 0, pytest.approx(RATE * 240 / 125 / bar)),
        (round(7 * bar) + round(2 * bar), 2, 0, pytest.approx(RATE * 240 / 118 / bar)),
    ]
    assert [position.start for position in settings.find_clips(0)] == [
        RATE // 2,
        round(6.5 * RATE),
        round(20.25 * RATE),
        0,
    ]
    assert settings.decoded_bytes(0) == 2 * (round(7 * bar) + round(2 * bar) + 60_001)
