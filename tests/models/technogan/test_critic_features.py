import jax.numpy as jnp
import numpy as np
import pytest
from helpers import codecs
from helpers.bars import PARTS

from technogen_jax.models.technogan.codec import analysis
from technogen_jax.models.technogan.critic_features import CriticFeatures


@pytest.mark.parametrize("turns", [6, 9])
def test_low_spectra_are_numpys_whatever_the_phase(turns):
    """Of a sixteenth; against numpy, frame by frame."""
    grid = codecs.GRID
    noise = np.random.default_rng(0).standard_normal((4, 14336, 1)).astype(np.float32)
    coder, _ = codecs.measure(noise, low_components=grid.low_samples)
    features = CriticFeatures(coder)
    places = np.arange(16 * grid.low_samples) / grid.low_samples

    def pictured(phase):
        tone = (0.3 * np.sin(2 * np.pi * (turns * places + phase))).astype(np.float32)
        sequence = np.zeros((1, 16, coder.layout.size), np.float32)
        begin = PARTS["mid_components"]
        low = coder.encode_part("low", analysis.fold(jnp.asarray(tone).reshape(1, 16, -1)))
        sequence[..., begin : begin + grid.low_samples] = low
        return tone, np.asarray(features.picture_low_end(sequence))[0, 8]

    (tone, now), (_, late) = pictured(0), pictured(1 / 3)
    np.testing.assert_allclose(now, late, atol=0.05)
    wanted = []
    for size, frames in ((108, 1), (54, 2), (27, 4)):
        for i in range(frames):
            centre = 8 * 54 + (i + 0.5) * 54 / frames
            inside = np.flatnonzero(np.abs(np.arange(len(tone)) + 0.5 - centre) < size / 2)
            place = (inside + 0.5 - centre) / size
            window = np.cos(np.pi * place) ** 2
            waves = np.exp(-2j * np.pi * place * np.arange(1, size // 2 + 1)[:, None])
            wanted += [*np.abs(waves @ (window * tone[inside]) * 2 / window.sum())]
    wanted = (np.log(np.hypot(wanted, 0.003)) + 3) / 2
    assert len(wanted) == features.low_bins
    np.testing.assert_allclose(now, wanted, atol=1e-3)
    assert now[2 * turns - 1] == pytest.approx((np.log(0.3) + 3) / 2, abs=1e-3)  # of the first, two sixteenths long


def test_picture_spectra_returns_means_of_levels():
    bars = codecs.bars()
    made, statistics = codecs.measure(bars, mid_components=64, side_components=68)  # all there are
    features = CriticFeatures(made)
    found = np.asarray(features.picture_spectra(made.encode(bars)))
    assert found.shape == (6, 16, 4, 2 * 8) and features.band_groups == 16
    levels = made.encode(bars)[..., :64] / made.scale[:64] * statistics["mid_deviation"] @ statistics["mid_basis"].T
    levels = np.asarray(levels) + statistics["mid_mean"]
    wanted = levels.reshape(6, 16, 4, 8, 2).mean(-1)  # sixteen bands in eight groups
    np.testing.assert_allclose(found[..., :8], wanted, atol=1e-3)
    assert found[..., 8:].std((0, 1)).min() > 0.01  # the side's


def test_features_are_numpys_powers_and_changes_in_order():
    codec, _ = codecs.linear()
    features, rng = CriticFeatures(codec), np.random.default_rng(0)
    code = (codec.scale * rng.normal(size=(2, 16, codec.layout.size))).astype(np.float32)
    found, picture = np.asarray(features(code)), np.asarray(features.picture_spectra(code))
    lags = (1, 4, 8)
    rest = np.square(code[..., 15:25] - codec.silence[15:25]).mean(-1, keepdims=True)
    motion = picture.var(2)
    seam = np.square(picture[:, :, 0] - np.roll(picture[:, :, -1], 1, 1))
    changes = [np.square(picture - np.roll(picture, lag, 1)).mean(2) for lag in lags]
    values = code / codec.scale
    values = np.stack([values, *(values - np.roll(values, lag, 1) for lag in lags)], 2) ** 2
    groups = [slice(0, 12), slice(12, 15), slice(15, 25), slice(25, 27)]  # one for each part
    powers = np.stack([values[..., group].mean(-1) for group in groups], -1).reshape(2, 16, -1)
    wanted = np.log(np.concatenate([rest, motion, seam, *changes, powers], -1) + 1e-3)
    assert found.shape == (2, 16, features.size)
    np.testing.assert_allclose(found[..., : wanted.shape[-1]], wanted, atol=1e-3)
    np.testing.assert_array_equal(found[..., wanted.shape[-1] :], features.picture_low_end(code))
