import functools
import html
import json
import re
import shutil

import numpy as np
import pytest
from helpers import loops

from technogen_jax import evaluate, sample
from technogen_jax.audio import audio_files, corruptions
from technogen_jax.evaluation import classifier, feature_extraction, results, scoring, summary
from technogen_jax.evaluation import run as run_module
from technogen_jax.evaluation.metrics import distances
from technogen_jax.evaluation.metrics.embedded_set import make_embedded_set
from technogen_jax.runs.workdir import CONFIG_FILE, DATA_FILE

TRACKS, TAKES = 24, 2


def write_folder(folder, first, change=lambda loop, index: loop):
    """Loops of `TRACKS` tracks as files TRACK-TAKE.wav, each as `change` makes it."""
    folder.mkdir(parents=True)
    for index, (loop, track) in enumerate(zip(*loops.corpus(first, TRACKS, TAKES), strict=True)):
        audio_files.write(folder / f"{track}-{index % TAKES}.wav", np.clip(change(loop, index), -1, 1), loops.RATE_HZ)
    return folder


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """Real loops, those that were trained on, good generated ones (fresh real tracks), and noisy copies of the training."""
    root = tmp_path_factory.mktemp("evaluate")

    def copy(loop, index):
        return corruptions.add_noise(0.5 * loop, 50, index)

    write_folder(root / "real", 0)
    write_folder(root / "train", 100)
    write_folder(root / "good", 200)
    write_folder(root / "copies", 100, copy)
    return root


def run(folders, generated, output, *more):
    return evaluate.main([
        "--real", str(folders / "real"), "--generated", str(folders / generated), "--train", str(folders / "train"),
        "--output", str(output), "--seconds", "1.7", "--track_pattern", r"^(\d+)-", "--permutations", "99", *more,
    ])  # fmt: skip


@pytest.fixture
def unreported(monkeypatch):
    """No report, which takes half of the time."""
    monkeypatch.setattr("technogen_jax.evaluation.report.write", lambda *_: None)


@pytest.fixture(scope="session")
def good(folders):
    """The folder with the report on the good loops."""
    assert run(folders, "good", folders / "out" / "good", "--save_embeddings", "--draws", "5") == 0
    return folders / "out" / "good"


@pytest.fixture(scope="session")
def copied(folders):
    """The result on the copies."""
    assert run(folders, "copies", folders / "out" / "copies", "--draws", "5") == 0
    return results.read(folders / "out" / "copies")


def test_new_clips_of_the_same_style_are_near_the_floor_and_not_copied(good):
    result = results.read(good)
    for block in result["distances"]["tmr-v1"].values():
        assert block["frechet"]["ratio"] < 2.5
        assert block["mmd"]["p"] > 0.01
    panel = result["memorisation"]
    assert panel["flagged_share"] <= panel["held_out_flagged_share"] + 0.15
    assert result["two_sample"]["test"]["p"] > 0.01
    assert result["claim"]["level"] in ("L0", "L2")
    assert result["sets"]["reference"]["tracks"] == TRACKS and result["sets"]["reference"]["clips"] == TRACKS * TAKES


def test_copies_are_found_with_their_originals(copied, good):
    panel = copied["memorisation"]
    assert panel["flagged_share"] == 1
    assert panel["auth_pct"] < panel["auth_pct_held_out"] / 2
    assert panel["z_u"] < results.read(good)["memorisation"]["z_u"] - 1
    assert panel["d_train"] < panel["d_train_held_out"]
    for flag in panel["flagged"]:
        assert flag["generated"].split("-")[0] == flag["train"].split("-")[0]


def test_every_distance_can_be_computed_again_from_the_embeddings(good):
    with np.load(good / run_module.EMBEDDINGS_FILE) as file:
        arrays = dict(file)
    values = arrays["fit/tmr-v1"]
    mean, deviation = values.mean(0), values.std(0)
    deviation = np.maximum(deviation, 1e-3 * deviation.max())
    _, strengths, axes = np.linalg.svd((values - mean) / deviation, full_matrices=False)
    dimensions = len(set(arrays["fit/tracks"])) // 5
    project = (axes[:dimensions] / strengths[:dimensions, None] * np.sqrt(len(values) - 1)).T
    found = {"mmd": [], "frechet": []}
    for number in range(5):
        real, fake = (
            (arrays[f"{side}/tmr-v1"][arrays[f"draw{number:02d}/{side}"]] - mean) / deviation @ project
            for side in ("reference", "generated")
        )
        assert len(set(arrays["generated/tracks"][arrays[f"draw{number:02d}/generated"]])) == len(fake) == TRACKS // 2
        width = np.median([np.linalg.norm(a - b) for i, a in enumerate(real) for b in real[:i]])

        def kernel(a, b, width=width):
            return np.exp(-((a[:, None] - b[None]) ** 2).sum(-1) / (2 * width**2))

        within = sum(kernel(side, side)[~np.eye(len(side), dtype=bool)].mean() for side in (real, fake))
        found["mmd"].append(within - 2 * kernel(real, fake).mean())
        covariances = [np.cov(side.T) for side in (real, fake)]
        root = np.sqrt(np.linalg.eigvals(covariances[0] @ covariances[1]).real.clip(0)).sum()
        shift = ((real.mean(0) - fake.mean(0)) ** 2).sum()
        found["frechet"].append(shift + np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * root)
    block = results.read(good)["distances"]["tmr-v1"]["all"]
    for metric, values in found.items():
        assert block[metric]["value"] == pytest.approx(np.mean(values), rel=1e-6)


def test_a_generator_of_one_sound_is_scored(folders, tmp_path):
    first = sorted((folders / "good").iterdir())[0]
    (tmp_path / "one").mkdir()
    for track in range(TRACKS):
        shutil.copy(first, tmp_path / "one" / f"{track}-0.wav")
    assert run(folders, tmp_path / "one", tmp_path / "out", "--draws", "2") == 0
    block = results.read(tmp_path / "out")["distances"]["tmr-v1"]["all"]
    assert block["coverage"]["value"] < 0.5 < block["coverage"]["floor"]
    assert block["recall"]["value"] == 0 and block["frechet"]["ratio"] > 1 and block["mmd"]["p"] <= 0.02


def test_the_report_is_one_self_contained_file(good):
    page = (good / run_module.REPORT_FILE).read_text()
    copies = min(10, len(results.read(good)["memorisation"]["flagged"]))
    assert page.count("<audio") == page.count("data:audio/flac;base64,") == 16 + 2 * copies
    assert page.count("<svg") == 4
    assert "http://" not in page.replace("http://www.w3.org/", "") and "https://" not in page
    assert "good against real" in page and "L0" in page or "L2" in page


def test_the_report_begins_with_the_verdict_and_contents_that_lead_to_its_sections(good):
    page, result = (good / run_module.REPORT_FILE).read_text(), results.read(good)
    sections = re.findall(r"<h2 id=([\w-]+)>", page)
    assert re.findall(r"<a href=#([\w-]+)>", page) == sections and len(sections) >= 5
    before = page.partition("<nav")[0]
    assert all(html.escape(sentence) in before for sentence in summary.verdict(result))
    assert before.index("class=verdict") < before.index("class=cards")
    for warning in result["warnings"]:
        assert page.count(html.escape(warning["text"])) >= 1


def test_the_table_for_musicians_begins_with_what_is_most_wrong(good):
    ranked = summary.rank_features(results.read(good)["features"])
    excess = [found["wasserstein"] - (found["floor"] or 0) for _, found in ranked]
    assert len(ranked) > 5 and excess == sorted(excess, reverse=True)
    table = (good / run_module.REPORT_FILE).read_text().partition("the most wrong first")[2].partition("</table>")[0]
    places = [table.index(html.escape(found["says"])) for _, found in ranked]
    assert places == sorted(places)


def test_another_dataset_than_the_runs_is_refused(trained_workdir, prepared_set, tmp_path, capsys):
    shutil.copytree(trained_workdir, tmp_path / "run")
    assert run_module.open_run(tmp_path / "run", "latest", 10, 0, data=str(prepared_set))
    identity = json.loads((tmp_path / "run" / DATA_FILE).read_text())
    (tmp_path / "run" / DATA_FILE).write_text(json.dumps(identity | {"fingerprint": "of another split"}))
    assert evaluate.main(["--workdir", str(tmp_path / "run"), "--data", str(prepared_set)]) == 1
    assert "is not the dataset that" in capsys.readouterr().err
    config = json.loads((tmp_path / "run" / CONFIG_FILE).read_text())
    assert config["data"]["dir"] == str(prepared_set)
    assert sample.main(["--workdir", str(tmp_path / "run"), "--n", "1", "--output", str(tmp_path)]) == 0
    assert "the picture has no real clips: " in capsys.readouterr().err


def test_the_same_command_gives_the_same_json(folders, good, unreported, capsys):
    assert run(folders, "good", folders / "out" / "again", "--draws", "5", "--json") == 0
    line = capsys.readouterr().out
    assert line.count("\n") == 1
    assert (folders / "out" / "again" / results.RESULT_FILE).read_bytes() == (good / results.RESULT_FILE).read_bytes()
    assert json.loads(line)["distances"] == results.read(good)["distances"]


def test_people_get_at_most_ten_lines(good, copied):
    lines = summary.summarize(results.read(good))
    text = "\n".join(lines)
    assert len(lines) < 10, "the command adds where the report is"
    for beginning in ("good: 48 generated clips", "distance (tmr-v1): ", "classifier: right in ", "copies: "):
        assert text.count(beginning) == 1
    assert text.count("differs most: ") <= 3
    assert "copies: 100.0% of the generated clips" in "\n".join(summary.summarize(copied))
    warnings = [{"about": "copies", "flatters": False, "text": text} for text in "ab"]
    untold = copied | {"memorisation": None, "warnings": warnings}
    assert "not searched for" in "\n".join(summary.summarize(untold)) and "2 warnings" in summary.summarize(untold)[-1]


def test_the_least_number_of_clips_is_that_of_the_evaluation():
    assert evaluate._LEAST_CLIPS == feature_extraction.MIN_TRACKS


def test_a_folder_against_itself_is_refused(folders, tmp_path, capsys):
    shutil.copytree(folders / "real", tmp_path / "same")
    assert run(folders, tmp_path / "same", tmp_path / "out") == 1
    assert f"{TRACKS * TAKES} clips are the same, bit for bit, in real and same" in capsys.readouterr().err


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda loop, index: 0 * loop, "expected at least 10 tracks that are not silent, got 0 of 24"),
        (
            lambda loop, index: loop if index < 18 else 0 * loop,
            "expected at least 10 tracks that are not silent, got 9",
        ),
    ],
    ids=["silence", "mostly silence"],
)
def test_silent_clips_are_refused(folders, tmp_path, capsys, change, message):
    write_folder(tmp_path / "bad", 300, change)
    assert run(folders, tmp_path / "bad", tmp_path / "out") == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out" / results.RESULT_FILE).exists()


def test_too_few_tracks_and_mixed_rates_are_refused(folders, tmp_path, capsys):
    (tmp_path / "few").mkdir()
    for file in sorted((folders / "good").iterdir())[:6]:
        shutil.copy(file, tmp_path / "few")
    assert run(folders, tmp_path / "few", tmp_path / "out") == 1
    assert "few: expected at least 10 tracks" in capsys.readouterr().err
    loop, _ = audio_files.read(next((folders / "good").iterdir()))
    audio_files.write(tmp_path / "few" / "999-0.wav", loop, 44100)
    assert run(folders, tmp_path / "few", tmp_path / "out") == 1
    assert "the files have different rates" in capsys.readouterr().err


def test_a_floor_too_high_is_warned_of(folders, tmp_path):
    shutil.copytree(folders / "real", tmp_path / "real")
    shutil.copytree(folders / "good", tmp_path / "good")
    write_folder(tmp_path / "train", 100, lambda loop, index: corruptions.low_pass(loop, loops.RATE_HZ, 3500))
    assert run(tmp_path, "good", tmp_path / "out", "--draws", "1") == 0
    result = results.read(tmp_path / "out")
    (warning,) = (found for found in result["warnings"] if found["about"] == "distance" and found["flatters"])
    assert "the floor is too high" in warning["text"] and "split one collection" in warning["text"]
    assert "no figure, it would flatter" in "\n".join(summary.summarize(result))
    page = (tmp_path / "out" / run_module.REPORT_FILE).read_text()
    assert "distance<b>not shown</b>" in page and warning["text"] in page.partition("<nav")[0], "beside its figure"
    assert result["claim"]["level"] == "L0", "the noise control is confounded"


def test_a_dozen_real_tracks_are_enough_to_be_halved(folders, tmp_path):
    for side in ("real", "good"):
        (tmp_path / side).mkdir()
        for file in sorted((folders / side).iterdir())[: 14 * TAKES]:
            shutil.copy(file, tmp_path / side)
    arguments = ["--real", str(tmp_path / "real"), "--generated", str(tmp_path / "good"), "--seconds", "1.7"]
    arguments += [
        "--track_pattern",
        r"^(\d+)-",
        "--permutations",
        "99",
        "--draws",
        "1",
        "--output",
        str(tmp_path / "out"),
    ]
    assert evaluate.main(arguments) == 0
    assert results.read(tmp_path / "out")["draws"]["tracks"] == 7


def test_a_broken_file_is_left_out_and_one_changed_sample_changes_the_set(folders, good, unreported, tmp_path, capsys):
    shutil.copytree(folders / "real", tmp_path / "real")
    shutil.copytree(folders / "train", tmp_path / "train")
    path = sorted((tmp_path / "real").iterdir())[0]
    loop, rate_hz = audio_files.read(path)
    loop[5] += 0.01
    audio_files.write(path, loop, rate_hz)
    shutil.copytree(folders / "good", tmp_path / "mixed")
    (tmp_path / "mixed" / "500-0.wav").write_bytes(b"RIFF nothing")
    assert run(tmp_path, "mixed", tmp_path / "out", "--draws", "5") == 0
    assert "mixed: 1 files left out; 500-0.wav:" in capsys.readouterr().err
    assert results.read(tmp_path / "out")["sets"]["generated"]["clips"] == TRACKS * TAKES
    with pytest.raises(results.ResultError, match="sets.reference.pcm_sha256"):
        results.compare([good, tmp_path / "out"])


def test_a_run_is_compared_with_its_test_tracks(trained_workdir, tmp_path, capsys):
    workdir, net = str(trained_workdir), tmp_path / "net.npz"
    arguments = ["--workdir", workdir, "--n", "20", "--output", str(tmp_path), "--draws", "2", "--permutations", "99"]
    arguments += ["--earlier", "4", "--labels", "--embeddings", "tmr-v1", "--json"]
    assert evaluate.main(arguments) == 0
    line = json.loads(capsys.readouterr().out)
    assert line["sets"]["reference"]["tracks"] == 10 and line["sets"]["other"]["tracks"] == 12
    assert line["sets"]["generated"]["clips"] == 20
    assert line["sets"]["generated"]["origin"]["step"] == 6
    assert line["two_sample"]["test"]["accuracy"] > 0.8, "six steps make no music"
    assert line["claim"]["level"] == "L1"
    assert "real against run, step 4" in line["two_sample"]["controls"]
    assert 1 <= line["labels"]["inception_score"] <= 2
    assert not net.exists()


def test_the_artefact_net_is_trained_once(folders, tmp_path, monkeypatch):
    monkeypatch.setattr("technogen_jax.evaluation.classifier._EXAMPLES", 64)
    quick = functools.partial(classifier.train_artefact, steps=4)
    monkeypatch.setattr("technogen_jax.evaluation.classifier.train_artefact", quick)
    options = "--draws", "1", "--embeddings", f"tmr-v1,artefact={tmp_path / 'net.npz'}"
    for name in ("first", "second"):
        assert run(folders, "good", tmp_path / name, *options) == 0
        monkeypatch.setattr("technogen_jax.evaluation.classifier.train_artefact", None)
        monkeypatch.setattr("technogen_jax.evaluation.report.write", lambda *_: None)
    first, second = (results.read(tmp_path / name) for name in ("first", "second"))
    assert first["distances"] == second["distances"]
    (name,) = first["distances"].keys() - {"tmr-v1"}
    assert name.startswith("artefact-") and first["distances"][name].keys() == {"A"}
    assert first["embeddings"][name]["sha256"].startswith(name.removeprefix("artefact-"))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "expected --workdir DIR, or --real DIR and --generated DIR"),
        (["--real", "a"], "--real, --generated and --output are all needed"),
        (["--workdir", "a", "--n", "3"], "--n: expected 10 to 100000, got 3"),
        (["--workdir", "a", "--split", "tests"], "--split: expected train, valid or test, got tests"),
        (["--workdir", "a", "--step", "last"], "--step: expected latest, best or a number, got last"),
        (["--compare", "a"], "--compare: expected two results or more"),
        (["--real", "a", "--generated", "b", "--output", "c", "--seconds", "0"], "--seconds: expected 0.25 to 600"),
    ],
)
def test_invalid_options_are_refused(capsys, arguments, message):
    with pytest.raises(SystemExit) as stopped:
        evaluate.main(arguments)
    assert stopped.value.code == 2 and message in capsys.readouterr().err


def test_unknown_embeddings_and_training_tracks_as_reference_are_refused(folders, trained_workdir, tmp_path, capsys):
    assert run(folders, "good", tmp_path, "--embeddings", "fad") == 1
    assert (
        "--embeddings fad: expected some of tmr-v1, musicnn=FILE, musicnn-vgg=FILE, artefact=FILE"
        in capsys.readouterr().err
    )
    assert evaluate.main(["--workdir", str(trained_workdir), "--split", "train", "--output", str(tmp_path)]) == 1
    assert "were trained on" in capsys.readouterr().err


def test_a_draw_takes_one_clip_of_each_track_and_no_track_twice(folders):
    def heard(prefix, tracks, takes):
        rows = tracks * takes
        names = np.array([f"{prefix}{index // takes}" for index in range(rows)])
        empty = dict.fromkeys(feature_extraction.ClipFeatures._fields)
        return feature_extraction.ClipFeatures(**(empty | {"tracks": names}))

    real, other, fake = heard("r", 20, 3), heard("o", 50, 3), heard("g", 200, 1)
    sides = feature_extraction.Comparison(real, other, fake, *[None] * 5)
    made = scoring.make_draws(sides, feature_extraction.Options(draws=4))
    assert len(made) == 4
    for draw in made:
        for side, rows in zip((real, other, fake), draw, strict=True):
            assert len(set(side.tracks[rows])) == len(rows) == 20
    assert any((made[0].generated != draw.generated).any() for draw in made[1:])
    pooled = scoring.make_draws(sides._replace(other=real), feature_extraction.Options(draws=4))
    for draw in pooled:
        assert len(draw.reference) == len(draw.other) == len(draw.generated) == 10
        assert not set(real.tracks[draw.reference]) & set(real.tracks[draw.other])


def test_nearly_equal_clips_have_a_vendi_score_of_one():
    random, tracks = np.random.default_rng(0), np.arange(80)
    values = random.standard_normal((80, 16))
    real = make_embedded_set(values, tracks, "real")
    collapsed = make_embedded_set(values[0] + 1e-3 * random.standard_normal(values.shape), tracks + 80, "generated")
    assert distances.compute_all(real, collapsed)["vendi"] == pytest.approx(1, abs=0.01)
