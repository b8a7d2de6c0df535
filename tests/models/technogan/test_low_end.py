import jax
import jax.numpy as jnp
import numpy as np
import pytest

from technogen_jax.models.technogan import low_end

SAMPLES, RATE_HZ = 52, 472.0
OFF, ON = -50.0, 50.0
SIZES = low_end._SIZES
PLACES = {name: np.asarray(places) for name, places in low_end.by_part(np.arange(low_end.CHOSEN), SIZES).items()}


def numbers(bars=1):
    """(of sixteenths, of bars) of silence."""
    said = np.zeros((1, 16 * bars, low_end.SAID), np.float32)
    said[..., 0] = said[..., 1 + low_end.NOTES :] = OFF
    return said, np.zeros((1, bars, low_end.CHOSEN), np.float32)


def speak(said, chosen):
    return np.asarray(jax.jit(low_end.speak, static_argnums=(2, 3))(said, chosen, SAMPLES, RATE_HZ))


def test_what_neither_hits_nor_is_loud_is_silent():
    assert np.abs(speak(*numbers())).max() < 1e-30


@pytest.mark.parametrize("octaves", [-1, 0, 0.7])
def test_a_note_that_is_held_is_a_clean_tone_whose_turns_are_whole_in_a_bar(octaves):
    said, chosen = numbers(bars=2)
    said[..., 1 : 1 + low_end.NOTES] = OFF
    said[..., 1] = ON
    said[..., 1 + low_end.NOTES :] = 1.0
    chosen[..., PLACES["notes"][0]] = octaves / 0.5
    chosen[..., PLACES["bass_harmonics"]] = ON, 0, OFF, OFF
    wave = speak(said, chosen).reshape(-1)
    power = np.abs(np.fft.rfft(wave)) ** 2
    turns = round(60 * 2**octaves * 16 * SAMPLES / RATE_HZ)  # of a bar
    assert np.argmax(power) == 2 * turns
    assert power[[2 * turns, 4 * turns]].sum() > 0.9999 * power.sum()
    assert power[4 * turns] / power[2 * turns] == pytest.approx(0.25, rel=1e-3)  # a sigmoid of 0, squared
    assert np.abs(wave).max() == pytest.approx(1.3 * np.exp(1.5 - 2.5), rel=0.05)


def test_a_note_goes_over_into_another_without_a_jump():
    said, chosen = numbers()
    said[..., 1 : 1 + low_end.NOTES] = OFF
    for i in range(16):
        said[:, i, 1 + i % 2] = ON
    said[..., 1 + low_end.NOTES :] = 1.0
    chosen[..., PLACES["notes"][:2]] = -2, 2  # 30 and 120 Hz
    chosen[..., PLACES["bass_harmonics"]] = ON, OFF, OFF, OFF
    wave = np.append(speak(said, chosen).reshape(-1), 0)
    steepest = 2 * np.pi * 121 / RATE_HZ * np.exp(1.5 - 2.5)
    assert np.abs(np.diff(wave)).max() < steepest


def test_a_kick_falls_as_its_curves_say_and_the_next_one_cuts_it_off():
    rng = np.random.default_rng(0)
    said, chosen = numbers()
    said[:, [2, 6], 0] = ON
    for name in ("kick_pitch", "kick_loudness", "kick_phase", "kick_harmonics"):
        chosen[..., PLACES[name]] = 0.5 * rng.standard_normal(SIZES[name])
    wave = speak(said, chosen)[0]
    at_s = (np.arange(8 * SAMPLES) + 0.5) / RATE_HZ
    of = {name: chosen[0, 0, places].astype(float) for name, places in PLACES.items()}
    falls = np.append(low_end._FALLS * np.exp(of["kick_pitch"][:-1]), 0.5 * of["kick_pitch"][-1])
    octaves = np.interp(at_s, low_end._TIMES_S, np.cumsum(falls[::-1])[::-1])  # from the last, where it comes to
    hz = np.clip(48 * 2**octaves, 22, 500)
    loud = np.exp(np.minimum(np.interp(at_s, low_end._TIMES_S, low_end._LOUDNESS + of["kick_loudness"]), 0.3))
    turns = np.cumsum(hz) / RATE_HZ + 0.5 * of["kick_phase"]
    kick = 0.0
    for i, amplitude in enumerate([1.0, *(0.3 * np.tanh(of["kick_harmonics"]))], 1):
        kick = kick + amplitude * np.clip((RATE_HZ / 2 - i * hz) / 20, 0, 1) * np.sin(2 * np.pi * i * turns)
    kick = (loud * kick).reshape(8, SAMPLES)
    wanted = np.zeros((16, SAMPLES))
    wanted[2:6], wanted[6:14] = kick[:4], kick
    np.testing.assert_allclose(wave, wanted, atol=2e-4)
    assert (np.diff(octaves) <= 0).all()
    assert np.abs(kick[0]).max() > 0.1


def test_nothing_is_said_above_half_of_the_rate():
    """A pitch too high is left out, not folded down."""
    said, chosen = numbers()
    said[:, 0, 0] = ON
    chosen[..., PLACES["kick_pitch"]] = 20  # 500 Hz throughout
    assert np.abs(speak(said, chosen)).max() < 1e-30


def test_a_bar_depends_on_what_still_rings_and_how_loud_the_next_begins_alone():
    rng = np.random.default_rng(1)
    said = rng.standard_normal((1, 64, low_end.SAID)).astype(np.float32)
    chosen = rng.standard_normal((1, 4, low_end.CHOSEN)).astype(np.float32)
    other_said, other_chosen = said.copy(), chosen.copy()
    other_said[:, 16:32] += 1
    other_chosen[:, 1] += 1
    moved = np.abs(speak(said, chosen) - speak(other_said, other_chosen)).max((0, 2))
    changed = np.flatnonzero(moved > 1e-5)
    assert changed.min() == 15 and changed.max() < 32 + 8, changed
    assert set(range(16, 32)) <= set(changed.tolist())


def test_wherever_numbers_lead_it_stays_finite_and_so_do_its_gradients():
    for scale in (1.0, 1e3):
        arrays = (
            scale * jax.random.normal(jax.random.key(i), shape)
            for i, shape in enumerate([(2, 16, low_end.SAID), (2, 1, low_end.CHOSEN)])
        )
        wave, back = jax.vjp(lambda *numbers: low_end.speak(*numbers, SAMPLES, RATE_HZ), *arrays)
        assert np.isfinite(wave).all() and np.abs(wave).max() < 2 * 1.4 * 4
        assert all(np.isfinite(gradient).all() for gradient in back(jnp.ones_like(wave)))
