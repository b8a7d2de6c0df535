"""A TechnoGAN that plays without end, with random networks: small enough to compile in seconds."""

import jax
import numpy as np
from helpers import building
from helpers.bars import PARTS, SMALL, bar
from ml_collections import ConfigDict

from technogen_jax.sampling import generator

CLASSES = ("acid", "industrial")
NETWORKS = dict(latent_size=8, anchor_size=3, channels=8, blocks=1, critic_channels=8, critic_blocks=1)
NOISE = 12 + 3 + 10 + 2  # of a sixteenth, one for each of `PARTS`
ANCHOR = 3 + 16 * NOISE  # of a bar


def random_parameters(init, seed=0):
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(init, jax.random.key(0))
    return jax.tree.map(lambda a: np.float32(rng.normal(size=a.shape) / np.prod(a.shape[:-1]) ** 0.5), shapes)


def model(bars):
    """A generator of clips of `bars` bars with the statistics of six bars of sound."""
    statistics = building.measure("technogan", [np.stack([bar(seed) for seed in range(6)])], **SMALL | PARTS)
    size = dict(clip_samples=bars * SMALL["clip_samples"], bars=bars)
    gan = building.build("technogan", **SMALL | PARTS | NETWORKS | size, classes=CLASSES, statistics=statistics)
    audio = {"sample_rate_hz": 8000, "channels": 2, "clip_samples": size["clip_samples"]}
    config = ConfigDict(
        {"audio": audio, "model": {"name": "technogan", "bars": bars}, "data": {"dir": "nowhere", "split": "train"}}
    )
    params = jax.tree.map(lambda a: a / 2, random_parameters(gan.init_g))
    return generator.Trained(gan=gan, params=params, config=config, workdir="", step=1, weights="")
