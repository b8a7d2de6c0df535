"""README and docs are correct: each command parses; each option, field, link and variable exists; and the four commands
of the demo, at a small size, make sound from nothing."""

import importlib
import json
import re
import shlex
import subprocess
import sys

import pytest
import soundfile
from conftest import ROOT, load_config, of_a_bar

from technogen_jax import train
from technogen_jax.common import config_fields, run_config

PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md")),
)
LOG = ("experiments/README.md", *sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("experiments/*/*.md")))
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
OTHERS_OPTIONS = {"--logdir", "--worker", "--strict"}  # of TensorBoard, gcloud and pip-audit
PATTERNS = ("...", "LOSS", "FILE", "NAME.py", "STEP", "SIZE")  # words that stand for others


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def commands(text):
    """(module, arguments) of each command `python -m MODULE ...` of ours in a text: a line, or a span of code."""
    module = r"-m ((?:data_prep|technogen_jax)\.\w+)"
    found = re.findall(rf"^\s*(?:python|\$\(PY\)) {module}( .*)$", text, re.MULTILINE)
    found += re.findall(rf"`python {module}( [^`]*)`", text)
    return [(module, shlex.split(re.sub('""",?$', "", rest), comments=True)) for module, rest in found]


def spans(text):
    """Returns the code spans in a page's sentences."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


def texts():
    yield from ((name, read(name)) for name in PAGES)
    yield "Makefile", MAKEFILE
    for folder in ("configs", "data_prep", "technogen_jax"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")


def parser_of(module):
    """A command's own parser."""
    found = importlib.import_module(module)
    if hasattr(found, "__path__"):
        found = importlib.import_module(f"{module}.__main__")
    return found.parse_options


def parse_training(argv):
    """What `technogen_jax.train` does with its options before it begins."""
    options = train.parse_options(argv)
    config = train.read_config(options.config, options.overrides)
    config.data.dir = config.data.dir or "set"
    run_config.check(of_a_bar(config))


COMMANDS = list(dict.fromkeys((name, module, tuple(argv)) for name, text in texts() for module, argv in commands(text)))


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # within ml_collections
@pytest.mark.parametrize("name, module, argv", COMMANDS, ids=[f"{name}: {module}" for name, module, _ in COMMANDS])
def test_each_command_on_a_page_parses(name, module, argv, monkeypatch):
    if any(word.rpartition(":")[2] in PATTERNS for word in argv):
        pytest.skip("a pattern, not a command")
    monkeypatch.chdir(ROOT)
    (parse_training if module == "technogen_jax.train" else parser_of(module))(list(argv))


def test_options_and_fields_on_a_page_exist(capsys):
    known = set(OTHERS_OPTIONS)
    for module in {module for _, module, _ in COMMANDS}:
        with pytest.raises(SystemExit, match="^0$"):
            parser_of(module)(["--help"])
        known |= set(re.findall(r"--\w+", capsys.readouterr().out))
    names = set().union(
        *(config_fields.names(load_config(path.stem)) for path in sorted((ROOT / "configs").glob("*.py")))
    )
    for page in PAGES:
        for span in spans(read(page)):
            for field in re.findall(r"\bconfig\.([a-z]\w*\.\w+)", span):
                assert field in names, f"{page}: config.{field}"
            for option in re.findall(r"(?<![\w-])--(?!config\.)\w+", span):
                assert option in known, f"{page}: {option}"
            for metric in re.findall(r"\beval/([\w-]+)", span):
                assert metric in read("technogen_jax/training/progress_evaluation.py"), f"{page}: eval/{metric}"


def anchors(page):
    """Returns the names by which links can address the headings of a page."""
    titles = re.findall("^#+ (.*)$", re.sub(r"```.*?```", "", read(page), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES + LOG)
def test_links_and_configs_on_a_page_exist(page):
    text = read(page)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith("http"):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), f"{page}: {link}"
        assert not anchor or anchor in anchors(target), f"{page}: {link}"
    for config, variant in re.findall(r"`configs/(\w+)\.py(?::(\w+))?`", text):
        if variant not in PATTERNS:
            load_config(config, *filter(None, [variant]))


def test_files_that_docs_name_exist():
    for page in PAGES:
        for name in re.findall(r"`((?:\w+/)+\w+\.(?:py|sh|md))`", read(page)):
            assert (ROOT / name).exists() or (ROOT / "technogen_jax" / name).exists(), f"{page}: {name}"


def test_troubleshooting_answers_each_problem_once():
    problems = re.findall(r"^\*\*(.+?)\*\*", read("docs/troubleshooting.md"), re.MULTILINE)
    assert len(set(problems)) == len(problems) >= 25


def test_the_index_of_docs_lists_each_page():
    listed = re.findall(r"\]\((\w+\.md)\)", read("docs/README.md"))
    assert sorted(listed) == sorted(path.name for path in (ROOT / "docs").glob("*.md") if path.name != "README.md")


def test_each_experiment_is_in_the_index():
    index = read("experiments/README.md")
    assert all(page.removeprefix("experiments/") in index for page in LOG if page.startswith("experiments/log/"))
    assert len(index.splitlines()) <= 150


def test_tpu_page_agrees_with_its_script():
    page, script = read("docs/many_devices.md"), read("experiments/run_tpu.sh")
    known = set(re.findall(r"^([A-Z_]+)=\$\{\1:-", script, re.MULTILINE)) | {"DRY_RUN"}
    assert set(re.findall(r"\b([A-Z_]{2,})=", page)) <= known
    named = set(re.search(r"run_tpu\.sh (create \|.*)$", script, re.MULTILINE)[1].split(" | "))
    assert set(re.findall(r"experiments/run_tpu\.sh (\w+)", page)) == named


def test_readme_and_makefile_show_the_same_demo():
    demo = [command for command in commands(MAKEFILE) if "demo/" in " ".join(command[1])]
    assert len(demo) == 4
    shown = commands((ROOT / "README.md").read_text(encoding="utf-8"))
    assert all(command in shown for command in demo)


def test_demo_makes_sound_from_nothing_and_resumes(tmp_path):
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
        printed = {}
        for module, argv in commands(MAKEFILE):
            if "demo/" not in " ".join(argv):
                continue
            argv = [word.replace("demo/", f"{tmp_path}/demo/") for word in argv] + small[module]
            argv += more if module == "technogen_jax.train" else ()
            done = subprocess.run(
                [sys.executable, "-m", module, *argv], cwd=ROOT, capture_output=True, text=True, timeout=300
            )
            assert done.returncode == 0, f"{module}: {done.stdout}\n{done.stderr}"
            printed[module] = done.stdout
        return printed

    first = run_all("--config.train.steps=2")
    assert "4 tracks" in first["data_prep.prepare"]
    files = sorted(path.name for path in (tmp_path / "demo" / "run" / "sound").iterdir())
    assert files == [f"wavegan-step2-seed0-00{i}.{end}" for i in range(2) for end in ("json", "wav")] + [
        "wavegan-step2-seed0.png"
    ]
    clip, rate_hz = soundfile.read(tmp_path / "demo" / "run" / "sound" / "wavegan-step2-seed0-001.wav")
    assert (len(clip), rate_hz) == (16384, 16000)

    again = run_all("--config.train.steps=4")
    assert "nothing to do" in again["data_prep.prepare"]
    assert "resumed from step 2" in again["technogen_jax.train"]
    card = json.loads((tmp_path / "demo" / "run" / "sound" / "wavegan-step4-seed0-000.json").read_text())
    assert card["step"] == 4
