import functools

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bars

from technogen_jax.models.technogan.codec import pitch

RATE_HZ, STEPS = 44100, 16
SAMPLES = STEPS * 4864
saw = functools.partial(bars.saw, samples=SAMPLES, rate_hz=RATE_HZ)


def encode(signal):
    """The pitch features of one signal `[T]`."""
    return pitch.encode_pitch(*pitch.find_pitch(jnp.float32(signal)[None], RATE_HZ, STEPS))


def encode_and_decode(signal):
    """(Hz, confidence) of each half of a sixteenth."""
    features = encode(signal)
    assert features.shape == (1, STEPS, pitch.FEATURES)
    pitch_hz, confidence = pitch.decode_pitch(features)
    return np.asarray(pitch_hz)[0], np.asarray(confidence)[0]


def cents(found_hz, wanted_hz):
    return 1200 * np.log2(found_hz / wanted_hz)


@pytest.mark.parametrize("pitch_hz", [61.7, 97.3, 146.8, 233.1, 415.3, 700.0])
def test_find_pitch_is_right_to_a_few_cents_in_noise(pitch_hz):
    noise = np.random.default_rng(0).normal(0, 0.03, SAMPLES)
    found_hz, confidence = encode_and_decode(saw(pitch_hz) + noise)
    inner = slice(1, -1)  # where the loop ends, the saw jumps
    np.testing.assert_allclose(cents(found_hz[inner], pitch_hz), 0, atol=8)
    assert confidence[inner].min() > 0.7


def test_find_pitch_follows_notes_and_a_slide():
    notes = np.repeat([110.0, 164.8, 130.8, 196.0], SAMPLES // 4)
    middle = np.arange(3, 32, 8)
    found_hz, _ = encode_and_decode(saw(notes))
    np.testing.assert_allclose(cents(found_hz[middle], notes[:: SAMPLES // 4]), 0, atol=10)
    slide = np.geomspace(110, 220, SAMPLES)
    middles = slide[SAMPLES // 64 :: SAMPLES // 32]
    found_hz, _ = encode_and_decode(saw(slide))
    np.testing.assert_allclose(cents(found_hz[2:-2], middles[2:-2]), 0, atol=25)


def test_noise_kick_and_silence_have_no_pitch():
    time = np.arange(SAMPLES) / RATE_HZ % (SAMPLES / RATE_HZ / 4)
    kick = np.sin(2 * np.pi * (50 * time + 5 * (1 - np.exp(-30 * time)))) * np.exp(-6 * time)
    noise = np.random.default_rng(0).normal(0, 0.1, SAMPLES)
    for signal in (noise, kick + 0.01 * noise, np.zeros(SAMPLES)):
        assert encode_and_decode(signal)[1].max() < 0.15


def test_mean_of_the_features_of_two_pitches_has_a_low_confidence():
    features = [encode(saw(hz)) for hz in (110.0, 220.0)]
    _, confidence = pitch.decode_pitch((features[0] + features[1]) / 2)
    assert np.asarray(confidence)[0, 2:-2].max() < 0.65


def test_rotating_the_signal_by_sixteenths_rotates_the_features():
    signal = saw(np.repeat([110.0, 164.8, 130.8, 196.0], SAMPLES // 4))
    plain, rotated = encode(signal), encode(np.roll(signal, 3 * 4864))
    np.testing.assert_allclose(rotated, jnp.roll(plain, 3, 1), atol=1e-3)
