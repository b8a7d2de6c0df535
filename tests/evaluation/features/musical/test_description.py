"""All features together: undefined values, errors, and what must not matter."""

import math

import numpy as np
import pytest
from helpers.techno_clips import RATE, four_to_the_floor, noise, sine

from technogen_jax.evaluation.features import musical


def test_gain_changes_levels_only():
    loop = np.concatenate([four_to_the_floor(seed=seed) for seed in (0, 1)], axis=1)
    loud, quiet = (musical.measure(gain * loop, RATE, beats=8, loop=True) for gain in (1, 0.5))
    for name in ("loudness_lufs", "true_peak_dbtp"):
        assert quiet.pop(name) - loud.pop(name) == pytest.approx(-6.0206, abs=1e-3)
    assert quiet.pop("dc") == pytest.approx(loud.pop("dc") / 2)
    assert quiet == pytest.approx(loud, abs=1e-6)


def test_describe_equals_measure_and_ltas_db():
    loop = four_to_the_floor(beats=4)
    for how in (dict(beats=4, loop=True), dict()):
        got = musical.describe(loop, RATE, **how)
        assert got.features == musical.measure(loop, RATE, **how)
        np.testing.assert_array_equal(got.ltas_db, musical.ltas_db(loop, RATE, loop="loop" in how))
        assert got.onset_pattern.shape == (musical.STEPS, 3)


def test_every_value_is_a_finite_float_or_none_with_a_description():
    for samples in (1, 2, 3, 37, 500, 4000, 16384):
        for rate in (8000, 16000, 44100):
            for loop in (False, True):
                audio = noise(1, 16384, channels=2)[:samples].astype(np.float32)
                values = musical.measure(audio, rate, beats=1 if loop else None, loop=loop)
                assert values.keys() == musical.features().keys()
                for name, value in values.items():
                    assert value is None or (type(value) is float and math.isfinite(value)), (name, value)
                assert np.isfinite(musical.ltas_db(audio, rate, loop=loop)).all()
    assert all(feature.says.endswith(".") and "\n" not in feature.says for feature in musical.features().values())


def test_a_steady_tone_has_no_tempo_no_beat_and_no_kick():
    values = musical.measure(sine(440, 2), RATE, loop=True)
    assert not [
        name for name in values if name.startswith(("tempo", "beat", "sixteenth", "kick", "pulse")) and values[name]
    ]
    assert values["crest_db"] == pytest.approx(3.0103, abs=0.01)


@pytest.mark.parametrize("level", [0.0, 1e-6, 0.25])  # nothing, almost nothing, nothing but DC
def test_silence_has_only_peak_and_dc(level):
    values = musical.measure(np.full((2 * RATE, 2), level), RATE, beats=4, loop=True)
    defined = {name for name, value in values.items() if value is not None}
    if level < 0.1:
        assert defined == {"true_peak_dbtp", "dc", "clipped_share"}
    else:
        assert defined.isdisjoint({"sub_ratio_db", "width_db", "tempo_bpm", "kick_similarity", "bar_repetition"})
    assert {"true_peak_dbtp", "dc", "clipped_share"} <= defined
    assert values["dc"] == pytest.approx(level)


def test_audio_that_cannot_be_measured_raises():
    good = noise(1)
    for bad, message in (
        (good[:, 0], "channels, last, got shape"),
        (np.zeros((100, 3)), "one or two channels"),
        (good[:0], "empty"),
        ((good * 32767).astype(np.int16), "int16"),
        (np.where(np.arange(RATE) == 5, np.nan, good[:, 0])[:, None], "1 samples that are NaN or Inf, the first nan"),
        (np.where(np.arange(RATE) == 5, -np.inf, good[:, 0])[:, None], "first -inf"),
    ):
        for function in (musical.measure, musical.ltas_db, musical.describe):
            with pytest.raises(ValueError, match=message):
                function(bad, RATE)
    with pytest.raises(ValueError, match="at least 4000 Hz, got 2000"):
        musical.measure(good, 2000)
    with pytest.raises(ValueError, match="beats: expected 1 or more"):
        musical.measure(good, RATE, beats=0)


def test_dtype_and_the_order_of_channels_do_not_matter():
    stereo = np.concatenate([four_to_the_floor(seed=seed) for seed in (0, 1)], axis=1).astype(np.float32)
    want = musical.measure(stereo.astype(np.float64), RATE, beats=8, loop=True)
    assert musical.measure(stereo, RATE, beats=8, loop=True) == pytest.approx(want, abs=1e-6)
    assert musical.measure(stereo[:, ::-1], RATE, beats=8, loop=True) == pytest.approx(want, abs=1e-5)
