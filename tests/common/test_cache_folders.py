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


READ_ONLY = """
import os, sys
from technogen_jax.common import cache_folders
writable = cache_folders.is_writable
cache_folders.is_writable = lambda folder: "nowhere" not in sys.argv and writable(folder)
"""
# Numba may use no folder but a given one, as if the packages were read-only.
ONLY_GIVEN = """
assert "numba" not in sys.modules and os.environ["NUMBA_CACHE_DIR"].startswith(os.environ["TMPDIR"])
from numba.core import caching
caching.CacheImpl._locator_classes = [caching.UserProvidedCacheLocator]
"""
PROGRAMS = {
    "commands": """
from technogen_jax.common import command_line
command = command_line.Command("test", command_line.Options, lambda options, say: exec(ONLY_GIVEN), "", "")
assert command.main([]) == 0
""",
    "synthesize": """
import data_prep.corpus
exec(ONLY_GIVEN)
from data_prep.corpus import filters
""",
    "loops": """
import numpy as np
from technogen_jax.common.compiled import compiled
def total(x):
    return x.sum()
assert compiled(total)(np.ones(3)) == 3
assert os.environ["NUMBA_CACHE_DIR"].startswith(os.environ["TMPDIR"])
""",
}


def run(program, folder, *words):
    program = f"{READ_ONLY}ONLY_GIVEN = {ONLY_GIVEN!r}\n{program}"
    environment = os.environ | {"TMPDIR": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", program, *words], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert not any(folder.iterdir())  # what was in it is deleted at the end


@pytest.mark.parametrize("name", PROGRAMS)
def test_without_a_home_and_with_read_only_code_numba_has_a_temporary_folder(no_home, tmp_path, name):
    run(PROGRAMS[name], tmp_path, "nowhere")


def test_code_that_is_stored_beside_the_source_is_used_without_a_home(no_home, tmp_path):
    program = "cache_folders.use_temporary_folders(); assert 'NUMBA_CACHE_DIR' not in os.environ"
    run(f"{program} and os.environ['MPLCONFIGDIR']", tmp_path)
