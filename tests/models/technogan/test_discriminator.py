import jax
import jax.numpy as jnp
import numpy as np
from helpers import building, small_technogan
from helpers.bars import PARTS, SMALL, bar
from helpers.endless_model import NETWORKS, random_parameters

from technogen_jax.models.technogan.critic_features import CriticFeatures

KEY = jax.random.key(0)


def test_the_discriminator_sees_how_quiet_a_rest_is():
    gan, codec = small_technogan.make_tonal()
    discriminate, rng = jax.jit(gan.discriminate), np.random.default_rng(0)
    x = rng.standard_normal((4, 16, codec.layout.size)).astype(np.float32)
    d = random_parameters(gan.init_d)
    seen = x.shape[2] - codec.layout.low.size
    d["input"]["kernel"][: 2 * seen] = 0  # it does not see the code itself, nor its change since a beat before
    for name in ("low", "pitch", "partials", "side_partials"):
        part = getattr(codec.layout, name)
        quiet, change = x.copy(), 0.03 * rng.standard_normal((4, 16, part.size))
        quiet[..., part.slice] = codec.encode_part(name, jnp.zeros(()))

        def measure_effect(x, part=part, change=change):
            other = x.copy()
            other[..., part.slice] += change
            return np.abs(discriminate(d, other, KEY)[0] - discriminate(d, x, KEY)[0]).mean()

        assert measure_effect(quiet) > 3 * measure_effect(x) > 0, name


def test_the_discriminator_sees_how_exactly_a_beat_repeats_and_how_still_a_sound_is():
    """A small change counts more where nothing else changes. The discriminator sees only the changes of spectra."""
    gan, _ = small_technogan.make_plain()
    count = sum(PARTS.values())
    discriminate, rng = jax.jit(gan.discriminate), np.random.default_rng(0)
    begin = 2 * (count - PARTS["low_components"]) + 1  # after the code, its change, and the power of the low end
    end = begin + 5 * 16  # changes of groups of bands
    critics = [random_parameters(gan.init_d, seed) for seed in range(24)]
    for d in critics:
        d["input"]["kernel"][:begin] = d["input"]["kernel"][end:] = 0
    moving = rng.standard_normal((4, 16, count)).astype(np.float32)
    change = 0.03 * rng.standard_normal(moving.shape).astype(np.float32)
    beats, still = np.tile(moving[:, :4], (1, 4, 1)), np.tile(moving[:, :1], (1, 16, 1))

    def measure_effect(x):
        effects = [np.abs(discriminate(d, x + change, KEY)[0] - discriminate(d, x, KEY)[0]).mean() for d in critics]
        return np.mean(effects)

    assert measure_effect(still) > measure_effect(beats) > 2 * measure_effect(moving) > 0


def test_the_discriminator_sees_small_components_as_well_as_large_ones():
    """By the power of a group of components and of its changes, on a logarithmic scale."""
    gan, codec = small_technogan.make_tonal()
    low_bins = CriticFeatures(codec).low_bins
    discriminate, critics = jax.jit(gan.discriminate), [random_parameters(gan.init_d, seed) for seed in range(8)]
    # They see only the four powers of a group of components of mid, side, low and pan.
    for d in critics:
        d["input"]["kernel"][: -4 * 4 - low_bins] = d["input"]["kernel"][-low_bins:] = 0
    large = (codec.scale * np.random.default_rng(0).standard_normal((4, 16, codec.layout.size))).astype(np.float32)

    def measure_effect(part):
        halved = large.copy()
        halved[..., getattr(codec.layout, part).slice] /= 2
        return np.mean(
            [np.abs(discriminate(d, halved, KEY)[0] - discriminate(d, large, KEY)[0]).mean() for d in critics]
        )

    grouped = ("mid", "side", "low", "pan")
    assert np.ptp(np.log([codec.scale[getattr(codec.layout, part).start] for part in grouped])) > np.log(1.5), (
        "nothing to compare"
    )
    assert min(map(measure_effect, ("side", "low", "pan"))) > 0.3 * measure_effect("mid") > 0
    assert measure_effect("pitch") == 0


def test_logits_depend_on_labels_and_their_gradients_do_not_include_them():
    gan = building.build("technogan", **SMALL | PARTS | NETWORKS, classes=("acid", "industrial"))
    d, x = random_parameters(gan.init_d), np.random.default_rng(0).standard_normal((4, 16, 29)).astype(np.float32)
    x[..., -2:] = [1, 0]
    other = x.copy()
    other[..., -2:] = [0, 1]

    def sum_logits(x):
        (logits,) = gan.discriminate(d, x, KEY)
        return jnp.sum(logits), logits

    differentiate = jax.jit(jax.value_and_grad(sum_logits, has_aux=True))
    ((_, logits), slope), ((_, others), _) = differentiate(x), differentiate(other)
    assert np.abs(logits - others).min() > 1e-2
    slope = np.asarray(slope)
    assert not slope[..., -2:].any() and slope[..., :-2].all()


def test_only_the_discriminator_gets_remixed_clips():
    audio = np.stack([bar(seed) for seed in range(4)])
    statistics = building.measure("technogan", [audio], **SMALL | PARTS)
    plain, mixed = (
        building.build("technogan", **SMALL | PARTS | NETWORKS, classes=("a", "b"), remix=share, statistics=statistics)
        for share in (0.0, 1.0)
    )
    d_params = random_parameters(plain.init_d)
    x = plain.encode(audio, np.eye(2, dtype=np.float32)[[0, 1, 0, 1]])
    np.testing.assert_array_equal(mixed.encode(audio, np.eye(2, dtype=np.float32)[[0, 1, 0, 1]]), x)
    (without,), (once,), (again,), (other,) = (
        gan.discriminate(d_params, x, key)
        for gan, key in ((plain, KEY), (mixed, KEY), (mixed, KEY), (mixed, jax.random.key(1)))
    )
    np.testing.assert_array_equal(once, again)
    assert np.abs(once - without).max() > 1e-3 and np.abs(once - other).max() > 1e-3
    (alone,) = mixed.discriminate(d_params, jnp.zeros_like(x).at[..., -2:].set(x[..., -2:]), KEY)
    assert np.isfinite(alone).all()
