import os
import subprocess
import sys
import time

import jax
import pytest
from conftest import ROOT

from technogen_jax.common import compilation_cache

PROGRAM = """
import jax, numpy as np
from technogen_jax.common import compilation_cache as programs
print(programs.use_cache())
x = np.linspace(0, 1, 4096, dtype=np.float32).reshape(64, 64)
print(jax.jit(jax.grad(lambda x: (x @ x).sum() / (1 + x.mean())))(x).tobytes().hex()[:512])
"""


@pytest.fixture
def start(tmp_path):
    """Runs the program in a fresh process: (the folder, what it computed, what it complained of)."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    environment |= {"XDG_CACHE_HOME": str(tmp_path), "JAX_PLATFORMS": "cpu"}

    def start(**more):
        text = PROGRAM.replace("x = np", "jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)\nx = np")
        done = subprocess.run(
            [sys.executable, "-c", text], cwd=ROOT, env=environment | more, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return *done.stdout.split(), done.stderr

    return start


def test_cached_programs_give_the_same_bits_and_damaged_ones_a_warning(start, tmp_path):
    folder, computed, _ = start()
    kept = sorted((tmp_path / "technogen").glob("programs-*/*-cache"))
    assert kept and {str(path.parent) for path in kept} == {folder}
    times = [path.stat().st_mtime_ns for path in kept]
    old = kept[0].with_name("jit_of_old-cache")
    old.touch()
    os.utime(old, (time.time() - 100 * 86400,) * 2)
    assert start()[:2] == (folder, computed)
    assert [path.stat().st_mtime_ns for path in kept] == times and not old.exists()  # read, not made anew
    for path in kept:
        path.write_bytes(path.read_bytes()[:-100])
    _, again, complaint = start()
    assert again == computed and "persistent compilation cache" in complaint


def test_use_cache_keeps_the_folder_that_jax_has(monkeypatch, tmp_path):
    monkeypatch.setattr(jax.config, "update", pytest.fail)
    assert str(compilation_cache.use_cache()) == jax.config.jax_compilation_cache_dir
