"""The command `technogen` and its subcommands; and the package that pip installs."""

import json
import pathlib
import subprocess
import sys
import tomllib

import pytest
from conftest import ROOT

import technogen_jax
from technogen_jax import __main__ as technogen


def test_help_lists_each_subcommand_in_a_line(capsys):
    assert technogen.main([]) == 0
    shown = capsys.readouterr().out
    for name, subcommand in technogen.SUBCOMMANDS.items():
        assert any(line.split()[:1] == [name] and subcommand.help in line for line in shown.splitlines()), name
    assert "python -m" not in shown


def test_output_that_nobody_reads_is_no_error():
    line = f"{sys.executable} -m technogen_jax --completion bash | true"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", line], cwd=ROOT, capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("name", technogen.SUBCOMMANDS)
def test_each_subcommand_has_the_help_of_its_command_with_its_own_name(name, capsys):
    with pytest.raises(SystemExit, match="^0$"):
        technogen.main([name, "--help"])
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: technogen {name}") and f"technogen {name} " in shown.partition("examples:")[2]
    assert "python -m technogen_jax" not in shown and "python -m data_prep" not in shown
    with pytest.raises(SystemExit, match="^2$"):
        technogen.main([name, "--nonsense"])
    shown = capsys.readouterr().err
    assert shown.startswith(f"{name}: ") and shown.count("\n") == 1


def test_a_subcommand_does_the_work_of_its_command(tmp_path, capsys):
    argv = ["synthesize", "--output", str(tmp_path), "--tracks", "1", "--minutes", "0.2,0.2", "--workers", "1"]
    assert technogen.main([*argv, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) and list(tmp_path.rglob("*.wav"))


def test_version_is_declared_once(capsys):
    with pytest.raises(SystemExit, match="^0$"):
        technogen.main(["--version"])
    assert capsys.readouterr().out == f"technogen {technogen_jax.__version__}\n"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "technogen_jax.__version__"}
    assert f"version: {technogen_jax.__version__}" in (ROOT / "CITATION.cff").read_text().splitlines()


def test_completion_knows_the_options_of_all_subcommands(capsys):
    for shell in ("bash", "zsh", "tcsh"):
        assert technogen.main(["--completion", shell]) == 0
        shown = capsys.readouterr().out
        for word in ("--truncation", "--max_speed", "--completion", *technogen.SUBCOMMANDS):
            assert word.removeprefix("--") in shown, (shell, word)


def test_the_wheel_has_all_packages_configs_and_files_and_no_tests(tmp_path):
    """Builds it without a network: setuptools must be there."""
    pytest.importorskip("setuptools", minversion="77", reason="pip install -U setuptools")
    copy = tmp_path / "source"
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    for name in filter(None, tracked):
        if name.split("/")[0] in ("technogen_jax", "data_prep", "configs") or "/" not in name:
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    build = f"from setuptools import build_meta; build_meta.build_wheel({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=copy, capture_output=True, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = subprocess.run([sys.executable, "-m", "zipfile", "-l", wheel], capture_output=True, text=True).stdout
    found = {line.split()[0] for line in names.splitlines()[1:]}
    wanted = {name for name in tracked if name.split("/")[0] in ("technogen_jax", "data_prep", "configs")}
    assert wanted - found == {"technogen_jax/models/technogan/README.md"} & wanted
    extra = {pathlib.PurePosixPath(name).parts[0] for name in found - wanted}
    assert extra == {f"technogen_jax-{technogen_jax.__version__}.dist-info"}
