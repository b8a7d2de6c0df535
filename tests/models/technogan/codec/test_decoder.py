import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal
from helpers import codecs
from helpers.bars import TONES

from technogen_jax.audio import spectral
from technogen_jax.models.technogan.codec import constants, decoder, shaper

KEY = jax.random.key(0)


def test_decoded_levels_have_the_power_of_the_lost_variance(monkeypatch):
    """With levels spread by a variance v about m the mean power is exp(2 m + 2 v), of a log-normal distribution."""
    _, measured = codecs.linear()
    given, magnitudes = [], []
    resynthesize = spectral.resynthesize_circular

    def record(function, audio, controls, n_fft, hop, *, before, **rest):
        spectra = spectral.stft_circular(audio, n_fft, hop)
        made = function(jnp.concatenate([spectra[:, :, -before:], spectra], 2), controls)
        magnitudes.append(jnp.abs(jnp.stack(made, 1)))
        return resynthesize(function, audio, controls, n_fft, hop, before=before, **rest)

    monkeypatch.setattr(spectral, "resynthesize_circular", record)

    def magnitude(statistics, x):
        codecs.make(statistics).decode.__wrapped__(x)
        return magnitudes.pop()

    for lost in (0, 0.5):
        statistics = measured | {f"{part}_mean": np.full(64 + 4 * (part == "side"), -2.0) for part in ("mid", "side")}
        statistics |= {f"{part}_lost": np.full(64 + 4 * (part == "side"), lost) for part in ("mid", "side")}
        given.append(jax.jit(functools.partial(magnitude, statistics))(np.zeros((1, 16, 27), np.float32)))
    given = np.asarray(given)
    is_loud = given[0] > 1e-3
    assert given[0].shape == (1, 2, 128, 225) and is_loud.mean() > 0.5
    louder = (np.exp(-1.5) - 1e-4) / (np.exp(-2) - 1e-4)
    np.testing.assert_allclose(given[1][is_loud] / given[0][is_loud], louder, rtol=1e-3)


def test_spectrum_of_white_noise_has_a_mean_square_of_one():
    grid = codecs.GRID
    noise = jax.random.normal(KEY, (8, 2, 14336))
    spectrum = spectral.noise_power(grid.n_fft) ** -0.5 * spectral.stft_circular(noise, grid.n_fft, grid.hop_length)
    power = np.square(np.abs(spectrum))[..., 2:-2].mean()
    assert power == pytest.approx(1, abs=0.02)


def test_gates_multiply_the_excitations_that_they_are_named_after():
    bars = codecs.bars()
    _, statistics = codecs.tonal()
    # Nothing of the mid in the side:
    made = codecs.make(statistics | dict(pan_mean=np.zeros(8), pan_basis=np.zeros((8, 2))))
    x, noise = made.encode(bars[:2]), jax.random.normal(KEY, (2, 2, 14336))
    synthesize = jax.jit(made.synthesize)
    plain = synthesize(None, x, noise)
    above = functools.partial(scipy.signal.sosfiltfilt, scipy.signal.butter(8, 400, "high", fs=8000, output="sos"))

    def change(**gates):
        sound = synthesize(codecs.biased_shaper(**gates), x, noise)
        return np.std(above(np.asarray(sound - plain)), (0, 2))

    loudness = np.std(above(np.asarray(plain)), (0, 2))
    np.testing.assert_allclose(change(mid_noise=np.log(2)), [loudness[0], 0], rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(change(side_noise=np.log(3)), [0, 2 * loudness[1]], rtol=1e-3, atol=1e-6)
    for name in ("square", "rectified", "pulse", "pitch"):
        mid, side = change(**{f"mid_{name}": 1.0})
        assert 0.2 * loudness[0] < mid < 3 * loudness[0] and side < 1e-6
    for name in ("square", "delayed"):
        mid, side = change(**{f"side_{name}": 1.0})
        assert mid < 1e-6 and 0.1 * loudness[1] < side < 3 * loudness[1]


def test_reduce_noise_lowers_noise_where_pulses_have_most_of_the_power():
    noise, swells = jnp.log(jnp.full((1, 4, 2), 0.5)), jnp.zeros((1, 2, 4 * shaper.SWELLS))
    swells = swells.at[:, 0, : shaper.SWELLS].set(np.log(20.0))  # in the first frame noise is loud after all
    pitch = jnp.stack([jnp.full((1, 4), 5.0), jnp.zeros((1, 4))], -1)
    less = np.asarray(noise - decoder.reduce_noise(noise, pitch, swells))[0]
    share = np.array([25 / (25 + 100), *[25 / (25 + 0.25)] * 3])
    np.testing.assert_allclose(
        less, np.stack([share**2, np.zeros(4)], -1) * constants.NOISE_REDUCTION_NEPERS, rtol=1e-5
    )


def test_sustained_tone_in_the_side_alone_is_decoded_as_a_tone():
    """Also below the lowest partial of the mid. With a gate of noise alone it is as broad as its band."""
    bars = codecs.bars()
    hz = np.round([150, 210, 330, 440, 520, 660] / np.float64(8000 / 14336)) * 8000 / 14336
    tone = 0.05 * np.sin(2 * np.pi * hz[:, None] * np.arange(14336) / 8000)[..., None]
    audio = (bars.mean(-1, keepdims=True) + tone * [1, -1]).astype(np.float32)
    made, _ = codecs.measure(audio, **TONES | dict(side_partial_components=6), shaper="new")
    x, noise = made.encode(audio), jax.random.normal(KEY, (6, 2, 14336))
    synthesize = jax.jit(made.synthesize)

    def share(**gates):
        power = np.abs(np.fft.rfft(np.asarray(synthesize(codecs.biased_shaper(**gates), x, noise))[:, 1])) ** 2
        bins = np.round(hz * 14336 / 8000).astype(int)
        return np.array([row[at - 9 : at + 10].sum() / row.sum() for row, at in zip(power, bins, strict=True)])

    assert share(side_noise=-8.0, side_partials=1.0).min() > 0.6 > 0.4 > share().max()


def test_decode_uses_the_shaper_of_the_statistics_for_stereo_and_mono():
    bars = codecs.bars()
    for channels, (made, statistics) in (
        (1, codecs.measure(bars[..., :1], **TONES, shaper="new")),
        (2, codecs.tonal()),
    ):
        shaped = codecs.make(statistics | shaper.to_arrays(codecs.biased_shaper(mid_noise=np.log(2))), channels)
        x = made.encode(bars[..., :channels])
        sounds = [np.asarray(each.decode(x)).mean(-1) for each in (made, shaped)]
        above = scipy.signal.butter(8, 600, "high", fs=8000, output="sos")
        plain, louder = (scipy.signal.sosfiltfilt(above, sound).std() for sound in sounds)
        assert louder == pytest.approx(2 * plain, rel=0.02)


def test_no_decoded_sample_is_above_the_ceiling():
    codec, _ = codecs.linear()
    x = np.random.default_rng(0).normal(0, 5, (2, 16, 27)).astype(np.float32)
    sound = np.asarray(codec.decode(x))
    assert np.abs(sound).max() == pytest.approx(10 ** (-0.5 / 20), rel=1e-3)


def test_decoded_sound_has_no_power_below_audible_frequencies():
    """A generator may put anything into the waveform below the crossover."""
    codec, _ = codecs.linear()
    x = 3 * jax.random.normal(KEY, (2, 16, codec.layout.size))
    power = np.abs(np.fft.rfft(np.asarray(codec.decode(x)).mean(-1))) ** 2
    frequencies_hz = np.fft.rfftfreq(14336, 1 / 8000)
    assert power[:, frequencies_hz < 8].sum() < 1e-4 * power.sum()  # what the limiter's gain leaves


def test_side_of_mono_stays_silent_for_any_code():
    bars = codecs.bars()
    made, statistics = codecs.measure(np.repeat(bars[..., :1], 2, -1))
    assert statistics["side_deviation"].max() < 1e-3
    x = np.random.default_rng(0).normal(0, 3, (2, 16, 27)).astype(np.float32)
    sound = np.asarray(made.decode(x))
    assert np.isfinite(sound).all() and np.abs(sound[..., 0] - sound[..., 1]).max() < 1e-3 < np.abs(sound).max()


def test_mono_has_no_side_and_large_codes_give_finite_sound():
    bars = codecs.bars()
    made, statistics = codecs.measure(bars[..., :1])
    assert not any(name.startswith("side") for name in statistics)
    sound = np.asarray(made.decode(np.full((1, 16, 22), 1e3, np.float32)))
    assert sound.shape == (1, 14336, 1) and np.isfinite(sound).all()


def test_decode_takes_the_noise_that_it_would_draw_or_another():
    codec, _ = codecs.tonal()
    x = jax.random.normal(KEY, (2, 16, codec.layout.size))
    decode, noise = jax.jit(codec.decode), jax.jit(codec.draw_noise)(x)
    assert noise.shape == (2, 2, codec.grid.samples)
    np.testing.assert_allclose(decode(x, noise), decode(x), atol=1e-5)
    assert np.abs(decode(x, noise[::-1]) - decode(x)).max() > 1e-3
