import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import building
from jax import lax

from technogen_jax.models import count_parameters, wavegan
from technogen_jax.training import losses
from technogen_jax.training.optimizers import make_optimizer
from technogen_jax.training.state import Pair, init_state
from technogen_jax.training.step import StepOptions, make_train_step, run_several

KEY = jax.random.key(0)
EIGHT_SECONDS_SAMPLES = 8 * 44100


def random_parameters(init):
    """Random parameters of a network: none is 0 or 1, so that a test notices a parameter without effect."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(init, KEY)
    return jax.tree.map(lambda a: np.float32(rng.normal(size=a.shape) / np.prod(a.shape[:-1]) ** 0.5), shapes)


def sizes(**options):
    gan = building.build("wavegan", **options)
    return tuple(count_parameters(jax.eval_shape(init, KEY)) for init in (gan.init_g, gan.init_d))


# Table "parameter totals" computed from the layer shapes of the paper's tables 3 and 4.
@pytest.mark.parametrize(
    ("clip_samples", "channels", "audio_channels", "generator", "discriminator"),
    [
        (16384, 64, 1, 19_065_345, 17_427_969),
        (16384, 64, 2, 19_066_946, 17_429_569),
        (16384, 32, 1, 5_180_673, 4_361_985),
        (32768, 64, 1, 73_149_953, 69_875_201),
        (32768, 64, 2, 73_151_554, 69_876_801),
        (32768, 32, 1, 19_115_777, 17_478_401),
        (65536, 64, 1, 73_149_953, 69_875_201),
        (65536, 64, 2, 73_151_554, 69_876_801),
        (65536, 32, 1, 19_115_777, 17_478_401),
    ],
)
def test_parameter_counts_equal_those_of_the_paper(clip_samples, channels, audio_channels, generator, discriminator):
    paper = dict(clip_samples=clip_samples, channels=channels, audio_channels=audio_channels)
    assert sizes(**paper) == (generator, discriminator)
    assert sizes(**paper, upsample="nearest") == (generator, discriminator)


@pytest.mark.parametrize(("clip_samples", "more_g", "more_d"), [(16384, 3968, 3840), (65536, 8064, 7936)])
def test_batch_norm_and_post_filter_add_as_many_parameters_as_in_the_paper(clip_samples, more_g, more_d):
    paper = dict(clip_samples=clip_samples, audio_channels=1)
    g, d = sizes(**paper)
    assert sizes(**paper, batch_norm=True) == (g + more_g, d + more_d)
    assert sizes(**paper, post_filter=True) == (g + 512, d)


def multiply_adds(clip_samples, channels, max_channels):
    """The multiply-adds of the generator's convolutions, for one mono clip."""
    length, strides = wavegan.geometry(clip_samples)
    widths = [*wavegan.widths(len(strides), channels, max_channels), 1]
    total = 0
    for stride, c_in, c_out in zip(strides, widths, widths[1:], strict=False):
        total += length * 25 * c_in * c_out
        length *= stride
    return total


# Parameters in millions and multiply-adds in billions, computed from layer shapes for 22 * 4^7 samples.
@pytest.mark.parametrize(
    ("channels", "max_channels", "millions", "billions"),
    [(64, None, 289, 28), (32, None, 74, 7.0), (32, 512, 18.6, 5.4), (16, None, 19.7, 1.8)],
)
def test_parameters_and_multiply_adds_for_eight_seconds(channels, max_channels, millions, billions):
    assert wavegan.geometry(EIGHT_SECONDS_SAMPLES) == (22, (4,) * 7)
    size = dict(channels=channels, max_channels=max_channels)
    g, _ = sizes(clip_samples=EIGHT_SECONDS_SAMPLES, audio_channels=1, **size)
    assert g / 1e6 == pytest.approx(millions, rel=0.01)
    assert multiply_adds(EIGHT_SECONDS_SAMPLES, **size) / 1e9 == pytest.approx(billions, rel=0.02)


def test_multiply_adds_for_the_lengths_of_the_paper():
    assert multiply_adds(16384, 64, None) / 1e9 == pytest.approx(0.85, rel=0.02)
    assert multiply_adds(65536, 64, None) / 1e9 == pytest.approx(4.22, rel=0.02)


@pytest.mark.parametrize("clip_samples", [256, 1000, 16383, 16385, 28672, 44100, 100_000, 2 * 44100])
def test_geometry_covers_any_length_and_little_is_cropped(clip_samples):
    length, strides = wavegan.geometry(clip_samples)
    made = length * math.prod(strides)
    assert length >= 16 and set(strides) == {4}
    assert clip_samples <= made < clip_samples * (1 + 1 / 15)


@pytest.mark.parametrize("audio_channels", [1, 2])
@pytest.mark.parametrize("clip_samples", [256, 1000, 16384, 32768, 65536, EIGHT_SECONDS_SAMPLES])
def test_audio_and_logits_have_the_expected_shapes(clip_samples, audio_channels):
    gan = building.build(
        "wavegan", clip_samples=clip_samples, audio_channels=audio_channels, channels=8, max_channels=64
    )

    def play(key):
        audio = gan.generate(gan.init_g(key), gan.sample_latents(key, 2))
        return audio, gan.discriminate(gan.init_d(key), audio, key)

    audio, logits = jax.eval_shape(play, KEY)
    assert audio.shape == (2, clip_samples, audio_channels)
    assert [k.shape for k in logits] == [(2, 1)]


def test_eight_seconds_of_44100_hz_stereo_are_generated_and_classified():
    gan = building.build(
        "wavegan", clip_samples=EIGHT_SECONDS_SAMPLES, audio_channels=2, channels=2, max_channels=4, compiled=False
    )
    g, d = random_parameters(gan.init_g), random_parameters(gan.init_d)
    audio = jax.jit(gan.generate)(g, gan.sample_latents(KEY, 2))
    assert 0.01 < np.abs(audio).max() <= 1
    assert not np.array_equal(audio[..., 0], audio[..., 1])
    (logits,) = jax.jit(gan.discriminate)(d, audio, KEY)
    assert np.isfinite(logits).all() and logits[0] != logits[1]
    assert gan.decode(gan.encode(audio)) is audio


def test_latents_are_uniform_between_minus_one_and_one():
    z = np.asarray(building.build("wavegan", clip_samples=256, audio_channels=1).sample_latents(KEY, 1000))
    assert z.shape == (1000, 100)
    assert -1 <= z.min() < -0.999 and 0.999 < z.max() < 1
    np.testing.assert_allclose([z.mean(), z.var()], [0, 1 / 3], atol=0.01)


def plain_conv(x, kernel, bias, stride):
    y = lax.conv_general_dilated(x, kernel, (stride,), "SAME", dimension_numbers=("NWC", "WIO", "NWC"))
    return y + bias


def plain_upconv(x, kernel, bias, stride):
    numbers = ("NWC", "WIO", "NWC")
    y = lax.conv_transpose(
        x, kernel.swapaxes(1, 2), (stride,), "SAME", dimension_numbers=numbers, transpose_kernel=True
    )
    return y + bias


def normalised(x, scale, bias):
    return (x - x.mean((0, 1))) / jnp.sqrt(x.var((0, 1)) + 1e-3) * scale + bias


@pytest.mark.parametrize(("clip_samples", "batch_norm"), [(16384, False), (16384, True), (32768, False)])
def test_networks_equal_those_of_the_paper_layer_by_layer(clip_samples, batch_norm):
    gan = building.build(
        "wavegan", clip_samples=clip_samples, audio_channels=1, channels=2, batch_norm=batch_norm, phase_shuffle=0
    )
    strides = [4, 4, 4, 4, 4] + [2] * (clip_samples == 32768)
    last = len(strides) - 1

    def generate(g, z):
        x = (z @ g["z_project"]["kernel"] + g["z_project"]["bias"]).reshape(3, 16, 2 ** len(strides))
        x = jax.nn.relu(normalised(x, **g["norm_z"]) if batch_norm else x)
        for i, stride in enumerate(strides[:-1]):
            x = plain_upconv(x, **g[f"upconv_{i}"], stride=stride)
            x = jax.nn.relu(normalised(x, **g[f"norm_{i}"]) if batch_norm else x)
        return jnp.tanh(plain_upconv(x, **g[f"upconv_{last}"], stride=strides[-1]))

    def discriminate(d, x):
        for i, stride in enumerate(strides):
            x = plain_conv(x, **d[f"downconv_{i}"], stride=stride)
            if batch_norm and i > 0:
                x = normalised(x, **d[f"norm_{i}"])
            x = jax.nn.leaky_relu(x, 0.2)
        assert x.shape == (3, 16, 2 ** len(strides))
        return x.reshape(3, -1) @ d["output"]["kernel"] + d["output"]["bias"]

    g, d = random_parameters(gan.init_g), random_parameters(gan.init_d)
    z = gan.sample_latents(KEY, 3)
    audio = jax.jit(generate)(g, z)
    np.testing.assert_allclose(jax.jit(gan.generate)(g, z), audio, atol=1e-5)
    (logits,) = jax.jit(gan.discriminate)(d, audio, KEY)
    np.testing.assert_allclose(logits, jax.jit(discriminate)(d, audio), atol=1e-4)


@pytest.mark.parametrize("upsample", wavegan.UPSAMPLE)
def test_polyphase_and_plain_convolutions_have_the_same_outputs_and_gradients(upsample):
    def outputs(form):
        gan = building.build("wavegan", clip_samples=1000, audio_channels=2, channels=2, upsample=upsample, form=form)
        g, d, z = random_parameters(gan.init_g), random_parameters(gan.init_d), gan.sample_latents(KEY, 2)

        def loss(g, d):
            return jnp.sum(gan.discriminate(d, gan.generate(g, z), KEY)[0])

        return jax.jit(jax.value_and_grad(loss, (0, 1)))(g, d)

    fast, plain = outputs("polyphase"), outputs("plain")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(b).max()), fast, plain)


def losses_and_gradients(audio, **options):
    """Returns (a loss with a penalty, generated clips, gradients of both networks, MB of temporary memory)."""
    gan = building.build("wavegan", clip_samples=audio.shape[1], audio_channels=1, channels=4, **options)
    z = gan.sample_latents(KEY, len(audio))

    def loss(g, d):
        def score(x):
            return gan.discriminate(d, x, KEY)

        fake = gan.generate(g, z)
        return losses.zero_centered_penalty(score, audio) + jnp.mean(score(fake)[0]), fake

    networks = random_parameters(gan.init_g), random_parameters(gan.init_d)
    program = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True)).lower(*networks).compile()
    (value, fake), gradients = program(*networks)
    return value, fake, gradients, program.memory_analysis().temp_size_in_bytes / 1e6


def apart(a, b):
    return np.linalg.norm(np.asarray(a) - b) / np.linalg.norm(b)


def test_remat_gives_the_same_results_in_less_memory_and_bfloat16_is_close_to_float32():
    audio = np.float32(np.random.default_rng(1).normal(0, 0.3, (16, 1024, 1)))
    value, fake, gradients, program_mb = losses_and_gradients(audio)
    *parts, parts_mb = losses_and_gradients(audio, remat=2)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(b).max()), parts, [value, fake, gradients]
    )
    assert parts_mb < 0.6 * program_mb
    low_value, low_fake, low_gradients, _ = losses_and_gradients(audio, dtype="bfloat16")
    assert {leaf.dtype.name for leaf in jax.tree.leaves((low_value, low_fake, low_gradients))} == {"float32"}
    # Eight bits of mantissa, in layers after one another; more than float32's rounding shows that they are used.
    assert 1e-4 < apart(low_fake, fake) < 0.01 and apart(low_value, value) < 0.01
    assert max(jax.tree.leaves(jax.tree.map(apart, low_gradients, gradients))) < 0.1


def test_training_in_bfloat16_learns_as_well_as_in_float32():
    time = np.arange(256)[:, None]
    phase = np.random.default_rng(0).uniform(0, 2 * np.pi, (200, 1, 8, 1, 1))
    clips = np.int16(16000 * np.sin(0.2 * time + phase) * np.exp(-time / 100))
    optimizers = Pair(*[make_optimizer("adam", 1e-3, 0.0, 0.99)] * 2)
    real = np.abs(np.fft.rfft(clips[..., 0] / 32768)).mean((0, 1, 2))

    def learn(dtype):
        gan = building.build("wavegan", clip_samples=256, audio_channels=1, channels=8, latent_size=8, dtype=dtype)
        options = StepOptions(adversarial=losses.ADVERSARIAL["relativistic"], r1_weight=1.0, r2_weight=1.0)
        train_step = make_train_step(gan, optimizers, options)
        state = init_state(gan, optimizers, KEY)
        learnt, metrics = jax.jit(run_several(train_step))(state, clips, KEY)
        assert {leaf.dtype.name for leaf in jax.tree.leaves(learnt)} == {"float32", "int32"}
        sounds = (gan.generate(g, gan.sample_latents(KEY, 64)) for g in (state.ema, learnt.ema))
        before, after = (apart(np.abs(np.fft.rfft(sound[..., 0])).mean(0), real) for sound in sounds)
        return before, after, {name: np.asarray(values).reshape(5, -1).mean(1) for name, values in metrics.items()}

    before, after, wanted = learn("float32")
    _, after_bfloat16, found = learn("bfloat16")
    for name in ("d/adversarial", "g/adversarial"):  # means of forty steps
        np.testing.assert_allclose(found[name], wanted[name], atol=0.05)
    assert after < 0.6 * before and after_bfloat16 < after + 0.05


def test_nearest_upsampling_repeats_samples_before_the_convolution():
    gan = building.build("wavegan", clip_samples=256, audio_channels=1, channels=1, upsample="nearest")
    g, z = random_parameters(gan.init_g), gan.sample_latents(KEY, 2)
    x = jax.nn.relu((z @ g["z_project"]["kernel"] + g["z_project"]["bias"]).reshape(2, 16, 2))
    x = jax.nn.relu(plain_conv(jnp.repeat(x, 4, 1), **g["upconv_0"], stride=1))
    x = jnp.tanh(plain_conv(jnp.repeat(x, 4, 1), **g["upconv_1"], stride=1))
    np.testing.assert_allclose(gan.generate(g, z), x, atol=1e-5)


def test_post_filter_is_a_convolution_after_the_tanh():
    gan = building.build("wavegan", clip_samples=600, audio_channels=2, channels=1, post_filter=True)
    g, z = random_parameters(gan.init_g), gan.sample_latents(KEY, 2)
    bare = building.build("wavegan", clip_samples=600, audio_channels=2, channels=1)
    before = bare.generate({k: v for k, v in g.items() if k != "post_filter"}, z)
    wanted = plain_conv(before, g["post_filter"]["kernel"], 0, 1)
    np.testing.assert_allclose(gan.generate(g, z), wanted, atol=1e-5)


def test_clips_of_other_lengths_are_cropped_by_the_generator_and_padded_by_the_discriminator():
    short = building.build("wavegan", clip_samples=1000, audio_channels=1, channels=1, phase_shuffle=0)
    whole = building.build("wavegan", clip_samples=1008, audio_channels=1, channels=1, phase_shuffle=0)  # 63 * 4 * 4
    g, d = random_parameters(whole.init_g), random_parameters(whole.init_d)
    z = whole.sample_latents(KEY, 2)
    audio = short.generate(g, z)
    np.testing.assert_array_equal(audio, whole.generate(g, z)[:, 4:-4])
    padded = jnp.pad(audio, ((0, 0), (4, 4), (0, 0)))
    np.testing.assert_allclose(short.discriminate(d, audio, KEY)[0], whole.discriminate(d, padded, KEY)[0], atol=1e-6)


@pytest.mark.parametrize(("clip_samples", "shuffled"), [(256, 1), (16384, 4), (65536, 4)])
def test_phase_shuffle_follows_the_first_four_layers_with_a_draw_for_each(clip_samples, shuffled, monkeypatch):
    calls = []

    def record(x, key, radius):
        calls.append((x.shape[1], int(jax.random.randint(key, (), 0, 2**30)), radius))
        return x

    monkeypatch.setattr(wavegan, "phase_shuffle", record)
    gan = building.build(
        "wavegan", clip_samples=clip_samples, audio_channels=1, channels=1, phase_shuffle=3, compiled=False
    )
    gan.discriminate(random_parameters(gan.init_d), jnp.zeros((1, clip_samples, 1)), KEY)
    assert [length for length, _, _ in calls] == [clip_samples // 4 ** (i + 1) for i in range(shuffled)]
    assert len({draw for _, draw, _ in calls}) == shuffled
    assert {radius for _, _, radius in calls} == {3}


def test_phase_shuffle_depends_on_the_key_and_zero_turns_it_off():
    x = jax.random.normal(KEY, (2, 1024, 1))
    keys = jax.random.split(KEY, 8)
    for radius, different in ((2, True), (0, False)):
        gan = building.build("wavegan", clip_samples=1024, audio_channels=1, channels=2, phase_shuffle=radius)
        d, discriminate = random_parameters(gan.init_d), jax.jit(gan.discriminate)
        logits = np.stack([discriminate(d, x, key)[0] for key in keys])
        assert (np.ptp(logits, axis=0) > 1e-6).all() == different
        np.testing.assert_array_equal(logits[0], discriminate(d, x, keys[0])[0])


def test_initial_values_depend_on_the_key_alone():
    gan = building.build("wavegan", clip_samples=256, audio_channels=1, channels=2)
    init = jax.jit(gan.init_g)
    a, b, c = init(KEY), init(KEY), init(jax.random.key(1))
    jax.tree.map(np.testing.assert_array_equal, a, b)
    assert not np.array_equal(a["upconv_0"]["kernel"], c["upconv_0"]["kernel"])
    assert not np.array_equal(a["upconv_0"]["kernel"].ravel()[:50], a["upconv_1"]["kernel"].ravel()[:50])


def test_calibrated_batch_norm_generates_each_clip_independently_of_the_batch():
    gan = building.build("wavegan", clip_samples=256, audio_channels=1, channels=8, batch_norm=True)
    g, generate = random_parameters(gan.init_g), jax.jit(gan.generate)
    calibrated = jax.jit(gan.calibrate)(g, jax.random.key(1))
    z = gan.sample_latents(jax.random.key(2), 512)
    alone = generate(calibrated, z[:1])
    np.testing.assert_allclose(generate(calibrated, z[:3])[:1], alone, atol=1e-6)
    assert np.abs(generate(g, z[:3])[:1] - alone).max() > 1e-3  # whereas uncalibrated it is not
    # A large batch's own statistics are nearly the calibrated ones.
    np.testing.assert_allclose(generate(g, z)[:1], alone, atol=0.05)
    # Of the first layer they are known: those of z W + b with z uniform.
    kernel, bias = (np.asarray(g["z_project"][k]).astype("float64") for k in ("kernel", "bias"))
    second_moment = (np.sum(kernel**2, 0) / 3 + bias**2).reshape(16, -1).mean(0)
    mean = bias.reshape(16, -1).mean(0)
    np.testing.assert_allclose(calibrated["norm_z"]["mean"], mean, atol=0.02)
    np.testing.assert_allclose(calibrated["norm_z"]["var"], second_moment - mean**2, rtol=0.05)
    jax.tree.map(np.testing.assert_array_equal, g, {k: {n: calibrated[k][n] for n in v} for k, v in g.items()})


def test_calibration_without_batch_norm_is_the_identity():
    gan = building.build("wavegan", clip_samples=256, audio_channels=1, channels=1, compiled=False)
    g_params = {}
    assert gan.calibrate(g_params, KEY) is g_params


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("channels", "64", "config.model.channels: expected a whole number from 1 to 4096, got '64'"),
        ("channels", 0, "config.model.channels: expected a whole number from 1 to 4096, got 0"),
        ("channels", True, "config.model.channels: .* got True"),
        ("channels", None, "config.model.channels: .* got None"),
        ("channels", 64.0, "config.model.channels: .* got 64.0"),
        ("latent_size", -1, "config.model.latent_size: expected a whole number from 1 to 65536, got -1"),
        ("max_channels", 32, r"config.model.max_channels: .* None .* config.model.channels \(64\), got 32"),
        ("max_channels", "512", "config.model.max_channels: .* got '512'"),
        ("upsample", "linear", "config.model.upsample: expected transpose or nearest, got 'linear'"),
        ("upsample", None, "config.model.upsample: expected transpose or nearest, got None"),
        ("upsample", ["nearest"], "config.model.upsample: .* got"),
        ("batch_norm", 1, "config.model.batch_norm: expected True or False, got 1"),
        ("batch_norm", "no", "config.model.batch_norm: expected True or False, got 'no'"),
        ("phase_shuffle", -1, "config.model.phase_shuffle: expected a whole number from 0 to 65536, got -1"),
        ("phase_shuffle", 1.5, "config.model.phase_shuffle: .* got 1.5"),
        ("post_filter", None, "config.model.post_filter: expected True or False, got None"),
        ("form", "fft", "config.model.form: expected one of auto, polyphase, plain, got 'fft'"),
        ("dtype", "float16", "config.model.dtype: expected float32 or bfloat16, got 'float16'"),
        ("remat", True, "config.model.remat: expected a whole number from 0 to 65536, got True"),
        ("audio_channels", 3, "config.audio.channels: expected 1 or 2, got 3"),
        ("audio_channels", True, "config.audio.channels: expected 1 or 2, got True"),
        ("clip_samples", 100, "config.audio.clip_samples: expected a whole number of at least 256, got 100"),
        ("clip_samples", 16384.0, "config.audio.clip_samples: .* got 16384.0"),
    ],
)
def test_a_bad_field_is_an_error_with_its_name_and_value(field, value, expected):
    fields = dict(clip_samples=16384, audio_channels=1) | {field: value}
    with pytest.raises(ValueError, match=expected):
        building.build("wavegan", **fields)
