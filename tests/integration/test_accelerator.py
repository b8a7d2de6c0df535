"""On a GPU or TPU: the same results as on the CPU, up to rounding. Skipped where there is none."""

import jax
import numpy as np
import pytest

from experiments.ahead_of_time import programs
from experiments.bench import steps
from technogen_jax.runs import bundle
from technogen_jax.training.loop import build_training
from technogen_jax.training.step import run_several

pytestmark = [
    pytest.mark.accelerator,
    pytest.mark.skipif(jax.default_backend() == "cpu", reason="needs a GPU or TPU"),
]
SMALL = ["train.batch_size=4", "train.steps_per_dispatch=1", "train.n_critic=1"]


def on_cpu(function):
    """Computes a function of arrays on the CPU."""
    with jax.default_device(jax.devices("cpu")[0]):
        return jax.tree.map(np.asarray, function())


def relative(found, expected):
    return np.linalg.norm(np.asarray(found) - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize("name", ["wavegan", "specgan", "technogan:xs"])
def test_a_step_is_the_same_and_can_be_repeated(name):
    config = steps.load(name)
    programs.change_fields(config, SMALL)
    training = build_training(config, None, steps.statistics(config))
    shape = steps.build(config).clips
    clips = (1000 * np.random.default_rng(0).normal(size=shape.shape)).astype(shape.dtype)
    if training.gan.encode_once:
        clips = clips / 1000

    def run():
        key = jax.random.key(0)
        state = jax.jit(training.init)(key)
        return jax.jit(lambda *given: run_several(training.train_step)(*given))(state, clips, key)

    with jax.default_matmul_precision("highest"):
        (state, metrics), (_, again), (_, expected) = run(), run(), on_cpu(run)
    for key, value in metrics.items():
        np.testing.assert_allclose(value, again[key], rtol=1e-4)
        np.testing.assert_allclose(value, expected[key], rtol=2e-3, atol=1e-4)
    assert int(state.step) == 1


def test_the_shipped_model_sounds_the_same():
    gan, params, *_ = bundle.read("technogen_jax/pretrained/technogan.npz", "latest")

    def render():
        code = jax.jit(lambda z: gan.generate(params, z))(gan.sample_latents(jax.random.key(0), 2))
        return code, jax.jit(lambda *given: gan.decode(*given))(code, np.asarray(gan.decode_noise(code)))

    (code, sound), (expected_code, _) = render(), on_cpu(render)
    assert relative(code, expected_code) < 0.05  # networks may use fast products
    # Decoding may not: the same code and noise are the same sound.
    noise = np.asarray(gan.decode_noise(code))
    assert relative(sound, on_cpu(lambda: jax.jit(gan.decode)(np.asarray(code), noise))) < 1e-2
