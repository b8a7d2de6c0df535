import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import codecs

from technogen_jax.evaluation.features import musical
from technogen_jax.models.technogan import augment
from technogen_jax.models.technogan.codec import analysis

KEY = jax.random.key(0)


def mix(count, curve=(0, 0, 0, 0), bass=0.0, width=0.0, swapped=False):
    """The same mix for `count` clips."""
    return augment.Mix(
        jnp.tile(jnp.array(curve, jnp.float32), (count, 1)),
        jnp.full(count, bass),
        jnp.full(count, width),
        jnp.full(count, swapped),
    )


def noisy(bars):
    """Bars with noise, so that no band is silent."""
    return bars + 0.5 * np.random.default_rng(3).standard_normal(bars.shape).astype(np.float32)


def test_remixed_code_is_the_code_of_the_remixed_audio():
    bars = codecs.bars()
    audio = noisy(bars)
    one, _ = codecs.measure(audio)
    remixer, sequence = augment.Remixer(one), one.encode(audio)
    swapped = remixer.remix(sequence, mix(6, swapped=True))
    np.testing.assert_allclose(swapped, one.encode(audio[..., ::-1]), atol=2e-3)
    gain, width = 0.3, -0.4  # nepers
    mid, side = np.moveaxis(analysis.split_mid_side(jnp.asarray(audio)), 1, 0)
    mid, side = np.exp(gain) * mid, np.exp(gain + width) * side
    wanted = one.encode(np.stack([mid + side, mid - side], -1))
    found = remixer.remix(sequence, mix(6, (gain, 0, 0, 0), gain, width))
    assert jnp.abs(wanted - sequence).max() > 0.5
    np.testing.assert_allclose(found, wanted, atol=0.02)  # the floor of levels is not moved


def test_equalizer_raises_low_frequencies_and_lowers_high_ones():
    bars = codecs.bars()
    audio = noisy(bars)
    one, _ = codecs.measure(audio, mid_components=64, side_components=68)  # all there are
    tilt_db = 6.0
    plain = one.encode(audio)
    bent = augment.Remixer(one).remix(plain, mix(6, (0, tilt_db * np.log(10) / 20, 0, 0)))
    change = np.mean(
        [
            musical.ltas_db(b, 8000, loop=True) - musical.ltas_db(a, 8000, loop=True)
            for a, b in zip(*map(one.decode, (plain, bent)), strict=True)
        ],
        0,
    )
    assert change[-1] < -0.75 * tilt_db and change[10] > 0.5 * tilt_db  # the eleventh third of an octave is 250 Hz


def test_draw_mix_draws_centred_uncorrelated_values():
    drawn = augment.draw_mix(KEY, 4000)
    for values in (*drawn.curve.T, drawn.bass, drawn.width):
        assert abs(values.mean()) < 0.02 and 0.2 < values.std() < 0.4
    assert 0.45 < drawn.swapped.mean() < 0.55
    assert np.abs(np.corrcoef(np.c_[drawn.curve, drawn.bass, drawn.width, drawn.swapped].T) - np.eye(7)).max() < 0.08


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_draw_mix_leaves_the_other_clips_as_they_are_to_the_bit(share):
    codec, _ = codecs.linear()
    drawn = augment.draw_mix(KEY, 2000, share)
    is_mixed = np.asarray(drawn.bass != 0)
    assert is_mixed.mean() == pytest.approx(share, abs=0.03)
    x = jax.random.normal(KEY, (2000, 16, codec.layout.size))
    changed = np.any(np.asarray(augment.Remixer(codec).remix(x, drawn) != x), (1, 2))
    np.testing.assert_array_equal(changed, is_mixed)
