import subprocess
import sys

import numba
import numpy as np
import pytest

from technogen_jax.compiled import compiled


def weighted(values, weights):
    total = 0.0
    for value, weight in zip(values, weights):  # noqa: B905 (numba knows no strict)
        total += value * weight
    return total, len(values)


@pytest.mark.parametrize("writable", [True, False])
def test_a_compiled_function_is_the_function(monkeypatch, writable):
    njit = numba.njit

    def nowhere_to_keep_it(cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return njit(**options)

    if not writable:
        monkeypatch.setattr(numba, "njit", nowhere_to_keep_it)
    values, weights = np.random.default_rng(0).normal(size=(2, 1000))
    got, count = compiled(weighted)(values, weights)
    assert count == 1000 and abs(got - weighted(values, weights)[0]) < 1e-10


def test_numba_is_not_loaded_before_it_is_needed():
    code = "import sys, data_prep.prepare, technogen_jax.techno; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
