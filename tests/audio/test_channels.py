"""Mono and stereo from any layout."""

import numpy as np
import pytest

from technogen_jax.audio import channels


def test_remix_changes_the_channel_count():
    rng = np.random.default_rng(0)
    stereo, six = (rng.uniform(-1, 1, (100, count)).astype(np.float32) for count in (2, 6))
    np.testing.assert_array_equal(channels.remix(stereo, 2), stereo)
    np.testing.assert_allclose(channels.remix(stereo, 1)[:, 0], stereo.astype(np.float64).mean(1), atol=1e-7)
    np.testing.assert_array_equal(channels.remix(stereo[:, :1], 2), np.repeat(stereo[:, :1], 2, axis=1))
    np.testing.assert_array_equal(channels.remix(six, 6), six)
    left = (six[:, 0] + 0.5**0.5 * (six[:, 2] + six[:, 4])) / (1 + 2**0.5)
    right = (six[:, 1] + 0.5**0.5 * (six[:, 2] + six[:, 5])) / (1 + 2**0.5)
    np.testing.assert_allclose(channels.remix(six, 2), np.stack([left, right], 1), atol=1e-6)
    np.testing.assert_allclose(channels.remix(six, 1)[:, 0], (left + right) / 2, atol=1e-6)
    with pytest.raises(ValueError, match="expected 1 or 2"):
        channels.remix(six, 3)


def test_gains_follow_the_names_and_never_clip():
    vorbis = channels.stereo_gains(5, ("FL", "FC", "FR", "BL", "BR"))
    usual = channels.stereo_gains(5)
    np.testing.assert_array_equal(vorbis[[0, 2, 1, 3, 4]], usual)
    np.testing.assert_array_equal(channels.stereo_gains(1, ("LFE",)), [[1, 1]])
    for count in range(1, 17):  # above eight nobody knows what they are: both sides have all
        gains = channels.stereo_gains(count)
        assert gains.shape == (count, 2) and gains.min() >= 0
        np.testing.assert_allclose(gains.sum(0), 1, atol=1e-6)
    with pytest.raises(ValueError, match="names of 3 channels"):
        channels.stereo_gains(3, ("FL", "FR"))
