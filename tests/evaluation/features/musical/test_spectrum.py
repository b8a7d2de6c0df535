"""Spectral features against closed forms and scipy."""

import math

import numpy as np
import pytest
import scipy.signal
from helpers.techno_clips import RATE, four_to_the_floor, noise, sine

from technogen_jax.evaluation.features import musical


@pytest.mark.parametrize("rate,samples", [(16000, 16000), (44100, 88200), (16000, 1000)])
def test_ltas_equals_welchs_spectrum_in_third_octaves(rate, samples):
    audio = noise(2, rate, channels=2)[:samples]
    audio[:, 1] *= 0.5
    got = musical.ltas_db(audio, rate, loop=True)
    lines_hz, density = scipy.signal.welch(np.tile(audio, (16, 1)), rate, nperseg=4096, axis=0, detrend=False)
    edges_hz = [1000 * 10 ** ((band - 0.5) / 10) for band in range(-16, 14)]
    edges_hz = [hz for hz in edges_hz if hz < rate / 2] + [rate / 2]
    assert len(got) == len(edges_hz) - 1
    centres_hz = musical.ltas_centres_hz(rate)
    assert centres_hz[:-1] == pytest.approx([1000 * 10 ** (band / 10) for band in range(-16, len(got) - 17)])
    assert edges_hz[-2] < centres_hz[-1] < rate / 2
    for index in range(10, len(got)):  # lower bands are narrower than a few lines
        inside = (lines_hz >= edges_hz[index]) & (lines_hz < edges_hz[index + 1])
        want = 10 * np.log10(density[inside].mean() * (edges_hz[index + 1] - edges_hz[index]))
        assert got[index] == pytest.approx(want, abs=0.5)
    assert 10 * np.log10(np.sum(10 ** (got / 10))) == pytest.approx(10 * np.log10(np.mean(audio**2)), abs=0.2)


def test_ltas_distance_separates_gain_from_shape():
    audio = four_to_the_floor() + noise(8 * 60 / 132) / 100
    reference = musical.ltas_db(audio, RATE, loop=True)
    shape, offset = musical.ltas_distance(reference, musical.ltas_db(audio / 2, RATE, loop=True))
    assert shape == pytest.approx(0, abs=1e-9) and offset == pytest.approx(-6.0206, abs=1e-4)
    cuts = [scipy.signal.butter(8, hz, fs=RATE, output="sos") for hz in (7000, 6000, 5000, 3500)]
    shapes = [
        musical.ltas_distance(reference, musical.ltas_db(scipy.signal.sosfilt(cut, audio, axis=0), RATE, loop=True))[0]
        for cut in cuts
    ]
    assert 0.3 < shapes[0] < shapes[1] < shapes[2] < shapes[3]  # 7 kHz is seen by the partial band at the top alone
    with pytest.raises(ValueError, match="one sample rate"):
        musical.ltas_distance(reference, reference[:-1])


def test_sub_ratio_of_noise_sines_and_a_loop():
    got = musical.measure(noise(20), RATE)["sub_ratio_db"]
    assert got == pytest.approx(10 * math.log10(90 / (RATE / 2)), abs=0.3)  # -19.49
    assert musical.measure(sine(60, 1), RATE, loop=True)["sub_ratio_db"] == pytest.approx(0, abs=1e-6)
    assert musical.measure(sine(1000, 1), RATE, loop=True)["sub_ratio_db"] == musical.FLOOR_DB
    loop = four_to_the_floor()
    high_passed = scipy.signal.sosfilt(scipy.signal.butter(8, 200, "high", fs=RATE, output="sos"), loop, axis=0)
    assert musical.measure(loop, RATE)["sub_ratio_db"] > -4
    assert musical.measure(high_passed, RATE)["sub_ratio_db"] < -20


def test_low_end_is_narrow_and_steady_for_notes_and_not_for_rumble():
    rng, rate_hz = np.random.default_rng(0), 44100
    time_s = np.arange(2 * rate_hz) / rate_hz
    note, octave = (0.3 * np.sin(2 * np.pi * hz * time_s)[:, None] for hz in (60, 120))
    band = scipy.signal.butter(4, (30, 230), "band", fs=rate_hz, output="sos")
    rumble = 0.1 * scipy.signal.sosfilt(band, rng.standard_normal((2 * rate_hz, 1)), axis=0)

    def measured(clip, rate_hz=rate_hz):
        features = musical.measure(clip, rate_hz, beats=4, loop=True)
        return features["low_spread_hz"], features["low_change_db"]

    narrow, steady = measured(note)
    power = np.array([1 / 6, 2 / 3, 1 / 6])  # of a Hann window, squared, on a bin and beside it
    assert narrow == pytest.approx(np.exp(-np.sum(power * np.log(power))) / 0.186, rel=0.05)
    assert measured(note + octave)[0] == pytest.approx(2 * narrow, rel=0.05)
    wide, flickering = measured(rumble)
    assert 90 < wide < 200 and flickering > 3 and steady < 0.5
    np.testing.assert_allclose(measured(0.1 * rumble), (wide, flickering), rtol=1e-6)
    np.testing.assert_allclose(measured(rumble[::2], rate_hz // 2), (wide, flickering), rtol=0.02)
    np.testing.assert_allclose(measured(np.roll(rumble, 7000, 0)), (wide, flickering), rtol=0.05)
    nothing = 0.1 * np.sin(2 * np.pi * 1000 * time_s)[:, None]
    assert measured(nothing) == measured(note[:8000]) == (None, None)


def test_line_share_separates_notes_from_noise():
    rng, rate_hz = np.random.default_rng(0), 44100
    noise = 0.1 * rng.standard_normal((rate_hz, 1))
    saw = 0.1 * scipy.signal.sawtooth(2 * np.pi * 220 * np.arange(rate_hz) / rate_hz)[:, None]
    shares = [musical.measure(clip, rate_hz)["line_share"] for clip in (noise, saw, noise + saw)]
    assert shares[0] < 0.002 and shares[1] > 0.95
    below, above = (np.fft.rfft(x[:, 0])[200:5000] for x in (saw, noise))
    expected = np.square(np.abs(below)).sum() / sum(np.square(np.abs(x)).sum() for x in (below, above))
    assert shares[2] == pytest.approx(expected, abs=0.15)
    assert musical.measure(noise[:4000], rate_hz)["line_share"] is None
