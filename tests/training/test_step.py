import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import AS_USERS, ROOT
from helpers import building

from configs import technogan as technogan_config
from configs import wavegan as wavegan_config
from configs import wavegan_44k
from technogen_jax import models
from technogen_jax.models import GAN
from technogen_jax.training import losses
from technogen_jax.training.optimizers import make_optimizer
from technogen_jax.training.state import Pair, init_state
from technogen_jax.training.step import StepOptions, make_train_step, run_several

KEY = jax.random.key(7)


def pcm(n_critic, batch, samples=256, channels=1):
    """[n_critic, B, T, C] int16, noise."""
    rng = np.random.default_rng(n_critic + batch)
    return rng.integers(-20_000, 20_000, size=(n_critic, batch, samples, channels), dtype=np.int16)


def tree_close(actual, wanted, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), actual, wanted)


def tree_equal(actual, wanted):
    jax.tree.map(np.testing.assert_array_equal, actual, wanted)


def wgan(**options):
    return StepOptions(adversarial=losses.ADVERSARIAL["wgan"], **options)


def scalar_gan():
    """Generator z -> g z, discriminator x -> d . x on clips of two samples: steps that fit on paper, compiled fast."""
    return GAN(
        sample_latents=lambda key, n: jax.random.uniform(key, (n, 2), minval=-1.0, maxval=1.0),
        init_g=lambda key: {"g": jnp.array([0.5, -0.3])},
        init_d=lambda key: {"d": jnp.array([0.2, 0.1])},
        generate=lambda p, z: (p["g"] * z)[:, :, None],
        discriminate=lambda p, x, key: (x[:, :, 0] @ p["d"][:, None],),
        encode=lambda audio: audio,
        decode=lambda x: x,
        calibrate=lambda p, key: p,
    )


@pytest.fixture(scope="module")
def wgan_gp():
    """A small WaveGAN with its compiled WGAN-GP step."""
    gan = building.build("wavegan", clip_samples=256, audio_channels=1, latent_size=8, channels=2)
    optimizers = Pair(make_optimizer("adam", 1e-3, 0.5, 0.9), make_optimizer("adam", 2e-3, 0.5, 0.9))
    step = make_train_step(gan, optimizers, wgan(gp_weight=10.0, ema_decay=0.9))
    return gan, jax.jit(lambda key: init_state(gan, optimizers, key))(KEY), jax.jit(step)


def test_step_of_wgan_gp_equals_the_written_out_computation(wgan_gp):
    """Three critic updates one after the other and one of the generator, with Adam by hand, no scan, no sharing."""
    gan, state, step = wgan_gp
    reals = pcm(3, 4)
    d_key, g_key = jax.random.split(jax.random.fold_in(KEY, 0))
    d_keys = jax.random.split(d_key, 3)

    @jax.jit
    def d_gradient(d, g, real, key):
        z_key, real_key, fake_key, gp_key, mix_key = jax.random.split(key, 5)
        fake = gan.generate(g, gan.sample_latents(z_key, 4))
        mix = jax.random.uniform(mix_key, (4, 1, 1))

        def loss(d):
            slope = jax.grad(lambda x: gan.discriminate(d, x, gp_key)[0].sum())((1 - mix) * real + mix * fake)
            penalty = jnp.mean((jnp.linalg.norm(slope.reshape(4, -1), axis=1) - 1) ** 2)
            distance = gan.discriminate(d, real, real_key)[0].mean() - gan.discriminate(d, fake, fake_key)[0].mean()
            return 10 * penalty - distance, penalty

        return jax.value_and_grad(loss, has_aux=True)(d)

    @jax.jit
    def g_gradient(g, d, key):
        z_key, _, fake_key = jax.random.split(key, 3)
        return jax.value_and_grad(
            lambda g: -gan.discriminate(d, gan.generate(g, gan.sample_latents(z_key, 4)), fake_key)[0].mean()
        )(g)

    def adam(params, gradients, moments, rate, t):
        first = jax.tree.map(lambda m, g: 0.5 * m + 0.5 * g, moments[0], gradients)
        second = jax.tree.map(lambda v, g: 0.9 * v + 0.1 * g**2, moments[1], gradients)
        params = jax.tree.map(
            lambda p, m, v: p - rate * (m / (1 - 0.5**t)) / (np.sqrt(v / (1 - 0.9**t)) + 1e-8), params, first, second
        )
        return params, (first, second)

    g, d = jax.tree.map(np.asarray, tuple(state.params))
    zeros = jax.tree.map(np.zeros_like, d)
    moments = zeros, zeros
    for i in range(3):
        (d_loss, penalty), gradients = d_gradient(d, g, reals[i] / np.float32(32768), d_keys[i])
        d, moments = adam(d, gradients, moments, 2e-3, i + 1)
    g_loss, gradients = g_gradient(g, d, g_key)
    zeros = jax.tree.map(np.zeros_like, g)
    new_g, _ = adam(g, gradients, (zeros, zeros), 1e-3, 1)

    after, metrics = step(state, reals, KEY)
    # A gradient near zero gives Adam any step up to the rate, so the tolerance is a hundredth of the rate.
    tree_close(after.params.d, d, atol=2e-5)
    tree_close(after.params.g, new_g, atol=1e-5)
    tree_close(after.ema, jax.tree.map(lambda old, new: 0.1 * old + 0.9 * new, g, new_g), atol=1e-5)  # decay 1 / 10
    assert after.step == 1
    assert set(metrics) == {"d/adversarial", "d/gp", "d/gradient_norm", "g/adversarial", "g/gradient_norm"}
    np.testing.assert_allclose(metrics["d/adversarial"] + metrics["d/gp"], d_loss, rtol=1e-3)
    np.testing.assert_allclose(metrics["d/gp"], 10 * penalty, rtol=1e-3)
    np.testing.assert_allclose(metrics["g/adversarial"], g_loss, rtol=1e-3)
    norm = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(gradients)))
    np.testing.assert_allclose(metrics["g/gradient_norm"], norm, rtol=1e-3)


def test_step_from_saved_arrays_is_exact(wgan_gp):
    _, start, step = wgan_gp
    batches = [pcm(3, 4) // (i + 1) for i in range(3)]
    state = start
    for batch in batches:
        state, _ = step(state, batch, KEY)
    resumed, _ = step(start, batches[0], KEY)
    resumed = jax.tree.map(jnp.asarray, jax.tree.map(np.asarray, resumed))
    for batch in batches[1:]:
        resumed, _ = step(resumed, batch, KEY)
    tree_equal(resumed, state)


def test_step_draws_new_latents_from_key_and_step(wgan_gp):
    _, start, step = wgan_gp
    later = start._replace(step=start.step + 1)
    outcomes = [
        step(state, pcm(3, 4), key)[0].params.g
        for state, key in ((start, KEY), (later, KEY), (start, jax.random.key(8)))
    ]
    kernels = [np.asarray(g["upconv_0"]["kernel"]) for g in outcomes]
    assert not np.array_equal(kernels[0], kernels[1]) and not np.array_equal(kernels[0], kernels[2])


def test_generator_average_follows_its_decay():
    gan = scalar_gan()
    optimizers = Pair(optax.sgd(0.1), optax.sgd(0.1))
    step = jax.jit(make_train_step(gan, optimizers, wgan(ema_decay=0.5)))
    state = init_state(gan, optimizers, KEY)
    average = np.asarray(state.params.g["g"])
    for t in range(12):
        state, _ = step(state, pcm(1, 8, samples=2), KEY)
        decay = min(0.5, (1 + t) / (10 + t))  # reaches one half at t = 8
        average = decay * average + (1 - decay) * np.asarray(state.params.g["g"])
        np.testing.assert_allclose(state.ema["g"], average, rtol=1e-5)
    assert np.abs(state.ema["g"] - state.params.g["g"]).max() > 1e-4


def test_state_can_be_donated():
    gan = scalar_gan()
    optimizers = Pair(optax.sgd(0.1), optax.sgd(0.1))
    state = init_state(gan, optimizers, KEY)
    assert state.ema["g"] is not state.params.g["g"]
    step = jax.jit(make_train_step(gan, optimizers, wgan()), donate_argnums=0)
    for _ in range(2):
        state, _ = step(state, pcm(1, 8, samples=2), KEY)
    assert state.step == 2


def test_step_of_a_linear_discriminator_equals_the_formulas():
    gan = scalar_gan()
    optimizers = Pair(optax.sgd(0.0), optax.sgd(0.1))
    weights = dict(gp_weight=10.0, r1_weight=3.0, r2_weight=5.0)
    step = jax.jit(make_train_step(gan, optimizers, wgan(**weights)))
    state, metrics = step(init_state(gan, optimizers, KEY), pcm(1, 8, samples=2), KEY)
    squared = 0.2**2 + 0.1**2
    np.testing.assert_allclose(metrics["d/gp"], 10 * (squared**0.5 - 1) ** 2, rtol=1e-5)
    np.testing.assert_allclose(metrics["d/r1"], 3 * squared / 2, rtol=1e-5)
    np.testing.assert_allclose(metrics["d/r2"], 5 * squared / 2, rtol=1e-5)
    # The gradient: that of the distance, with the fakes drawn as the step draws them, and of the three penalties.
    d_key, _ = jax.random.split(jax.random.fold_in(KEY, 0))
    z_key = jax.random.split(jax.random.split(d_key, 1)[0], 5)[0]
    fake = np.array([0.5, -0.3]) * np.asarray(gan.sample_latents(z_key, 8))
    real = pcm(1, 8, samples=2)[0, :, :, 0] / 32768
    d = np.array([0.2, 0.1])
    gradient = fake.mean(0) - real.mean(0) + (3 + 5) * d + 2 * 10 * (squared**0.5 - 1) * d / squared**0.5
    np.testing.assert_allclose(state.params.d["d"], d - 0.1 * gradient, rtol=1e-4)
    np.testing.assert_allclose(metrics["d/gradient_norm"], np.linalg.norm(gradient), rtol=1e-4)


def test_weight_clip_limits_only_the_discriminator():
    gan = scalar_gan()
    optimizers = Pair(optax.sgd(0.1), optax.sgd(0.1))
    step = jax.jit(make_train_step(gan, optimizers, wgan(weight_clip=0.01)))
    state, _ = step(init_state(gan, optimizers, KEY), pcm(1, 8, samples=2), KEY)
    np.testing.assert_allclose(np.abs(state.params.d["d"]), 0.01)
    assert np.abs(state.params.g["g"]).max() > 0.01


def test_step_with_reused_fakes_and_penalty_share_equals_the_formulas():
    """A generator of one factor and a critic with a slope that depends on x, by hand: which fakes, which critic, which rows."""
    gan = scalar_gan()._replace(discriminate=lambda p, x, key: ((x[:, :, 0] ** 2) @ p["d"][:, None],))
    optimizers = Pair(optax.sgd(0.1), optax.sgd(0.1))
    options = dict(r1_weight=3.0, r2_weight=5.0, penalty_share=0.25, reuse_fakes=True)
    step = jax.jit(make_train_step(gan, optimizers, wgan(**options)))
    state, metrics = step(init_state(gan, optimizers, KEY), pcm(1, 8, samples=2), KEY)

    z_key = jax.random.split(jax.random.split(jax.random.fold_in(KEY, 0))[1], 3)[0]
    z, g, d = np.asarray(gan.sample_latents(z_key, 8), np.float64), np.array([0.5, -0.3]), np.array([0.2, 0.1])
    fake, real = g * z, pcm(1, 8, samples=2)[0, :, :, 0] / 32768
    slopes = [np.mean((2 * x[:2]) ** 2, 0) for x in (real, fake)]  # of the first two rows, over d squared
    np.testing.assert_allclose(metrics["d/r1"], 3 / 2 * slopes[0] @ d**2, rtol=1e-5)
    np.testing.assert_allclose(metrics["d/r2"], 5 / 2 * slopes[1] @ d**2, rtol=1e-5)
    new_d = d - 0.1 * ((fake**2).mean(0) - (real**2).mean(0) + 3 * slopes[0] * d + 5 * slopes[1] * d)
    np.testing.assert_allclose(state.params.d["d"], new_d, rtol=1e-5)
    np.testing.assert_allclose(metrics["g/adversarial"], -np.mean(fake**2 @ new_d), rtol=1e-4)
    np.testing.assert_allclose(state.params.g["g"], g + 0.1 * np.mean(2 * fake * z, 0) * new_d, rtol=1e-5)


def built(config):
    """(gan, optimizers, step, weights of the loss), as a config says."""
    gan, optimizer, weights = models.build(config), config.optimizer, dict(config.loss)
    rates = optimizer.learning_rate_g, optimizer.learning_rate_d
    optimizers = Pair(*(make_optimizer(optimizer.name, rate, optimizer.b1, optimizer.b2) for rate in rates))
    step = make_train_step(gan, optimizers, StepOptions.from_config(config))
    return gan, optimizers, step, weights


def a_wavegan():
    config = wavegan_config.get_config("wgan-gp")
    config.update(dict(audio=dict(clip_samples=256), model=dict(channels=2, latent_size=8)))
    return config, np.stack([pcm(2, 4) // (i + 1) for i in range(4)])


def a_technogan_on_codes():
    config = technogan_config.get_config("xs").unlock()
    config.audio.update(sample_rate_hz=8000, channels=2, clip_samples=14336)
    config.model.update(bars=1, channels=4, blocks=1, critic_channels=4, critic_blocks=1, latent_size=4)
    config.model.update(n_mels=16, frames_per_step=4, classes=("acid", "dub"))
    config.model.update(mid_components=3, side_components=1, low_components=2, pan_components=1, shaper="none")
    config.model.remix = 0.0  # for which the codes would have to be of a set
    config.loss.r1_weight = config.loss.r2_weight = 0.0  # second derivatives, as in the WaveGAN, take long to compile
    codes = np.random.default_rng(0).normal(size=(4, 1, 4, 16, 7)).astype(np.float32)
    labels = np.broadcast_to(np.float32([0, 1]), (4, 1, 4, 16, 2))
    return config, np.concatenate([codes, labels], -1)


@pytest.mark.parametrize("example", [a_wavegan, a_technogan_on_codes])
def test_run_several_gives_the_same_bits_as_single_steps(example):
    config, clips = example()
    gan, optimizers, step, _ = built(config)
    start = state = jax.jit(lambda key: init_state(gan, optimizers, key))(KEY)
    steps, rows = jax.jit(run_several(step), compiler_options=AS_USERS), []
    for batch in clips:
        state, metrics = steps(state, batch[None], KEY)
        rows.append(metrics)
    several, metrics = steps(start, clips, KEY)
    tree_equal(several, state)
    tree_equal(metrics, jax.tree.map(lambda *values: np.concatenate(values), *rows))
    assert int(several.step) == 4 and len(set(metrics["d/adversarial"].tolist())) == 4


@pytest.mark.parametrize("loss", wavegan_config.LOSSES)
def test_step_with_every_loss_changes_all_parameters(loss):
    config = wavegan_config.get_config(loss)
    config.update(dict(audio=dict(clip_samples=256), model=dict(channels=2, latent_size=8)))
    gan, optimizers, step, weights = built(config)
    state = start = jax.jit(lambda key: init_state(gan, optimizers, key))(KEY)
    step = jax.jit(step)
    for _ in range(2):
        state, metrics = step(state, pcm(config.train.n_critic, 4), KEY)
    penalties = {f"d/{name}" for name in ("gp", "r1", "r2") if weights[f"{name}_weight"]}
    norms = {"d/gradient_norm", "g/gradient_norm"}
    assert set(metrics) == {"d/adversarial", "g/adversarial"} | penalties | norms
    assert all(np.isfinite(value) for value in metrics.values())
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
    for before, after in zip(start.params, state.params, strict=True):
        same = jax.tree.map(lambda a, b: bool((a == b).all()), before, after)
        assert not all(jax.tree.leaves(same)), same


@pytest.mark.parametrize(
    ("sound", "generator", "discriminator"),
    # Layer by layer: 100 * 22 * 1024 + 22 * 1024, then 25 * in * out + out; the last has one output channel or two.
    [("mono", 19_748_737, 17_496_961), ("stereo", 19_749_138, 17_497_361)],
)
def test_step_of_wavegan_44k_has_the_expected_shapes(sound, generator, discriminator):
    config = wavegan_44k.get_config(sound)
    gan, optimizers, step, _ = built(config)
    state = jax.eval_shape(lambda key: init_state(gan, optimizers, key), KEY)
    shape = config.train.n_critic, config.train.batch_size, config.audio.clip_samples, config.audio.channels
    after, metrics = jax.eval_shape(step, state, jax.ShapeDtypeStruct(shape, jnp.int16), KEY)
    assert jax.tree.map(lambda a: (a.shape, a.dtype), after) == jax.tree.map(lambda a: (a.shape, a.dtype), state)
    assert [models.count_parameters(params) for params in state.params] == [generator, discriminator]
    assert metrics["d/r1"].shape == ()


@pytest.mark.parametrize("config", [wavegan_config, wavegan_44k])
def test_unknown_config_variant_is_an_error(config):
    with pytest.raises(ValueError, match="nonsense: expected .* after the colon"):
        config.get_config("nonsense")


def test_step_with_batch_norm_keeps_no_statistics():
    gan = building.build("wavegan", clip_samples=256, audio_channels=2, latent_size=8, channels=2, batch_norm=True)
    optimizers = Pair(optax.sgd(0.01), optax.sgd(0.01))
    step = jax.jit(make_train_step(gan, optimizers, wgan(gp_weight=10.0)))
    start = jax.jit(lambda key: init_state(gan, optimizers, key))(KEY)
    state, metrics = step(start, pcm(1, 4, channels=2), KEY)
    assert all(np.isfinite(value) for value in metrics.values())
    assert jax.tree.structure(state) == jax.tree.structure(start)
    assert not np.array_equal(state.params.g["norm_z"]["scale"], start.params.g["norm_z"]["scale"])
    assert not np.array_equal(state.params.d["norm_1"]["scale"], start.params.d["norm_1"]["scale"])


FOUR_DEVICES = """
import json, sys
import jax, numpy as np, optax
jax.config.update("jax_num_cpu_devices", 4)
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from technogen_jax.training import losses
from technogen_jax.common.run_config import AudioConfig
from technogen_jax.models import wavegan
from technogen_jax.training.state import Pair, init_state
from technogen_jax.training.step import StepOptions, make_train_step

config = wavegan.WaveGANConfig(latent_size=8, channels=2, batch_norm=True)
gan = wavegan.build(config, AudioConfig(clip_samples=256))
options = StepOptions(adversarial=losses.ADVERSARIAL["wgan"], gp_weight=10.0)
optimizers = Pair(optax.sgd(0.01), optax.sgd(0.01))  # Adam would blow up the rounding of small gradients
key = jax.random.key(0)
state = jax.jit(lambda key: init_state(gan, optimizers, key))(key)
pcm = np.random.default_rng(0).integers(-20_000, 20_000, size=(2, 8, 256, 1), dtype=np.int16)

def trained(devices):
    mesh = jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices])
    everywhere, by_row = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec(None, "data"))
    step = make_train_step(gan, optimizers, options, NamedSharding(mesh, PartitionSpec("data")))
    compiled = jax.jit(step, in_shardings=(everywhere, by_row, everywhere), out_shardings=everywhere)
    compiled = compiled.lower(state, pcm, key).compile()
    moved = jax.device_put((state, pcm, key), (everywhere, by_row, everywhere))
    new, metrics = compiled(*moved)
    change = jax.tree.map(lambda a, b: np.asarray(a) - np.asarray(b), new.params, state.params)
    return compiled.cost_analysis()["flops"], change, jax.tree.map(float, metrics)

(flops_1, change_1, metrics_1), (flops_4, change_4, metrics_4) = trained(1), trained(4)
largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(change_1))
apart = max(np.abs(a - b).max() for a, b in zip(jax.tree.leaves(change_1), jax.tree.leaves(change_4)))
print(json.dumps(dict(devices=jax.device_count(), largest=float(largest), apart=float(apart),
                      share=flops_4 / flops_1, metrics=[metrics_1, metrics_4])))
"""


def test_four_devices_equal_one_with_a_quarter_of_the_work_each():
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    run = subprocess.run(
        [sys.executable, "-c", FOUR_DEVICES], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    assert found["devices"] == 4
    assert found["apart"] < 1e-5 * found["largest"]
    for name, value in found["metrics"][0].items():
        np.testing.assert_allclose(found["metrics"][1][name], value, rtol=1e-4)
    assert found["share"] < 0.3  # also of the fakes, which no data brings with it
