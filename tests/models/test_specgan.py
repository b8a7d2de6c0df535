import json

import jax
import jax.numpy as jnp
import librosa
import numpy as np
import pytest
from absl import flags
from conftest import RATE_HZ, ROOT, load_config
from helpers import building
from jax import lax
from ml_collections import config_flags

from technogen_jax import models
from technogen_jax.audio import spectral
from technogen_jax.models import count_parameters
from technogen_jax.runs.metrics_log import METRICS_FILE
from technogen_jax.runs.workdir import STATISTICS_FILE, WorkdirError, read_statistics, write_statistics
from technogen_jax.sampling import generator as generate
from technogen_jax.training import loop

KEY = jax.random.key(0)
PAPER = dict(clip_samples=16384, audio_channels=1, sample_rate_hz=16000)
SMALL = dict(clip_samples=1024, audio_channels=1, sample_rate_hz=8000, n_fft=64, hop_length=32, channels=2)  # 32 x 32
NUMBERS = ("NHWC", "HWIO", "NHWC")


def random_parameters(init):
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(init, KEY)
    return jax.tree.map(lambda a: np.float32(rng.normal(size=a.shape) / np.prod(a.shape[:-1]) ** 0.5), shapes)


def sizes(**options):
    gan = building.build("specgan", **PAPER | options)
    return tuple(count_parameters(jax.eval_shape(init, KEY)) for init in (gan.init_g, gan.init_d))


def loop_of_kick_and_hat(samples, rate_hz):
    """Returns 120 BPM, `[T]`: a falling sine on each beat, noise on each off-beat."""
    time_s = np.arange(samples) / rate_hz
    kick = np.sin(2 * np.pi * (50 * time_s + 6 * (1 - np.exp(-30 * (time_s % 0.5))))) * np.exp(-8 * (time_s % 0.5))
    hat = np.random.default_rng(0).standard_normal(samples) * np.exp(-60 * ((time_s + 0.25) % 0.5))
    noise = 1e-3 * np.random.default_rng(1).standard_normal(samples)  # else quiet bins hold nothing but rounding errors
    return (0.7 * kick + 0.1 * hat + noise).astype(np.float32)


def spectral_convergence(audio, other, n_fft=256, hop_length=128, **_):
    """Returns || |S| - |S'| || / || |S| || of two clips `[T]`, computed by librosa."""
    options = dict(n_fft=n_fft, hop_length=hop_length, center=False)
    wanted, found = (np.abs(librosa.stft(np.asarray(x), **options)) for x in (audio, other))
    return np.linalg.norm(wanted - found) / np.linalg.norm(wanted)


def audio_domain(audio, **options):
    """Returns a SpecGAN with the statistics of audio `[B, T, C]`, and the statistics."""
    fields = {name: options[name] for name in ("n_fft", "hop_length", "n_mels") if name in options}
    statistics = building.measure("specgan", [audio], sample_rate_hz=options["sample_rate_hz"], **fields)
    clip = dict(clip_samples=audio.shape[1], audio_channels=audio.shape[2])
    return building.build("specgan", **options | clip, statistics=statistics), statistics


# The first two totals are the paper's networks; stereo has 25 * 64 more weights at either end, and a bias.
@pytest.mark.parametrize(
    ("options", "generator", "discriminator"),
    [
        ({}, 19_065_345, 17_427_969),
        (dict(channels=32), 5_180_673, 4_361_985),
        (dict(audio_channels=2), 19_065_345 + 1601, 17_427_969 + 1600),
        (dict(batch_norm=True), 19_065_345 + 3968, 17_427_969 + 3840),
    ],
)
def test_parameter_counts_equal_those_of_the_paper(options, generator, discriminator):
    assert sizes(**options) == (generator, discriminator)


def test_the_config_has_the_values_of_the_paper():
    config = load_config("specgan")
    defaults = models.build(config)
    assert tuple(count_parameters(jax.eval_shape(i, KEY)) for i in (defaults.init_g, defaults.init_d)) == sizes()
    assert (config.train.batch_size, config.train.n_critic, config.loss.gp_weight) == (64, 5, 10)
    adam = ("adam", 1e-4, 1e-4, 0.5, 0.9)
    optimizer = config.optimizer
    assert adam == tuple(optimizer[k] for k in ("name", "learning_rate_g", "learning_rate_d", "b1", "b2"))


@pytest.mark.parametrize(
    "options, image",
    [
        ({}, (128, 128, 1)),
        (dict(clip_samples=16000), (125, 128, 1)),
        (dict(clip_samples=8 * 44100, audio_channels=2, n_fft=1024, hop_length=256), (1379, 512, 2)),
        (dict(clip_samples=8 * 44100, sample_rate_hz=44100, n_fft=2048, hop_length=256, n_mels=128), (1379, 128, 1)),
        (dict(clip_samples=32, n_fft=32, hop_length=16), (2, 16, 1)),
    ],
)
def test_images_have_the_expected_size(options, image):
    options = PAPER | dict(channels=4, max_channels=16) | options
    size = (options.get("n_mels") or options.get("n_fft", 256) // 2 + 1, options["audio_channels"])
    gan = building.build("specgan", **options, statistics={"mean": np.zeros(size), "std": np.ones(size)})

    def play(key):
        x = gan.generate(gan.init_g(key), gan.sample_latents(key, 2))
        audio = gan.decode(x)
        return x, audio, gan.encode(audio), gan.discriminate(gan.init_d(key), x, key)

    x, audio, again, (logits,) = jax.eval_shape(play, KEY)
    assert x.shape == again.shape == (2, *image)
    assert audio.shape == (2, options["clip_samples"], options["audio_channels"]) and logits.shape == (2, 1)


def normalised(x, scale, bias):
    return (x - x.mean((0, 1, 2))) / jnp.sqrt(x.var((0, 1, 2)) + 1e-3) * scale + bias


@pytest.mark.parametrize("batch_norm", [False, True])
def test_networks_equal_those_of_the_paper_layer_by_layer(batch_norm):
    gan = building.build("specgan", **PAPER, channels=2, batch_norm=batch_norm)

    def upconv(x, kernel, bias):
        kernel = kernel.swapaxes(2, 3)
        y = lax.conv_transpose(x, kernel, (2, 2), "SAME", dimension_numbers=NUMBERS, transpose_kernel=True)
        return y + bias

    def generate(g, z):
        x = (z @ g["z_project"]["kernel"] + g["z_project"]["bias"]).reshape(3, 4, 4, 32)
        x = jax.nn.relu(normalised(x, **g["norm_z"]) if batch_norm else x)
        for i in range(4):
            x = upconv(x, **g[f"upconv_{i}"])
            x = jax.nn.relu(normalised(x, **g[f"norm_{i}"]) if batch_norm else x)
        return jnp.tanh(upconv(x, **g["upconv_4"]))

    def discriminate(d, x):
        for i in range(5):
            layer = d[f"downconv_{i}"]
            x = lax.conv_general_dilated(x, layer["kernel"], (2, 2), "SAME", dimension_numbers=NUMBERS) + layer["bias"]
            if batch_norm and i > 0:
                x = normalised(x, **d[f"norm_{i}"])
            x = jax.nn.leaky_relu(x, 0.2)
        assert x.shape == (3, 4, 4, 32)
        return x.reshape(3, -1) @ d["output"]["kernel"] + d["output"]["bias"]

    g, d = random_parameters(gan.init_g), random_parameters(gan.init_d)
    z = gan.sample_latents(KEY, 3)
    x = jax.jit(generate)(g, z)
    assert x.shape == (3, 128, 128, 1)
    np.testing.assert_allclose(jax.jit(gan.generate)(g, z), x, atol=1e-5)
    (logits,) = jax.jit(gan.discriminate)(d, x, KEY)
    np.testing.assert_allclose(logits, jax.jit(discriminate)(d, x), atol=1e-4)


def test_polyphase_and_plain_convolutions_have_the_same_outputs_and_gradients():
    def outputs(form):
        gan = building.build(
            "specgan", **SMALL | dict(clip_samples=500, n_fft=32, hop_length=16, audio_channels=2), form=form
        )
        g, d, z = random_parameters(gan.init_g), random_parameters(gan.init_d), gan.sample_latents(KEY, 2)

        def loss(g, d):
            return jnp.sum(gan.discriminate(d, gan.generate(g, z), KEY)[0])

        return jax.jit(jax.value_and_grad(loss, (0, 1)))(g, d)

    fast, plain = outputs("polyphase"), outputs("plain")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(b).max()), fast, plain)


def test_remat_gives_the_same_results_and_bfloat16_is_close_to_float32():
    def outputs(**options):
        gan = building.build("specgan", **PAPER | dict(clip_samples=2048, channels=4), **options)
        g, d, z = random_parameters(gan.init_g), random_parameters(gan.init_d), gan.sample_latents(KEY, 2)

        def loss(g, d):
            x = gan.generate(g, z)
            return jnp.sum(gan.discriminate(d, x, KEY)[0]), x

        return jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(g, d)

    exact, low = outputs(), outputs(dtype="bfloat16")
    same = jax.tree.map(lambda a, b: np.allclose(a, b, rtol=0, atol=1e-5 * np.abs(b).max()), outputs(remat=1), exact)
    assert all(jax.tree.leaves(same))
    assert low[0][1].dtype == np.float32
    assert 1e-4 < np.linalg.norm(low[0][1] - exact[0][1]) / np.linalg.norm(exact[0][1]) < 0.01


def test_images_of_other_lengths_are_cropped_by_the_generator_and_padded_by_the_discriminator():
    short, whole = (
        building.build("specgan", **SMALL | dict(clip_samples=900)),
        building.build("specgan", **SMALL),
    )  # 29 and 32 frames
    g, d, z = random_parameters(whole.init_g), random_parameters(whole.init_d), whole.sample_latents(KEY, 2)
    x = jax.jit(short.generate)(g, z)
    np.testing.assert_allclose(x, jax.jit(whole.generate)(g, z)[:, 1:30], atol=1e-6)
    (logits,) = jax.jit(short.discriminate)(d, x, KEY)
    padded = jnp.pad(x, ((0, 0), (1, 2), (0, 0), (0, 0)))
    np.testing.assert_allclose(logits, jax.jit(whole.discriminate)(d, padded, KEY)[0], atol=1e-5)


def test_latents_are_uniform_and_calibrated_batch_norm_generates_each_image_independently():
    gan = building.build("specgan", **SMALL, batch_norm=True)
    z = np.asarray(gan.sample_latents(KEY, 100))
    assert z.shape == (100, 100) and -1 <= z.min() < -0.99 and 0.99 < z.max() < 1
    g = jax.jit(gan.calibrate)(random_parameters(gan.init_g), KEY)
    make = jax.jit(gan.generate)
    np.testing.assert_allclose(make(g, z[:3])[:1], make(g, z[:1]), atol=1e-6)


@pytest.mark.parametrize("batch", [1, 4, 7])
def test_statistics_equal_those_of_numpy_for_any_batch_size(batch):
    clips = np.random.default_rng(0).normal(0, 0.1, (7, 1000, 2)).astype(np.float32)
    clips[:3] *= 0.01
    padded = np.pad(clips, ((0, 0), (0, 256), (0, 0)))[:, : 7 * 128 + 256]
    spectra = librosa.stft(padded.transpose(0, 2, 1), n_fft=256, hop_length=128, center=False)  # [7, 2, 129, 8]
    levels = np.log(np.abs(spectra).astype(np.float64) + 1e-6)
    batches = (clips[i : i + batch] for i in range(0, 7, batch))
    statistics = building.measure("specgan", batches, sample_rate_hz=16000)
    assert statistics["mean"].dtype == statistics["std"].dtype == np.float64
    np.testing.assert_allclose(statistics["mean"], levels.mean((0, 3)).T, atol=1e-4)
    np.testing.assert_allclose(statistics["std"], levels.std((0, 3)).T, atol=1e-4)
    whole = building.measure("specgan", [clips], sample_rate_hz=16000)
    np.testing.assert_allclose(statistics["std"], whole["std"], atol=1e-6)


def test_no_clips_to_measure_and_missing_or_wrong_statistics_are_errors():
    with pytest.raises(ValueError, match="expected clips to measure, got none"):
        building.measure("specgan", [], sample_rate_hz=16000)
    with pytest.raises(ValueError, match="no statistics of the training set"):
        building.build("specgan", **PAPER).encode(np.zeros((1, 16384, 1), np.float32))
    with pytest.raises(ValueError, match=r"statistics of \(129, 1\) values, got a mean of \(129, 2\)"):
        building.build("specgan", **PAPER, statistics={"mean": np.zeros((129, 2)), "std": np.ones((129, 1))})


def test_encode_computes_the_transform_of_the_paper():
    audio = np.stack([loop_of_kick_and_hat(16384, 16000), 0.1 * loop_of_kick_and_hat(20000, 16000)[-16384:]])[..., None]
    gan, statistics = audio_domain(audio[:1], **PAPER)
    padded = np.pad(audio[..., 0], ((0, 0), (0, 128)))
    levels = np.log(np.abs(librosa.stft(padded, n_fft=256, hop_length=128, center=False)) + 1e-6).swapaxes(1, 2)
    wanted = np.clip((levels - statistics["mean"][:, 0]) / statistics["std"][:, 0] / 3, -1, 1)[:, :, :128]
    x = np.asarray(gan.encode(audio))
    assert x.shape == (2, 128, 128, 1) and np.abs(x).max() == 1
    np.testing.assert_allclose(x[..., 0], wanted, atol=1e-3)


def test_decode_passes_magnitudes_to_griffin_lim_with_the_topmost_bin_at_its_mean(monkeypatch):
    given = []
    monkeypatch.setattr(spectral, "griffin_lim", lambda *args: given.append(args) or jnp.zeros((1, 2, 16512)))
    rng = np.random.default_rng(0)
    statistics = {"mean": rng.normal(-2, 1, (129, 2)), "std": rng.uniform(1, 2, (129, 2))}
    options = PAPER | dict(audio_channels=2, iterations=7, momentum=0.5)
    gan = building.build("specgan", **options, statistics=statistics, compiled=False)
    x = rng.uniform(-1, 1, (1, 128, 128, 2)).astype(np.float32)
    assert gan.decode(x).shape == (1, 16384, 2)
    magnitude, *rest = given[0]
    assert rest == [256, 128, 7, 0.5]
    wanted = np.exp(3 * x[0] * statistics["std"][:128] + statistics["mean"][:128]) - 1e-6
    np.testing.assert_allclose(magnitude[0, :, :, :128], wanted.transpose(2, 0, 1), rtol=1e-4)
    nyquist = np.exp(statistics["mean"][128]) - 1e-6
    np.testing.assert_allclose(magnitude[0, :, :, 128], np.tile(nyquist[:, None], 128), rtol=1e-4)


# Measured: 0.13, 0.08, 0.10, 0.22.
@pytest.mark.parametrize(
    "options, bound",
    [
        ({}, 0.2),
        (dict(iterations=64, momentum=0.99), 0.12),
        (dict(n_fft=512, hop_length=256), 0.2),
        (dict(n_fft=1024, hop_length=256, n_mels=128), 0.3),
    ],
)
def test_decoded_audio_has_a_spectrum_close_to_the_original(options, bound):
    audio = loop_of_kick_and_hat(16384, 16000)
    gan, _ = audio_domain(audio[None, :, None], **PAPER | options)
    again = jax.jit(lambda audio: gan.decode(gan.encode(audio)))(audio[None, :, None])[0, :, 0]
    assert spectral_convergence(audio, again, **options) < bound


def test_a_constant_bin_is_decoded_as_its_mean_for_any_image():
    rng = np.random.default_rng(0)
    audio = rng.normal(0, 0.1, (2, 2048, 2)).astype(np.float32)
    audio[..., 1] = 0  # digital silence: every bin of the right channel is log(1e-6) in all frames
    gan, statistics = audio_domain(audio, **SMALL)
    assert not statistics["std"][:, 1].any()
    x = np.asarray(jax.jit(gan.encode)(audio))
    assert np.isfinite(x).all() and np.abs(x[..., 1]).max() < 1e-3
    sound = np.asarray(jax.jit(gan.decode)(rng.uniform(-1, 1, x.shape).astype(np.float32)))
    assert np.isfinite(sound).all()
    assert np.abs(sound[..., 1]).max() < 1e-6 < 1e-2 < np.abs(sound[..., 0]).max()


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("channels", "64", "config.model.channels: expected a whole number from 1 to 4096, got '64'"),
        ("n_fft", 200, "config.model.n_fft: expected 32, 64, 128 ..., a power of two, .* got 200"),
        ("n_fft", 16, "config.model.n_fft: expected a whole number from 32 to 65536, got 16"),
        ("n_fft", None, "config.model.n_fft: expected .* got None"),
        ("hop_length", 256, r"config.model.hop_length: expected n_fft \(256\) divided by .* at least 2, got 256"),
        ("hop_length", 100, r"config.model.hop_length: expected n_fft \(256\) divided by .* got 100"),
        ("hop_length", 0, "config.model.hop_length: expected a whole number from 1 to 65536, got 0"),
        ("n_mels", 80, "config.model.n_mels: expected None, or 16, 32, 64 ..., a power of two, got 80"),
        ("n_mels", 8, "config.model.n_mels: expected None or a whole number from 16 to 65536, got 8"),
        ("n_mels", 128, "config.model.n_mels: .* of 128 bands hold none of the bins of config.model.n_fft = 256"),
        ("iterations", -1, "config.model.iterations: expected a whole number from 0 to 1000, got -1"),
        ("momentum", 1.5, "config.model.momentum: expected a number from 0 to 1, got 1.5"),
        ("momentum", None, "config.model.momentum: expected a number from 0 to 1, got None"),
        ("batch_norm", 1, "config.model.batch_norm: expected True or False, got 1"),
        ("form", "fft", "config.model.form: expected one of auto, polyphase, plain, got 'fft'"),
        ("audio_channels", 3, "config.audio.channels: expected 1 or 2, got 3"),
        ("clip_samples", 255, r"config.audio.clip_samples: .* config.model.n_fft \(256\), got 255"),
    ],
)
@pytest.mark.filterwarnings("ignore:Empty filters")
def test_a_bad_field_is_an_error_with_its_name_and_value(field, value, expected):
    with pytest.raises(ValueError, match=expected):
        building.build("specgan", **PAPER | {field: value})


@pytest.mark.filterwarnings("ignore:the load_module")
@pytest.mark.parametrize("name", ["specgan", "specgan_44k"])
def test_the_models_fields_can_be_set_on_the_command_line(name, monkeypatch):
    wanted = dict(n_mels=64, momentum=0.99, max_channels=512)
    argv = ["train", f"--config={ROOT}/configs/{name}.py", *(f"--config.model.{k}={v}" for k, v in wanted.items())]
    monkeypatch.setattr("sys.argv", argv)  # where ml_collections looks for the fields
    values = flags.FlagValues()
    config = config_flags.DEFINE_config_file("config", flag_values=values)
    values(argv)
    assert {field: config.value.model[field] for field in wanted} == wanted
    models.find(config.value)


def test_the_44k_config_builds_for_mono_and_stereo():
    for sound, channels in (("mono", 1), ("stereo", 2)):
        config = load_config("specgan_44k", sound)
        gan = models.build(config)
        x = jax.eval_shape(lambda key, gan=gan: gan.generate(gan.init_g(key), gan.sample_latents(key, 1)), KEY)
        assert x.shape[3] == channels == config.audio.channels


@pytest.fixture
def tiny_specgan(prepared_set):
    """A SpecGAN that compiles in seconds, on `prepared_set`."""
    config = load_config("specgan", "relativistic")
    config.audio.sample_rate_hz = RATE_HZ
    config.audio.clip_samples = 1024
    config.data.dir = str(prepared_set)
    config.model.update(channels=2, latent_size=8, n_fft=32, hop_length=16, iterations=2)
    config.train.update(steps=10, batch_size=4, log_every=5, save_every=5, sample_every=10, sample_clips=2)
    config.eval.every = 0
    return config


def test_a_run_measures_its_dataset_once_and_resumes_bit_for_bit(tiny_specgan, tmp_path, monkeypatch):
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    loop.train(tiny_specgan, whole, say=lambda line: None)
    tiny_specgan.train.steps = 5
    loop.train(tiny_specgan, halves, say=lambda line: None)
    monkeypatch.setattr(models, "measure", None)  # a second start reads what the first one wrote
    tiny_specgan.train.steps = 10
    loop.train(tiny_specgan, halves, say=lambda line: None)

    first, second = generate.load(whole), generate.load(halves)
    assert first.weights == second.weights
    rows = [json.loads(line) for line in (whole / METRICS_FILE).read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 5, 10] and np.isfinite(rows[-1]["d/adversarial"])
    preview = "samples/step00000010.wav"
    assert (whole / preview).read_bytes() == (halves / preview).read_bytes()

    latents = generate.draw_latents(first.gan, 0, range(3))
    clips = list(generate.render(first, latents))
    assert clips[0].shape == (1024, 1) and np.isfinite(clips[0]).all() and np.abs(clips[0]).max() > 0
    np.testing.assert_array_equal(list(generate.render(second, latents[2:]))[0], clips[2])

    statistics = read_statistics(whole)
    write_statistics(whole, statistics | {"mean": statistics["mean"] + 1})
    assert generate.load(whole).weights != first.weights  # another sound is another fingerprint
    (whole / STATISTICS_FILE).write_bytes(b"half")
    with pytest.raises(WorkdirError, match="statistics.npz: unreadable"):
        generate.load(whole)
    (whole / STATISTICS_FILE).unlink()
    with pytest.raises(WorkdirError, match="statistics.npz: not found"):
        generate.load(whole)
