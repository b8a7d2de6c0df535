"""What all commands have in common: help, errors, paths, output, signals, exit status."""

import contextlib
import dataclasses
import importlib
import io
import os
import re
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
from conftest import ROOT

MISSING = "missing"  # stands for a path at which there is nothing
# Words with which each command gets as far as its work, where it finds that a path is missing.
COMMANDS = {
    "technogen_jax.train": ["--config", "configs/wavegan.py", "--workdir", "run", f"--config.data.dir={MISSING}"],
    "technogen_jax.sample": ["--workdir", MISSING],
    "technogen_jax.evaluate": ["--workdir", MISSING],
    "technogen_jax.export": ["--workdir", MISSING, "--licence", "CC0-1.0", "--data", "noise"],
    "technogen_jax.app": ["--workdir", MISSING],
    "technogen_jax.listen": ["--report", MISSING],
    "data_prep.prepare": ["--input", MISSING, "--output", "out"],
    "data_prep.synthesize": ["--output", f"{MISSING}/corpus"],  # its parent is a file
}
every_command = pytest.mark.parametrize("module", COMMANDS)
FAR = "Z\u00fcrich \u2013 \u266b \udcff"  # characters that some terminals lack, and one that no encoding has


def command(module):
    found = importlib.import_module(module)
    if hasattr(found, "__path__"):
        found = importlib.import_module(f"{module}.__main__")
    return found.COMMAND


def name_of(module):
    return module.rpartition(".")[2]


def working(module, function, **changes):
    """The command with another function for its work, and words that it accepts."""
    return dataclasses.replace(command(module), function=function, **changes), list(COMMANDS[module])


def in_folder(module, folder):
    """The words of a command, with the missing path in a folder."""
    if module == "data_prep.synthesize":
        (folder / MISSING).write_text("")
    words = [word.replace(MISSING, f"{folder}/{MISSING}") for word in COMMANDS[module]]
    return [word if word not in ("run", "out") else f"{folder}/{word}" for word in words]


@pytest.fixture(autouse=True)
def signals_as_in_a_terminal():
    """Restores the default handlers, which a runner in the background (nohup, `&`) has replaced by "ignore"."""
    defaults = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: signal.SIG_DFL,
        signal.SIGHUP: signal.SIG_DFL,
    }
    saved = {number: signal.signal(number, handler) for number, handler in defaults.items()}
    yield
    for number, handler in saved.items():
        signal.signal(number, handler)


def shell(module, *words, tail="", **environment):
    """The process of a command in a shell: its status, what it wrote."""
    line = f"{sys.executable} -m {module} {' '.join(words)} {tail}"
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", line], cwd=ROOT, env=os.environ | environment, capture_output=True, timeout=120
    )


@every_command
@pytest.mark.parametrize("columns", ["20", "80", "300"])
def test_help_exits_with_0_and_has_examples(module, columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    with pytest.raises(SystemExit) as stop:
        command(module).main(["--help"])
    shown = capsys.readouterr()
    assert stop.value.code == 0 and shown.err == ""
    assert f"usage: python -m {module}" in shown.out and "examples:" in shown.out and "--debug" in shown.out
    fields = {
        field.metadata["name"] or field.name for field in dataclasses.fields(command(module).options) if field.metadata
    }
    assert all(re.search(rf"--(no-)?{field}\b", shown.out) for field in fields)


@every_command
def test_a_wrong_option_is_one_line_and_status_2(module, capsys):
    with pytest.raises(SystemExit) as stop:
        command(module).main([*COMMANDS[module], "--nonsense", "3"])
    shown = capsys.readouterr()
    assert stop.value.code == 2 and shown.out == ""
    assert shown.err.startswith(f"{name_of(module)}: ") and "--nonsense" in shown.err and shown.err.count("\n") == 1


@every_command
def test_every_number_has_a_range_and_a_number_out_of_it_is_one_line(module, capsys):
    """As 10**12 clips: an option without a largest value ends in a MemoryError, or a crash within a library."""
    for field in dataclasses.fields(command(module).options):
        rule = field.metadata
        if not rule or rule["convert"] not in (int, float):
            continue
        assert rule["most"] is not None and (rule["least"], rule["above"]) != (None, None), field.name
        for text in ("1e300", "nan", "-inf", str(10**12), str(2**70), str(rule["most"] + 1)):
            with pytest.raises(SystemExit) as stop:
                command(module).parse([*COMMANDS[module], f"--{rule['name'] or field.name}={text}"])
            error = capsys.readouterr().err
            assert stop.value.code == 2 and error.count("\n") == 1 and field.name in error and len(error) < 200


@every_command
@pytest.mark.parametrize("home", [False, True], ids=["full path", "~"])
def test_a_missing_path_is_named_and_home_is_expanded(module, home, tmp_path, capsys, monkeypatch):
    if module == "technogen_jax.app":
        pytest.skip("a missing run is a warning, and the page opens: tests/app/test_app_library.py")
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("HOME", str(tmp_path))
    words = in_folder(module, tmp_path)
    words = [word.replace(str(tmp_path), "~") for word in words] if home else words
    before = sorted(path.name for path in tmp_path.iterdir())
    assert command(module).main(words) in (1, 2)
    shown = capsys.readouterr()
    assert shown.err.startswith(f"{name_of(module)}: ") and shown.err.count("\n") <= 2
    assert f"{tmp_path}/{MISSING}" in shown.err
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    with contextlib.suppress(OSError):
        os.rmdir("~")
        pytest.fail("a folder of the name ~ was made")


@every_command
def test_debug_shows_the_traceback(module, capsys):
    def fail(options, say):
        raise ValueError("no\nsecond\nthird")

    work, words = working(module, fail)
    assert work.main(words) == 1
    assert capsys.readouterr().err == f"{name_of(module)}: no\nsecond\n"
    with pytest.raises(ValueError, match="third"):
        work.main([*words, "--debug"])


@every_command
def test_every_character_can_be_printed(module, monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))

    def fail(options, say):
        say(FAR)
        raise ValueError(FAR)

    work, words = working(module, fail)
    assert work.main(words) == 1
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        assert rb"Z\xfcrich \u2013 \u266b \udcff" in stream.buffer.getvalue()


@every_command
def test_the_work_goes_on_when_nobody_reads_the_output(module, monkeypatch):
    reader, writer = os.pipe()
    done = []

    def work(options, say):
        for number in range(3):
            say("much to read" * 1000)
            done.append(number)

    with open(writer, "w") as stream:
        os.close(reader)
        monkeypatch.setattr(sys, "stdout", stream)
        changed, words = working(module, work)
        assert changed.main(words) == 0 and done == [0, 1, 2]


@every_command
def test_help_survives_closed_streams_and_other_encodings(module):
    assert shell(module, "--help", tail="| head -n 1", PYTHONIOENCODING="ascii").returncode == 0
    closed = shell(module, "--help", tail=">&- 2>&-", LC_ALL="C", COLUMNS="20")
    assert (closed.returncode, closed.stdout, closed.stderr) == (0, b"", b"")


@every_command
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_ends_the_work_in_one_line(module, number, capsys):
    cleaned = []

    def work(options, say):
        try:
            signal.raise_signal(number)
            pytest.fail("the signal was ignored")
        finally:
            cleaned.append(True)

    changed, words = working(module, work)
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGHUP)
    assert changed.main(words) == (0 if changed.serves else 128 + number)
    shown = capsys.readouterr().err.strip()
    name = "Ctrl-C" if number == signal.SIGINT else number.name
    assert shown.startswith(f"{name_of(module)}: stopped by {name}") and "\n" not in shown
    assert cleaned and (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGHUP)) == before


@every_command
def test_facts_are_one_line_of_json_for_scripts(module, capsys):
    changed, words = working(module, lambda options, say: say("a sentence") or {"files": [FAR]})
    if not changed.json:
        with pytest.raises(SystemExit):
            changed.main([*words, "--json"])
        return
    assert changed.main([*words, "--json"]) == 0
    shown = capsys.readouterr()
    assert shown.out == '{"files": ["Z\\u00fcrich \\u2013 \\u266b \\udcff"]}\n' and shown.err == "a sentence\n"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 0), (signal.SIGHUP, 0)])
def test_training_saves_after_a_signal_before_it_ends(number, status, monkeypatch, tmp_path, capsys):
    from technogen_jax.training import loop

    def saves(config, workdir, say, stop):
        signal.raise_signal(number)
        assert stop.is_set()
        say("saved")
        return SimpleNamespace(step=3)

    monkeypatch.setattr(loop, "train", saves)
    monkeypatch.chdir(ROOT)
    assert command("technogen_jax.train").main(in_folder("technogen_jax.train", tmp_path)) == status
    shown = capsys.readouterr()
    assert shown.out == "saved\n"
    assert shown.err == ("\ntrain: stopped by Ctrl-C; the same command resumes\n" if status else "")


# In a process of its own: JAX looks for devices once.
ON_A_GPU = """
import sys, technogen_jax.{name} as module
from jax._src import hardware_utils
hardware_utils.has_visible_nvidia_gpu = lambda: True
sys.exit(module.main(sys.argv[1:]))
"""


@pytest.mark.parametrize("name", ["train", "sample"])
def test_the_warning_that_a_gpu_is_not_used_is_shown(name, trained_workdir, tmp_path):
    words = {
        "train": in_folder("technogen_jax.train", tmp_path),
        "sample": ["--workdir", str(trained_workdir), "--n", "1"],
    }
    words["sample"] += ["--output", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-c", ON_A_GPU.format(name=name), *words[name]],
        cwd=ROOT,
        env={key: value for key, value in os.environ.items() if key != "JAX_PLATFORMS"},
        capture_output=True,
        text=True,
    )
    assert "GPU may be present" in done.stderr and "Falling back to cpu" in done.stderr, done.stderr


def test_training_says_before_it_begins_that_it_cannot_save(trained_workdir, tmp_path, capsys, tiny_config):
    from technogen_jax.training import loop

    with pytest.raises(ValueError, match="--workdir .*not UTF-8; name another folder"):
        loop.train(tiny_config, tmp_path / "\udcff", say=lambda line: pytest.fail(line))
    assert not (tmp_path / "\udcff").exists()
