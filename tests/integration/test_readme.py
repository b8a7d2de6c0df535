"""README and docs are correct: each command parses; each option, field, link and variable exists. The commands of the README,
pasted in order, and those of the demo work, at a small size."""

import importlib
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tomllib

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


def demo_commands():
    """(module, arguments) of each command of `make demo`."""
    return [(module, argv) for module, argv in commands(MAKEFILE) if "demo/" in " ".join(argv)]


def test_the_demos_config_shows_the_commands_of_make_demo():
    shown = commands(read("configs/demo.py"))
    assert len(demo_commands()) == 5 and all(command in demo_commands() for command in shown) and len(shown) == 4


# Sizes alone: a model and tracks so small that it takes seconds.
SMALL_CORPUS = ["--tracks", "6", "--minutes", "0.4,0.5"]
SMALL_MODEL = {
    "model.shaper": "none",
    "model.n_mels": 24,
    "model.frames_per_step": 4,
    **dict.fromkeys(("model.channels", "model.critic_channels"), 8),
    **dict.fromkeys(("model.blocks", "model.critic_blocks"), 1),
    "train.batch_size": 4,
    "train.sample_clips": 2,
    "train.steps_per_dispatch": 1,
    **dict.fromkeys(("train.log_every", "train.save_every"), 2),
    **dict.fromkeys(("train.sample_every", "eval.every"), 0),
}
SMALL_TRAINING = [f"--config.{name}={value}" for name, value in SMALL_MODEL.items()]


def test_demo_makes_loops_and_a_track_from_nothing_and_resumes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    sizes = {"data_prep.synthesize": SMALL_CORPUS, "technogen_jax.train": SMALL_TRAINING}

    def run(module, argv, *more):
        argv = [{"16": "2"}.get(word, word) for word in argv] + [*sizes.get(module, []), *more]
        if "--minutes" in argv and module == "technogen_jax.sample":
            argv[argv.index("--minutes") + 1] = "0.1"
        assert importlib.import_module(module).main(argv) == 0
        return capsys.readouterr().out

    synthesize, prepare, train, *sample = demo_commands()
    run(*synthesize)
    assert "clips of 2 bars at " in run(*prepare)
    run(*train, "--config.train.steps=2")
    for command in sample:
        run(*command)
    sounds = sorted((tmp_path / "demo" / "run" / "sound").glob("*.wav"))
    manifest = json.loads((tmp_path / "demo" / "records" / "manifest.json").read_text())
    loops = [soundfile.read(sound)[0] for sound in sounds]
    assert soundfile.info(sounds[0]).samplerate == 44100
    lengths = sorted(len(loop) / manifest["clip_samples"] for loop in loops)
    assert lengths[:2] == [1, 1] and lengths[2] % 0.5 == 0 and len(lengths) == 3  # loops of two bars; a track of bars
    assert "nothing to do" in run(*prepare)
    assert "resumed from step 2" in run(*train, "--config.train.steps=4")


def copy_of_the_project(folder):
    """The tracked files, as `git clone` leaves them, with the environment of the tests as `.venv`."""
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in tracked.split("\n")[:-1]:
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
            os.utime(folder / name, (0, 0))
    (folder / ".venv").mkdir()
    for name in ("bin", "lib", "pyvenv.cfg"):
        (folder / ".venv" / name).symlink_to(pathlib.Path(sys.prefix) / name)
    for name in ("requirements.stamp", "requirements-test.stamp"):  # installed already
        (folder / ".venv" / name).touch()


@pytest.mark.skipif(not pathlib.Path(sys.prefix, "bin", "activate").exists(), reason="not in a virtual environment")
def test_readme_works_when_it_is_pasted_from_top_to_bottom(tmp_path):
    """All its commands in one shell, in an empty folder."""
    pytest.importorskip("uvicorn", reason="pip install -r requirements-app.txt")
    copy_of_the_project(tmp_path / "copy")
    corpus = ["--output", str(tmp_path / "Music" / "techno"), *SMALL_CORPUS]
    subprocess.run([sys.executable, "-m", "data_prep.synthesize", *corpus], cwd=ROOT, check=True, capture_output=True)
    script = "\n".join(re.findall(r"^```sh\n(.*?)^```", read("README.md"), re.MULTILINE | re.DOTALL))
    smaller = {
        r"git clone \S+": f"cp -r {tmp_path}/copy technogen",
        r"--n 16": "--n 2",
        r"--minutes \d+": "--minutes 0.1",
        r"(-m technogen_jax.train .*)": lambda match: f"{match[1]} {' '.join(SMALL_TRAINING)} --config.train.steps=2",
        # Until it serves:
        r"^make app$": "setsid make app > app.txt 2>&1 & until grep -q http:// app.txt; do sleep 0.2; kill -0 $!; done\n"
        "kill -TERM -- -$!; wait $! || true",
    }
    for pattern, replacement in smaller.items():
        script, count = re.subn(pattern, replacement, script, flags=re.MULTILINE)
        assert count, pattern
    done = subprocess.run(
        ["bash", "-e", "-c", script],
        cwd=tmp_path,
        env=os.environ | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    made = {
        path.relative_to(tmp_path / "technogen" / "runs").parts[0] for path in tmp_path.glob("technogen/runs/**/*.wav")
    }
    assert (
        made == {"hear", "bars"} and len(list((tmp_path / "technogen" / "runs" / "bars" / "sound").glob("*.wav"))) == 3
    )


def test_the_address_of_the_repository_is_the_same_everywhere():
    project = tomllib.loads(read("pyproject.toml"))["project"]
    address = project["urls"]["Repository"]
    readme, notebook = read("README.md"), read("experiments/colab.ipynb")
    assert f"git clone {address}\n" in readme and f"\ncd {address.rpartition('/')[2]}\n" in readme
    assert f'REPOSITORY = \\"{address}\\"' in notebook
    assert f"repository-code: {address}\n" in read("CITATION.cff") and f'href="{address}"' in read("docs/listen.html")
    colab = f"https://colab.research.google.com/github/{address.removeprefix('https://github.com/')}/blob/main/"
    for page in (readme, notebook):
        assert f"({colab}experiments/colab.ipynb)" in page
        found = set(re.findall(r"https://(?:colab.research.google.com/)?github(?:\.com)?/[\w-]+/[\w-]+", page))
        assert found <= {address, colab.removesuffix("/blob/main/")}


def test_readme_is_short_and_the_page_of_sounds_has_its_files():
    words = re.sub(r"^\|.*$|!?\[[^\]]*\]\(http[^)]*\)", "", read("README.md"), flags=re.MULTILINE).split()
    assert len(words) <= 900
    sources = re.findall(r'src="([^"]+)"', read("docs/listen.html"))
    assert len(sources) >= 5 and all((ROOT / "docs" / source).is_file() for source in sources)
