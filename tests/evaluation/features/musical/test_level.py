"""Level features against closed forms and scipy."""

import numpy as np
import pytest
import scipy.signal
from helpers.techno_clips import RATE, noise, sine

from technogen_jax.evaluation.features import musical


@pytest.mark.parametrize("seconds", [1, 4])  # a second is tiled
@pytest.mark.parametrize("rate,lufs", [(48000, -3.0103), (44100, -3.0075), (16000, -2.970)])
def test_loudness_of_a_full_scale_997_hz_sine(rate, lufs, seconds):
    got = musical.measure(sine(997, seconds, rate), rate)["loudness_lufs"]
    assert got == pytest.approx(lufs, abs=0.005)


def test_loudness_of_two_channels_at_minus_23_dbfs():
    both = np.repeat(sine(997, 4, 48000), 2, axis=1) * 10 ** (-23 / 20)
    assert musical.measure(both, 48000)["loudness_lufs"] == pytest.approx(-23.0, abs=0.005)


def test_true_peak_is_between_the_samples():
    values = musical.measure(sine(RATE / 4, 1, phase=np.pi / 4), RATE)
    assert 0 <= values["true_peak_dbtp"] < 0.02
    assert values["crest_db"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("samples", [40, 4099, 16000])
def test_true_peak_of_a_loop_equals_that_of_resample_poly(samples):
    audio = noise(1, channels=2)[:samples]
    curve = scipy.signal.resample_poly(np.tile(audio, (3, 1)), 4, 1, axis=0)[4 * samples : 8 * samples]
    want = 20 * np.log10(max(np.abs(curve).max(), np.abs(audio).max()))
    assert musical.measure(audio, RATE, loop=True)["true_peak_dbtp"] == pytest.approx(want, abs=1e-9)


def test_crest_dc_and_clipped_share_of_known_signals():
    values = musical.measure(0.5 * sine(1000, 1) + 0.1, RATE)
    assert values["dc"] == pytest.approx(0.1)
    assert musical.measure(0.5 * sine(1000, 1, phase=0.1), RATE)["crest_db"] == pytest.approx(3.0103, abs=0.05)
    assert musical.measure(np.sign(sine(100, 1, phase=0.1)), RATE)["crest_db"] == pytest.approx(0)
    audio = noise(1) / 10
    audio[10:13], audio[20:22], audio[30:35], audio[50] = 0.9, 0.9, -0.9, 0.9  # runs of 3, 2, 5 and 1
    assert musical.measure(audio, RATE)["clipped_share"] == pytest.approx(8 / RATE)
    assert musical.measure(np.clip(3 * sine(440, 1), -1, 1), RATE)["clipped_share"] > 0.5
