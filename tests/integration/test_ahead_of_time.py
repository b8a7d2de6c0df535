"""Every config compiles for a TPU and for an NVIDIA GPU; what compiled programs say is read correctly."""

import importlib.util
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT

from experiments.ahead_of_time import compiled_text, programs
from experiments.ahead_of_time.__main__ import CONFIGS
from experiments.bench import steps

COMPILERS = {"v5e": "libtpu", "h200": "jax_cuda12_plugin"}
# The clips of a batch hardly change what is compiled, but how long it takes. The batch is a multiple of four devices.
SMALL = ["train.batch_size=4", "train.steps_per_dispatch=2"]
TEXT = """HloModule m

%body (p: (s32[], f32[8,4])) -> (s32[], f32[8,4]) {
  %p = (s32[], f32[8,4]{1,0}) parameter(0)
  %x = f32[8,4]{1,0} get-tuple-element(%p), index=1
  %y = f32[8,4]{1,0} fusion(%x), kind=kLoop, calls=%f, backend_config={"estimated_cycles":"100"}
  %z = f32[8,4]{1,0} all-reduce(%y), replica_groups={}, to_apply=%add
  ROOT %t = (s32[], f32[8,4]{1,0}) tuple(%i, %z)
}

%condition (p: (s32[], f32[8,4])) -> pred[] {
  %limit = s32[] constant(5)
}

ENTRY %main (a: f32[8,4]) -> f32[8,4] {
  %a = f32[8,4]{1,0} parameter(0)
  %c = bf16[8,4]{1,0:T(8,128)S(1)} copy(%a), backend_config={"estimated_cycles":"7"}
  %w = (s32[], f32[8,4]{1,0}) while(%s), condition=%condition, body=%body
  ROOT %r = f32[8,4]{1,0} get-tuple-element(%w), index=1
}
"""


def test_loops_count_as_often_as_they_run():
    summary = compiled_text.Program(TEXT).summarize()
    assert summary["cycles"] == 5 * 100 + 7
    assert summary["kernels"] == 5 * 2 + 1
    assert summary["collectives"] == {"all-reduce": {"count": 5, "bytes": 5 * 128}}
    # Operand and result of each; the copy's result stays on the chip.
    assert summary["bytes"] == 5 * 2 * (128 + 128) + 128


def test_flops_of_products_and_convolutions_are_counted_through_loops():
    def function(x, w, kernel):
        y = jax.lax.scan(lambda x, _: (x @ w, None), x, length=3)[0]
        return jax.lax.conv_general_dilated(y[None], kernel, (2,), "SAME", dimension_numbers=("NWC", "WIO", "NWC"))

    shapes = (jnp.zeros(shape) for shape in ((8, 4), (4, 4), (5, 4, 6)))
    assert programs.count_flops(jax.make_jaxpr(function)(*shapes).jaxpr) == 3 * 2 * 8 * 4 * 4 + 2 * 4 * 6 * 5 * 4


def test_without_labels_no_empty_arrays_are_joined():
    # Such a concatenation in `generate` aborts XLA's compiler for TPUs.
    gan = steps.build(steps.load("technogan:xs")).gan
    jaxpr = jax.make_jaxpr(lambda key: gan.generate(gan.init_g(key), gan.sample_latents(key, 2)))(jax.random.key(0))
    assert [line for line in str(jaxpr).splitlines() if ",0] = concatenate" in line] == []


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize(("target", "devices"), [("v5e", 1), ("v5e", 4), ("h200", 1)])
def test_every_config_compiles(config, target, devices):
    if importlib.util.find_spec(COMPILERS[target]) is None:
        pytest.skip(f"needs {COMPILERS[target]}: experiments/ahead_of_time/requirements.txt")
    parts = "step" if devices > 1 else "step,generate,encode,decode"
    options = ["--target", target, "--devices", str(devices), "--parts", parts, "--set", *SMALL]
    command = [sys.executable, "-m", "experiments.ahead_of_time", config, *options]
    environment = os.environ | {"XLA_FLAGS": "", "JAX_DISABLE_MOST_OPTIMIZATIONS": "0"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, (done.stdout, done.stderr[-2000:])
    assert [line["part"] for line in lines] == parts.split(",")
    assert np.all([line["peak_mb"] > 0 and line["mb"] > 0 for line in lines if line["kernels"]])
    assert lines[0]["gflop"] > 0
    assert (lines[0]["collectives"] != {}) == (devices > 1)
