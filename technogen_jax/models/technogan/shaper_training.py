"""The first stage of TechnoGAN: trains the shaper of its codec, which turns sequences on the beat grid into sound.

There is no critic and nothing to balance: the loss is an energy distance between spectra (`spectral_distance.spectral_energy`). What is
learnt is how real sound lies about what the code keeps of it, so a shaper goes on working on other people's techno: the one
that comes with the package is used as it is where config.model.shaping_steps is 0.
"""

from __future__ import annotations

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
from technogen_jax.models.technogan.codec import codec
from technogen_jax.models.technogan.config import TechnoGANConfig

_BATCH = 4  # clips a step: with more a laptop's memory is short
_SAVE_EVERY = 100  # steps
_EMA_DECAY = 0.995
_WARM_UP = 100  # steps
_LEAST_RATE = 0.02  # of the learning rate, at the end of a half cosine


class ShapingState(NamedTuple):
    """All that the stage carries from one step to the next.

    Attributes:
        step: `[]` int32.
        params: of the shaper.
        opt: the optimiser's state.
        ema: averaged parameters, the ones to be used.
    """

    step: jax.Array
    params: Any
    opt: Any
    ema: Any


def make_shaping_step(
    coder: codec.Codec,
    n_mels: int,
    *,
    samples: int,
    sample_rate_hz: int,
    steps: int,
    learning_rate: float = 2e-3,
    deviation: float = 0.1,
) -> tuple[Callable[[jax.Array], ShapingState], Callable[..., tuple[ShapingState, dict[str, jax.Array]]]]:
    """(key -> first state, pure step(state, audio `[B, T, C]`, key) -> (state, metrics)).

    Args:
        coder: the codec of one clip.
        n_mels: bands of its spectra.
        samples: of the noise that its `play` takes.
        sample_rate_hz: of the audio.
        steps: in all; the learning rate falls to its least by then.
        learning_rate: of Adam.
        deviation: of noise that is added to the sequences, so that a generator's small errors are not heard.
    """
    schedule = optax.warmup_cosine_decay_schedule(
        0, learning_rate, min(_WARM_UP, steps // 2), steps, _LEAST_RATE * learning_rate
    )
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule, b1=0.8, b2=0.99))

    def first(key):
        params = codec.shaper(n_mels).init(key)
        return ShapingState(jnp.zeros((), jnp.int32), params, optimizer.init(params), jax.tree.map(jnp.copy, params))

    def step(state, audio, key):
        code_key, noise_key, turn_key = jax.random.split(jax.random.fold_in(key, state.step), 3)
        x = coder.encode(audio)
        x = jnp.tile(x + deviation * coder.scale * jax.random.normal(code_key, x.shape), (2, 1, 1))
        real = codec.mid_and_side(audio)
        noise = jax.random.normal(noise_key, (len(x), real.shape[1], samples))
        turn = jax.random.randint(turn_key, (), 0, real.shape[2])  # so that frames begin anywhere

        def loss(params):
            made = coder.play(params, x, noise)
            sounds = (jnp.roll(sound, turn, -1) for sound in (real, *jnp.split(made, 2)))
            return spectral_distance.spectral_energy(*sounds, sample_rate_hz)

        (value, metrics), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
        updates, opt = optimizer.update(grads, state.opt, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = optax.incremental_update(params, state.ema, 1 - _EMA_DECAY)
        return ShapingState(state.step + 1, params, opt, ema), metrics | {"loss": value}

    return first, step


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
    """The statistics of a TechnoGAN with a shaper that was trained on its set, from the one among them or from a new one.

    Args:
        config: the model's fields; `config.shaping_steps` steps.
        audio: of the clips.
        statistics: what `codec.measure` found.
        source: the clips to train on.
        path: where the state is kept, every hundred steps; if it is there, training goes on from it, bit for bit.
        count: is told how many steps more are done.
        seed: of the run.

    Raises:
        ValueError: `path` is damaged.
    """
    sizes, steps = audio, config.shaping_steps
    grid = codec.grid_of(sizes.clip_samples, sizes.sample_rate_hz, config.bars, config.frames_per_step)
    parts = codec.part_sizes(grid, config.n_mels, sizes.channels, True)
    parts = {part: statistics[f"{part}_basis"].shape[1] for part in parts}
    coder = codec.make(sizes.clip_samples, sizes.sample_rate_hz, grid, config.n_mels, parts, statistics)
    options = dict(samples=grid.samples, sample_rate_hz=sizes.sample_rate_hz, steps=steps)
    first, step = make_shaping_step(coder, config.n_mels, **options)
    init_key, run_key = jax.random.split(jax.random.key(seed))
    state = first(init_key)
    if (given := codec.shaper_of(statistics)) is not None:
        state = state._replace(params=given, ema=jax.tree.map(jnp.copy, given))
    leaves, tree = jax.tree.flatten(state)
    if path.exists():
        found = array_files.read(path)
        state = jax.tree.unflatten(tree, [jnp.asarray(found[str(index)]) for index in range(len(leaves))])
    begun = int(state.step)
    count(begun)
    batches = batching.iterate_batches(
        batching.ClipAudio(source),
        rows=batching.ProcessRows(_BATCH, 0, _BATCH),
        n_critic=1,
        length=sizes.clip_samples,
        crop="start",
        seed=seed,
        first_step=begun,
    )
    step = jax.jit(step, donate_argnums=0)
    for number in range(begun + 1, steps + 1):
        state, _ = step(state, audio_files.from_int16(next(batches)[0, 0]), run_key)
        if number % _SAVE_EVERY == 0:
            array_files.write(path, {str(index): np.asarray(leaf) for index, leaf in enumerate(jax.tree.leaves(state))})
        count(1)
    batches.close()
    return statistics | jax.device_get(codec.named_shaper(state.ema))
