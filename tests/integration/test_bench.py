import json
import types

import jax
import numpy as np
import pytest
from helpers import building

from experiments.bench import __main__ as bench
from experiments.bench import loader, steps, timing, wavegan_step
from technogen_jax.training import losses


def test_wall_and_processor_alternates_sides_after_a_warm_up():
    calls = []
    seconds = timing.taking_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3)
    assert calls == ["a", "b"] * 4
    assert {side: len(values) for side, values in seconds.items()} == {"a": 3, "b": 3}
    assert timing.spread([1, 2, 3, 4, 5], 10) == {"median": 30.0, "quartiles": [20.0, 40.0]}


@pytest.mark.parametrize("name", bench.BENCHES)
def test_each_benchmark_has_help(name, capsys):
    with pytest.raises(SystemExit) as caught:
        bench.main([name, "--help"])
    assert caught.value.code == 0 and len(capsys.readouterr().out) > 300


def test_all_runs_each_benchmark_despite_a_failure(monkeypatch, tmp_path, capsys):
    def run(command, **_):
        name = command[-1]
        failed = name == "floor"
        return bench.subprocess.CompletedProcess(
            command, int(failed), "" if failed else f'noise\n{{"bench": "{name}"}}\n'
        )

    monkeypatch.setattr(bench.subprocess, "run", run)
    assert bench.main(["all", "--out", str(tmp_path / "out.jsonl")]) == 1
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["bench"] for line in lines] == list(bench.BENCHES)
    assert [line["bench"] for line in lines if "failed" in line] == ["floor"]
    assert capsys.readouterr().out.count("\n") == len(lines)


def test_all_stops_when_its_minutes_are_over(monkeypatch, tmp_path):
    seconds = iter([0.0, 0.0, 0.0, 70.0, *[130.0] * 20])
    left = []

    def run(command, timeout, **_):
        left.append(timeout)
        if not timeout:
            raise bench.subprocess.TimeoutExpired(command, timeout)
        return bench.subprocess.CompletedProcess(command, 0, "{}")

    monkeypatch.setattr(bench.subprocess, "run", run)
    monkeypatch.setattr(bench, "time", types.SimpleNamespace(monotonic=lambda: next(seconds)))
    assert bench.main(["all", "--out", str(tmp_path / "out.jsonl"), "--minutes", "2"]) == 1
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert left[:4] == [120, 120, 50, 0] and lines[:3] == [{}] * 3
    assert all(line["failed"] == "the 2 minutes were over" for line in lines[3:])


def test_needed_flops_counts_plain_convolutions():
    channels, batch = 16, 2
    gan = building.build(
        "wavegan", clip_samples=16384, audio_channels=1, channels=channels, form="plain", phase_shuffle=0
    )
    real = np.zeros((batch, 16384, 1), np.float32)

    def d_loss(d, g):
        def score(x):
            return gan.discriminate(d, x, jax.random.key(0))

        fake = gan.generate(g, np.zeros((batch, 100), np.float32))
        penalty = losses.wgan_gp_penalty(score, real, fake, jax.random.key(0))
        return losses.ADVERSARIAL["wgan"].d(score(real), score(fake)) + 10 * penalty

    networks = [jax.eval_shape(init, jax.random.key(0)) for init in (gan.init_d, gan.init_g)]
    counted = jax.jit(jax.grad(d_loss)).lower(*networks).cost_analysis()["flops"]
    assert wavegan_step.needed_flops(channels, batch) == pytest.approx(counted, rel=0.1)


def test_loader_sides_read_the_clips_of_the_dataset(tmp_path):
    folder = steps.make_set(tmp_path / "set", rate_hz=16000, channels=2, clip_samples=64, clips=10)
    batches = {side: side(folder, 64, 2, 10) for side in (loader.ours, loader.grain_plainly, loader.grain_stream)}
    clips = {side: next(iterator) for side, iterator in batches.items()}
    seen = {side: {row.tobytes() for row in batch.reshape(-1, 64, 2)} for side, batch in clips.items()}
    assert len(seen[loader.ours]) == 10 and seen[loader.ours] == seen[loader.grain_plainly]
    assert seen[loader.grain_stream] <= seen[loader.ours]
