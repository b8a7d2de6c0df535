"""Trains the shaper of TechnoGAN's codec on a dataset, before the GAN.

There is no discriminator and nothing to balance: the loss is an energy distance between spectra
(`spectral_distance`). The shaper learns how real sound is distributed given its code, so that it
also works on other music: the shipped one is used as it is where config.model.shaping_steps is 0.

Reference: Gritsenko et al. 2020 (arXiv:2008.01160), the spectral energy distance.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from technogen_jax.audio import audio_files, spectral_distance
from technogen_jax.common import array_files
from technogen_jax.common.run_config import AudioConfig
from technogen_jax.data import batching
from technogen_jax.data.clip_source import ClipSource
from technogen_jax.models.technogan.codec import shaper
from technogen_jax.models.technogan.codec.analysis import split_mid_side
from technogen_jax.models.technogan.codec.codec import Codec
from technogen_jax.models.technogan.codec.statistics import CodecStatistics
from technogen_jax.models.technogan.config import TechnoGANConfig
from technogen_jax.models.technogan.layout import CodeLayout

_BATCH = 4  # clips a step: more would not fit into a laptop's memory
_SAVE_EVERY = 100  # steps
_EMA_DECAY = 0.995
_WARM_UP = 100  # steps
_LEAST_RATE = 0.02  # of the learning rate, at the end of a half cosine


class ShapingState(NamedTuple):
    """All that the training carries from one step to the next.

    Attributes:
        step: `[]` int32, steps done.
        params: the parameters of the shaper.
        opt: the optimizer's state.
        ema: averaged parameters, the ones that are used afterwards.
    """

    step: jax.Array
    params: Any
    opt: Any
    ema: Any


def make_shaping_step(
    codec: Codec, n_mels: int, *, steps: int, learning_rate: float = 2e-3, deviation: float = 0.1
) -> tuple[Callable[[jax.Array], ShapingState], Callable[..., tuple[ShapingState, dict[str, jax.Array]]]]:
    """Returns (key -> first state, pure step(state, audio `[B, T, C]`, key) -> (state, metrics)).

    Args:
        codec: the codec of one clip.
        n_mels: bands of its spectra.
        steps: number of steps; the learning rate falls to its least by the last one.
        learning_rate: the learning rate of Adam.
        deviation: standard deviation of noise that is added to the codes, in units of their scale, so that a
            generator's small errors do not matter.
    """
    schedule = optax.warmup_cosine_decay_schedule(
        0, learning_rate, min(_WARM_UP, steps // 2), steps, _LEAST_RATE * learning_rate
    )
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule, b1=0.8, b2=0.99))
    sample_rate_hz = codec.grid.sample_rate_hz

    def init(key):
        params = shaper.make_shaper(n_mels).init(key)
        return ShapingState(jnp.zeros((), jnp.int32), params, optimizer.init(params), jax.tree.map(jnp.copy, params))

    def step(state, audio, key):
        code_key, noise_key, turn_key = jax.random.split(jax.random.fold_in(key, state.step), 3)
        x = codec.encode(audio)
        x = jnp.tile(x + deviation * codec.scale * jax.random.normal(code_key, x.shape), (2, 1, 1))
        real = split_mid_side(audio)
        noise = jax.random.normal(noise_key, (len(x), real.shape[1], codec.grid.samples))
        turn = jax.random.randint(turn_key, (), 0, real.shape[2])  # so that frames begin anywhere

        def loss(params):
            synthesized = codec.synthesize(params, x, noise)
            sounds = (jnp.roll(sound, turn, -1) for sound in (real, *jnp.split(synthesized, 2)))
            return spectral_distance.spectral_energy(*sounds, sample_rate_hz)

        (value, metrics), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
        updates, opt = optimizer.update(grads, state.opt, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = optax.incremental_update(params, state.ema, 1 - _EMA_DECAY)
        return ShapingState(state.step + 1, params, opt, ema), metrics | {"loss": value}

    return init, step


def train(
    config: TechnoGANConfig,
    audio: AudioConfig,
    statistics: dict[str, np.ndarray],
    source: ClipSource,
    path: pathlib.Path,
    count: Callable[[int], object],
    *,
    seed: int,
) -> dict[str, np.ndarray]:
    """Trains the shaper of statistics, or a new one, and returns the statistics with it.

    Args:
        config: the model's fields; `config.shaping_steps` steps are done.
        audio: rate, channels and length of the clips.
        statistics: what `measure` returned.
        source: the clips to train on.
        path: where the state is saved every hundred steps. If the file exists, training resumes
            from it, bit for bit.
        count: is called with the number of steps that were done since the last call.
        seed: the seed of new parameters, noise, and the order of the clips.

    Raises:
        ValueError: `path` is damaged.
    """
    measured = CodecStatistics.from_arrays(statistics, CodeLayout.plan(config, audio))
    init, step = make_shaping_step(Codec(config, audio, measured), config.n_mels, steps=config.shaping_steps)
    init_key, run_key = jax.random.split(jax.random.key(seed))
    state = init(init_key)
    if measured.shaper:
        given = jax.tree.map(lambda value: value.astype(np.float32), measured.shaper)
        state = state._replace(params=given, ema=jax.tree.map(jnp.copy, given))
    leaves, tree = jax.tree.flatten(state)
    if path.exists():
        found = array_files.read(path)
        state = jax.tree.unflatten(tree, [jnp.asarray(found[str(index)]) for index in range(len(leaves))])
    begin = int(state.step)
    count(begin)
    batches = batching.iterate_batches(
        batching.ClipAudio(source),
        rows=batching.ProcessRows(_BATCH, 0, _BATCH),
        n_critic=1,
        window=batching.Window(length=audio.clip_samples),
        seed=seed,
        first_step=begin,
    )
    step = jax.jit(step, donate_argnums=0)
    for number in range(begin + 1, config.shaping_steps + 1):
        state, _ = step(state, audio_files.from_int16(next(batches)[0, 0]), run_key)
        if number % _SAVE_EVERY == 0:
            array_files.write(path, {str(index): np.asarray(leaf) for index, leaf in enumerate(jax.tree.leaves(state))})
        count(1)
    batches.close()
    return dataclasses.replace(measured, shaper=jax.device_get(state.ema)).to_arrays()
