import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

from technogen_jax.models.technogan.codec import pitch

RATE_HZ, STEPS = 44100, 16
SAMPLES = STEPS * 4864


def saw(pitch_hz, samples=SAMPLES):
    """A saw whose pitch is this at each sample, or throughout."""
    return 0.3 * scipy.signal.sawtooth(2 * np.pi * np.cumsum(np.broadcast_to(pitch_hz, samples)) / RATE_HZ)


def found(signal):
    """(Hz, how sure), by halves of a sixteenth, after coding and reading back."""
    numbers, _ = pitch.numbers_of(jnp.float32(signal)[None], RATE_HZ, STEPS)
    assert numbers.shape == (1, STEPS, pitch.PITCH_SIZE)
    pitch_hz, sure = pitch.pitches(numbers)
    return np.asarray(pitch_hz)[0], np.asarray(sure)[0]


def cents(found_hz, wanted_hz):
    return 1200 * np.log2(found_hz / wanted_hz)


@pytest.mark.parametrize("pitch_hz", [61.7, 97.3, 146.8, 233.1, 415.3, 700.0])
def test_the_pitch_of_a_voice_in_noise_is_found_to_a_few_cents(pitch_hz):
    noise = np.random.default_rng(0).normal(0, 0.03, SAMPLES)
    pitch, sure = found(saw(pitch_hz) + noise)
    inner = slice(1, -1)  # where the loop ends, the saw jumps
    np.testing.assert_allclose(cents(pitch[inner], pitch_hz), 0, atol=8)
    assert sure[inner].min() > 0.7


def test_notes_and_a_slide_are_followed():
    notes = np.repeat([110.0, 164.8, 130.8, 196.0], SAMPLES // 4)
    middle = np.arange(3, 32, 8)
    np.testing.assert_allclose(cents(found(saw(notes))[0][middle], notes[:: SAMPLES // 4]), 0, atol=10)
    slide = np.geomspace(110, 220, SAMPLES)
    middles = slide[SAMPLES // 64 :: SAMPLES // 32]
    np.testing.assert_allclose(cents(found(saw(slide))[0][2:-2], middles[2:-2]), 0, atol=25)


def test_neither_noise_nor_a_kick_nor_silence_has_a_pitch():
    time = np.arange(SAMPLES) / RATE_HZ % (SAMPLES / RATE_HZ / 4)
    kick = np.sin(2 * np.pi * (50 * time + 5 * (1 - np.exp(-30 * time)))) * np.exp(-6 * time)
    noise = np.random.default_rng(0).normal(0, 0.1, SAMPLES)
    for signal in (noise, kick + 0.01 * noise, np.zeros(SAMPLES)):
        assert found(signal)[1].max() < 0.15


@pytest.mark.parametrize("hz", [251.3, 701.7, 3011.0])
def test_the_share_of_lines_is_that_of_a_sine_in_noise_in_its_half_octave(hz):
    """By the powers of both; a loud bass below is no part of it."""
    time_s = np.arange(SAMPLES) / RATE_HZ
    hz, low_hz = np.round(np.array([hz, 70.0]) * SAMPLES / RATE_HZ) * RATE_HZ / SAMPLES
    noise = np.random.default_rng(0).normal(0, 0.02, SAMPLES)
    sine, bass = 0.02 * np.sin(2 * np.pi * hz * time_s), 0.5 * np.sin(2 * np.pi * low_hz * time_s)
    edges = pitch.SHARE_EDGES_HZ
    heard = 0.02**2 * (edges[-1] - edges[0]) / (RATE_HZ / 2)  # of the noise, between the first edge and the last
    wanted = np.where((edges[:-1] <= hz) & (hz < edges[1:]), 0.02**2 / 2 / (0.02**2 / 2 + heard), 0)
    signals = jnp.float32([noise + sine, noise + sine + bass, noise, 0 * noise])
    shares = np.asarray(pitch.line_shares(signals, RATE_HZ, STEPS))
    np.testing.assert_allclose(shares[0], wanted, atol=0.03)
    np.testing.assert_allclose(shares[1], shares[0], atol=0.03)
    assert shares[2].max() < 0.003 and (shares[3] == 0).all()


def test_between_two_pitches_there_is_none():
    """A third apart: the mean of the numbers of two notes is less sure than either, a tritone apart hardly sure."""
    numbers = [pitch.numbers_of(jnp.float32(saw(hz))[None], RATE_HZ, STEPS)[0] for hz in (110.0, 220.0)]
    _, sure = pitch.pitches((numbers[0] + numbers[1]) / 2)
    assert np.asarray(sure)[0, 2:-2].max() < 0.65


def test_lines_are_found_and_read_back_strongest_first():
    time = np.arange(SAMPLES) / RATE_HZ
    tone = np.array([50, 117, 225])
    hz = np.round(220 * 2 ** (tone / 60) * SAMPLES / RATE_HZ) * RATE_HZ / SAMPLES
    noise = np.random.default_rng(0).normal(0, 0.02, SAMPLES)
    signal = noise + np.sum([a * np.sin(2 * np.pi * f * time) for a, f in zip((0.05, 0.03, 0.02), hz, strict=True)], 0)
    _, numbers = pitch.numbers_of(jnp.float32(signal)[None], RATE_HZ, STEPS)
    assert numbers.shape == (1, STEPS, pitch.LINE_SIZE)
    read, height = (np.asarray(values)[0] for values in pitch.lines(numbers))
    np.testing.assert_allclose(np.sort(read, -1), np.tile(tone, (STEPS, 1)), atol=1)  # a bin at 390 Hz is 20 cents
    assert height.min() > 0.3


def test_harmonics_of_the_pitch_and_noise_are_no_lines():
    noise = np.random.default_rng(0).normal(0, 0.02, SAMPLES)
    pitch_hz = 40 * RATE_HZ / 4864 / 2  # whole periods in a sixteenth
    signals = jnp.float32([saw(pitch_hz) + noise, noise])
    found = pitch.find_pitch(signals, RATE_HZ, STEPS)
    heights = np.asarray(pitch.find_lines(signals, RATE_HZ, STEPS, 220.0, found))
    assert heights[0].max(-1).mean() < 0.1
    assert (heights[1] > 0.15).any(-1).mean() < 0.2


def test_turned_by_a_sixteenth_the_numbers_turn_by_one():
    signal = jnp.float32(saw(np.repeat([110.0, 164.8, 130.8, 196.0], SAMPLES // 4)))[None]
    both = (pitch.numbers_of(x, RATE_HZ, STEPS) for x in (signal, jnp.roll(signal, 3 * 4864, 1)))
    for plain, turned in zip(*both, strict=True):
        np.testing.assert_allclose(turned, jnp.roll(plain, 3, 1), atol=1e-3)


def test_logits_that_choose_say_what_is_read_back():
    notes = np.full((1, pitch.NOTES, pitch.QUARTER_TONES), -9.0, np.float32)
    notes[0, 0, 24], notes[0, 1, 31] = 9, 9  # an octave up, and three and a half semitones more
    choices = np.full((1, STEPS, 2, 1 + pitch.NOTES), -9.0, np.float32)
    choices[..., 0], choices[:, :, 0, 1], choices[:, :, 1, 2] = 9, 9, 9
    numbers = pitch.speak_pitch(jnp.asarray(choices), jnp.asarray(notes))
    pitch_hz, sure = (np.asarray(x) for x in pitch.pitches(numbers))
    np.testing.assert_allclose(pitch_hz[0], np.tile([110, 110 * 2 ** (3.5 / 12)], STEPS), rtol=1e-3)
    assert sure.min() > 0.95
    lines = np.full((1, pitch.BAR_LINES, pitch.LINE_STEPS), -9.0, np.float32)
    heights = np.full((1, STEPS, pitch.BAR_LINES), -9.0, np.float32)
    lines[0, [0, 1, 2], [20, 60, 100]] = 9
    heights[..., 0], heights[..., 1] = 9, 0
    numbers = pitch.speak_lines(jnp.asarray(heights), jnp.asarray(lines))
    tone, height = (np.asarray(x)[0, 0] for x in pitch.lines(numbers))
    assert tone[:2].tolist() == [40, 120]
    np.testing.assert_allclose(height, [1, 0.5, 0], atol=0.1)
