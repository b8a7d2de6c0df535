"""The recipes of evaluation/__init__.py: one entry adds a distance, a feature or an embedding."""

import numpy as np
import pytest
from helpers import loops, taggers, tf_checkpoints

from technogen_jax import evaluate
from technogen_jax.audio import audio_files
from technogen_jax.evaluation import embeddings, results, run
from technogen_jax.evaluation.features.embedding import Embedding
from technogen_jax.evaluation.features.musical import Feature, FeatureGroup, description
from technogen_jax.evaluation.metrics import distances

SIDES = {"real": 0, "generated": 100}


@pytest.fixture
def folders(tmp_path):
    """Clips of 0.3 s of 12 tracks on each side."""
    for side, first in SIDES.items():
        (tmp_path / side).mkdir()
        for track in range(first, first + 12):
            audio_files.write(tmp_path / side / f"{track}.wav", loops.render(track, 0)[:4800], loops.RATE_HZ)
    return tmp_path


@pytest.fixture
def entries(monkeypatch):
    """A distance, a feature and an embedding in their tables."""

    def embed(audio, sample_rate_hz, *, loop):
        return np.abs(np.fft.rfft(audio[..., 0], 32)).astype(np.float64)

    dummy = Embedding("dummy-v1", lambda channels: {"S": slice(0, 17)}, embed, lambda rate: {"name": "dummy-v1"})
    entry = embeddings.Entry(lambda request: dummy, False, {"S": "spectrum of a dummy"})
    distance = distances.Distance(
        {"mean_shift": "shift of a dummy"},
        lambda real, other: {"mean_shift": float(np.linalg.norm(real.values.mean(0) - other.values.mean(0)))},
    )
    feature = FeatureGroup(
        {"rms": Feature("dB", "Level of a dummy.")},
        lambda analysis: {"rms": float(10 * np.log10(np.mean(analysis.clip.audio**2)))},
    )
    monkeypatch.setitem(embeddings.EMBEDDINGS, "dummy-v1", entry)
    monkeypatch.setattr(distances, "DISTANCES", [*distances.DISTANCES, distance])
    monkeypatch.setattr(description, "GROUPS", [*description.GROUPS, feature])


def test_new_entries_are_in_the_result_and_in_the_report(folders, entries):
    arguments = ["--output", str(folders / "out"), "--embeddings", "tmr-v1,dummy-v1", "--draws", "1"]
    arguments += [part for side in SIDES for part in (f"--{side}", str(folders / side))]
    assert evaluate.main([*arguments, "--permutations", "99"]) == 0
    result = results.read(folders / "out")
    assert result["distances"]["dummy-v1"]["S"]["mean_shift"].keys() >= {"value", "floor", "ratio"}
    assert result["distances"]["tmr-v1"]["T"]["mean_shift"]["value"] > 0
    assert result["features"]["rms"]["generated"]["clips"] == 12
    page = (folders / "out" / run.REPORT_FILE).read_text()
    for text in ("spectrum of a dummy: shift of a dummy", "timbre: shift of a dummy", "Level of a dummy.", "rms, dB"):
        assert text in page, text


def test_a_network_in_a_wheel_is_a_second_opinion(folders, capsys):
    wheel = folders / "musicnn.whl"
    tf_checkpoints.write_wheel(wheel, {"MTT_musicnn": taggers.random_musicnn(0)})
    arguments = ["--output", str(folders / "out"), "--draws", "1", "--permutations", "99"]
    arguments += [part for side in SIDES for part in (f"--{side}", str(folders / side))]
    assert evaluate.main([*arguments, "--embeddings", f"tmr-v1,musicnn={folders / 'none.whl'}"]) == 1
    assert "none.whl; pip download --no-deps musicnn writes it" in capsys.readouterr().err
    assert evaluate.main([*arguments, "--embeddings", f"tmr-v1,musicnn={wheel}"]) == 0
    result = results.read(folders / "out")
    found = result["distances"]["MTT_musicnn"]["tags"]
    assert found["frechet"]["value"] > 0 and found["frechet"]["floor"] > 0 and found["mmd"]["p"] > 0
    test = result["two_sample"]["others"]["MTT_musicnn"]
    assert test["test"]["clips"] == result["two_sample"]["test"]["clips"]
    assert test["controls"].keys() == result["two_sample"]["controls"].keys()
    assert 0 < result["tags"]["MTT_musicnn"]["techno"]["generated"] < 1 and len(result["tags"]["MTT_musicnn"]) == 50
    page = (folders / "out" / run.REPORT_FILE).read_text()
    for text in (
        "Do the embeddings agree?",
        "How techno do they sound?",
        "MTT_musicnn: real or generated?",
        "people&#x27;s tags",
    ):
        assert text in page, text
    for sentence in result["disagreements"]:
        assert sentence in page
    assert "classifier by MTT_musicnn" in capsys.readouterr().out
