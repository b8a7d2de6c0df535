"""Stereo features of signals whose width is known."""

import math

import numpy as np
import pytest
from helpers.techno_clips import RATE, noise, sine

from technogen_jax.evaluation.features import musical


@pytest.mark.parametrize("hz", [80, 1000])
def test_width_and_correlation_of_two_sines(hz):
    one = sine(hz, 2)
    for other, width_db, correlation in (
        (one, -120, 1),
        (-one, 120, -1),
        (sine(hz, 2, phase=np.pi / 2), 0, 0),
        (0.5 * one, 20 * math.log10(0.25 / 0.75), 1),
        (0 * one, 0, None),
    ):
        values = musical.measure(np.concatenate([one, other], axis=1), RATE, loop=True)
        assert values["width_db"] == pytest.approx(width_db, abs=1e-6)
        assert values["channel_correlation"] == (None if correlation is None else pytest.approx(correlation, abs=1e-9))
        if hz < 120:
            assert values["sub_width_db"] == pytest.approx(width_db, abs=1e-6)
        else:
            assert values["sub_width_db"] is None and values["sub_correlation"] is None


def test_stereo_below_120_hz_is_measured_separately():
    wide_top = np.repeat(sine(60, 4), 2, axis=1) + noise(4, channels=2) * [[3, -3]]
    values = musical.measure(wide_top, RATE)
    assert values["sub_width_db"] < -15 and values["sub_correlation"] > 0.95
    values = musical.measure(noise(4, channels=2), RATE)
    assert abs(values["width_db"]) < 0.2 and abs(values["channel_correlation"]) < 0.02


def test_one_channel_has_no_stereo_features():
    values = musical.measure(noise(4), RATE, beats=8, loop=True)
    missing = {name for name, value in values.items() if value is None}
    assert missing == {"width_db", "channel_correlation", "sub_width_db", "sub_correlation"}
