import jax.numpy as jnp
import numpy as np

from technogen_jax.models.technogan.codec import analysis


def test_folded_sixteenths_that_do_not_belong_together_join_without_a_jump():
    """Of a bass, each sixteenth as loud as it likes: what jumps at a boundary is a small part of what jumped without a lap."""
    time = np.arange(16 * 54) / 54
    bass = np.sin(2 * np.pi * 6.3 * time).reshape(1, 16, 54)
    gain = np.random.default_rng(0).uniform(0, 1, (1, 16, 1))
    folded = analysis.fold(jnp.float32(bass))
    np.testing.assert_allclose(analysis.unfold(folded), bass, atol=1e-5)
    np.testing.assert_allclose(jnp.sum(folded**2), np.sum(bass**2), rtol=1e-5)
    plain, lapped = gain * bass, np.asarray(analysis.unfold(gain * folded))

    def rough(low):
        """The power of fourth differences across boundaries."""
        seams = [np.diff(np.roll(low.reshape(-1), 4 - 54 * i)[:8], 4) for i in range(16)]
        return np.square(seams).mean()

    assert rough(lapped) < 0.25 * rough(plain)
