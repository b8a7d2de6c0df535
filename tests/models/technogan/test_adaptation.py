import jax
import numpy as np
import pytest
from helpers import building
from helpers.bars import PARTS, SMALL, bar
from helpers.endless_model import NETWORKS, random_parameters

from technogen_jax.models.technogan import adaptation

KEY = jax.random.key(0)


def describe(*classes):
    """(model, its fields, audio) of a small TechnoGAN with these labels."""
    fields = SMALL | PARTS | NETWORKS | dict(classes=classes)
    return building.build("technogan", **fields), *building.configs("technogan", **fields)


def adapt(old, new):
    """The parameters of a random model with labels `old` for the labels `new`: (old model, g, d), (new model, g, d)."""
    (gan, config, audio), (other, other_config, _) = describe(*old), describe(*new)
    g, d = random_parameters(gan.init_g), random_parameters(gan.init_d)
    return (gan, g, d), (
        other,
        adaptation.adapt_generator(g, config, other_config),
        adaptation.adapt_discriminator(d, config, other_config, audio, audio),
    )


def test_known_labels_sound_and_score_as_before_in_another_order():
    (gan, g, d), (other, g2, d2) = adapt(("acid", "dub"), ("dub", "acid"))
    z = np.array(gan.sample_latents(KEY, 4))
    swapped = z.copy()
    swapped[:, -2:] = z[:, :-3:-1]
    x, x2 = jax.jit(gan.generate)(g, z), jax.jit(other.generate)(g2, swapped)
    np.testing.assert_allclose(x2[..., :-2], x[..., :-2], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(
        jax.jit(other.discriminate)(d2, x2, KEY)[0], jax.jit(gan.discriminate)(d, x, KEY)[0], rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("new", [(), ("noise",)])
def test_a_model_without_known_labels_starts_between_the_known_ones(new):
    (gan, g, _), (other, g2, d2) = adapt(("acid", "dub"), new)
    z = np.array(gan.sample_latents(KEY, 4))
    z[:, -2:] = 0.5
    single = np.concatenate([z[:, :-2], np.ones((4, len(new)), np.float32)], 1)
    x = jax.jit(gan.generate)(g, z)[..., :-2]
    x2 = jax.jit(other.generate)(g2, single)
    np.testing.assert_allclose(x2[..., : x.shape[2]], x, rtol=1e-4, atol=1e-4)
    shapes = jax.tree.map(np.shape, jax.eval_shape(other.init_d, KEY))
    assert jax.tree.map(np.shape, d2) == shapes
    assert np.isfinite(jax.jit(other.discriminate)(d2, x2, KEY)[0]).all()


def test_a_model_without_labels_ignores_new_ones_at_first():
    (gan, g, d), (other, g2, d2) = adapt((), ("acid", "dub"))
    x = np.asarray(jax.jit(gan.generate)(g, gan.sample_latents(KEY, 4)))
    labelled = np.concatenate([x, np.broadcast_to(np.float32([1, 0]), (*x.shape[:2], 2))], -1)
    np.testing.assert_allclose(
        jax.jit(other.discriminate)(d2, labelled, KEY)[0], jax.jit(gan.discriminate)(d, x, KEY)[0], rtol=1e-3, atol=1e-3
    )
    assert jax.tree.map(np.shape, g2) == jax.tree.map(np.shape, jax.eval_shape(other.init_g, KEY))


def test_statistics_of_another_tempo_keep_the_low_waveform():
    """A sixteenth of the low end is the same curve, with more samples."""
    _, config, audio = describe()
    slower = audio.__class__(**vars(audio) | {"clip_samples": round(1.15 * audio.clip_samples)})
    statistics = building.measure("technogan", [np.stack([bar(seed) for seed in range(4)])], **SMALL | PARTS)
    adapted = adaptation.adapt_statistics(statistics, config, slower)
    old, new = statistics["low_basis"], adapted["low_basis"]
    assert len(new) > len(old) and new.shape[1] == old.shape[1]
    np.testing.assert_allclose(new.T @ new, np.eye(new.shape[1]), atol=1e-10)
    # The first component has the same curve, read at the same share of the sixteenth.
    times = (np.arange(len(new)) + 0.5) / len(new)
    curve = np.interp(times, (np.arange(len(old)) + 0.5) / len(old), old[:, 0])
    assert np.corrcoef(curve, new[:, 0])[0, 1] > 0.98
    building.build("technogan", adapted, **SMALL | PARTS | dict(clip_samples=slower.clip_samples))
    assert adaptation.adapt_statistics(statistics, config, audio) is statistics
