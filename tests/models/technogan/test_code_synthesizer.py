import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import small_technogan
from helpers.endless_model import NOISE, random_parameters

from technogen_jax.models.technogan import low_end
from technogen_jax.models.technogan.code_synthesizer import limit_bars
from technogen_jax.models.technogan.codec import pitch
from technogen_jax.models.technogan.codec.constants import NOTES_PER_BAR

KEY = jax.random.key(0)


def test_a_bar_has_a_few_notes_and_another_bar_has_others():
    gan, codec = small_technogan.make_tonal()
    g = random_parameters(gan.init_g)
    for layer in ("output", "palette"):  # clear choices
        g[layer]["kernel"] = 30 * g[layer]["kernel"]
    x = gan.generate(g, gan.sample_latents(KEY, 24))
    silence, every = (
        codec.encode_part("pitch", jnp.asarray(v)) for v in (np.zeros(pitch.FEATURES), np.eye(pitch.FEATURES))
    )
    features = np.asarray(codec.layout.pitch.take(x) - silence) @ np.linalg.pinv(np.asarray(every - silence))
    pitch_hz, confidence = (np.asarray(values) for values in pitch.decode_pitch(jnp.asarray(features)))
    notes = [
        set(np.rint(24 * np.log2(hz[has_pitch] / 55)).astype(int))
        for hz, has_pitch in zip(pitch_hz, confidence > 0.6, strict=True)
    ]
    assert all(len(of_bar) <= NOTES_PER_BAR for of_bar in notes)
    assert max(map(len, notes)) > 1 and len(set.union(*notes)) > NOTES_PER_BAR


def test_a_bar_can_be_still_or_repeat_its_beats():
    """Shares of motion of the bar: none, those of the mean beat, also those of the mean half, all."""
    gan, _ = small_technogan.make_plain()
    g = random_parameters(gan.init_g)
    g["output"] = jax.tree.map(lambda values: values / 10, g["output"])  # so that no bar is limited
    count = NOISE
    found = []
    for open_ in (0, 1, 2, 3):
        logits = np.where(np.arange(4) < open_, 50, -50)  # the last one: no noise
        shares = np.repeat(np.float32(logits), count)
        bias = np.pad(shares, (0, len(g["palette"]["bias"]) - 4 * count))  # no percussion
        g["palette"] = dict(kernel=np.zeros((8, len(bias)), np.float32), bias=bias)
        found.append(np.asarray(gan.generate(g, gan.sample_latents(KEY, 3))))
    # Of the low end each sixteenth has a gate of its own.
    still, beats, halves, free = (x[..., small_technogan.WITHOUT_LOW] for x in found)
    np.testing.assert_allclose(still, np.repeat(still[:, :1], 16, 1), atol=1e-5)
    np.testing.assert_allclose(beats, np.tile(beats[:, :4], (1, 4, 1)), atol=1e-5)
    np.testing.assert_allclose(halves, np.tile(halves[:, :8], (1, 2, 1)), atol=1e-5)
    assert np.ptp(beats, 1).min() > 1e-3
    for x in (still, beats, halves):
        np.testing.assert_allclose(x.mean(1), free.mean(1), atol=1e-5)
    np.testing.assert_allclose(beats[:, :4], free.reshape(3, 4, 4, -1).mean(1), atol=1e-5)
    np.testing.assert_allclose(halves[:, :8], free.reshape(3, 2, 8, -1).mean(1), atol=1e-5)
    assert np.abs(halves - beats).max() > 0.01 and np.abs(free - halves).max() > 0.01


def test_a_percussion_sound_is_the_same_at_each_hit():
    gan, _ = small_technogan.make_plain()
    g = random_parameters(gan.init_g)
    for layer in ("output", "palette"):
        g[layer]["kernel"] = np.array(g[layer]["kernel"]) / 10  # so that no bar is limited
    g["output"]["kernel"][:, -4:] *= 1000  # clear hits
    g["palette"]["bias"][: 4 * NOISE] = -50  # everything else is still
    x = np.asarray(gan.generate(g, gan.sample_latents(KEY, 24)))[..., small_technogan.WITHOUT_LOW]
    kinds = [len(np.unique(np.round(bar, 4), axis=0)) for bar in x]
    assert 1 < np.median(kinds) < 16  # bars in which some sixteenths are equal, and not all
    g["palette"]["kernel"][:, 4 * NOISE + low_end.BAR_SIZE :], g["palette"]["bias"][4 * NOISE + low_end.BAR_SIZE :] = (
        0,
        0,
    )
    still = np.asarray(gan.generate(g, gan.sample_latents(KEY, 24)))[..., small_technogan.WITHOUT_LOW]
    np.testing.assert_allclose(still, np.repeat(still[:, :1], 16, 1), atol=1e-5)


def test_noise_belongs_to_its_sixteenth_and_its_component():
    """As an input it reaches as far as two convolutions; added to the code, it changes one component of one sixteenth."""
    gan, _ = small_technogan.make_plain()
    g, z = random_parameters(gan.init_g), np.array(gan.sample_latents(KEY, 2))
    g["output"] = jax.tree.map(lambda values: values / 10, g["output"])  # so that no bar is limited
    g["block_0"]["beats"]["kernel"][:] = 0  # the mean beat reaches all beats
    g["palette"]["kernel"][:], g["palette"]["bias"][: 3 * NOISE] = 0, 50  # all motion
    g["palette"]["bias"][4 * NOISE + low_end.BAR_SIZE :] = 0  # no percussion
    other = z.copy()
    other[:, 8 + 3 + 6 * NOISE + 4] += 1  # of the seventh sixteenth, the fifth component of mid

    def measure_change(noise):
        g["palette"]["bias"][3 * NOISE : 4 * NOISE] = noise
        return np.abs(np.asarray(gan.generate(g, z) - gan.generate(g, other)))

    silent = measure_change(noise=-50)[
        ..., small_technogan.WITHOUT_LOW
    ]  # as an input alone; the phase of the bass stays changed
    assert np.flatnonzero(silent.max((0, 2)) > 1e-6).tolist() == list(range(2, 11)) and silent.max() > 0.01
    g["noise"]["kernel"][:] = 0  # not an input
    assert measure_change(noise=-50).max() == 0
    for shares in (50, -50):  # also where everything else is still
        g["palette"]["bias"][: 3 * NOISE] = shares
        change = measure_change(noise=50)
        assert np.argwhere(change > 1e-6).tolist() == [[0, 6, 4], [1, 6, 4]]
        assert change.max() > 0.5


def test_limit_bars_scales_a_bar_that_is_too_far_from_the_mean_and_no_other():
    x = np.array(jax.random.normal(KEY, (2, 32, 5)))
    x[0, 16:] *= 100
    limited = x * np.asarray(limit_bars(x))
    np.testing.assert_array_equal(limited[0, :16], x[0, :16])
    np.testing.assert_array_equal(limited[1], x[1])
    assert np.abs(limited[0, 16:]).max() == pytest.approx(12)
    np.testing.assert_allclose(
        limited[0, 16:] / np.abs(limited[0, 16:]).max(), x[0, 16:] / np.abs(x[0, 16:]).max(), rtol=1e-5
    )


def test_the_gradient_of_limit_bars_is_right_and_compares_no_floats():
    """The gradient of a maximum is divided by the number of equal entries: 0 where a compiler rounds them differently."""
    rng = np.random.default_rng(0)
    x, direction = rng.normal(0, 6, (1, 16, 5)), rng.normal(size=(1, 16, 5))
    x[0, 3, 2] = -40

    def apply(x):
        return jnp.sum(jnp.sin(limit_bars(x) * x))

    with jax.enable_x64(True):
        slope = float(np.sum(jax.grad(apply)(x) * direction))
        ahead, behind = (float(apply(x + step * direction)) for step in (1e-5, -1e-5))
        assert slope == pytest.approx((ahead - behind) / 2e-5, rel=1e-6)
    assert "reduce_max" not in str(jax.make_jaxpr(jax.grad(apply))(jnp.float32(x)))


def test_generated_components_are_within_twelve_deviations_for_any_weights():
    gan, statistics = small_technogan.make_plain()
    params = gan.init_g(KEY)
    params["output"]["kernel"] = 1e3 * jax.random.normal(KEY, params["output"]["kernel"].shape)
    x = np.asarray(gan.generate(params, gan.sample_latents(KEY, 4)))
    mid = x[..., : len(statistics["mid_scale"])] / statistics["mid_scale"]
    assert 6 < np.abs(mid).max() < 12.001


def test_a_low_end_whose_gate_is_closed_is_silent():
    """Silence is not zero, which is the mean of the dataset."""
    gan, codec = small_technogan.make_tonal()
    g = random_parameters(gan.init_g)
    # Output values of the gate, of kick onsets and of bass levels, but not those of bass notes.
    begin = codec.layout.low.start
    closed = begin + np.r_[:2, 2 + low_end.NOTES : 1 + low_end.STEP_SIZE]
    g["output"]["kernel"][:, closed], g["output"]["bias"][closed] = 0, -50
    low = codec.layout.low.take(gan.generate(g, gan.sample_latents(KEY, 2)))
    silence = np.asarray(codec.encode_part("low", jnp.zeros(())))
    np.testing.assert_allclose(low, np.broadcast_to(silence, low.shape), atol=1e-5)
    assert np.abs(silence).max() > 0.1
