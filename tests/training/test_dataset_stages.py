import threading
from types import SimpleNamespace

import numpy as np
import pytest

from technogen_jax import models
from technogen_jax.data.clip_source import ClipSource
from technogen_jax.models import wavegan
from technogen_jax.models.stages import Stage
from technogen_jax.runs.workdir import STATISTICS_FILE
from technogen_jax.training.dataset_stages import run_stages
from technogen_jax.training.errors import StoppedError


@pytest.fixture
def staged(tiny_config, prepared_set, tmp_path, monkeypatch):
    """A model that measures, skips a stage without work, and has a stage that resumes from its state."""
    calls = []

    def measure(batches, config, audio):
        calls.append("measure")
        return {"clips": np.array(sum(len(batch) for batch in batches))}

    def double(given):
        calls.append("double")
        if not given.state_path.exists():
            given.state_path.write_text("half done")
            given.on_progress(1)
        return given.statistics | {"double": 2 * given.statistics["clips"]}

    stages = (
        Stage("skipping", "clips", lambda config, audio, clips: 0, lambda given: pytest.fail("no work")),
        Stage("doubling", "clips", lambda config, audio, clips: clips, double, "double.txt"),
    )
    fake = models.Model(wavegan.WaveGANConfig, wavegan.build, measure, stages)
    monkeypatch.setitem(models.MODELS, "wavegan", fake)
    run = SimpleNamespace(calls=calls, stop=threading.Event())
    source = ClipSource(prepared_set, "train")
    run.run = lambda: run_stages(tiny_config, tmp_path, source, run.stop)
    return run


def test_stages_run_in_order_once(staged, tmp_path):
    assert {name: int(value) for name, value in staged.run().items()} == {"clips": 48, "double": 96}
    assert staged.calls == ["measure", "double"]
    assert not (tmp_path / "double.txt").exists()
    assert int(staged.run()["double"]) == 96
    assert staged.calls == ["measure", "double"], "the second time the workdir has the result"


def test_stopped_stage_keeps_its_state_and_resumes(staged, tmp_path):
    state = tmp_path / "double.txt"
    staged.stop = SimpleNamespace(is_set=state.exists)  # a signal after its first clip
    with pytest.raises(StoppedError):
        staged.run()
    assert state.exists() and not (tmp_path / STATISTICS_FILE).exists()
    staged.stop = threading.Event()
    assert int(staged.run()["double"]) == 96
    assert staged.calls == ["measure", "double"] * 2 and not state.exists()


def test_model_without_stages_has_no_statistics(tiny_config, tmp_path):
    assert run_stages(tiny_config, tmp_path, [], threading.Event()) is None
