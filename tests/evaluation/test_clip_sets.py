import jax
import numpy as np
import pytest
from conftest import RATE_HZ

from technogen_jax.audio import audio_files
from technogen_jax.data.clip_source import ClipSource
from technogen_jax.evaluation import clip_sets
from technogen_jax.sampling import generator


@pytest.fixture
def folder(tmp_path):
    """Three tracks of 1, 2 and 3 seconds, a short one, a broken one and a text."""
    for seconds in (1, 2, 3):
        ramp = np.linspace(-0.5, 0.5, seconds * 8000)[:, None]
        audio_files.write(tmp_path / f"t{seconds}-a.wav", ramp, 8000)
    (tmp_path / "deep").mkdir()
    audio_files.write(tmp_path / "deep" / "t1-b.flac", np.full((8000, 1), 0.25), 8000)
    audio_files.write(tmp_path / "short.wav", np.zeros((100, 1)), 8000)
    (tmp_path / "broken.mp3").write_bytes(b"no audio at all")
    (tmp_path / "notes.txt").write_text("not looked at")
    return tmp_path


def cut(folder, **changes):
    how = dict(sample_rate_hz=8000, channels=1, clip_samples=8000) | changes
    return clip_sets.from_folder(clip_sets.find_files(folder), "real", **how)


def test_files_are_cut_into_whole_clips_and_bad_files_are_listed(folder):
    clips = cut(folder)
    assert len(clips.ids) == 1 + 1 + 2 + 3
    assert (
        list(clips.tracks)
        == ["real: deep/t1-b.flac", "real: t1-a.wav"] + ["real: t2-a.wav"] * 2 + ["real: t3-a.wav"] * 3
    )
    assert [item["path"] for item in clips.rejected] == ["broken.mp3", "short.wav"]
    pcm = list(clips.read(np.array([0, 3, 6])))
    assert all(clip.shape == (8000, 1) and clip.dtype == np.int16 for clip in pcm)
    whole = audio_files.to_int16(audio_files.read(folder / "t2-a.wav")[0])
    np.testing.assert_array_equal(pcm[1], whole[8000:])
    assert (pcm[0] == 8192).all()


def test_clips_of_a_long_file_are_read_in_blocks(tmp_path, monkeypatch):
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, (300_000, 2))
    audio_files.write(tmp_path / "long.wav", sound, 44100)
    monkeypatch.setattr(audio_files, "read", None)
    clips = cut(tmp_path, sample_rate_hz=44100, channels=2, clip_samples=7000)
    assert len(clips.ids) == 42
    chosen = np.array([0, 1, 7, 30, 41])
    for index, pcm in zip(chosen, clips.read(chosen), strict=True):
        np.testing.assert_array_equal(pcm, audio_files.to_int16(sound.astype(np.float32))[index * 7000 :][:7000])


def test_files_are_resampled_and_converted_to_stereo(folder):
    clips = cut(folder, sample_rate_hz=16000, channels=2, clip_samples=16000)
    assert len(clips.ids) == 7
    assert all(clip.shape == (16000, 2) for clip in clips.read(np.arange(7)))


def test_a_track_pattern_groups_files_into_tracks(folder):
    clips = cut(folder, track_pattern=r"(t\d)-")
    assert set(clips.tracks) == {"real: t1", "real: t2", "real: t3"}
    with pytest.raises(clip_sets.ClipSetError, match="expected a regular expression whose first group is found in"):
        cut(folder, track_pattern=r"(x\d)-")
    with pytest.raises(clip_sets.ClipSetError, match="first group"):
        cut(folder, track_pattern=r"t\d-")


def test_folders_without_audio_raise(tmp_path, folder):
    with pytest.raises(clip_sets.ClipSetError, match="no file is as long as a clip of 10 s"):
        cut(folder, clip_samples=80000)
    (tmp_path / "empty").mkdir()
    with pytest.raises(clip_sets.ClipSetError, match="no audio file that can be read"):
        clip_sets.find_files(tmp_path / "empty")
    with pytest.raises(clip_sets.ClipSetError, match="expected a folder"):
        clip_sets.find_files(tmp_path / "nothing")


def test_records_of_several_splits_with_their_tracks(prepared_set):
    clips = clip_sets.from_records(prepared_set, ["valid", "test"], 2048)
    assert len(clips.ids) == 48 and len(set(clips.tracks)) == 12
    expected = [ClipSource(prepared_set, split)[index] for split, index in (("valid", 7), ("test", 0), ("test", 39))]
    for index, pcm, clip in zip((7, 8, 47), clips.read(np.array([7, 8, 47])), expected, strict=True):
        np.testing.assert_array_equal(pcm, clip["audio"][:2048])
        assert clips.tracks[index] == clip["track"] and clips.labels[index] == clip["label"]
        assert clips.ids[index] == f"{clip['track']} @ {clip['offset'] / RATE_HZ:.2f} s"
    with pytest.raises(clip_sets.ClipSetError, match="expected clips of at least 5000 samples, it has 2250"):
        clip_sets.from_records(prepared_set, ["test"], 5000)


def test_clips_of_a_generator_equal_those_that_sample_writes(trained_workdir):
    trained = generator.load(trained_workdir)
    clips = clip_sets.from_generator(trained, 20, seed=3)
    latents = generator.draw_latents(trained.gan, 3, [0, 17, 19])
    expected = [audio_files.to_int16(clip) for clip in generator.render(trained, latents)]
    for pcm, clip in zip(clips.read(np.array([0, 17, 19])), expected, strict=True):
        np.testing.assert_allclose(pcm.astype(int), clip, atol=1)
    assert len(set(clips.tracks)) == 20


def test_a_generator_that_outputs_nan_raises(trained_workdir):
    trained = generator.load(trained_workdir)
    broken = trained._replace(params=jax.tree.map(lambda x: x * np.nan, trained.params))
    with pytest.raises(clip_sets.ClipSetError, match="makes NaN or Inf"):
        list(clip_sets.from_generator(broken, 2, 0).read(np.arange(2)))


def test_choose_spreads_clips_over_tracks(folder):
    clips = cut(folder, clip_samples=1000)  # 8, 8, 16 and 24 clips
    every = clip_sets.choose(clips, per_track=99)
    np.testing.assert_array_equal(every, np.arange(56))
    two = clip_sets.choose(clips, per_track=2)
    np.testing.assert_array_equal(two, [2, 6, 10, 14, 20, 28, 38, 50])
    fewer = clip_sets.choose(clips, per_track=1, tracks=2, seed=1)
    assert len(fewer) == 2 and len(set(clips.tracks[fewer])) == 2
    assert {tuple(clip_sets.choose(clips, per_track=1, tracks=2, seed=seed)) for seed in range(20)} > {tuple(fewer)}


def test_more_clips_of_a_generator_include_fewer(trained_workdir):
    clips = clip_sets.from_generator(generator.load(trained_workdir), 30, 0)
    np.testing.assert_array_equal(clip_sets.choose(clips, per_track=8, tracks=12, seed=5), np.arange(12))


def test_a_stray_short_file_is_named_and_does_not_cut_all_clips(tmp_path):
    for name, seconds in (("a", 2), ("b", 1.9), ("c", 2.1), ("stray", 0.3)):
        audio_files.write(tmp_path / f"{name}.wav", np.full((round(seconds * 8000), 1), 0.1, np.float32), 8000)
    with pytest.raises(clip_sets.ClipSetError, match=r"stray.wav: has 0.3 s, most files have 1.95 s"):
        clip_sets.shortest_seconds([clip_sets.find_files(tmp_path)])
    (tmp_path / "stray.wav").unlink()
    assert clip_sets.shortest_seconds([clip_sets.find_files(tmp_path)]) == 1.9
