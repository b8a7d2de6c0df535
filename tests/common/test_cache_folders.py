import os
import subprocess
import sys

import pytest
from conftest import ROOT

from technogen_jax.common import cache_folders

NOWHERE = "/proc/nowhere"  # not even root can write there


@pytest.fixture
def no_home(monkeypatch):
    for name in ("XDG_CACHE_HOME", "NUMBA_CACHE_DIR", "MPLCONFIGDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", NOWHERE)


def test_the_users_folder_is_the_one_that_can_be_written(no_home, tmp_path, monkeypatch):
    assert cache_folders.user_cache_folder() is None
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folders.user_cache_folder() == tmp_path / "technogen"
    cache_folders.use_temporary_folders()
    assert "NUMBA_CACHE_DIR" not in os.environ


def test_a_user_without_a_home_gets_no_folder_of_the_name_tilde(no_home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as for a user who is in no list of users
    assert cache_folders.user_cache_folder() is None
    assert not any(tmp_path.iterdir())


PROGRAMS = {
    "synthesize": "from data_prep.corpus import filters",
    "fingerprints": """
from technogen_jax.common import command_line
def work(options, say):
    import librosa
    librosa.util.localmax
command = command_line.Command("test", command_line.Options, work, "", "")
assert command.main([]) == 0
""",
    "a loop of ours": """
import numpy as np
from technogen_jax.common.compiled import compiled
def total(x):
    return x.sum()
assert compiled(total)(np.ones(3)) == 3
""",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_without_a_home_code_is_compiled_in_a_temporary_folder(no_home, tmp_path, name):
    """The locator is limited after numba has read its variables, so numba must be imported by the program."""
    hook = tmp_path / "sitecustomize.py"
    hook.write_text(
        "import sys, importlib.abc, importlib.machinery\n"
        "class Finder(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name != 'numba.core.caching': return None\n"
        "        sys.meta_path.remove(self)\n"
        "        spec = importlib.util.find_spec(name)\n"
        "        run = spec.loader.exec_module\n"
        "        def exec_module(module):\n"
        "            run(module)\n"
        "            module.CacheImpl._locator_classes = [module.UserProvidedCacheLocator]\n"
        "        spec.loader.exec_module = exec_module\n"
        "        return spec\n"
        "import importlib.util\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}", "TMPDIR": str(temporary)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAMS[name]], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert not any(temporary.iterdir())  # deleted at the end
