"""Each head against its equation, computed with numpy in loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from technogen_jax.models.technogan import heads, low_end
from technogen_jax.models.technogan.codec import partials, pitch

CLIPS, BARS, STEPS, SIZE = 2, 2, 32, 5  # B, N, S, E


def draw(seed, *shape):
    return np.random.default_rng(seed).standard_normal((CLIPS, *shape)).astype(np.float32)


# ---------------------------------------------------------------------------------------------------------- continuous


def test_continuous_controls_are_shares_and_noise_as_loud_as_the_bar_says():
    head = heads.ContinuousHead(SIZE)
    values, motion, levels, noise = draw(0, STEPS, SIZE), draw(1, BARS, 3 * SIZE), draw(2, BARS, SIZE), draw(3, 32, 5)
    controls = head.get_controls(values, motion, levels, noise)
    np.testing.assert_array_equal(controls.values, values)
    np.testing.assert_allclose(controls.motion.reshape(CLIPS, BARS, -1), scipy.special.expit(2 + motion), atol=1e-6)
    loud = scipy.special.expit(levels - 1)[:, np.arange(STEPS) // 16]
    np.testing.assert_allclose(controls.noise, loud * noise, atol=1e-6)
    assert (head.step_size, head.motion_size, head.noise_size) == (SIZE, 3 * SIZE, SIZE)


def test_continuous_values_are_the_mean_and_shares_of_beat_half_and_rest():
    values, motion = draw(0, STEPS, SIZE), scipy.special.expit(draw(1, BARS, 3, SIZE))
    noise = draw(2, STEPS, SIZE)
    found = heads.ContinuousHead(SIZE).contribute(heads.ContinuousControls(values, jnp.asarray(motion), noise))
    wanted = np.zeros((CLIPS, STEPS, SIZE))
    for clip, bar in np.ndindex(CLIPS, BARS):
        x = values[clip, 16 * bar : 16 * (bar + 1)].astype(float)
        mean = x.mean(0)
        beat = np.tile(x.reshape(4, 4, SIZE).mean(0), (4, 1))
        half = np.tile(x.reshape(2, 8, SIZE).mean(0), (2, 1))
        moving, of_beats, of_halves = motion[clip, bar]
        changed = mean + moving * (beat - mean + of_beats * (half - beat + of_halves * (x - half)))
        wanted[clip, 16 * bar : 16 * (bar + 1)] = changed
    np.testing.assert_allclose(found, wanted + noise, atol=1e-5)


@pytest.mark.parametrize("shares, period", [((0, 1, 1), 1), ((1, 0, 1), 4), ((1, 1, 0), 8)])
def test_a_share_of_zero_makes_a_bar_repeat(shares, period):
    motion = jnp.broadcast_to(jnp.asarray(shares, jnp.float32)[:, None], (CLIPS, BARS, 3, SIZE))
    values = draw(0, STEPS, SIZE)
    controls = heads.ContinuousControls(values, motion, jnp.zeros_like(values))
    found = np.asarray(heads.ContinuousHead(SIZE).contribute(controls)).reshape(CLIPS, BARS, 16, SIZE)
    np.testing.assert_allclose(found, np.roll(found, period, 2), atol=1e-6)
    assert period == 1 or np.abs(found - np.roll(found, period // 2, 2)).max() > 0.1
    np.testing.assert_allclose(found.mean(2), values.reshape(CLIPS, BARS, 16, SIZE).mean(2), atol=1e-6)


# ---------------------------------------------------------------------------------------------------------- percussion


def test_a_percussion_sound_lasts_three_sixteenths_from_its_hit():
    head = heads.PercussionHead(SIZE)
    hits, sounds = draw(0, STEPS, head.step_size), draw(1, BARS, head.bar_size)
    shaped = sounds.reshape(CLIPS, BARS, 4, 3, SIZE)
    wanted = np.zeros((CLIPS, STEPS, SIZE))
    for clip, step, sound, age in np.ndindex(CLIPS, STEPS, 4, 3):
        hit = scipy.special.expit(4 * (hits[clip, step, sound] - 0.5))
        wanted[clip, (step + age) % STEPS] += hit * shaped[clip, step // 16, sound, age]
    found = head.contribute(head.get_controls(jnp.asarray(hits), jnp.asarray(sounds)))
    np.testing.assert_allclose(found, wanted, atol=1e-5)


# --------------------------------------------------------------------------------------------------------------- notes


def test_note_controls_are_probabilities():
    head = heads.NoteHead(SIZE)
    choices, pitches, timbres = draw(0, STEPS, head.step_size), draw(1, BARS, head.pitch_size), draw(2, BARS, 30)
    controls = head.get_controls(*map(jnp.asarray, (choices, pitches, timbres)))
    logits = choices.reshape(CLIPS, BARS, 16, 2, 7)
    weights = scipy.special.expit(logits[..., :1]) * scipy.special.softmax(logits[..., 1:], -1)
    np.testing.assert_allclose(controls.weights, weights, atol=1e-6)
    positions = scipy.special.softmax(4 * pitches.reshape(CLIPS, BARS, 6, 97), -1)
    np.testing.assert_allclose(controls.pitches, positions, atol=1e-6)
    np.testing.assert_array_equal(controls.timbres, timbres.reshape(CLIPS, BARS, 6, SIZE))
    assert head.timbre_size == 30


def test_a_note_adds_its_timbre_wherever_it_is_played():
    head = heads.NoteHead(SIZE)
    choices, timbres = 2 * draw(0, STEPS, 2, 7), draw(1, BARS, 6, SIZE)
    confidence, note = scipy.special.expit(choices[..., :1]), scipy.special.softmax(choices[..., 1:], -1)
    wanted = np.einsum("bshn,bsnk->bsk", confidence * note / 2, timbres[:, np.arange(STEPS) // 16])
    pitches = jnp.zeros((CLIPS, BARS, head.pitch_size))
    controls = head.get_controls(jnp.asarray(choices.reshape(CLIPS, STEPS, -1)), pitches, timbres.reshape(2, 2, -1))
    np.testing.assert_allclose(head.contribute(controls), wanted, atol=1e-5)


def test_a_chosen_note_has_the_pitch_of_its_quarter_tone():
    head = heads.NoteHead(SIZE)
    pitches = np.full((CLIPS, BARS, 6, pitch.QUARTER_TONES), -9.0, np.float32)
    pitches[:, :, 0, 24], pitches[:, :, 1, 31] = 9, 9  # an octave up, and three and a half semitones more
    choices = np.full((CLIPS, STEPS, 2, 7), -9.0, np.float32)
    choices[..., 0], choices[:, :, 0, 1], choices[:, :, 1, 2] = 9, 9, 9  # the first note, then the second
    pitches, choices = jnp.asarray(pitches.reshape(CLIPS, BARS, -1)), jnp.asarray(choices.reshape(CLIPS, STEPS, -1))
    controls = head.get_controls(choices, pitches, jnp.zeros((CLIPS, BARS, head.timbre_size)))
    hz, confidence = pitch.decode_pitch(head.get_pitch(controls))
    np.testing.assert_allclose(hz[0], np.tile([110, 110 * 2 ** (3.5 / 12)], STEPS), rtol=1e-3)
    assert confidence.min() > 0.95


# ------------------------------------------------------------------------------------------------------------ partials


def make_partials(seed=0):
    """(prominence logits, peaks, the position of each partial, its logits)."""
    prominences, peaks = draw(seed, STEPS, 8), draw(seed + 1, BARS, 8)
    at = np.random.default_rng(seed).integers(partials.GENERATED_POSITIONS, size=(CLIPS, BARS, 8))
    logits = np.full((CLIPS, BARS, 8, partials.GENERATED_POSITIONS), -9, np.float32)
    np.put_along_axis(logits, at[..., None], 9, -1)
    return prominences, peaks, at, jnp.asarray(logits.reshape(CLIPS, BARS, -1))


def test_levels_rise_where_a_partial_is():
    prominences, peaks, at, logits = make_partials()
    rises = draw(2, partials.POSITIONS, SIZE)[0]
    wanted = np.zeros((CLIPS, STEPS, SIZE))
    for clip, step, partial in np.ndindex(CLIPS, STEPS, 8):
        bar = step // 16
        loudness = scipy.special.expit(prominences[clip, step, partial]) * np.log1p(np.exp(peaks[clip, bar, partial]))
        wanted[clip, step] += loudness * rises[2 * at[clip, bar, partial]]
    head = heads.PartialHead()
    found = head.contribute(head.get_controls(jnp.asarray(prominences), logits, jnp.asarray(peaks)), rises)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_a_chosen_partial_is_decoded_at_its_position_with_its_prominence():
    head = heads.PartialHead()
    logits = np.full((CLIPS, BARS, 8, partials.GENERATED_POSITIONS), -9.0, np.float32)
    logits[:, :, [0, 1, 2], [20, 60, 100]] = 9
    prominences = np.full((CLIPS, STEPS, 8), -9.0, np.float32)
    prominences[..., 0], prominences[..., 1] = 9, 0
    peaks = jnp.zeros((CLIPS, BARS, 8))
    controls = head.get_controls(jnp.asarray(prominences), jnp.asarray(logits.reshape(CLIPS, BARS, -1)), peaks)
    position, height = (np.asarray(x)[0, 0] for x in partials.decode_partials(head.get_partials(controls)))
    assert position[:2].tolist() == [40, 120]
    np.testing.assert_allclose(height, [1, 0.5, 0], atol=0.1)


# ------------------------------------------------------------------------------------------------------------- low end


def test_the_low_end_is_the_kick_plus_the_bass():
    head = heads.LowEndHead(52, 472.0)
    steps, bars = jnp.asarray(draw(0, STEPS, head.step_size)), jnp.asarray(draw(1, BARS, head.bar_size))
    kick, bass = head.get_controls(steps, bars)
    found = head.contribute((kick, bass))
    assert found.shape == (CLIPS, STEPS, 52)
    wanted = low_end.synthesize_kick(kick, 52, 472.0) + low_end.synthesize_bass(bass, 52, 472.0)
    np.testing.assert_array_equal(found, wanted)
    assert np.abs(low_end.synthesize_kick(kick, 52, 472.0)).max() > 0.1


def test_heads_have_no_weights_and_gradients_reach_all_their_inputs():
    head = heads.PercussionHead(SIZE)
    hits, sounds = jnp.asarray(draw(0, STEPS, head.step_size)), jnp.asarray(draw(1, BARS, head.bar_size))

    def power(hits, sounds):
        return jnp.sum(head.contribute(head.get_controls(hits, sounds)) ** 2)

    for slope in jax.grad(power, (0, 1))(hits, sounds):
        assert np.abs(slope).min() > 0
