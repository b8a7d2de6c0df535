"""The whole of preparing: what is in the set, what is reported, and that it can be killed at any time."""

import collections
import json
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow_datasets as tfds
from helpers.beats import beat_times, drums

from data_prep import prepare, workers
from technogen_jax import train
from technogen_jax.audio import audio_files
from technogen_jax.data import tfrecords
from technogen_jax.data.clip_source import ClipSource
from technogen_jax.data.manifest import CLIPS_FILE, read_manifest
from technogen_jax.models.technogan.codec import shaper
from technogen_jax.training import loop

RATE = 16000
ROOT = pathlib.Path(prepare.__file__).parent.parent
SMALL = ("--sample_rate", str(RATE), "--hop_size", "0.5", "--shard_mb", "0.2", "--split", "0.6,0.2,0.2")
BARS = ("--grid", "bars", "--bars", "2", "--stride_bars", "1", "--sample_rate", str(RATE), "--split", "0.5,0.25,0.25")


def track(seconds, rate, channels, seed):
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate)) / rate
    tone = 0.3 * np.sin(2 * np.pi * rng.uniform(100, 900) * t)[:, None]
    return (tone + 0.1 * rng.standard_normal((len(t), channels))).astype(np.float32)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Eleven good tracks, two of them the same, and five that are none."""
    folder = tmp_path_factory.mktemp("corpus")
    kinds = [(".wav", RATE, 1), (".mp3", 44100, 2), (".flac", 48000, 2), (".ogg", 22050, 1), (".aiff", 8000, 2)]
    for index in range(10):
        suffix, rate, channels = kinds[index % 5]
        path = folder / ("acid" if index < 6 else "industrial") / f"{index}{suffix}"
        path.parent.mkdir(exist_ok=True)
        audio_files.write(path, track(4 + index, rate, channels, index), rate)
    (folder / "copy of 2.mp3").write_bytes((folder / "acid" / "2.flac").read_bytes())
    (folder / "empty.mp3").touch()
    (folder / "text.wav").write_text("not audio")
    (folder / "new\nline.flac").write_bytes(b"fLaC" + bytes(100))
    audio_files.write(folder / "short.wav", track(0.1, RATE, 1, 0), RATE)
    audio_files.write(folder / "silent.wav", np.zeros((RATE, 1), np.float32), RATE)
    return folder


@pytest.fixture(scope="module")
def whole(corpus, tmp_path_factory):
    """A set made of it in one go, and what was printed."""
    output, printed = tmp_path_factory.mktemp("sets") / "whole", []
    options_ = prepare.parse_options(["--input", str(corpus), "--output", str(output), *SMALL, "--workers", "2"])
    prepare.prepare(options_, printed.append)
    return output, "\n".join(printed)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def clip_lines(folder):
    return [json.loads(line) for line in (folder / CLIPS_FILE).read_text().splitlines()]


def start(corpus, output, *more, how=SMALL):
    command = [sys.executable, "-m", "data_prep.prepare", "--input", corpus, "--output", output, *how, *more]
    # A shell has what it starts in the background ignore Ctrl-C, and children of it too.
    heed = (lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)) if os.name == "posix" else None
    return subprocess.Popen(list(map(str, command)), cwd=ROOT, stdout=-1, stderr=-1, text=True, preexec_fn=heed)


def test_every_clip_equals_its_part_of_the_track(corpus, whole):
    output, _ = whole
    manifest = read_manifest(output)
    tracks = {entry["id"]: entry for entry in manifest.tracks}
    assert len(tracks) == 11
    decoded, seen = {}, collections.Counter()
    for split in tfrecords.SPLITS:
        for clip in ClipSource(output, split):
            entry = tracks[clip["track"]]
            assert entry["split"] == split and manifest.labels[clip["label"]] == entry["label"]
            if clip["track"] not in decoded:
                samples = audio_files.read(corpus / clip["track"], RATE, 1)[0]
                decoded[clip["track"]] = audio_files.to_int16(
                    samples * np.float32(32767 / 32768 / np.abs(samples).max())
                )
            want = decoded[clip["track"]][clip["offset"] :][: manifest.clip_samples]
            assert np.abs(clip["audio"].astype(int) - want).max() <= 1  # one rounding, of the gain, may differ
            seen[clip["track"]] += 1
    assert seen == {id_: entry["clips"] for id_, entry in tracks.items()}
    assert all(entry["clips"] == int(entry["seconds"] / 0.5 + 1e-6) for entry in tracks.values())
    assert manifest.labels == ["acid", "industrial", "unlabelled"]


def test_manifest_and_clip_table_match_the_records(whole):
    output, _ = whole
    manifest = read_manifest(output)
    lines = clip_lines(output)
    assert len(lines) == sum(entry["clips"] for entry in manifest.splits.values())
    for split in tfrecords.SPLITS:
        shards = manifest.splits[split]["shards"]
        listed = [line for line in lines if line["split"] == split]
        assert listed == sorted(listed, key=lambda line: (line["shard"], line["index"]))
        clips = list(ClipSource(output, split))
        assert len(clips) == len(listed) and listed[-1]["shard"] == len(shards) - 1
        for clip, line in zip(clips, listed, strict=True):
            assert (clip["track"], clip["offset"]) == (line["track"], line["offset"])
            assert manifest.labels[clip["label"]] == line["label"]
            peak = 20 * np.log10(np.abs(clip["audio"].astype(float)).max() / 32768)
            assert line["peak_dbfs"] == pytest.approx(peak, abs=1e-3)
            assert -40 < line["loudness_lufs"] < 3
    assert len(manifest.splits["train"]["shards"]) > 1
    assert len({line["track"] for line in lines if line["split"] == "train" and line["shard"] == 0}) > 2  # shuffled


def test_equal_audio_is_in_one_split_and_reported(whole):
    output, printed = whole
    tracks = {entry["id"]: entry for entry in read_manifest(output).tracks}
    first, copy = tracks["acid/2.flac"], tracks["copy of 2.mp3"]
    assert first["hash"] == copy["hash"] and first["split"] == copy["split"]
    assert "1 tracks have the same audio as another" in printed


def test_rejected_files_are_reported_in_one_line_each(whole):
    output, printed = whole
    rejected = {entry["path"]: entry for entry in read_manifest(output).rejected}
    kinds = {path: entry["kind"] for path, entry in rejected.items()}
    assert kinds == {
        "empty.mp3": "not usable audio",
        "new\nline.flac": "not usable audio",
        "short.wav": "too short",
        "silent.wav": "silent",
        "text.wav": "not usable audio",
    }
    assert "5 files left out: 3 not usable audio, 1 too short, 1 silent" in printed
    lines = [line.strip() for line in printed.splitlines()]
    for path, entry in rejected.items():
        assert f"{path.replace(chr(10), chr(92) + 'n')}: {entry['reason']}" in lines


def test_tensorflow_datasets_opens_the_dataset(whole):
    output, _ = whole
    manifest, info = read_manifest(output), tfds.builder_from_directory(output).info
    assert {split: info.splits[split].num_examples for split in info.splits} == {
        split: entry["clips"] for split, entry in manifest.splits.items()
    }
    assert info.features["audio"].shape == (8000, 1) and info.features["label"].names == manifest.labels
    assert info.metadata["sample_rate_hz"] == RATE
    assert (output / "contact_sheet.png").read_bytes().startswith(b"\x89PNG")


def test_tensorflow_reads_the_dataset(whole):
    tf = pytest.importorskip("tensorflow")
    output, _ = whole
    for split in tfrecords.SPLITS:
        want = list(ClipSource(output, split))
        dataset = tfds.builder_from_directory(output).as_dataset(split=split, shuffle_files=False)
        got = {(e["track"].decode(), int(e["offset"])): e for e in tfds.as_numpy(dataset)}
        assert len(got) == len(want)
        for clip in want:
            example = got[clip["track"], clip["offset"]]
            np.testing.assert_array_equal(example["audio"], clip["audio"])
            assert example["audio"].dtype == np.int16 and example["label"] == clip["label"]
        shards = [str(output / name) for name in read_manifest(output).splits[split]["shards"]]
        fields = {name: tf.io.FixedLenFeature((), kind) for name, kind in (("audio", tf.string), ("offset", tf.int64))}
        raw = tf.data.TFRecordDataset(shards).map(lambda record: tf.io.parse_single_example(record, fields))  # noqa: B023
        for example, clip in zip(raw.as_numpy_iterator(), want, strict=True):
            assert example["offset"] == clip["offset"] and example["audio"] == clip["audio"].tobytes()


def test_one_worker_writes_the_same_bytes(corpus, whole, tmp_path):
    run = start(corpus, tmp_path / "set", "--workers", "1")
    out, err = run.communicate()
    assert run.returncode == 0, err
    assert contents(tmp_path / "set") == contents(whole[0])
    assert os.listdir(tmp_path) == ["set"]
    assert "next: python -m technogen_jax.train" in out and "100%" in err
    run = start(corpus, tmp_path / "set", "--workers", "1")
    out, _ = run.communicate()
    assert run.returncode == 0 and "already done" in out


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
@pytest.mark.parametrize(
    "pattern,count,number",
    [("parts/*.json", 1, signal.SIGKILL), ("parts/*.json", 3, signal.SIGINT), ("*.tfrecord*", 2, signal.SIGKILL)],
)
def test_a_killed_run_resumes_to_the_same_bytes(corpus, whole, tmp_path, pattern, count, number):
    output, incomplete = tmp_path / "set", tmp_path / "set.incomplete"
    run = start(corpus, output, "--workers", "1")
    while run.poll() is None and len(list(incomplete.glob(pattern))) < count:
        time.sleep(0.001)
    run.send_signal(number)
    run.communicate()
    assert run.returncode == (130 if number == signal.SIGINT else -number)
    assert not output.exists()
    with pytest.raises(tfrecords.RecordError, match="not found"):
        read_manifest(output)
    (incomplete / ".techno-train.tfrecord-00000-of-00001.tmp").write_bytes(b"left over")
    (incomplete / "parts" / "x.pcm.123.tmp").write_bytes(b"left over")
    run = start(corpus, output)
    out, err = run.communicate()
    assert run.returncode == 0, err
    assert "tracks are already decoded" in out
    assert contents(output) == contents(whole[0])
    assert os.listdir(tmp_path) == ["set"]


class InThisProcess(workers.Workers):
    def run(self, jobs):
        return ((index, function(job)) for index, (function, job) in enumerate(jobs))


def test_an_array_of_tasks_writes_the_same_bytes(corpus, whole, beats, tmp_path, monkeypatch):
    """The last command does what a task that failed has left."""
    monkeypatch.setattr(workers, "Workers", InThisProcess)
    printed = []

    def run(folder, *more):
        words = ["--input", str(folder), "--output", str(tmp_path / folder.name), *more]
        return prepare.prepare(prepare.parse_options(words), printed.append)

    assert run(corpus, *SMALL, "--task", "1/3") is run(corpus, *SMALL, "--task", "2/3") is None
    assert "already" in printed[-2] and "the same command without --task writes the dataset" in printed[-1]
    run(corpus, *SMALL)
    assert contents(tmp_path / corpus.name) == contents(whole[0])
    assert run(corpus, *SMALL, "--task", "1/2") is not None and "already done" in printed[-1]
    # No task decodes before all tracks are searched for beats; one that crashes the search is. Of one track share 2 is none.
    bars = (*BARS, "--limit", "1", "--no-shuffle", "--task")
    run(beats, *bars, "2/2")
    assert "when all tasks have ended, run them again" in printed[-1]
    monkeypatch.setattr(InThisProcess, "run", lambda self, jobs: [(i, workers.Crash(11)) for i in range(len(jobs))])
    for task in ("1/2", "2/2"):
        assert run(beats, *bars, task) is None and "the same command without --task" in printed[-1]


def run_main(capsys, *argv):
    status = prepare.main([str(word) for word in argv])
    return status, capsys.readouterr()


def test_error_gives_the_reason_if_no_clip_is_usable(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    status, printed = run_main(capsys, "--input", tmp_path / "in", "--output", tmp_path / "out")
    assert status == 1 and "no audio files in it or below (looked for .wav .flac .mp3" in printed.err
    (tmp_path / "in" / "text.mp3").write_text("no")
    audio_files.write(tmp_path / "in" / "a.wav", track(1, RATE, 1, 0), RATE)
    status, printed = run_main(capsys, "--input", tmp_path / "in", "--output", tmp_path / "out")
    assert status == 1 and "no usable clip in 2 files: 1 too short, 1 not usable audio" in printed.err
    assert "a.wav: 1 s, shorter than a clip of 8 s" in printed.err and "text.mp3: not an audio file" in printed.err
    assert sorted(os.listdir(tmp_path)) == ["in"]


def test_unusable_folders_are_errors(corpus, whole, tmp_path, capsys):
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious").touch()
    set_ = whole[0]
    for source, output, status, reason in (
        (tmp_path / "nothing", tmp_path / "out", 2, "no such folder"),
        (tmp_path / "file", tmp_path / "out", 2, "not a folder"),
        (corpus, tmp_path / "file", 2, "is a file"),
        (corpus, tmp_path / "full", 2, "contains files but no dataset"),
        (corpus, corpus, 2, "holds the input folder"),
        (corpus / "acid", corpus, 2, "holds the input folder"),
        (corpus, set_, 1, "already holds another set"),
    ):
        got, printed = run_main(capsys, "--input", source, "--output", output)
        assert got == status and printed.err.count("\n") == 1
        assert reason in printed.err
    status, printed = run_main(capsys, "--input", corpus, "--output", set_, *SMALL, "--seed", 1)
    assert status == 1 and ": --seed was 0, is 1. Delete it" in printed.err
    status, printed = run_main(capsys, "--input", corpus / "acid", "--output", set_, *SMALL)
    assert status == 1 and "files in the input are new, gone or changed" in printed.err
    assert contents(set_) == contents(whole[0]) and (tmp_path / "full" / "precious").exists()


def test_a_second_run_at_the_same_time_is_an_error(corpus, tmp_path, capsys):
    (tmp_path / "set.incomplete").mkdir()
    with prepare._lock(tmp_path / "set.incomplete", "set"):
        status, printed = run_main(capsys, "--input", corpus, "--output", tmp_path / "set", *SMALL)
        assert status == 1 and "another run is preparing it" in printed.err
        status, printed = run_main(capsys, "--input", corpus, "--output", tmp_path / "set", *SMALL, "--task", "1/2")
    assert status == 1 and "another run is preparing it" in printed.err


def test_options_determine_the_dataset(corpus, tmp_path):
    def make(name, *more):
        parsed = prepare.parse_options(["--input", str(corpus), "--output", str(tmp_path / name), *SMALL, *more])
        return prepare.prepare(parsed, lambda line: None)

    manifest = make("a", "--limit", "3", "--no-shuffle", "--labels", "none", "--channels", "2", "--stride", "0.25")
    assert [entry["id"] for entry in manifest.tracks] == ["acid/0.wav", "acid/1.mp3", "acid/2.flac"]
    assert manifest.labels == ["unlabelled"] and manifest.channels == 2 and manifest.stride_samples == 4000
    source = ClipSource(tmp_path / "a", "train")
    offsets = [clip["offset"] for clip in source if clip["track"] == source[0]["track"]]
    assert offsets == sorted(offsets) and np.diff(offsets).max() == 4000
    np.testing.assert_array_equal(source[0]["audio"][4000:], source[1]["audio"][:4000])
    manifest = make("b", "--limit", "3", "--split", "0,0,1", "--silence_db", "-15")
    assert manifest.splits["train"]["clips"] == 0 and manifest.splits["test"]["tracks"] == len(manifest.tracks)
    assert tfds.builder_from_directory(tmp_path / "b").info.splits["test"].num_examples > 0


def test_prepare_does_not_import_jax():
    code = "import sys, data_prep.prepare; assert 'jax' not in sys.modules and 'tensorflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


TEMPOS_BPM = {"a.wav": 128.0, "b.flac": 131.37, "c.wav": 135.0}


@pytest.fixture(scope="module")
def beats(tmp_path_factory):
    """Three tracks with a beat at known times, and four that cannot be used."""
    folder = tmp_path_factory.mktemp("beats")
    for name, bpm in TEMPOS_BPM.items():
        kicks = beat_times(bpm, 39, 0.1 + bpm / 1000)
        audio_files.write(folder / name, drums(40, 44100, kicks, kicks[:-8] + 30 / bpm), 44100)
    audio_files.write(folder / "fast.wav", drums(40, 22050, beat_times(160, 40)), 22050)
    audio_files.write(folder / "noise.wav", 0.1 * np.random.default_rng(0).standard_normal(20 * RATE), RATE)
    audio_files.write(folder / "brief.wav", drums(2.5, RATE, beat_times(128, 2.5)), RATE)
    (folder / "text.mp3").write_text("not audio")
    return folder


@pytest.fixture(scope="module")
def in_bars(beats, tmp_path_factory):
    """A set of clips of two bars, and what was printed."""
    output, printed = tmp_path_factory.mktemp("sets") / "bars", []
    prepare.prepare(prepare.parse_options(["--input", str(beats), "--output", str(output), *BARS]), printed.append)
    return output, "\n".join(printed)


def test_kicks_of_every_clip_are_on_the_dataset_tempo(in_bars):
    output, _ = in_bars
    manifest = read_manifest(output)
    bpm = manifest.options["reference_bpm"]
    assert bpm == pytest.approx((131.37 + 135) / 2, abs=0.01)  # the median of the four that have a beat
    assert manifest.clip_samples == round(2 * 240 / bpm * RATE) == pytest.approx(2 * manifest.stride_samples, abs=1)
    beats_expected = np.arange(8) * manifest.clip_samples / 8
    clips = [clip for split in tfrecords.SPLITS for clip in ClipSource(output, split)]
    assert len(clips) > 50
    for clip in clips:
        sound = np.abs(clip["audio"][:, 0].astype(float)) / 32768
        for expected in beats_expected[1:]:
            start = round(expected) - RATE // 50  # 20 ms before; kicks are louder than hats
            first = start + np.flatnonzero(sound[start : start + RATE // 25] > 0.3)[0]
            assert abs(first - expected) < 0.005 * RATE
        assert sound[: RATE // 200].max() > 0.3  # and the clip begins with one


def test_manifest_and_clip_table_contain_bars_and_speed(beats, in_bars):
    output, printed = in_bars
    manifest = read_manifest(output)
    bpm = manifest.options["reference_bpm"]
    tracks = {entry["id"]: entry for entry in manifest.tracks}
    assert set(tracks) == set(TEMPOS_BPM)
    for name, entry in tracks.items():
        [section] = entry["sections"]
        assert section["bpm"] == pytest.approx(TEMPOS_BPM[name], abs=0.02)
        assert section["speed"] == pytest.approx(bpm / section["bpm"], rel=1e-4)
        assert section["confidence"] > 0.9 and 0 <= section["downbeat_confidence"] <= 1
        beat_s = 60 / TEMPOS_BPM[name]
        first = (section["start_s"] - 0.1 - TEMPOS_BPM[name] / 1000) / beat_s
        assert abs(first - round(first)) * beat_s < 0.005
        assert entry["clips"] == section["bars"] - 1
        assert entry["seconds"] == 40
        assert entry["tail_s"] == pytest.approx(40 - section["bars"] * 4 * beat_s, abs=0.01)
    lines = clip_lines(output)
    assert len(lines) == sum(entry["clips"] for entry in manifest.tracks)
    for line in lines:
        [section] = tracks[line["track"]]["sections"]
        start_s = section["start_s"] + line["bar"] * 240 / section["bpm"]
        assert line["offset"] == pytest.approx(start_s * RATE, abs=2)
        assert line["speed"] == section["speed"] and line["section"] == 0
    for split in tfrecords.SPLITS:
        offsets = [clip["offset"] for clip in ClipSource(output, split)]
        assert offsets == [line["offset"] for line in lines if line["split"] == split]
    reasons = {entry["path"]: entry for entry in manifest.rejected}
    kinds = {path: entry["kind"] for path, entry in reasons.items()}
    assert kinds == {
        "brief.wav": "no steady beat",
        "fast.wav": "other tempo",
        "noise.wav": "no steady beat",
        "text.mp3": "not usable audio",
    }
    assert "160.00 BPM: to 133.18 is -16.8 %, more than --max_speed 6" in reasons["fast.wav"]["reason"]
    assert "0.7 is needed" in reasons["noise.wav"]["reason"]
    assert "clips of 2 bars at 133.18 BPM, 3 tracks" in printed and "tempos changed by -1.3 to +4.0 %" in printed


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_a_killed_run_with_bars_resumes_to_the_same_bytes(beats, in_bars, tmp_path):
    output = tmp_path / "set"
    run = start(beats, output, "--workers", "1", how=BARS)
    while run.poll() is None and not list((tmp_path / "set.incomplete").glob("parts/*.json")):
        time.sleep(0.001)
    run.kill()
    run.communicate()
    assert not output.exists()
    run = start(beats, output, "--workers", "1", how=BARS)
    out, err = run.communicate()
    assert run.returncode == 0, err
    assert "7 of 7 tracks are already searched for beats" in out and "of 3 tracks are already decoded" in out
    assert contents(output) == contents(in_bars[0])
    assert os.listdir(tmp_path) == ["set"]


def test_a_given_tempo_rejects_tracks_of_other_tempos(beats, tmp_path, capsys):
    given = ("--input", beats, "--output", tmp_path / "set", *BARS, "--bpm", "140")
    status, printed = run_main(capsys, *given, "--max_speed", "3", "--bars", "32")
    assert status == 1 and "no usable clip in 7 files: 4 other tempo" in printed.err
    status, printed = run_main(capsys, *given, "--max_speed", "4", "--bars", "16")
    assert status == 0
    manifest = read_manifest(tmp_path / "set")
    assert [entry["id"] for entry in manifest.tracks] == ["c.wav"]
    assert manifest.clip_samples == 16 * round(240 / 140 * RATE)


@pytest.mark.parametrize(
    "words",
    [
        ("--hop_size", "2"),
        ("--sample_rate", "44100", "--channels", "2", "--hop_size", "0.5"),
        ("--sample_rate", "44100", "--channels", "2", "--grid", "bars", "--bars", "2"),
        ("--sample_rate", "16000", "--grid", "bars"),
    ],
    ids=" ".join,
)
def test_the_training_that_is_suggested_accepts_the_dataset(beats, tmp_path, words, capsys, monkeypatch):
    """The last line, pasted."""
    status, printed = run_main(capsys, "--input", beats, "--output", tmp_path / "a set", "--workers", "1", *words)
    assert status == 0
    suggested = shlex.split(printed.out.splitlines()[-1].removeprefix("next: "))
    assert suggested[:3] == ["python", "-m", "technogen_jax.train"]
    options = train.parse_options(suggested[3:])
    run = loop.prepare_run(train.read_config(options.config, options.overrides), tmp_path / "run", print)
    assert len(run.source) and run.config.data.dir == str(tmp_path / "a set")


def test_few_tracks_are_warned_of_and_nearly_all_are_trained_on(in_bars):
    output, printed = in_bars
    assert "warning: 3 tracks are few; nearly all are used for training" in printed
    assert "held-out tracks (test: none) nothing can measure" in printed
    assert "1 of the files have another tempo: --max_speed 12" in printed
    assert read_manifest(output).splits["train"]["tracks"] == 2
    assert prepare._LEAST_SHAPER_HZ == shaper.LEAST_RATE_HZ


def test_copies_of_the_tracks_give_the_same_identity(corpus, whole, tmp_path, capsys):
    """Another folder, other times: training goes on with a dataset of the same audio."""
    shutil.copytree(corpus, tmp_path / "copy", copy_function=shutil.copy)  # with new times
    manifest = prepare.prepare(
        prepare.parse_options(["--input", str(tmp_path / "copy"), "--output", str(tmp_path / "set"), *SMALL]),
        lambda line: None,
    )
    assert manifest.fingerprint == read_manifest(whole[0]).fingerprint
    status, printed = run_main(capsys, "--input", tmp_path / "copy", "--output", tmp_path / "set", *SMALL)
    assert status == 0 and "already done with these options and tracks" in printed.out
    os.utime(tmp_path / "copy" / "text.wav")
    for path in (tmp_path / "copy" / "acid").iterdir():
        os.utime(path)
    before = contents(tmp_path / "set")
    status, printed = run_main(capsys, "--input", tmp_path / "copy", "--output", tmp_path / "set", *SMALL)
    assert status == 0 and "7 files have another time or size" in printed.out and "the audio is the same" in printed.out
    assert contents(tmp_path / "set") == before and sorted(os.listdir(tmp_path)) == ["copy", "set"]
    audio_files.write(tmp_path / "copy" / "acid" / "0.wav", track(4, RATE, 1, 99), RATE)
    status, printed = run_main(capsys, "--input", tmp_path / "copy", "--output", tmp_path / "set", *SMALL)
    assert status == 1 and "files in the input are new, gone or changed" in printed.err
    assert contents(tmp_path / "set") == before and sorted(os.listdir(tmp_path)) == ["copy", "set"]


def test_a_dataset_of_an_earlier_version_is_still_recognised(corpus, whole, tmp_path, capsys):
    shutil.copytree(whole[0], tmp_path / "set")
    manifest = json.loads((tmp_path / "set" / "manifest.json").read_text())
    for name in ("pad", "min_bandwidth"):  # options that did not exist
        del manifest["options"][name]
    for entry in manifest["rejected"]:
        entry.pop("size_bytes"), entry.pop("modified_ns")
    manifest["fingerprint"] = "0"
    (tmp_path / "set" / "manifest.json").write_text(json.dumps(manifest))
    status, printed = run_main(capsys, "--input", corpus, "--output", tmp_path / "set", *SMALL)
    assert status == 0 and "already done" in printed.out
    status, printed = run_main(capsys, "--input", corpus, "--output", tmp_path / "set", *SMALL, "--pad")
    assert status == 1 and "--pad was False, is True" in printed.err


def melody(seed, seconds=25, rate=44100):
    """Notes and hats of one song, which no other seed has."""
    rng, t = np.random.default_rng(seed), np.arange(seconds * rate) / rate
    notes = rng.uniform(200, 2000, seconds * 4)[np.minimum((t * 4).astype(int), seconds * 4 - 1)]
    level = rng.uniform(0.05, 0.4, seconds)[np.minimum(t.astype(int), seconds - 1)]
    sound = level * np.sin(2 * np.pi * notes * t) + 0.1 * level * rng.standard_normal(len(t))
    return np.stack([sound, 0.7 * sound], axis=1).astype(np.float32)


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """A set of songs in several versions, dull, hot and cancelling ones; the options are SMALL's."""
    folder, printed = tmp_path_factory.mktemp("odd"), []
    for index in range(8):
        audio_files.write(folder / f"{index}.flac", melody(index), 44100)
    for index in range(3):
        audio_files.write(folder / f"{index} low.mp3", 0.89 * melody(index), 44100)
        audio_files.write(folder / f"{index} cut.wav", melody(index)[22_050:], 44100)
    audio_files.write(folder / "dull.wav", audio_files.resample(melody(9), 44100, 8000), 8000)
    audio_files.write(folder / "cancelled.wav", melody(10) * np.float32([0.7, -1]), 44100)
    (folder / "a.mp3.part").write_bytes(b"x")
    output = folder.parent / "odd set"
    words = ["--input", str(folder), "--output", str(output), *SMALL, "--split", "0.5,0.25,0.25"]
    return prepare.prepare(prepare.parse_options(words), printed.append), "\n".join(printed)


def test_versions_of_a_track_are_in_one_split_and_named(odd):
    manifest, printed = odd
    splits = {entry["id"]: entry["split"] for entry in manifest.tracks}
    assert len(splits) == 15
    for index in range(3):
        assert splits[f"{index}.flac"] == splits[f"{index} low.mp3"] == splits[f"{index} cut.wav"]
    versions = {entry["id"]: entry["version_of"] for entry in manifest.tracks if "version_of" in entry}
    assert versions == {f"{i}{how}": f"{i} cut.wav" for i in range(3) for how in (" low.mp3", ".flac")}
    assert "6 tracks are versions of another; they are in the same split" in printed
    assert "1 low.mp3: the same recording as 1 cut.wav" in printed


def test_dull_tracks_and_what_is_left_out_are_named(odd):
    manifest, printed = odd
    assert "1 tracks have no sound above 6 kHz; --min_bandwidth leaves them out\n    dull.wav: up to 3.9 kHz" in printed
    rejected = {entry["path"]: entry for entry in manifest.rejected}
    assert {path: entry["kind"] for path, entry in rejected.items()} == {
        "a.mp3.part": "not taken",
        "cancelled.wav": "channels cancel",
    }
    assert "cancelled.wav: left and right cancel: mono is" in printed and "use --channels 2" in printed
    assert "a.mp3.part: not completely downloaded" in printed


def test_pad_makes_a_dataset_of_hits(tmp_path, capsys):
    (tmp_path / "hits").mkdir()
    for index in range(6):
        audio_files.write(tmp_path / "hits" / f"{index}.wav", track(0.1 + index / 20, RATE, 1, index), RATE)
    status, printed = run_main(capsys, "--input", tmp_path / "hits", "--output", tmp_path / "set", *SMALL)
    assert status == 1 and "shorter than a clip of 0.5 s; --pad keeps it" in printed.err
    status, printed = run_main(capsys, "--input", tmp_path / "hits", "--output", tmp_path / "set", *SMALL, "--pad")
    assert status == 0
    manifest = read_manifest(tmp_path / "set")
    assert [entry["clips"] for entry in manifest.tracks] == [1] * 6
    assert [entry["seconds"] for entry in manifest.tracks] == pytest.approx([0.1 + i / 20 for i in range(6)])
    assert {entry["tail_s"] for entry in manifest.tracks} == {0}
    for clip in ClipSource(tmp_path / "set", "train"):
        hit = round((0.1 + int(clip["track"][0]) / 20) * RATE)
        assert not clip["audio"][hit:].any() and np.abs(clip["audio"][:hit]).max() == 32767


@pytest.mark.skipif(os.name != "posix", reason="handles are inherited otherwise")
def test_a_closed_stderr_does_not_end_a_run(corpus, whole, tmp_path):
    words = ["--input", str(corpus), "--output", str(tmp_path / "set"), *SMALL]
    run = subprocess.run(
        ["sh", "-c", 'exec "$@" 2>&-', "sh", sys.executable, "-m", "data_prep.prepare", *words],
        cwd=ROOT, stdout=-1, text=True,
    )  # fmt: skip
    assert run.returncode == 0 and "next: " in run.stdout
    assert contents(tmp_path / "set") == contents(whole[0])
