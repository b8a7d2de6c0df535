import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import pytest
from conftest import ROOT
from numba.core import caching

from technogen_jax.common.compiled import compiled


def weighted(values, weights):
    total = 0.0
    for value, weight in zip(values, weights):  # noqa: B905 (numba knows no strict)
        total += value * weight
    return total, len(values)


def no_room(*_):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("place", ["kept", "nowhere to keep it", "disk full"])
def test_a_compiled_function_is_the_function_wherever_it_is_kept(monkeypatch, place):
    if place == "nowhere to keep it":
        monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])
        with pytest.raises(RuntimeError):
            numba.njit(cache=True)(weighted)
    if place == "disk full":
        monkeypatch.setattr(caching.IndexDataCacheFile, "load", lambda *_: None)
        monkeypatch.setattr(caching.IndexDataCacheFile, "save", no_room)
        with pytest.raises(OSError):
            numba.njit(cache=True)(weighted)(np.zeros(2), np.zeros(2))
    values, weights = np.random.default_rng(0).normal(size=(2, 1000))
    got, count = compiled(weighted)(values, weights)
    assert count == 1000 and got == weighted(values, weights)[0]


def test_threads_compile_it_once(monkeypatch):
    made, njit = [], numba.njit
    monkeypatch.setattr(numba, "njit", lambda **options: made.append(options) or njit(**options))
    function = compiled(weighted)
    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(lambda _: function(np.ones(9), np.ones(9)), range(12)))
    assert results == [(9.0, 9)] * 12 and len(made) == 1


def test_numba_is_not_loaded_before_it_is_needed():
    code = "import sys, data_prep.prepare, technogen_jax.evaluation.features.musical; assert 'numba' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
