"""The notebook for Colab and the script for TPUs, as far as they run without Colab and without a TPU."""

import base64
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time

import pytest
import soundfile
from conftest import ROOT

NOTEBOOK = json.loads((ROOT / "experiments" / "colab.ipynb").read_text(encoding="utf-8"))
CODE = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
TINY = {
    "RUN": "tiny",
    "TRACKS": 26,
    "SYNTHESIZE_OPTIONS": "--minutes 0.2,0.2 --sample_rate 8000 --formats wav",
    "PREPARE_OPTIONS": "--sample_rate 8000 --split 0.45,0.1,0.45",
    "TRAIN_OPTIONS": "--config.audio.sample_rate_hz=8000 --config.model.shaper=none --config.model.channels=8 "
    "--config.model.blocks=1 --config.model.critic_channels=8 --config.model.critic_blocks=1 --config.train.batch_size=4 --config.train.sample_clips=2 --config.train.steps_per_dispatch=1 --config.model.frames_per_step=4 --config.model.n_mels=24 --config.train.log_every=5 "
    "--config.eval.every=0 --config.loss.r1_weight=0 --config.loss.r2_weight=0",
    "BARS": 2,
    "TRACK_MINUTES": 0,
    "EVALUATE_OPTIONS": "--n 10 --draws 2 --permutations 99 --per_track 1 --train_clips 20",
    "OPEN_APP": False,
}
# Replaces a notebook's display: each piece of HTML becomes a line of a file.
SHOWN = """
class HTML(str):
    pass

class display:
    def __init__(self, page, display_id):
        assert display_id is True

    def update(self, page):
        with open({path!r}, "a", encoding="utf-8") as file:
            print(repr(str(page)), file=file)
"""


def filled_in(source, fields):
    """Returns a cell with other values in its form."""
    for name, value in fields.items():
        source = re.sub(rf"^{name} = .*?(?=  # @param)", lambda _, n=name, v=value: f"{n} = {v!r}", source, flags=re.M)
    return source


def run_cells(folder, fields, cells=CODE, cwd=ROOT / "experiments"):
    """Runs the cells in order in a new Python; returns what they print and the pages that they show."""
    script, shown = folder / "cells.py", folder / "shown.txt"
    stub = folder / "notebook" / "IPython" / "display.py"
    stub.parent.mkdir(parents=True, exist_ok=True)
    (stub.parent / "__init__.py").touch()
    stub.write_text(SHOWN.format(path=str(shown)), encoding="utf-8")
    shown.write_text("")
    first = f"import sys\nsys.path.insert(0, {str(stub.parent.parent)!r})"
    script.write_text("\n".join([first, *(filled_in(source, fields) for source in cells)]), encoding="utf-8")
    done = subprocess.run([sys.executable, str(script)], cwd=cwd, capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, [eval(line) for line in shown.read_text(encoding="utf-8").splitlines()]


def test_notebook_is_short_and_has_each_field():
    assert NOTEBOOK["nbformat"] == 4
    assert len(NOTEBOOK["cells"]) <= 15
    assert not any(cell.get("outputs") for cell in NOTEBOOK["cells"])
    for source in CODE:
        assert "\n!" not in source and "\n%" not in source, "plain Python: it also runs without IPython"
    for name in (*TINY, "KEEP_IN", "SCRATCH", "STEPS", "REPOSITORY"):
        assert sum(len(re.findall(rf"^{name} = .*  # @param", source, re.MULTILINE)) for source in CODE) == 1, name


@pytest.mark.skipif("NOTEBOOK" not in os.environ, reason="over a minute of a core: set NOTEBOOK=1")
def test_notebook_trains_exports_and_resumes_after_a_disconnect(tmp_path):
    scratch, kept = tmp_path / "machine", tmp_path / "drive" / "tiny"
    fields = TINY | {"SCRATCH": str(scratch), "KEEP_IN": str(kept.parent)}
    trained = next(index for index, source in enumerate(CODE) if "# @title 5." in source) + 1

    printed, pages = run_cells(tmp_path, fields | {"STEPS": 5}, CODE[:trained])
    assert "step 5 of 5" in printed
    assert any("step 5 of 5" in page and "<progress value='1.000'" in page for page in pages)
    (preview,) = [page for page in pages if "<audio" in page]
    wav = base64.b64decode(re.search("data:audio/wav;base64,([^']+)", preview)[1])
    assert soundfile.info(io.BytesIO(wav)).samplerate == 8000
    assert "data:image/png;base64,iVBOR" in preview

    shutil.rmtree(scratch)  # the machine is gone; the Drive is not
    printed, pages = run_cells(tmp_path, fields | {"STEPS": 10})
    assert "the bars exist already" in printed and "rendering:" not in printed
    assert "resumed from step 5" in (scratch / "tiny" / "training.txt").read_text(encoding="utf-8")
    assert "step 10 of 10" in printed
    config = json.loads((kept / "workdir" / "config.json").read_text(encoding="utf-8"))
    assert config["model"]["classes"] == ["acid", "industrial"]
    made = sorted(path.name for path in (kept / "sound").iterdir() if path.suffix == ".wav")
    assert len(made) == TINY["BARS"]
    heard = [page for page in pages if page.count("<audio") == len(made)]
    assert len(heard) == 1
    assert "<iframe srcdoc='&lt;!doctype html" in pages[-1] and "told apart by a classifier" in pages[-1]
    assert (kept / "technogen.npz").stat().st_size > 10_000


def test_notebook_clones_the_repository_into_its_own_environment(tmp_path):
    repository = tmp_path / "repository"
    repository.mkdir()
    (repository / "requirements.txt").touch()  # nothing to download
    (repository / "jax.py").write_text("__version__, devices = 'of the test', lambda: ['nothing']")
    git = ["git", "-C", str(repository), "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "a"]):
        subprocess.run([*git, *words], check=True)
    fields = {"SCRATCH": str(tmp_path / "machine"), "REPOSITORY": str(repository)}
    printed, _ = run_cells(tmp_path, fields, CODE[:2] + ["print(python)"], cwd=tmp_path)
    assert "JAX of the test computes on nothing" in printed
    assert printed.splitlines()[-1] == str(tmp_path / "machine" / "environment" / "bin" / "python")
    printed, _ = run_cells(tmp_path, fields, CODE[:2], cwd=tmp_path)
    assert "installing" not in printed


TPU_ENVIRONMENT = {"REPOSITORY": "https://example.org/a b.git", "RECORDS": "gs://bucket/records", "RUN": "first"}
FAKE_GCLOUD = """#!/bin/bash
# Every host is this machine.
echo "$*" | head -n 1 >> "$LOG"
case "$*" in
  *" ssh "*) for word; do case "$word" in --command=*) exec bash -c "${word#--command=}" ;; esac; done ;;
  "storage ls"*) test -e "${3/gs:\\//$BUCKETS}" ;;
  "storage rsync"*) mkdir -p "${5/gs:\\//$BUCKETS}"; cp -r "${4/gs:\\//$BUCKETS}/." "${5/gs:\\//$BUCKETS}" ;;
esac
"""
FAKE_TRAINER = """#!/bin/bash
# Adds a line to the run; waits until it is stopped.
while [ $# -gt 0 ]; do case "$1" in --workdir) workdir=$2 ;; esac; echo "$1"; shift; done
mkdir -p "$workdir"
trap 'echo saved >> "$workdir/steps"; exit' TERM
touch "$workdir/config.json"
for _ in {1..600}; do sleep 0.05; done
"""


def run_tpu(*words, **environment):
    """Returns what the script for TPUs prints."""
    command = ["bash", str(ROOT / "experiments" / "run_tpu.sh"), *words]
    done = subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, timeout=60, cwd=environment.get("HOME")
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_tpu_script_prints_its_commands():
    script = ROOT / "experiments" / "run_tpu.sh"
    subprocess.run(["bash", "-n", str(script)], check=True)
    names = re.search(r"run_tpu\.sh (create \|.*)$", script.read_text(encoding="utf-8"), re.MULTILINE)[1].split(" | ")
    for name in names:
        for command in run_tpu(name, DRY_RUN="1", **TPU_ENVIRONMENT).splitlines():
            words = shlex.split(command) if "$'" not in command else command.split()
            assert words[:3] == ["gcloud", "compute", "tpus"]
            assert "--zone=europe-west4-b" in words
    assert "--spot" in run_tpu("create", DRY_RUN="1") and "--spot" not in run_tpu("create", DRY_RUN="1", SPOT="0")
    assert "--worker=all" in run_tpu("train", DRY_RUN="1")
    wrong = subprocess.run(["bash", str(script), "instal"], capture_output=True, text=True)
    assert wrong.returncode == 2 and "create | status" in wrong.stderr
    bare = {name: value for name, value in os.environ.items() if name not in TPU_ENVIRONMENT}
    missing = subprocess.run(["bash", str(script), "install"], env=bare, capture_output=True, text=True)
    assert missing.returncode == 2 and "REPOSITORY is not set" in missing.stderr


def test_tpu_script_trains_stops_and_resumes_on_another_host(tmp_path):
    host, tools, buckets = tmp_path / "host", tmp_path / "tools", tmp_path / "buckets"
    (buckets / "bucket" / "records").mkdir(parents=True)
    (buckets / "bucket" / "records" / "manifest.json").touch()
    tools.mkdir()
    (tools / "gcloud").write_text(FAKE_GCLOUD)
    (tools / "gcloud").chmod(0o755)
    environment = TPU_ENVIRONMENT | {
        "PATH": f"{tools}:{os.environ['PATH']}", "HOME": str(host), "LOG": str(tmp_path / "log"), "BUCKETS": str(buckets),
        "KEEP": "gs://bucket/runs", "KEEP_S": "0.1", "OPTIONS": "--config.seed=3 --config.train.steps=5",
    }  # fmt: skip

    def one_machine():
        shutil.rmtree(host, ignore_errors=True)
        trainer = host / "technogen" / ".venv" / "bin" / "python"
        trainer.parent.mkdir(parents=True)
        trainer.write_text(FAKE_TRAINER)
        trainer.chmod(0o755)
        run_tpu("data", **environment)
        assert (host / "records" / "manifest.json").exists()
        run_tpu("train", **environment)
        wait_for(lambda: (host / "runs" / "first" / "config.json").exists())
        run_tpu("stop", **environment)

    one_machine()
    kept = buckets / "bucket" / "runs" / "first" / "steps"
    wait_for(lambda: kept.exists() and kept.read_text() == "saved\n")
    words = (host / "train.log").read_text().splitlines()
    assert words[:2] == ["-m", "technogen_jax.train"]
    assert words[-3:] == [f"--config.data.dir={host}/records", "--config.seed=3", "--config.train.steps=5"]
    wait_for(lambda: "No such process" in (host / "keep.log").read_text())

    one_machine()  # another machine, after the first was taken away
    wait_for(lambda: kept.read_text() == "saved\nsaved\n")
    wait_for(lambda: "No such process" in (host / "keep.log").read_text())


def wait_for(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)
