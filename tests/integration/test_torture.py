"""The harness of the torture: when it kills, which phase it reports, and that the last start ends."""

import os
import random
import subprocess
import sys
import time

import pytest

from experiments import torture

if not sys.platform.startswith("linux"):
    pytest.skip("the torture reads /proc", allow_module_level=True)

# Works briefly, writes a temporary file, works briefly, renames the file.
WORK = """
import os, sys, time
def work(until_s):
    while time.process_time() < until_s: pass
os.makedirs(sys.argv[1] + "/samples", exist_ok=True)
work(0.1)
open(sys.argv[1] + "/samples/.x.tmp", "w").close()
work(0.25)
os.replace(sys.argv[1] + "/samples/.x.tmp", sys.argv[1] + "/samples/x")
"""


def test_kill_until_done_kills_a_command_then_lets_it_end(tmp_path):
    output, draw = tmp_path / "out", random.Random(0)
    argv = [sys.executable, "-S", "-c", WORK, str(output)]
    met = list(torture.kill_until_done(argv, output, draw, 0.2, ("samples/.*",), {"PYTHONHASHSEED": "0"}))
    assert 1 <= len(met) <= torture.KILLS_A_RUN and (output / "samples" / "x").exists()
    assert set(met) <= {"writing a preview", "before its first file", "writing its output"}


def test_kill_until_done_raises_if_the_command_fails(tmp_path):
    argv = [sys.executable, "-S", "-c", "raise SystemExit('no')"]
    with pytest.raises(AssertionError, match="after 0 kills: no"):
        list(torture.kill_until_done(argv, tmp_path / "out", random.Random(0), 60, (), {}))


def test_wait_until_ignores_files_that_existed_before(tmp_path):
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / ".old").touch()
    with subprocess.Popen([sys.executable, "-S", "-c", WORK, str(tmp_path)]) as process:
        torture.wait_until(process, tmp_path, 60, "samples/.*")
        assert (tmp_path / "samples" / ".x.tmp").exists() or process.poll() == 0
        assert torture.cpu_of(process.pid) > 0 or process.poll() == 0
    assert torture.cpu_of(process.pid) == 0 < torture.cpu_of(os.getpid())


@pytest.mark.parametrize(
    "files, phase",
    [
        ([], "before its first file"),
        (["run.incomplete/parts/0.pcm"], "preparing"),
        (["run/result.json"], "writing its output"),
        (["run/config.json"], "before its first checkpoint"),
        (["run/config.json", "run/checkpoints/8/params", "run/metrics.jsonl"], "training"),
        (["run/config.json", "run/checkpoints/8.orbax-checkpoint-tmp/params"], "writing a checkpoint"),
        (["run/config.json", "run/samples/.step8.wav.7.tmp"], "writing a preview"),
        (["run/config.json", "run/.data.json.tmp"], "writing a file"),
    ],
)
def test_phase_of_reads_the_files_of_a_run(tmp_path, files, phase):
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert torture.phase_of(tmp_path / "run") == phase
    if phase == "training":
        assert torture.phase_of(tmp_path / "run", time.time() + 9) == "starting again"
