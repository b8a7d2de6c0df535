import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import building

from technogen_jax.audio import spectral_distance
from technogen_jax.models.technogan import shaper_training
from technogen_jax.models.technogan.codec import shaper
from technogen_jax.models.technogan.codec.codec import Codec

RATE_HZ, SAMPLES, N_MELS = 8000, 6400, 12
KEY = jax.random.key(0)
PARTS_OF_FOUR = ("side", "low", "pitch", "partial", "side_partial")


@pytest.fixture(scope="module")
def coder():
    """The codec of bars of 0.8 s of noise in bursts, and the bars."""
    rng = np.random.default_rng(0)
    swell = np.tile(np.exp(-np.arange(SAMPLES // 4) / 300), 4)[:, None]
    audio = np.float32(rng.normal(0, 0.1, (4, SAMPLES, 2)) * swell)
    options = dict(clip_samples=SAMPLES, sample_rate_hz=RATE_HZ, audio_channels=2)
    options |= dict(frames_per_step=2, n_mels=N_MELS, shaper="new", mid_components=8, pan_components=2)
    options |= dict.fromkeys((f"{part}_components" for part in PARTS_OF_FOUR), 4)
    statistics = building.measure("technogan", [audio], **options)
    return Codec(*building.configs("technogan", **options), statistics), audio


def test_shaping_steps_lower_the_loss_and_are_reproducible(coder, monkeypatch):
    monkeypatch.setattr(spectral_distance, "_ENERGY_N_FFT", (256, 1024))  # compile faster than five resolutions
    made, audio = coder
    init, step = shaper_training.make_shaping_step(made, N_MELS, steps=40)
    step = jax.jit(step)

    def run(steps):
        states, seen = [init(KEY)], []
        for _ in range(steps):
            state, metrics = step(states[-1], audio, KEY)
            states.append(state)
            seen.append({name: float(value) for name, value in metrics.items()})
        return states, seen

    (states, seen), (again, _) = run(40), run(8)
    losses = [metrics["loss"] for metrics in seen]
    assert np.mean(losses[-8:]) < 0.97 * np.mean(losses[:8])
    jax.tree.map(np.testing.assert_array_equal, states[8], again[8])
    assert int(states[-1].step) == 40
    for metrics in seen:  # the loss is what it consists of
        assert metrics["loss"] == pytest.approx(metrics["attraction"] - metrics["repulsion"], rel=1e-5)
        assert metrics["repulsion"] > 0


def test_new_shaper_leaves_the_sound_as_it_is(coder):
    made, audio = coder
    x = made.encode(audio)
    noise = jax.random.normal(KEY, (4, 2, made.grid.samples))
    synthesize = jax.jit(made.synthesize)
    plain, shaped = synthesize(None, x, noise), synthesize(shaper.make_shaper(N_MELS).init(KEY), x, noise)
    np.testing.assert_allclose(shaped, plain, atol=1e-5)
    assert jnp.std(plain) > 0.005
    assert spectral_distance.spectral_energy(plain, plain, plain, RATE_HZ)[0] == 0
