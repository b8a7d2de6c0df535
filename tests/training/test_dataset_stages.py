import threading
from concurrent import futures
from types import SimpleNamespace

import numpy as np
import pytest

from technogen_jax import models
from technogen_jax.common.run_config import AudioConfig
from technogen_jax.data.clip_source import ClipSource
from technogen_jax.models import wavegan
from technogen_jax.models.stages import Stage, spread_over
from technogen_jax.runs.workdir import STATISTICS_FILE
from technogen_jax.training import signals
from technogen_jax.training.dataset_stages import Numbering, count_stages, run_stages
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


def test_progress_lines_say_which_stage_of_how_many_runs(staged, tiny_config, tmp_path, capsys):
    source = ClipSource(tiny_config.data.dir, "train")
    assert count_stages(tiny_config, tmp_path, source, encode_once=True) == 3  # skipping has no work
    run_stages(tiny_config, tmp_path, source, staged.stop, numbering := Numbering(4))
    shown = capsys.readouterr().err
    assert "1 of 4: measuring the dataset: 100%" in shown and "2 of 4: doubling" in shown and "skipping" not in shown
    assert numbering.next("encoding") == "3 of 4: encoding"
    assert count_stages(tiny_config, tmp_path, source, encode_once=True) == 1, "the workdir has the statistics"
    assert count_stages(tiny_config, tmp_path, source, encode_once=False) == 0
    assert Numbering(1).next("compiling") == "compiling", "a single stage needs no number"


def test_model_is_measured_on_as_much_as_it_needs(staged, tiny_config, tmp_path, monkeypatch):
    clip_s = tiny_config.audio.clip_samples / tiny_config.audio.sample_rate_hz
    model = models.MODELS["wavegan"]
    monkeypatch.setitem(models.MODELS, "wavegan", model._replace(measured_s=9.5 * clip_s))
    assert int(staged.run()["clips"]) == 10


def test_clips_are_spread_over_the_whole_dataset():
    audio = AudioConfig(sample_rate_hz=1000, channels=1, clip_samples=2000)
    assert spread_over(9, audio, 6.0) == [0, 4, 8]
    assert spread_over(3, audio, None) == spread_over(3, audio, 60.0) == [0, 1, 2]


def test_wait_ends_with_the_work_or_a_signal(capsys):
    work, stop = futures.Future(), threading.Event()
    threading.Timer(0.05, lambda: work.set_result(1)).start()
    signals.wait(work, "compiling", stop, shown=True)
    assert "compiling [00:00]" in capsys.readouterr().err
    failed = futures.Future()
    failed.set_exception(ValueError("no"))
    with pytest.raises(ValueError, match="no"):
        signals.wait(failed, "compiling", stop, shown=True)
    stop.set()
    with pytest.raises(StoppedError):
        signals.wait(futures.Future(), "compiling", stop, shown=False)
