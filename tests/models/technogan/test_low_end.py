import jax
import jax.numpy as jnp
import numpy as np
import pytest

from technogen_jax.models.technogan import low_end

SAMPLES, RATE_HZ = 52, 472.0
OFF, ON = -50.0, 50.0
SIZES = low_end.BAR_SIZES._asdict()
PLACES = dict(zip(SIZES, np.split(np.arange(low_end.BAR_SIZE), np.cumsum(low_end.BAR_SIZES)[:-1]), strict=True))


def make_silence(bars=1):
    """Output values (of sixteenths, of bars) that make no sound."""
    step_values = np.zeros((1, 16 * bars, low_end.STEP_SIZE), np.float32)
    step_values[..., 0] = step_values[..., 1 + low_end.NOTES :] = OFF
    return step_values, np.zeros((1, bars, low_end.BAR_SIZE), np.float32)


def synthesize(step_values, bar_values):
    kick, bass = low_end.get_controls(step_values, bar_values)
    wave = low_end.synthesize_kick(kick, SAMPLES, RATE_HZ)
    return wave + low_end.synthesize_bass(bass, SAMPLES, RATE_HZ)


def run(step_values, bar_values):
    return np.asarray(jax.jit(synthesize)(step_values, bar_values))


def test_without_onsets_and_levels_the_low_end_is_silent():
    assert np.abs(run(*make_silence())).max() < 1e-30


@pytest.mark.parametrize("octaves", [-1, 0, 0.7])
def test_a_sustained_note_is_a_clean_tone_with_whole_periods_in_a_bar(octaves):
    steps, bars = make_silence(bars=2)
    steps[..., 1 : 1 + low_end.NOTES] = OFF
    steps[..., 1] = ON
    steps[..., 1 + low_end.NOTES :] = 1.0
    bars[..., PLACES["notes"][0]] = octaves / 0.5
    bars[..., PLACES["bass_harmonics"]] = ON, 0, OFF, OFF
    wave = run(steps, bars).reshape(-1)
    power = np.abs(np.fft.rfft(wave)) ** 2
    periods = round(60 * 2**octaves * 16 * SAMPLES / RATE_HZ)  # of a bar
    assert np.argmax(power) == 2 * periods
    assert power[[2 * periods, 4 * periods]].sum() > 0.9999 * power.sum()
    assert power[4 * periods] / power[2 * periods] == pytest.approx(0.25, rel=1e-3)  # a sigmoid of 0, squared
    assert np.abs(wave).max() == pytest.approx(1.3 * np.exp(1.5 - 2.5), rel=0.05)


def test_a_note_glides_to_the_next_without_a_jump():
    steps, bars = make_silence()
    steps[..., 1 : 1 + low_end.NOTES] = OFF
    for i in range(16):
        steps[:, i, 1 + i % 2] = ON
    steps[..., 1 + low_end.NOTES :] = 1.0
    bars[..., PLACES["notes"][:2]] = -2, 2  # 30 and 120 Hz
    bars[..., PLACES["bass_harmonics"]] = ON, OFF, OFF, OFF
    wave = np.append(run(steps, bars).reshape(-1), 0)
    steepest = 2 * np.pi * 121 / RATE_HZ * np.exp(1.5 - 2.5)
    assert np.abs(np.diff(wave)).max() < steepest


def test_a_kick_follows_its_curves_and_the_next_kick_ends_it():
    rng = np.random.default_rng(0)
    steps, bars = make_silence()
    steps[:, [2, 6], 0] = ON
    for name in ("kick_pitch", "kick_level", "kick_phase", "kick_harmonics"):
        bars[..., PLACES[name]] = 0.5 * rng.standard_normal(SIZES[name])
    wave = run(steps, bars)[0]
    at_s = (np.arange(8 * SAMPLES) + 0.5) / RATE_HZ
    values = {name: bars[0, 0, places].astype(float) for name, places in PLACES.items()}
    falls = np.append(low_end._KICK_FALLS * np.exp(values["kick_pitch"][:-1]), 0.5 * values["kick_pitch"][-1])
    octaves = np.interp(at_s, low_end._KICK_TIMES_S, np.cumsum(falls[::-1])[::-1])  # from the end pitch backwards
    hz = np.clip(48 * 2**octaves, 22, 500)
    level = np.exp(np.minimum(np.interp(at_s, low_end._KICK_TIMES_S, low_end._KICK_LEVELS + values["kick_level"]), 0.3))
    phase = np.cumsum(hz) / RATE_HZ + 0.5 * values["kick_phase"]
    kick = 0.0
    for i, amplitude in enumerate([1.0, *(0.3 * np.tanh(values["kick_harmonics"]))], 1):
        kick = kick + amplitude * np.clip((RATE_HZ / 2 - i * hz) / 20, 0, 1) * np.sin(2 * np.pi * i * phase)
    kick = (level * kick).reshape(8, SAMPLES)
    wanted = np.zeros((16, SAMPLES))
    wanted[2:6], wanted[6:14] = kick[:4], kick
    np.testing.assert_allclose(wave, wanted, atol=2e-4)
    assert (np.diff(octaves) <= 0).all()
    assert np.abs(kick[0]).max() > 0.1


def test_harmonics_above_half_of_the_sample_rate_are_left_out():
    """They are not aliased."""
    steps, bars = make_silence()
    steps[:, 0, 0] = ON
    bars[..., PLACES["kick_pitch"]] = 20  # 500 Hz throughout
    assert np.abs(run(steps, bars)).max() < 1e-30


def test_a_bar_depends_only_on_the_kick_before_and_the_level_after_it():
    rng = np.random.default_rng(1)
    steps = rng.standard_normal((1, 64, low_end.STEP_SIZE)).astype(np.float32)
    bars = rng.standard_normal((1, 4, low_end.BAR_SIZE)).astype(np.float32)
    other_steps, other_bars = steps.copy(), bars.copy()
    other_steps[:, 16:32] += 1
    other_bars[:, 1] += 1
    difference = np.abs(run(steps, bars) - run(other_steps, other_bars)).max((0, 2))
    changed = np.flatnonzero(difference > 1e-5)
    assert changed.min() == 15 and changed.max() < 32 + 8, changed
    assert set(range(16, 32)) <= set(changed.tolist())


def test_waveform_and_gradients_are_finite_for_any_output_values():
    for scale in (1.0, 1e3):
        arrays = (
            scale * jax.random.normal(jax.random.key(i), shape)
            for i, shape in enumerate([(2, 16, low_end.STEP_SIZE), (2, 1, low_end.BAR_SIZE)])
        )
        wave, back = jax.vjp(synthesize, *arrays)
        assert np.isfinite(wave).all() and np.abs(wave).max() < 2 * 1.4 * 4
        assert all(np.isfinite(gradient).all() for gradient in back(jnp.ones_like(wave)))
