import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from technogen_jax.models.technogan import blocks


def randomize(*layers):
    for layer in layers:
        for name in ("kernel", "bias"):
            weights = getattr(layer, name)
            weights[...] = jax.random.normal(jax.random.key(len(weights.shape)), weights.shape) / 4


def test_a_block_adds_a_layer_of_the_mean_beat():
    block = blocks.ResidualBlock(3, 5, has_style=False, has_mean_beat=True, rngs=nnx.Rngs(0))
    randomize(block.conv_0, block.conv_1, block.beats)
    x = np.random.default_rng(0).standard_normal((2, 32, 3)).astype(np.float32)  # two bars
    y = np.where(x > 0, x, 0.2 * x)
    beats = y.reshape(2, 2, 4, 4, 3).mean(2)  # of each bar, the mean over its beats
    added = np.tile(np.asarray(block.beats(beats)), (1, 1, 4, 1)).reshape(2, 32, 3)
    hidden = np.asarray(block.conv_0(y)) + added
    wanted = x + np.asarray(block.conv_1(np.where(hidden > 0, hidden, 0.2 * hidden)))
    np.testing.assert_allclose(block(jnp.asarray(x)), wanted, atol=1e-5)
    assert np.abs(added).max() > 0.1


def test_a_block_multiplies_its_input_by_the_interpolated_style():
    block = blocks.ResidualBlock(3, 3, has_style=True, has_mean_beat=False, rngs=nnx.Rngs(0))
    randomize(block.conv_0, block.conv_1, block.style)
    rng = np.random.default_rng(0)
    x, style = (rng.standard_normal((2, size, 3)).astype(np.float32) for size in (32, 2))
    scale = np.asarray(block.style(style))
    scale = np.concatenate([scale, scale[:, :1]], 1)
    scale = np.stack([[np.interp(np.arange(32) / 16, np.arange(3), w) for w in clip.T] for clip in scale]).swapaxes(
        1, 2
    )
    hidden = x * (1 + scale)
    hidden = np.asarray(block.conv_0(np.float32(np.maximum(hidden, 0.2 * hidden))))
    wanted = x + np.asarray(block.conv_1(np.maximum(hidden, 0.2 * hidden)))
    np.testing.assert_allclose(block(jnp.asarray(x), jnp.asarray(style)), wanted, atol=1e-5)
