import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal
from conftest import ROOT
from helpers import codecs
from helpers.bars import SMALL, bar

from technogen_jax.evaluation.features import musical
from technogen_jax.models.technogan.codec import analysis
from technogen_jax.sampling import generator


def test_rotating_a_bar_by_sixteenths_rotates_its_code_and_back():
    clip_samples = 14080  # brought to 14336 within
    audio = np.stack([bar(seed, SMALL | dict(clip_samples=clip_samples)) for seed in range(3)])
    made, _ = codecs.measure(audio)
    encode, decode = jax.jit(made.encode), jax.jit(made.decode)
    x = encode(audio)
    turned = jnp.roll(audio, 3 * clip_samples // 16, 1)
    np.testing.assert_allclose(encode(turned), jnp.roll(x, 3, 1), atol=5e-3)
    sound = decode(x)
    again = decode(jnp.roll(x, 3, 1))
    np.testing.assert_allclose(again, jnp.roll(sound, 3 * clip_samples // 16, 1), atol=1e-3)


def below_100_hz(sound):
    """The mono low end of `[B, T, C]`."""
    return scipy.signal.sosfiltfilt(scipy.signal.butter(4, 100, fs=8000, output="sos"), sound.mean(-1))


def test_decoded_bar_has_the_waveform_of_the_kick_and_no_seam():
    bars = codecs.bars()
    made, _ = codecs.measure(bars, mid_components=60, side_components=30, low_components=50)
    sound = np.asarray(jax.jit(lambda audio: made.decode(made.encode(audio)))(bars))
    for again, real in zip(sound, bars, strict=True):
        low, wanted = below_100_hz(again), below_100_hz(real)
        assert np.linalg.norm(low - wanted) / np.linalg.norm(wanted) < 0.1
        features = musical.measure(again, 8000, beats=4, loop=True)
        assert features["seam_db"] < 3 and features["kick_similarity"] > 0.99


def test_decoded_low_end_lacks_what_its_components_leave_out():
    bars = codecs.bars()
    made, statistics = codecs.linear()
    sound = np.asarray(jax.jit(lambda audio: made.decode(made.encode(audio)))(bars))
    lost = np.square(below_100_hz(sound) - below_100_hz(bars)).sum() / np.square(below_100_hz(bars)).sum()
    kept, left_out = np.square(statistics["low_deviation"]).sum(), statistics["low_lost"].sum()
    assert lost == pytest.approx(left_out / (kept + left_out), abs=0.02)


def test_decoded_noise_is_as_loud_in_each_band():
    audio = np.random.default_rng(0).normal(0, [0.1, 0.03], (6, 14336, 2)).astype(np.float32)
    audio = scipy.signal.sosfilt(scipy.signal.butter(1, 800, fs=8000, output="sos"), audio, axis=1).astype(np.float32)
    made, _ = codecs.measure(audio)
    again = np.asarray(jax.jit(lambda audio: made.decode(made.encode(audio)))(audio))
    powers = [np.square(np.abs(np.fft.rfft(analysis.split_mid_side(x)))) for x in (again, audio)]
    bands = [power[..., 540:7164].reshape(6, 2, 12, -1).mean((0, 3)) for power in powers]  # from 300 Hz up
    np.testing.assert_allclose(10 * np.log10(bands[0] / bands[1]), 0, atol=1.5)


def test_products_of_the_codec_are_in_float32_on_every_device():
    made, _ = codecs.tonal()
    audio = jax.ShapeDtypeStruct(codecs.bars().shape, np.float32)
    code = jax.eval_shape(made.encode, audio)
    grid, bands = codecs.GRID, codecs.BANDS
    functions = (
        (made.encode, audio),
        (made.decode, code),
        (lambda x: analysis.analyze(x, grid, bands, tonal=True), audio),
    )
    for function, given in functions:
        text = jax.jit(lambda x, function=function: function(x)).lower(given).as_text()
        products = [line for line in text.splitlines() if "stablehlo.dot_general" in line]
        assert products and all("precision = [HIGHEST, HIGHEST]" in line for line in products), products


def test_decoding_without_pieces_is_the_same(monkeypatch):
    made, _ = codecs.linear()
    code = jax.jit(made.encode)(codecs.bars()[:2])
    expected = jax.jit(made.decode)(code)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    found = jax.jit(lambda code: made.decode(code))(code)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_clips_in_a_row_decode_as_one_loop():
    """In the middle of a clip: what is below the crossover is a sinc's reach from its neighbours."""
    bars = codecs.bars()
    made, statistics = codecs.linear()
    x = made.encode(bars[:3])
    together = jax.jit(codecs.make(statistics, clips=3).decode)(jnp.concatenate(list(x))[None])
    apart = made.decode(x)
    for index in range(3):
        middle = slice(3000, 11000)
        np.testing.assert_allclose(together[0, 14336 * index :][middle], apart[index][middle], atol=2e-3)


def test_shipped_codec_decodes_a_voice_as_periodic_and_noise_as_noise():
    """Sawtooths behind a low-pass, one a sixteenth, through the codec that comes with the package; noise stays noise."""
    trained = generator.load(ROOT / "technogen_jax" / "pretrained" / "technogan.npz")
    samples, steps = trained.config.audio.clip_samples, 16 * trained.config.model.bars
    rng, time_s = np.random.default_rng(0), np.arange(samples // steps) / 44100
    envelope = np.exp(-4 * time_s) * np.clip(np.minimum(time_s / 0.003, (time_s[-1] - time_s) / 0.01), 0, 1)
    notes = []
    for semitones in rng.integers(12, 36, steps):
        hz = 55 * 2 ** (semitones / 12) * np.arange(1, 40)[:, None]
        notes.append(np.sum(np.sin(2 * np.pi * hz * time_s) / hz / (1 + (hz / 1500) ** 2), 0) * envelope)
    hiss = rng.standard_normal(samples)
    voice = 0.3 * np.concatenate(notes) / np.abs(notes).max() + 0.003 * hiss
    labels = np.full((1, len(trained.gan.classes)), 1 / len(trained.gan.classes), np.float32)
    back = jax.jit(lambda audio: trained.gan.decode(trained.gan.encode(audio, labels)))
    band = scipy.signal.butter(4, [800, 3000], "band", fs=44100, output="sos")

    def periodic(sound):
        """Of each sixteenth the highest of its autocorrelation from 55 to 500 Hz, 1 for what repeats exactly."""
        parts = scipy.signal.sosfiltfilt(band, sound).reshape(steps, -1)
        window = np.hanning(parts.shape[1])
        of_parts, of_window = (
            np.fft.irfft(np.abs(np.fft.rfft(x, 4 * len(window))) ** 2) for x in (parts * window, window)
        )
        return (of_parts[:, 88:800] / of_parts[:, :1] * of_window[0] / of_window[88:800]).max(1)

    for sound, least, most in ((voice, 0.9, 1.01), (0.1 * hiss, 0.1, 0.4)):
        (again,) = np.asarray(back(np.float32(sound)[None, :, None].repeat(2, -1)))
        assert least < np.quantile(periodic(again.mean(-1)), 0.25) < most
