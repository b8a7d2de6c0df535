import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import codecs

from technogen_jax.models.technogan.codec import excitations, partials

KEY = jax.random.key(0)


def test_white_noise_has_unit_deviation_and_follows_from_each_sixteenths_code():
    x = np.random.default_rng(0).normal(size=(3, 16, 25)).astype(np.float32)
    noise = np.asarray(excitations.white_noise(jnp.asarray(x), 2, 896))
    assert noise.shape == (3, 2, 14336)
    np.testing.assert_allclose([noise.mean(), noise.std()], [0, 1], atol=0.01)
    flat = noise.reshape(6, -1)
    np.testing.assert_allclose(np.corrcoef(flat), np.eye(6), atol=0.04)
    turned = excitations.white_noise(jnp.roll(x, 5, 1), 2, 896)
    np.testing.assert_array_equal(turned, np.roll(noise, 5 * 896, -1))
    x[1, 3, 7] = np.nextafter(x[1, 3, 7], 9)
    changed = np.asarray(excitations.white_noise(jnp.asarray(x), 2, 896)) != noise
    assert changed.reshape(3, 2, 16, 896).any((1, 3)).tolist() == (np.arange(48).reshape(3, 16) == 16 + 3).tolist()


def test_interpolate_circular_is_numpys_interpolation_around_the_loop():
    values = np.random.default_rng(0).normal(size=(2, 5)).astype(np.float32)
    middles = (np.arange(-1, 6) + 0.5) * 12
    wanted = [np.interp(np.arange(60) + 0.5, middles, np.r_[row[-1], row, row[0]]) for row in values]
    np.testing.assert_allclose(excitations.interpolate_circular(jnp.asarray(values), 60), wanted, atol=1e-5)


def test_distort_gives_odd_even_and_all_harmonics_of_a_sine():
    time = np.arange(4096) / 4096
    spectra = np.abs(np.fft.rfft(excitations.distort(jnp.float32(0.5 * np.sin(2 * np.pi * 20 * time))[None])[0]))
    square, rectified, pulse = (spectrum[20:500:20] for spectrum in spectra)
    assert square[::2].min() > 20 * square[1::2].max()
    assert rectified[1:10:2].min() > 20 * rectified[::2].max()
    assert pulse.min() > 0.5 * pulse.max()
    np.testing.assert_allclose(square[[2, 4]] / square[0], [1 / 3, 1 / 5], atol=0.02)


def test_flatten_bands_gives_one_power_in_all_bands_and_keeps_silence():
    filters = codecs.BANDS.mid
    spread = filters / np.maximum(filters.sum(0), 1e-9)
    tilted = np.random.default_rng(0).normal(size=(2, 64, 225)) * np.geomspace(100, 1, 225) + 0j
    even = np.asarray(excitations.flatten_bands(jnp.complex64(tilted), filters, spread))
    bands = np.square(np.abs(even)) @ filters.T
    np.testing.assert_allclose(bands.mean((0, 1))[:15], 1, atol=0.15)  # the last has no neighbour above
    assert not excitations.flatten_bands(jnp.zeros((1, 2, 225), jnp.complex64), filters, spread).any()


def test_swell_noise_raises_noise_at_the_time_and_frequency_of_the_swell():
    noise = np.random.default_rng(0).standard_normal((1, 2, 16000)).astype(np.float32)
    swells = np.zeros((1, 2, 4), np.float32)
    swells[0, 0, 1], swells[0, 1, 2] = np.log(2), np.log(3)
    found = np.asarray(excitations.swell_noise(jnp.asarray(noise), jnp.asarray(swells), 4, 16000.0))
    np.testing.assert_allclose(excitations.swell_noise(jnp.asarray(noise), 0 * swells, 4, 16000.0), noise, atol=1e-5)

    def gain(middle, low_hz, high_hz):
        powers = [np.square(np.abs(np.fft.rfft(x[..., middle - 500 : middle + 500]))) for x in (found, noise)]
        bins = slice(low_hz // 16, high_hz // 16)
        return np.sqrt(powers[0][..., bins].mean() / powers[1][..., bins].mean())

    assert gain(6000, 100, 1800) == pytest.approx(2, rel=0.1) and gain(6000, 4500, 7900) == pytest.approx(1, rel=0.05)
    assert gain(10000, 4500, 7900) == pytest.approx(3, rel=0.1) and gain(10000, 100, 1800) == pytest.approx(1, rel=0.05)


def test_make_pulses_returns_the_sum_of_all_harmonics_at_unit_power():
    """The sum in float64; a pitch of 100 Hz has 36 harmonics below 0.45 of 8,000 Hz."""
    pitch_hz, confidence = jnp.full((1, 32), 100.0), jnp.ones((1, 32))
    found = np.asarray(excitations.make_pulses(pitch_hz, confidence, 16 * 1000, 8000))
    cycles = np.arange(1, 4001) * 100 / 8000
    wanted = np.cos(2 * np.pi * cycles[:, None] * np.arange(1, 37)).sum(1) / np.sqrt(18)
    np.testing.assert_allclose(found.reshape(4, 4000), np.tile(wanted, (4, 1)), atol=2e-3)  # of peaks of 8.5
    assert np.square(found).mean() == pytest.approx(1, abs=0.01)


def test_make_pulses_follows_the_pitch_restarts_each_beat_and_ignores_unconfidence_pitches():
    pitch_hz = np.full((1, 32), 100.0, np.float32)
    pitch_hz[0, 4:8] = 200
    confidence = np.ones((1, 32), np.float32)
    found = np.asarray(excitations.make_pulses(jnp.asarray(pitch_hz), jnp.asarray(confidence), 16000, 8000))[0]
    steady = np.asarray(excitations.make_pulses(jnp.full((1, 32), 100.0), jnp.asarray(confidence), 16000, 8000))[0]
    np.testing.assert_allclose(found[8000:], steady[8000:], atol=1e-3)  # a beat later
    spectrum = np.abs(np.fft.rfft(found[2100:3900] * np.hanning(1800)))
    assert np.argmax(spectrum) % 45 in (0, 1, 44)  # 200 Hz in bins of 4.4
    confidence[0, 4:8] = 0  # not confidence: the notes around hold theirs to the end
    held = np.asarray(excitations.make_pulses(jnp.asarray(pitch_hz), jnp.asarray(confidence), 16000, 8000))[0]
    np.testing.assert_allclose(held[:2000], steady[:2000], atol=1e-3)
    assert np.abs(found[1900:2000] - steady[1900:2000]).max() > 0.1


def test_make_partials_returns_numpys_sines_and_continues_over_bars():
    """A tone that is held for three bars, by float64."""
    tone, height = np.full((1, 48, 1), 60), np.full((1, 48, 1), 0.5, np.float32)
    found = np.asarray(excitations.make_partials(jnp.asarray(tone), jnp.asarray(height), 48 * 896, 8000, 220.0))[0]
    periods = np.round(440 * 14336 / 8000)
    wanted = 0.5 * np.sin(2 * np.pi * periods * np.arange(48 * 896) / 14336)
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    one = excitations.make_partials(jnp.asarray(tone[:, :16]), jnp.asarray(height[:, :16]), 14336, 8000, 220.0)[0]
    np.testing.assert_array_equal(found, np.tile(one, 3))


def test_make_partials_crossfades_from_one_sixteenth_to_the_next():
    tone, height = np.zeros((1, 16, 2), int), np.zeros((1, 16, 2), np.float32)
    tone[0, 3], height[0, 3, 0] = (60, 150), 1
    found = np.asarray(
        excitations.make_partials(jnp.asarray(tone), jnp.asarray(height), 16 * 896, 8000, 220.0)
    ).reshape(16, 896)
    loud = np.abs(found).max(1)
    assert (loud > 0.9).tolist() == [False] * 3 + [True, True] + [False] * 11 and loud[[2, 5]].max() == 0
    assert np.abs(found[3, :200]).max() < 0.25 < 0.75 < np.abs(found[3, -200:]).max()


def test_make_partials_has_the_frequency_of_each_position():
    for tone in (0, partials.POSITIONS - 1):
        at = np.full((1, 16, 1), tone)
        found = excitations.make_partials(jnp.asarray(at), jnp.ones((1, 16, 1)), 77824, 44100, 220.0)[0]
        peak = np.argmax(np.abs(np.fft.rfft(found))) * 44100 / 77824
        assert peak == pytest.approx(220 * 2 ** (tone / 60), abs=0.3)
