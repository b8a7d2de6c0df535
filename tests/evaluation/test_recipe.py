"""The recipes of evaluation/__init__.py: one entry adds a distance, a feature or an embedding."""

import numpy as np
import pytest
from helpers import loops

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
