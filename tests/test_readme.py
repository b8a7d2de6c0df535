"""The README's commands: each line parses, and the demo's four, at a small size, make sound from nothing."""

import json
import re
import shlex
import subprocess
import sys

import pytest
import soundfile
from conftest import ROOT, load_config

from data_prep import options as prepare_options
from data_prep import synthesize
from technogen_jax import evaluate, export, fields, sample

PARSERS = {
    "data_prep.synthesize": synthesize.parse_options,
    "data_prep.prepare": prepare_options.parse_options,
    "technogen_jax.sample": sample.parse_options,
    "technogen_jax.export": export.parse_options,
    "technogen_jax.evaluate": evaluate.parse_options,
}
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def commands(text):
    """(module, arguments) of each line `python -m MODULE ...` of ours in a text."""
    found = re.findall(r"^\s*(?:python|\$\(PY\)) -m ((?:data_prep|technogen_jax)\.\w+)( .*)$", text, re.MULTILINE)
    return [(module, shlex.split(rest.removesuffix('""",'), comments=True)) for module, rest in found]


def texts():
    yield "README.md", (ROOT / "README.md").read_text(encoding="utf-8")
    yield "Makefile", MAKEFILE
    for folder in ("configs", "data_prep", "technogen_jax"):
        for path in sorted((ROOT / folder).glob("*.py")):
            yield path.name, path.read_text(encoding="utf-8")


COMMANDS = [(name, module, argv) for name, text in texts() for module, argv in commands(text)]


@pytest.mark.parametrize("name, module, argv", COMMANDS, ids=[f"{name}: {module}" for name, module, _ in COMMANDS])
def test_each_command_that_is_shown_would_be_taken(name, module, argv):
    if any(word in ("...", "LOSS", "FILE", "NAME.py", "STEP") or word.endswith(":LOSS") for word in argv):
        pytest.skip("a pattern, not a command")
    if module in PARSERS:
        PARSERS[module](argv)
        return
    assert module == "technogen_jax.train"
    config, _, variant = argv[argv.index("--config") + 1].partition(":")
    assert "--workdir" in argv
    known = fields.names(load_config(config.removeprefix("configs/").removesuffix(".py"), *filter(None, [variant])))
    for word in argv:
        if word.startswith("--config."):
            assert word.removeprefix("--config.").split("=")[0] in known


def test_the_readme_and_the_makefile_show_one_demo():
    demo = [command for command in commands(MAKEFILE) if "demo/" in " ".join(command[1])]
    assert len(demo) == 4
    shown = commands((ROOT / "README.md").read_text(encoding="utf-8"))
    assert all(command in shown for command in demo)


def test_the_demo_makes_sound_from_nothing_and_goes_on(tmp_path):
    small = {
        "data_prep.synthesize": ["--tracks", "4", "--minutes", "0.2,0.25", "--sample_rate", "16000"],
        "data_prep.prepare": ["--split", "0.5,0.25,0.25"],
        "technogen_jax.train": [
            f"--config.data.dir={tmp_path / 'demo' / 'records'}",
            "--config.model.channels=2",
            "--config.train.batch_size=4",
            "--config.eval.clips=10",
            "--config.train.save_every=2",
            "--config.eval.every=2",
        ],
        "technogen_jax.sample": ["--n", "2"],
    }

    def run_all(*more):
        said = {}
        for module, argv in commands(MAKEFILE):
            if "demo/" not in " ".join(argv):
                continue
            argv = [word.replace("demo/", f"{tmp_path}/demo/") for word in argv] + small[module]
            argv += more if module == "technogen_jax.train" else ()
            done = subprocess.run(
                [sys.executable, "-m", module, *argv], cwd=ROOT, capture_output=True, text=True, timeout=300
            )
            assert done.returncode == 0, f"{module}: {done.stdout}\n{done.stderr}"
            said[module] = done.stdout
        return said

    first = run_all("--config.train.steps=2")
    assert "4 tracks" in first["data_prep.prepare"]
    files = sorted(path.name for path in (tmp_path / "demo" / "run" / "sound").iterdir())
    assert files == [f"step2-seed0-00{i}.{end}" for i in range(2) for end in ("json", "wav")] + ["step2-seed0.png"]
    clip, rate_hz = soundfile.read(tmp_path / "demo" / "run" / "sound" / "step2-seed0-001.wav")
    assert (len(clip), rate_hz) == (16384, 16000)

    again = run_all("--config.train.steps=4")
    assert "nothing to do" in again["data_prep.prepare"]
    assert "going on from step 2" in again["technogen_jax.train"]
    card = json.loads((tmp_path / "demo" / "run" / "sound" / "step4-seed0-000.json").read_text())
    assert card["step"] == 4
