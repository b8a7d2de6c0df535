import base64
import json
import shutil
import types

import numpy as np
import pytest
import soundfile
from conftest import RATE_HZ
from helpers.endless_model import model

from technogen_jax import sample
from technogen_jax.sampling import arrangement, generator, recipes, sound_files


def test_sample_writes_clips_recipes_and_a_picture(trained_workdir, tmp_path, capsys):
    assert sample.main(["--workdir", str(trained_workdir), "--n", "3", "--seed", "4", "--output", str(tmp_path)]) == 0
    names = sorted(path.name for path in tmp_path.iterdir())
    stems = [f"wavegan-step6-seed4-00{index}" for index in range(3)]
    assert names == sorted([f"{stem}.{end}" for stem in stems for end in ("wav", "json")] + ["wavegan-step6-seed4.png"])
    clip, rate_hz = soundfile.read(tmp_path / "wavegan-step6-seed4-001.wav", always_2d=True)
    assert clip.shape == (2048, 1) and rate_hz == RATE_HZ
    trained = generator.load(trained_workdir)
    (expected,) = generator.render(trained, generator.draw_latents(trained.gan, 4, [1]))
    np.testing.assert_allclose(clip, expected, atol=0.51 / 32768)
    out = capsys.readouterr().out
    assert "3 clips: peak" in out and "step6-seed4.png" in out


@pytest.mark.parametrize("end", ["wav", "flac"])
def test_a_recipe_makes_the_same_file_again(trained_workdir, tmp_path, capsys, end):
    options = ["--workdir", str(trained_workdir), "--output", str(tmp_path / "first"), "--format", end]
    sample.main([*options, "--n", "2", "--seed", "9", "--truncation", "0.7"])
    stem = "wavegan-step6-seed9-truncation0.7-001"
    again = ["--from", str(tmp_path / "first" / f"{stem}.json"), "--output", str(tmp_path / "again"), "--format", end]
    assert sample.main(again) == 0
    assert "the same, bit for bit" in capsys.readouterr().out
    for name in (f"{stem}.{end}", f"{stem}.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "first" / name).read_bytes()


def test_a_recipe_of_other_weights_is_refused(trained_workdir, tmp_path, capsys):
    sample.main(["--workdir", str(trained_workdir), "--n", "1", "--output", str(tmp_path)])
    card = tmp_path / "wavegan-step6-seed0-000.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | {"weights": "0" * 64}))
    assert sample.main(["--from", str(card)]) == 1
    assert "made from other weights" in capsys.readouterr().err


def test_workdir_replaces_the_one_of_a_recipe(trained_workdir, tmp_path):
    shutil.copytree(trained_workdir, tmp_path / "moved")
    sample.main(["--workdir", str(tmp_path / "moved"), "--n", "1", "--output", str(tmp_path)])
    (tmp_path / "moved").rename(tmp_path / "away")
    card = str(tmp_path / "wavegan-step6-seed0-000.json")
    assert sample.main(["--from", card]) == 1
    assert sample.main(["--from", card, "--workdir", str(tmp_path / "away")]) == 0


def test_interpolation_between_a_seed_and_a_recipe(trained_workdir, tmp_path):
    options = ["--workdir", str(trained_workdir), "--output", str(tmp_path)]
    sample.main([*options, "--n", "2", "--seed", "1"])
    card = tmp_path / "wavegan-step6-seed1-001.json"
    assert sample.main([*options, "--n", "4", "--interpolate", "3", str(card)]) == 0
    steps = sorted(tmp_path.glob("wavegan-step6-3-to-*.wav"))
    assert len(steps) == 4
    assert steps[-1].read_bytes() == card.with_suffix(".wav").read_bytes()
    first = json.loads(steps[0].with_suffix(".json").read_text())
    gan = generator.load(trained_workdir).gan
    latents = np.frombuffer(base64.b64decode(first["latents"]), "<f4")
    np.testing.assert_array_equal(latents, generator.draw_latents(gan, 3, [0])[0])


def test_a_recipe_is_small_and_says_what_the_sound_is(command, bars, tmp_path):
    assert command("--n", "3", "--seed", "5") == 0
    for index, z in enumerate(generator.draw_latents(bars.gan, 5, range(3))):
        (label,) = generator.drawn_label(bars.gan, z)
        path = tmp_path / f"technogan-{label}-134bpm-step1-seed5-00{index}.json"
        card = json.loads(path.read_text())
        assert path.stat().st_size < 1000 and "latents" not in card
        facts = dict(model="technogan", seed=5, index=index, label={label: 1.0}, bars=1, samples=14336)
        assert facts.items() <= card.items() and card["bpm"] == pytest.approx(240 * 8000 / 14336)
        np.testing.assert_array_equal(recipes.latents_of(bars.gan, card), z)
        sound, rate_hz = soundfile.read(path.with_suffix(".wav"))
        assert len(sound) == 14336 and b"acid" in path.with_suffix(".wav").read_bytes()[-200:]
    assert len(list(tmp_path.glob("*.wav"))) == 3


def test_a_recipe_of_the_first_version_still_makes_its_sound(trained_workdir, tmp_path, capsys):
    assert sample.main(["--workdir", str(trained_workdir), "--n", "1", "--output", str(tmp_path)]) == 0
    card = tmp_path / "wavegan-step6-seed0-000.json"
    now = json.loads(card.read_text())
    trained = generator.load(trained_workdir)
    names = ("workdir", "step", "weights", "seed", "truncation", "index", "sample_rate_hz", "channels", "samples")
    old = {"version": 1} | {name: now[name] for name in names} | {"pcm_sha256": now["pcm_sha256"]}
    old["latents"] = generator.draw_latents(trained.gan, 0, [0])[0].tolist()
    (tmp_path / "step6-seed0-000.json").write_text(json.dumps(old))
    assert sample.main(["--from", str(tmp_path / "step6-seed0-000.json")]) == 0
    assert "the same, bit for bit" in capsys.readouterr().out


@pytest.mark.parametrize(
    "label, word",
    [({"acid": 1.0}, "acid"), ({"a/b: c": 1.0}, "a_b__c"), ({"a": 0.25, "b": 0.75, "c": 0}, "a0.25-b0.75")],
)
def test_names_of_files_have_model_label_and_tempo(bars, label, word):
    assert sound_files.file_name(bars, label, "seed3", "007") == f"technogan-{word}-134bpm-step1-seed3-007"


def test_the_name_of_an_exported_file_is_the_first_word(bars, tmp_path):
    (tmp_path / "night.npz").touch()
    exported = bars._replace(workdir=str(tmp_path / "night.npz"))
    assert sound_files.file_name(exported, None, "seed3", truncation=0.5) == "night-134bpm-seed3-truncation0.5"


def test_an_older_checkpoint_sounds_different(trained_workdir, tmp_path):
    for step in ("2", "latest"):
        sample.main(["--workdir", str(trained_workdir), "--n", "1", "--step", step, "--output", str(tmp_path)])
    assert (tmp_path / "wavegan-step2-seed0-000.wav").read_bytes() != (
        tmp_path / "wavegan-step6-seed0-000.wav"
    ).read_bytes()


@pytest.fixture(scope="module")
def bars():
    """A model of bars, not trained."""
    return model(1)


@pytest.fixture
def command(bars, monkeypatch, tmp_path):
    """The command for a folder in which there is this model."""
    monkeypatch.setattr(generator, "load", lambda workdir, step: bars)
    return lambda *argv: sample.main(["--workdir", "x", "--output", str(tmp_path), *argv])


def test_the_recipe_of_a_track_makes_it_again(command, bars, tmp_path, capsys):
    assert command("--bars", "6", "--seed", "4", "--label", "acid", "--truncation", "0.8") == 0
    path = tmp_path / "technogan-acid-134bpm-step1-seed4-truncation0.8-6bars.wav"
    sound, rate_hz = soundfile.read(path, always_2d=True)
    section = arrangement.Section(6, 4, {"acid": 1.0})
    latents = arrangement.latents_of(bars.gan, [section], hold=4, truncation=0.8)
    wanted = np.concatenate(list(arrangement.render(bars, latents)))
    assert rate_hz == 8000 and sound.shape == wanted.shape == (6 * 14336, 2)
    np.testing.assert_allclose(sound, np.clip(wanted, -1, 1), atol=0.51 / 32768)
    assert "0 min 11 s" in capsys.readouterr().out
    first, card = path.read_bytes(), path.with_suffix(".json").read_bytes()
    path.unlink()
    assert sample.main(["--from", str(path.with_suffix(".json"))]) == 0
    assert "the same, bit for bit" in capsys.readouterr().out
    assert path.read_bytes() == first and path.with_suffix(".json").read_bytes() == card


def test_tracks_from_minutes_and_from_a_script(command, tmp_path, capsys):
    assert command("--minutes", "0.1", "--hold", "1", "--format", "flac") == 0
    assert soundfile.info(tmp_path / "technogan-134bpm-step1-seed0-3bars.flac").frames == 3 * 14336  # 6 s are 3.3 bars
    (tmp_path / "night.toml").write_text("[[section]]\nbars = 2\nenergy = [0, 1]\n[[section]]\nbars = 1\nseed = 3")
    assert command("--script", str(tmp_path / "night.toml")) == 0
    assert soundfile.info(tmp_path / "technogan-134bpm-step1-night.wav").frames == 3 * 14336
    assert [
        s["seed"] for s in json.loads((tmp_path / "technogan-134bpm-step1-night.json").read_text())["sections"]
    ] == [0, 3]
    (tmp_path / "night.toml").write_text("[[section]]\nbars = 0")
    assert command("--script", str(tmp_path / "night.toml")) == 1
    assert "section 1, bars: expected a whole number of at least 1, got 0" in capsys.readouterr().err


def test_label_sets_the_weights_of_clips(command, bars, tmp_path, capsys):
    assert command("--n", "2", "--label", "acid=0.25, industrial=0.75") == 0
    card = json.loads((tmp_path / "technogan-acid0.25-industrial0.75-134bpm-step1-seed0-001.json").read_text())
    assert card["label"] == {"acid": 0.25, "industrial": 0.75} and recipes.latents_of(bars.gan, card)[-2:].tolist() == [
        0.25,
        0.75,
    ]
    assert command("--label", "dub") == 1
    assert "acid, industrial" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text,weights",
    [
        ("acid", {"acid": 1}),
        ("hard, fast & acid", {"hard, fast & acid": 1}),
        ("a=b", {"a=b": 1}),
        ("acid=0.25,dub=1", {"acid": 0.25, "dub": 1}),
        ('"bpm=140, hard"', {"bpm=140, hard": 1}),
        ('"bpm=140, hard"=0.7, acid=0.3', {"bpm=140, hard": 0.7, "acid": 0.3}),
    ],
)
def test_any_label_can_be_asked_for(text, weights):
    assert sample._label(text) == weights


def test_a_label_may_be_spelled_with_an_accent_of_its_own():
    gan = types.SimpleNamespace(classes=("acid", "de\u0301tente"))
    assert generator.label_weights(gan, "d\xe9tente").tolist() == [0, 1]


def test_a_model_without_bars_refuses_tracks(trained_workdir, tmp_path, capsys):
    assert sample.main(["--workdir", str(trained_workdir), "--minutes", "1", "--output", str(tmp_path)]) == 1
    assert "generates clips of one length, not tracks" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_describe_counts_clipped_silent_and_equal_clips():
    quiet, loud = np.zeros((100, 1), np.int16), np.full((100, 1), 32767, np.int16)
    line = sound_files.describe([quiet, quiet, loud])
    assert line.startswith("3 clips: peak -0.0 dBFS")
    assert "1 with samples at full scale, 2 silent, only 2 different" in line


@pytest.mark.parametrize(
    "argv, message",
    [
        ([], "--workdir is missing"),
        (["--workdir", "x", "--n", "0"], "--n: expected 1 to 100000, got 0"),
        (["--workdir", "x", "--n", "1", "--interpolate", "1", "2"], "--n: expected at least 2, got 1"),
        (["--workdir", "x", "--truncation", "1.5"], "--truncation: expected more than 0 and at most 1, got 1.5"),
        (["--workdir", "x", "--step", "first"], "--step: expected latest, best or a number, got first"),
        (["--workdir", "x", "--seed", "-1"], "--seed: expected 0 to 4294967295, got -1"),
        (["--workdir", "x", "--minutes", "0"], "--minutes: expected more than 0 and at most 1440, got 0"),
        (["--workdir", "x", "--bars", "-4"], "--bars: expected 1 to 100000, got -4"),
        (["--workdir", "x", "--bars", "4", "--minutes", "1"], "not allowed with argument"),
        (["--workdir", "x", "--bars", "4", "--n", "1"], "--n and --bars: clips or one track, not both"),
        (
            ["--workdir", "x", "--hold", "4"],
            "--hold: applies to tracks only; add --minutes, --bars or --script",
        ),
        (
            ["--workdir", "x", "--label", "acid=1,dub"],
            "--label: expected a name, or weights as acid=0.7,industrial=0.3",
        ),
        (["--workdir", "x", "--label", "acid=0,dub=0"], "--label: expected a name, or weights as"),
        (["--workdir", "x", "--label", "acid=-1,dub=2"], "--label: expected a name, or weights as"),
    ],
)
def test_invalid_options_are_refused(argv, message, capsys):
    with pytest.raises(SystemExit) as exit_info:
        sample.parse_options(argv)
    assert exit_info.value.code == 2
    assert message in capsys.readouterr().err


def test_files_that_are_no_recipes_are_refused(trained_workdir, tmp_path, capsys):
    for text in ("", "[]", '{"version": 1}', '{"latents": "x"}'):
        (tmp_path / "card.json").write_text(text)
        assert sample.main(["--from", str(tmp_path / "card.json")]) == 1
        assert "expected the JSON that technogen_jax.sample writes" in capsys.readouterr().err
    options = ["--workdir", str(trained_workdir), "--output", str(tmp_path)]
    assert sample.main([*options, "--interpolate", "one", "2"]) == 1
    assert "--interpolate one: expected a seed or the .json of a clip" in capsys.readouterr().err


def test_a_difference_names_what_changed_on_the_machine(trained_workdir, tmp_path, capsys):
    sample.main(["--workdir", str(trained_workdir), "--n", "1", "--output", str(tmp_path)])
    card = tmp_path / "wavegan-step6-seed0-000.json"
    content = json.loads(card.read_text())
    content["made_with"]["processors"] += 3
    count = content["made_with"]["processors"]
    card.write_text(json.dumps(content | {"pcm_sha256": "0" * 64}))
    assert sample.main(["--from", str(card)]) == 1
    assert f"processors was {count}, is {count - 3}" in capsys.readouterr().out
