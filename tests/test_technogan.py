import json
import shutil

import jax
import jax.numpy as jnp
import librosa
import numpy as np
import pytest
import scipy.signal
from conftest import load_config
from sklearn.decomposition import PCA

from data_prep import prepare
from technogen_jax import audio, dsp, generate, models, monitor, techno, train
from technogen_jax.models import codec, count_parameters, layers, technogan

KEY = jax.random.key(0)
# A bar of 1.792 s, 134 beats a minute: whole hops, so that nothing is resampled.
SMALL = dict(clip_samples=14336, audio_channels=2, sample_rate_hz=8000, frames_per_step=4, n_mels=16)
NETWORKS = dict(latent_size=8, channels=8, blocks=1)
PARTS = dict(mid_components=12, side_components=3, low_components=10)


def bar(seed, options=SMALL, channels=2):
    """A bar that loops, `[T, channels]`: four kicks, off-beat hats to one side, a tone that lasts."""
    samples, rate_hz = options["clip_samples"], options["sample_rate_hz"]
    rng = np.random.default_rng(seed)
    beat_s = samples / rate_hz / 4
    time_s = np.arange(samples) / rate_hz
    since_s = time_s % beat_s
    kick = np.sin(2 * np.pi * (50 * since_s + 3 * (1 - np.exp(-40 * since_s)))) * np.exp(-9 * since_s)
    hat = rng.standard_normal(samples) * np.exp(-60 * ((time_s + beat_s / 2) % beat_s))
    tone = np.sin(2 * np.pi * rng.integers(600, 2000) * time_s * rate_hz / samples)
    mid, side = 0.6 * rng.uniform(0.5, 1) * kick + 0.02 * tone, 0.1 * hat
    return np.stack([mid + side, mid - 0.5 * side], -1)[:, :channels].astype(np.float32)


@pytest.fixture(scope="module")
def bars():
    return np.stack([bar(seed) for seed in range(6)])


def known(audio, **options):
    """A TechnoGAN that knows its set, which is this `[B, T, C]`."""
    options = SMALL | PARTS | options | dict(clip_samples=audio.shape[1], audio_channels=audio.shape[2])
    config = {name: value for name, value in options.items() if name != "audio_channels"}
    statistics = codec.measure([audio[:2], audio[2:]], **config)
    return technogan.build(**options | NETWORKS, statistics=statistics), statistics


@pytest.fixture(scope="module")
def linear(bars):
    """(model, statistics) of `bars`."""
    return known(bars)


def counts(components, latent_size, channels, blocks, bars):
    """Parameters of the two networks, counted by hand."""
    block = 2 * (5 * channels + 1) * channels
    style = (channels + 1) * channels
    generator = (latent_size + 1) * channels + style + 16 * channels + blocks * (block + style) + style
    generator += (channels + 1) * components
    critic = (components + 1) * channels + blocks * block + (16 * (channels + 1) + 1) * channels + bars * channels + 1
    if bars > 1:
        generator, critic = generator + bars * channels + block + style, critic + block
    return generator, critic


@pytest.mark.parametrize("size, millions, bars", [("xs", 0.3, 4), ("s", 1, 1), ("m", 4, 1), ("l", 15, 1)])
def test_the_ladder_of_sizes(size, millions, bars):
    config = load_config("technogan", size)
    config.model.bars, config.audio.clip_samples = bars, bars * 77824
    gan, fields = models.build(config), config.model
    sizes = tuple(count_parameters(jax.eval_shape(init, KEY)) for init in (gan.init_g, gan.init_d))
    assert sizes == counts(72, fields.latent_size, fields.channels, fields.blocks, bars)
    assert counts(72, fields.latent_size, fields.channels, fields.blocks, 1)[0] / 1e6 == pytest.approx(
        millions, rel=0.05
    )


def test_an_unknown_size_is_an_error():
    with pytest.raises(ValueError, match="technogan.py:xxl: expected xs, s, m, l after the colon"):
        load_config("technogan", "xxl")


@pytest.mark.parametrize(
    "clip_samples, channels, rate_hz, bars", [(77824, 2, 44100, 1), (28235, 1, 16000, 1), (707_369, 2, 48000, 8)]
)
def test_shapes_at_other_tempos_rates_and_lengths(clip_samples, channels, rate_hz, bars):
    size = dict(clip_samples=clip_samples, sample_rate_hz=rate_hz, bars=bars)
    grid = codec.grid_of(clip_samples, rate_hz, bars, 8)
    assert grid.samples == grid.steps * grid.frames * 2 * grid.hop_length >= clip_samples
    assert grid.low_samples * grid.steps * rate_hz / clip_samples > 2 * 235
    lengths = dict(mid=(8 * 64, 40), side=(8 * 64, 8), low=(grid.low_samples, 24))
    zeros = {f"{part}_basis": np.zeros(shape) for part, shape in lengths.items()}
    zeros |= {f"{part}_{name}": np.zeros(shape[0]) for part, shape in lengths.items() for name in ("mean", "lost")}
    zeros |= {f"{part}_deviation": np.ones(shape[1]) for part, shape in lengths.items()}
    gan = technogan.build(**size | NETWORKS, audio_channels=channels, n_mels=64, statistics=zeros)

    def play(key):
        x = gan.generate(gan.init_g(key), gan.sample_latents(key, 3))
        audio = gan.decode(x)
        return x, audio, gan.encode(audio), gan.discriminate(gan.init_d(key), x, key)

    x, audio, again, (logits,) = jax.eval_shape(play, KEY)
    assert x.shape == again.shape == (3, 16 * bars, 64 if channels == 1 else 72)
    assert audio.shape == (3, clip_samples, channels) and logits.shape == (3, 1)


def test_latents_are_gaussian():
    z = np.asarray(technogan.build(**SMALL | PARTS).sample_latents(KEY, 500))
    assert abs(z.mean()) < 0.02 and abs(z.std() - 1) < 0.02 and abs((z**4).mean() - 3) < 0.2


# ---------------------------------------------------------------------------------------------------------- transforms


def test_circular_spectra_are_librosas_of_the_repeated_loop_and_lead_back():
    audio = np.random.default_rng(0).standard_normal((2, 960)).astype(np.float32)
    for n_fft, hop in ((256, 64), (192, 64)):
        spectrum = dsp.stft_circular(audio, n_fft, hop)
        start = 960 - (n_fft - hop) // 2
        repeated = np.tile(audio, 3)[:, start : start + 960 - hop + n_fft]
        wanted = librosa.stft(repeated, n_fft=n_fft, hop_length=hop, center=False).swapaxes(1, 2)
        np.testing.assert_allclose(spectrum, wanted, atol=1e-4)
        np.testing.assert_allclose(dsp.istft_circular(spectrum, n_fft, hop), audio, atol=1e-5)
    turned = dsp.stft_circular(jnp.roll(audio, 64, -1), 256, 64)
    np.testing.assert_allclose(turned, jnp.roll(dsp.stft_circular(audio, 256, 64), 1, -2), atol=1e-4)


@pytest.mark.parametrize("samples, hop", [(1000, 64), (960, 60), (192, 64)])
def test_a_loop_that_frames_do_not_fit_is_an_error(samples, hop):
    with pytest.raises(ValueError, match=f"n_fft = 256 .* got a hop_length of {hop} and {samples} samples"):
        dsp.stft_circular(jnp.zeros(samples), 256, hop)


def test_griffin_lim_leaves_the_true_phases_as_they_are():
    audio = np.random.default_rng(0).standard_normal((1, 1024)).astype(np.float32)
    spectrum = dsp.stft_circular(audio, 128, 32)
    found = dsp.griffin_lim_circular(jnp.abs(spectrum), jnp.angle(spectrum), 128, 32, 5, 0.99)
    np.testing.assert_allclose(found, audio, atol=1e-4)


@pytest.mark.parametrize("samples", [999, 1001, 1500, 400])
def test_resampling_a_loop_is_scipys(samples):
    audio = np.random.default_rng(0).standard_normal((2, 1000)).astype(np.float32)
    spectrum = np.fft.rfft(audio)
    spectrum[:, (min(samples, 1000) + 1) // 2 :] = 0  # scipy keeps the bin at half the rate, ours has none
    wanted = scipy.signal.resample(np.fft.irfft(spectrum, 1000), samples, axis=-1)
    np.testing.assert_allclose(dsp.resample_circular(audio, samples), wanted, atol=1e-5)


def test_a_circular_convolution_is_numpys_of_the_wrapped_sequence():
    rng = np.random.default_rng(0)
    x, kernel = rng.standard_normal((2, 7, 3)), rng.standard_normal((5, 3, 4))
    wrapped = np.pad(x, ((0, 0), (2, 2), (0, 0)), mode="wrap")
    wanted = sum(wrapped[:, tap : tap + 7] @ kernel[tap] for tap in range(5))
    np.testing.assert_allclose(layers.conv_circular(jnp.float32(x), jnp.float32(kernel)), wanted, atol=1e-5)


def test_minibatch_deviation_is_each_groups_own():
    x = np.random.default_rng(0).standard_normal((6, 4, 5)).astype(np.float32)
    x[[1, 3, 5]] = x[1]  # 6 does not divide by 4: groups of three, every second clip
    found = np.asarray(layers.minibatch_deviation(x, 4))
    np.testing.assert_array_equal(found[..., :5], x)
    np.testing.assert_allclose(found[::2, :, 5], x[::2].std(0).mean(), rtol=1e-5)
    np.testing.assert_allclose(found[1::2, :, 5], 0, atol=2e-4)
    slope = jax.grad(lambda x: jnp.sum(layers.minibatch_deviation(x, 4)))(jnp.zeros((4, 2, 2)))
    assert np.isfinite(slope).all()


# --------------------------------------------------------------------------------------------------------------- codec


def test_statistics_are_sklearns_of_levels_and_waveform(bars, linear):
    """Levels by numpy and librosa's mel filters, the waveform by scipy's resampling."""
    _, statistics = linear
    n_fft, hop = 448, 224  # four frames in each of 16 steps of 896 samples, overlapping by half
    filters = librosa.filters.mel(sr=8000, n_fft=n_fft, n_mels=16, fmin=125)
    filters /= filters.sum(1, keepdims=True)
    window = scipy.signal.get_window("hann", n_fft)
    places = (np.arange(64)[:, None] * hop - (n_fft - hop) // 2 + np.arange(n_fft)) % 14336
    signals = dict(mid=bars.mean(-1, dtype=np.float64), side=(bars[..., 0] - bars[..., 1]).astype(np.float64) / 2)
    rows = {}
    for part, signal in signals.items():
        magnitude = np.abs(np.fft.rfft(signal[:, places] * window)) / (n_fft / 4)
        rows[part] = np.log(magnitude @ filters.T + 1e-4).reshape(-1, 64)
    low = np.fft.rfft(signals["mid"])
    low[:, 16 * 27 :] = 0
    rows["low"] = scipy.signal.resample(np.fft.irfft(low), 16 * 54, axis=-1).reshape(-1, 54)
    for part, count in (("mid", 12), ("side", 3), ("low", 10)):
        wanted = PCA(count, svd_solver="full").fit(rows[part])
        variances = statistics[f"{part}_deviation"] ** 2 * 96 / 95  # scikit-learn's are the sample's
        np.testing.assert_allclose(statistics[f"{part}_mean"], wanted.mean_, atol=2e-4)
        np.testing.assert_allclose(variances, wanted.explained_variance_, rtol=2e-3)
        lost = np.square(rows[part] - wanted.inverse_transform(wanted.transform(rows[part]))).mean(0)
        np.testing.assert_allclose(statistics[f"{part}_lost"], lost, rtol=2e-3, atol=2e-4)
        leading = statistics[f"{part}_basis"][:, :3]  # later ones may lie close together and turn
        np.testing.assert_allclose(np.abs((leading * wanted.components_[:3].T).sum(0)), 1, atol=2e-3)


def test_of_its_set_each_number_has_mean_zero_and_deviation_one_and_none_goes_with_another(bars, linear):
    x = np.asarray(jax.jit(linear[0].encode)(bars)).reshape(-1, 25)
    np.testing.assert_allclose(x.mean(0), 0, atol=1e-2)
    for part in (slice(0, 12), slice(12, 15), slice(15, 25)):
        np.testing.assert_allclose(np.cov(x[:, part].T, bias=True), np.eye(part.stop - part.start), atol=1e-2)


def test_turning_the_bar_by_a_sixteenth_turns_the_sequence_by_one_and_back():
    clip_samples = 14080  # brought to 14336 within
    audio = np.stack([bar(seed, SMALL | dict(clip_samples=clip_samples)) for seed in range(3)])
    gan, _ = known(audio)
    encode, decode = jax.jit(gan.encode), jax.jit(gan.decode)
    x = encode(audio)
    turned = jnp.roll(audio, 3 * clip_samples // 16, 1)
    np.testing.assert_allclose(encode(turned), jnp.roll(x, 3, 1), atol=5e-3)
    sound = decode(x)
    again = decode(jnp.roll(x, 3, 1))
    np.testing.assert_allclose(again, jnp.roll(sound, 3 * clip_samples // 16, 1), atol=1e-3)


def below_100_hz(sound):
    """The mono low end of `[B, T, C]`."""
    return scipy.signal.sosfiltfilt(scipy.signal.butter(4, 100, fs=8000, output="sos"), sound.mean(-1))


def test_a_bar_comes_back_its_kick_as_a_waveform_and_without_a_seam(bars):
    gan, _ = known(bars, mid_components=60, side_components=30, low_components=50)
    sound = np.asarray(jax.jit(lambda audio: gan.decode(gan.encode(audio)))(bars))
    for made, real in zip(sound, bars, strict=True):
        low, wanted = below_100_hz(made), below_100_hz(real)
        assert np.linalg.norm(low - wanted) / np.linalg.norm(wanted) < 0.1
        spectra = [np.abs(librosa.stft(x.T, n_fft=256, hop_length=64)) for x in (made, real)]
        assert np.linalg.norm(spectra[0] - spectra[1]) / np.linalg.norm(spectra[1]) < 0.2  # measured: 0.15
        features = techno.measure(made, 8000, beats=4, loop=True)
        assert features["seam_db"] < 3 and features["kick_similarity"] > 0.99


def test_of_the_low_end_that_comes_back_which_its_components_keep(bars, linear):
    gan, statistics = linear
    sound = np.asarray(jax.jit(lambda audio: gan.decode(gan.encode(audio)))(bars))
    lost = np.square(below_100_hz(sound) - below_100_hz(bars)).sum() / np.square(below_100_hz(bars)).sum()
    kept, left_out = np.square(statistics["low_deviation"]).sum(), statistics["low_lost"].sum()
    assert lost == pytest.approx(left_out / (kept + left_out), abs=0.02)


def test_levels_come_back_with_the_power_of_the_noise_that_is_lost(linear, monkeypatch):
    """With levels spread by a variance v about m the mean power is exp(2 m + 2 v), of a log-normal distribution."""
    given = []
    silence = jnp.zeros((1, 2, 14336))
    monkeypatch.setattr(dsp, "griffin_lim_circular", lambda magnitude, *rest: given.append(magnitude) or silence)
    for lost in (0, 0.5):
        statistics = linear[1] | {f"{part}_mean": np.full(64, -2.0) for part in ("mid", "side")}
        statistics |= {f"{part}_lost": np.full(64, lost) for part in ("mid", "side")}
        technogan.build(**SMALL | PARTS, statistics=statistics).decode(np.zeros((1, 16, 25), np.float32))
    heard = np.asarray(given[0]) > 1e-3
    assert given[0].shape == (1, 2, 128, 225) and heard.mean() > 0.5
    louder = (np.exp(-1.5) - 1e-4) / (np.exp(-2) - 1e-4)
    np.testing.assert_allclose((given[1] / given[0])[heard], louder, rtol=1e-3)


def test_the_side_of_mono_stays_silent_whatever_the_generator_makes_of_it(bars):
    gan, statistics = known(np.repeat(bars[..., :1], 2, -1))
    assert statistics["side_deviation"].max() < 1e-3
    x = np.random.default_rng(0).normal(0, 3, (2, 16, 25)).astype(np.float32)
    sound = np.asarray(jax.jit(gan.decode)(x))
    assert np.isfinite(sound).all() and np.abs(sound[..., 0] - sound[..., 1]).max() < 1e-3 < np.abs(sound).max()


def test_mono_has_no_side_and_wild_numbers_stay_finite(bars):
    gan, statistics = known(bars[..., :1])
    assert not any(name.startswith("side") for name in statistics)
    sound = np.asarray(jax.jit(gan.decode)(np.full((1, 16, 22), 1e3, np.float32)))
    assert sound.shape == (1, 14336, 1) and np.isfinite(sound).all()


def test_without_clips_there_are_no_statistics_and_without_statistics_no_audio(bars, linear):
    options = {name: value for name, value in SMALL.items() if name != "audio_channels"}
    with pytest.raises(ValueError, match="expected clips to measure, got none"):
        codec.measure([], **options)
    with pytest.raises(ValueError, match="clip_samples = 14336, got 14000; .* --grid bars --bars 1"):
        codec.measure([bars[:, :14000]], **options)
    with pytest.raises(ValueError, match="no statistics of the training set"):
        technogan.build(**SMALL | PARTS).encode(bars)
    with pytest.raises(ValueError, match=r"a mid_basis of \(64, 20\), got \(64, 12\)"):
        technogan.build(**SMALL | PARTS | dict(mid_components=20), statistics=linear[1])


# ------------------------------------------------------------------------------------------------------------ networks


def random_parameters(init):
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(init, KEY)
    return jax.tree.map(lambda a: np.float32(rng.normal(size=a.shape) / np.prod(a.shape[:-1]) ** 0.5), shapes)


def test_residual_branches_begin_as_nothing_and_the_latent_counts_from_the_start():
    gan = technogan.build(**SMALL | PARTS | NETWORKS)
    g = jax.jit(gan.init_g)(KEY)
    assert not g["block_0"]["conv_1"]["kernel"].any() and g["block_0"]["conv_0"]["kernel"].any()
    x = jax.jit(gan.generate)(g, gan.sample_latents(KEY, 4))
    assert float(jnp.std(x, 0).mean()) > 0.05


def test_several_bars_differ_and_the_critic_knows_their_order():
    options = SMALL | PARTS | NETWORKS | dict(bars=2, clip_samples=2 * 14336)
    gan = technogan.build(**options)
    g, d = random_parameters(gan.init_g), random_parameters(gan.init_d)
    x = jax.jit(gan.generate)(g, gan.sample_latents(KEY, 4))
    assert float(jnp.abs(x[:, :16] - x[:, 16:]).mean()) > 0.1
    judge = jax.jit(gan.discriminate)
    (logits,), (swapped,) = judge(d, x, KEY), judge(d, jnp.roll(x, 16, 1), KEY)
    assert logits.shape == (4, 1) and float(jnp.abs(logits - swapped).max()) > 1e-3


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("bars", 0, "config.model.bars: expected a whole number of at least 1, got 0"),
        ("bars", 9, "config.model.bars: expected 1 to 8, got 9"),
        ("channels", "64", "config.model.channels: expected a whole number of at least 1, got '64'"),
        ("blocks", None, "config.model.blocks: expected .* got None"),
        ("latent_size", 0, "config.model.latent_size: expected .* got 0"),
        ("frames_per_step", 1, "config.model.frames_per_step: expected a whole number of at least 2, got 1"),
        ("n_mels", 300, "config.model.n_mels: .* of 300 bands hold none of the 225 bins of a frame; lower n_mels, or"),
        ("mid_components", 65, "config.model.mid_components: expected at most 64, got 65"),
        ("side_components", 0, "config.model.side_components: expected .* got 0"),
        ("low_components", 55, "config.model.low_components: expected at most 54, got 55"),
        ("iterations", -1, "config.model.iterations: expected a whole number of at least 0, got -1"),
        ("audio_channels", 3, "config.audio.channels: expected 1 or 2, got 3"),
        ("clip_samples", 40000, "config.audio.clip_samples: expected 1 bars .* --grid bars says, got 40000"),
    ],
)
@pytest.mark.filterwarnings("ignore:Empty filters")
def test_a_bad_field_is_named_with_its_value(field, value, expected):
    with pytest.raises(ValueError, match=expected):
        technogan.build(**SMALL | PARTS | {field: value})


@pytest.fixture
def bar_config(tmp_path):
    """A TechnoGAN that compiles in seconds, on twelve bars of six tracks."""
    (tmp_path / "tracks").mkdir()
    for track in range(6):
        audio.write(tmp_path / "tracks" / f"{track}.wav", np.concatenate([bar(track), bar(track + 6)]), 8000)
    options = dict(input=str(tmp_path / "tracks"), output=str(tmp_path / "set"), sample_rate=8000, channels=2)
    options |= dict(hop_size=14336 / 8000, split=(1.0, 0.0, 0.0), workers=1)
    prepare.prepare(prepare.Options(**options), say=lambda line: None)
    config = load_config("technogan", "xs")
    config.audio.update(sample_rate_hz=8000, clip_samples=14336)
    config.data.dir = str(tmp_path / "set")
    config.model.update(NETWORKS | PARTS | dict(n_mels=16, frames_per_step=4, iterations=1))
    config.train.update(steps=6, batch_size=4, log_every=3, save_every=3, sample_every=6, sample_clips=2)
    config.eval.every = 0
    return config


def test_a_run_measures_its_set_and_resumes_bit_for_bit(bar_config, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train.train(bar_config, whole, say=lambda line: None)
    shutil.copytree(whole, killed)
    shutil.rmtree(killed / "checkpoints" / "6")  # as if it had been killed after step 3
    train.train(bar_config, killed, say=lambda line: None)
    first, second = generate.load(whole), generate.load(killed)
    assert first.weights == second.weights
    rows = [json.loads(line) for line in (whole / monitor.METRICS_FILE).read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 3, 6]
    assert all(np.isfinite(rows[-1][name]) and rows[-1][name] > 0 for name in ("d/adversarial", "d/r1", "d/r2"))
    clips = list(generate.render(first, generate.draw_latents(first.gan, 0, range(2))))
    assert clips[0].shape == (14336, 2) and np.isfinite(clips).all() and np.abs(clips[0] - clips[1]).max() > 0
