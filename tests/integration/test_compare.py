import json

import numpy as np
import pytest
import soundfile

from experiments import compare
from technogen_jax import export
from technogen_jax.evaluation import results

FAST = ["--n", "12", "--per_track", "1", "--train_clips", "12"]


def test_table_compares_a_run_a_file_and_a_folder(trained_workdir, prepared_set, tmp_path, capsys):
    packed = tmp_path / "packed.npz"
    words = ["--licence", "CC0-1.0", "--data", "noise"]
    assert export.main(["--workdir", str(trained_workdir), "--output", str(packed), *words]) == 0
    rng = np.random.default_rng(0)
    (tmp_path / "noise").mkdir()
    for index in range(12):
        soundfile.write(tmp_path / "noise" / f"{index}.wav", 0.1 * rng.standard_normal(2250), 8000)
    capsys.readouterr()
    output = tmp_path / "out"
    paths = [f"run={trained_workdir}", str(packed), f"hiss={tmp_path / 'noise'}"]
    assert compare.main([*paths, "--data", str(prepared_set), "--output", str(output), *FAST]) == 0
    table = (output / "table.md").read_text()
    assert table == capsys.readouterr().out
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()]
    assert [row[0] for row in rows] == ["run", "---", "real", "run", "packed", "hiss"]
    cells = {row[0]: row for row in rows[2:]}
    assert {len(row) for row in rows} == {12}
    assert (output / "clips.png").exists()
    found = results.read(output / "packed")["distances"]["tmr-v1"]["all"]["frechet"]["ratio"]
    assert cells["packed"][3] == f"{found:.2f}"
    assert cells["hiss"][1:3] == ["–", "–"] and cells["hiss"][11] == "–"


def test_trained_minutes_adds_the_time_of_steps(tmp_path):
    lines = [
        {"step": 1, "g/adversarial": 1.0},  # the first window contains the compilation
        {"step": 100, "time/steps_per_s": 2.0},
        {"step": 100, "eval/mmd_tmr-v1": 0.5},
        {"step": 150, "time/steps_per_s": 1.0},
        {"step": 900, "time/steps_per_s": 9.0},
    ]
    path = tmp_path / "metrics.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    assert compare.trained_minutes(path, 150) == pytest.approx((100 / 2 + 50 / 1) / 60)
    assert compare.trained_minutes(path, 180) == pytest.approx(100 / 60 * 180 / 150)
    assert compare.trained_minutes(path, 50) is None
    assert compare.trained_minutes(tmp_path / "none", 150) is None


def test_two_runs_with_one_name_are_an_error(capsys):
    with pytest.raises(SystemExit):
        compare.parse_options(["a/run", "b/run", "--data", "d", "--output", "o"])
    assert "expected different names, got run, run" in capsys.readouterr().err
