import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import building

from technogen_jax.audio import spectral_distance
from technogen_jax.models.technogan import shaper_training
from technogen_jax.models.technogan.codec import codec
from technogen_jax.models.technogan.config import COMPONENT_FIELDS

RATE_HZ, SAMPLES, N_MELS = 8000, 6400, 12
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def coder():
    """The codec of bars of 0.8 s of noise that comes in bursts, and the bars."""
    rng = np.random.default_rng(0)
    swell = np.tile(np.exp(-np.arange(SAMPLES // 4) / 300), 4)[:, None]
    audio = np.float32(rng.normal(0, 0.1, (4, SAMPLES, 2)) * swell)
    options = dict(clip_samples=SAMPLES, sample_rate_hz=RATE_HZ, frames_per_step=2, n_mels=N_MELS, shaper="new")
    counts = dict(mid=8, side=4, low=4, pitch=4, line=4, side_line=4, pan=2)
    statistics = building.measure(
        "technogan", [audio], **options, **{COMPONENT_FIELDS[part]: n for part, n in counts.items()}
    )
    grid = codec.grid_of(SAMPLES, RATE_HZ, 1, 2)
    return codec.make(SAMPLES, RATE_HZ, grid, N_MELS, counts, statistics), grid, audio


def test_steps_lower_the_distance_which_is_what_it_consists_of_and_are_the_same_again(coder):
    made, grid, audio = coder
    options = dict(samples=grid.samples, sample_rate_hz=RATE_HZ, steps=40)
    first, step = shaper_training.make_shaping_step(made, N_MELS, **options)
    step = jax.jit(step)

    def run(steps):
        states, seen = [first(KEY)], []
        for _ in range(steps):
            state, metrics = step(states[-1], audio, KEY)
            states.append(state)
            seen.append({name: float(value) for name, value in metrics.items()})
        return states, seen

    (states, seen), (again, _) = run(40), run(40)
    losses = [metrics["loss"] for metrics in seen]
    assert np.mean(losses[-8:]) < 0.97 * np.mean(losses[:8])
    jax.tree.map(np.testing.assert_array_equal, states[-1], again[-1])
    assert int(states[-1].step) == 40
    for metrics in seen:  # the loss is what it consists of
        assert metrics["loss"] == pytest.approx(metrics["attraction"] - metrics["repulsion"], rel=1e-5)
        assert metrics["repulsion"] > 0


def test_a_new_shaper_leaves_the_sound_as_it_is(coder):
    made, grid, audio = coder
    x = jax.jit(made.encode)(audio)
    noise = jax.random.normal(KEY, (4, 2, grid.samples))
    play = jax.jit(made.play)
    plain, shaped = play(None, x, noise), play(codec.shaper(N_MELS).init(KEY), x, noise)
    np.testing.assert_allclose(shaped, plain, atol=1e-5)
    assert jnp.std(plain) > 0.005
    assert spectral_distance.spectral_energy(plain, plain, plain, RATE_HZ)[0] == 0
