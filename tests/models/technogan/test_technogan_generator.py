import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import AS_USERS
from helpers import building, small_technogan
from helpers.bars import PARTS, SMALL
from helpers.endless_model import ANCHOR, NETWORKS, random_parameters

from technogen_jax.models.technogan.config import TechnoGANConfig
from technogen_jax.models.technogan.generator import count_reach_bars

KEY = jax.random.key(0)


def test_latents_are_gaussian():
    z = np.asarray(building.build("technogan", **SMALL | PARTS).sample_latents(KEY, 500))
    assert abs(z.mean()) < 0.02 and abs(z.std() - 1) < 0.02 and abs((z**4).mean() - 3) < 0.2


def test_a_new_generator_has_residual_branches_of_zero_and_uses_its_latents():
    gan = building.build("technogan", **SMALL | PARTS | NETWORKS)
    g = jax.jit(gan.init_g)(KEY)
    assert not g["block_0"]["conv_1"]["kernel"].any() and g["block_0"]["conv_0"]["kernel"].any()
    x = gan.generate(g, gan.sample_latents(KEY, 4))
    assert float(jnp.std(x, 0).mean()) > 0.05


def test_bars_differ_and_the_discriminator_sees_their_order():
    options = SMALL | PARTS | NETWORKS | dict(bars=2, clip_samples=2 * 14336)
    gan = building.build("technogan", **options)
    g, d = random_parameters(gan.init_g), random_parameters(gan.init_d)
    x = gan.generate(g, gan.sample_latents(KEY, 4))
    assert float(jnp.abs(x[:, :16] - x[:, 16:]).mean()) > 0.1
    discriminate = jax.jit(gan.discriminate)
    (logits,), (swapped,) = discriminate(d, x, KEY), discriminate(d, jnp.roll(x, 16, 1), KEY)
    assert logits.shape == (4, 1) and float(jnp.abs(logits - swapped).max()) > 1e-3


def draw_bar_latents(gan, count):
    """Independent latents of `count` bars `[1, count, Z]`; label weights sum to 1."""
    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.ones(len(gan.classes)), (1, count)) if gan.classes else np.zeros((1, count, 0))
    return np.float32(np.concatenate([rng.normal(size=(1, count, 8 + ANCHOR)), weights], -1))


@pytest.mark.parametrize("phrase, blocks", [(1, 1), (1, 5), (2, 4), (2, 9), (4, 1)])
def test_a_bar_depends_on_the_bars_within_its_reach_only(phrase, blocks):
    sizes = dict(bars=phrase, clip_samples=phrase * 14336, blocks=blocks)
    gan = building.build("technogan", **SMALL | PARTS | NETWORKS | sizes, statistics=small_technogan.make_plain()[1])
    assert gan.endless.reach_bars == count_reach_bars(TechnoGANConfig(bars=phrase, blocks=blocks))
    ring = phrase * 4 * gan.endless.reach_bars
    middle, z = ring // 2, draw_bar_latents(gan, ring)
    slope = jax.jit(jax.grad(lambda z, g: jnp.sum(gan.generate(g, z)[:, 16 * middle : 16 * (middle + 1)] ** 2)))
    slopes = [
        slope(z, random_parameters(gan.init_g, seed)) for seed in range(3)
    ]  # where a gate of one is closed, that of another is open
    reached = np.flatnonzero(np.abs(slopes).max((0, 1, 3))) - middle
    assert reached.max() == gan.endless.reach_bars and reached.min() >= -gan.endless.reach_bars


def test_a_loop_of_many_bars_is_generated_with_the_same_parameters_as_a_clip():
    gan = building.build("technogan", **SMALL | PARTS | NETWORKS | dict(bars=2, clip_samples=2 * 14336))
    g, generate = random_parameters(gan.init_g), jax.jit(gan.generate, compiler_options=AS_USERS)
    z = gan.sample_latents(KEY, 3)
    anchors = z[:, 8:].reshape(3, 2, ANCHOR)
    by_bar = np.concatenate([np.broadcast_to(z[:, None, :8], (3, 2, 8)), anchors], -1)
    clip = generate(g, z)
    np.testing.assert_array_equal(generate(g, by_bar), clip)
    repeated = generate(g, np.tile(by_bar, (1, 4, 1)))  # four times the same bars are the loop that was trained
    np.testing.assert_allclose(repeated, np.tile(clip, (1, 4, 1)), atol=1e-5)


def test_labels_are_interpolated_linearly_around_the_loop():
    gan = building.build("technogan", **SMALL | PARTS | NETWORKS, classes=("acid", "industrial", "dub"))
    latents = draw_bar_latents(gan, 5)
    x = np.asarray(gan.generate(random_parameters(gan.init_g), latents))
    closed = np.concatenate([latents, latents[:, :1]], 1)[0, :, -3:]
    wanted = np.stack([np.interp(np.arange(80) / 16, np.arange(6), column) for column in closed.T], -1)
    np.testing.assert_allclose(x[0, :, -3:], wanted, atol=1e-6)


def test_labels_are_drawn_equally_often_and_change_what_is_generated():
    gan = building.build(
        "technogan", **SMALL | PARTS | NETWORKS, classes=["acid", "industrial", "dub"]
    )  # a list, as from JSON
    assert gan.classes == ("acid", "industrial", "dub")
    z = np.asarray(gan.sample_latents(KEY, 3000))
    assert set(np.unique(z[:, -3:])) == {0, 1} and (z[:, -3:].sum(1) == 1).all()
    assert np.abs(z[:, -3:].mean(0) - 1 / 3).max() < 5 * (2 / 9 / 3000) ** 0.5
    g, generate = jax.jit(gan.init_g)(KEY), jax.jit(gan.generate)
    same = np.repeat(z[:1], 3, 0)
    same[:, -3:] = np.eye(3)
    x = np.asarray(generate(g, same))
    np.testing.assert_array_equal(x[:, :, -3:], np.broadcast_to(np.eye(3)[:, None], (3, 16, 3)))
    others = np.repeat(z[:1], 30, 0)
    others[:, : 8 + 3] = z[:30, : 8 + 3]  # with the same noise
    by_label, by_latent = (np.asarray(generate(g, rows))[..., :-3].std(0).mean() for rows in (same, others))
    assert by_label > 0.3 * by_latent  # in a new generator a label counts as much as the other latents
