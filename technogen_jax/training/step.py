"""The training step: `train_step` reads from top to bottom; above it are its losses and options.

`make_train_step` binds a model, its optimizers and its options, and returns the pure function
(state, clips, key) -> (state, metrics) that the loop compiles. The metrics are the terms of the
losses themselves.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from technogen_jax.models import GAN
from technogen_jax.training import losses
from technogen_jax.training.state import Pair, TrainState

Metrics = dict[str, jax.Array]
TrainStep = Callable[[TrainState, jax.Array, jax.Array], tuple[TrainState, Metrics]]
_EMA_WARM_UP = 10.0  # chosen: after t steps the average looks back at most (10 + t) / 9 steps


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepOptions:
    """The fields of a config that decide what a training step computes.

    Attributes:
        adversarial: the two adversarial losses.
        gp_weight: the weight of WGAN-GP's gradient penalty; a term of weight 0 is not computed.
        r1_weight: γ of the zero-centered gradient penalty on real clips.
        r2_weight: γ of the zero-centered gradient penalty on fake clips.
        penalty_share: share of the batch from which the penalties are computed, in (0, 1].
        weight_clip: largest magnitude of a weight of the discriminator; 0 for no limit.
        reuse_fakes: the generator is updated on the fakes that the discriminator was just updated
            on, so that they are generated once; n_critic must be 1.
        ema_decay: the decay of the moving average of the generator's parameters.
    """

    adversarial: losses.Adversarial
    gp_weight: float = 0.0
    r1_weight: float = 0.0
    r2_weight: float = 0.0
    penalty_share: float = 1.0
    weight_clip: float = 0.0
    reuse_fakes: bool = False
    ema_decay: float = 0.999

    @classmethod
    def from_config(cls, config: ConfigDict) -> StepOptions:
        """Reads the options from `config.loss` and `config.train`, which were checked."""
        loss = config.loss
        return cls(
            adversarial=losses.ADVERSARIAL[loss.adversarial],
            gp_weight=loss.gp_weight,
            r1_weight=loss.r1_weight,
            r2_weight=loss.r2_weight,
            penalty_share=loss.penalty_share,
            weight_clip=loss.weight_clip,
            reuse_fakes=config.train.reuse_fakes,
            ema_decay=config.train.ema_decay,
        )


def discriminator_loss(
    gan: GAN, options: StepOptions, d_params: Any, real: jax.Array, fake: jax.Array, keys: jax.Array
) -> tuple[jax.Array, Metrics]:
    """Returns the loss of the discriminator, and its terms by name.

    Args:
        gan: the model.
        options: the options of the step.
        d_params: parameters of the discriminator.
        real: encoded real clips `[B, ...]`.
        fake: generated clips of the same shape.
        keys: `[4]`: for the discriminator on reals, on fakes and on mixes of both, and for the
            mixing weights.
    """
    real_key, fake_key, mixed_key, mix_key = keys

    def score(key):
        return lambda x: gan.discriminate(d_params, x, key)

    terms = {"d/adversarial": options.adversarial.d(score(real_key)(real), score(fake_key)(fake))}
    rows = max(1, round(options.penalty_share * len(real)))  # the penalties cost twice as much as all else
    if options.gp_weight:
        penalty = losses.wgan_gp_penalty(score(mixed_key), real[:rows], fake[:rows], mix_key)
        terms["d/gp"] = options.gp_weight * penalty
    # R1 and R2 use the keys of the adversarial loss: with penalty_share 1 XLA then computes one
    # forward pass for both.
    if options.r1_weight:
        terms["d/r1"] = options.r1_weight * losses.zero_centered_penalty(score(real_key), real[:rows])
    if options.r2_weight:
        terms["d/r2"] = options.r2_weight * losses.zero_centered_penalty(score(fake_key), fake[:rows])
    return sum(terms.values()), terms


def generator_loss(
    gan: GAN, options: StepOptions, fake: jax.Array, d_params: Any, real: jax.Array, keys: tuple[jax.Array, jax.Array]
) -> jax.Array:
    """Returns the adversarial loss of the generator, a function of its fakes.

    Args:
        gan: the model.
        options: the options of the step.
        fake: generated clips `[B, ...]`.
        d_params: parameters of the discriminator.
        real: encoded real clips; only a relativistic loss depends on them, else XLA removes their
            logits.
        keys: the keys for the discriminator on reals and on fakes.
    """
    real_key, fake_key = keys
    real_logits = gan.discriminate(d_params, real, real_key)
    return options.adversarial.g(real_logits, gan.discriminate(d_params, fake, fake_key))


@dataclasses.dataclass(frozen=True, eq=False)
class StepParts:
    """What a training step is made of, and the operations that depend on the sharding.

    Attributes:
        gan: the model.
        optimizers: one for each network.
        options: from the config.
        batch_sharding: sharding of the rows of a batch `[B, ...]` over several devices; None for one device.
        state_shardings: shardings of each array of the state, where `train.shard_parameters` gives each
            device a share of it; None: every device has the whole state.
    """

    gan: GAN
    optimizers: Pair
    options: StepOptions
    batch_sharding: NamedSharding | None = None
    state_shardings: TrainState | None = None

    def gather(self, params: Any) -> Any:
        """Returns the whole parameters on every device, just before a network uses them."""
        if self.state_shardings is None:
            return params
        return jax.lax.with_sharding_constraint(params, self.batch_sharding.update(spec=PartitionSpec()))

    def generate(self, g_params: Any, count: int, key: jax.Array) -> tuple[jax.Array, Callable]:
        """Returns `count` fakes, and the function from their gradient to that of `g_params`."""
        z = self.gan.sample_latents(key, count)
        if self.batch_sharding is not None:  # else every device would generate and judge the fakes of all devices
            z = jax.lax.with_sharding_constraint(z, self.batch_sharding)
        return jax.vjp(lambda g_params: self.gan.generate(self.gather(g_params), z), g_params)

    def update(self, side: str, params: Any, opt: Any, gradient: Any) -> tuple[Any, Any, Metrics]:
        """Updates side "g" or "d"; returns its parameters, optimizer state and gradient norm."""
        updates, opt = getattr(self.optimizers, side).update(gradient, opt, params)
        params = optax.apply_updates(params, updates)
        if self.state_shardings is not None:  # else the scan over discriminator updates would carry whole arrays
            shares = getattr(self.state_shardings.params, side), getattr(self.state_shardings.opt, side)
            params, opt = jax.lax.with_sharding_constraint((params, opt), shares)
        return params, opt, {f"{side}/gradient_norm": optax.tree.norm(gradient)}

    def update_discriminator(self, d_state: tuple, real: jax.Array, fake: jax.Array, keys) -> tuple[tuple, Metrics]:
        """Updates (parameters, optimizer state) of the discriminator by its loss, once."""

        def loss(d_params):
            return discriminator_loss(self.gan, self.options, self.gather(d_params), real, fake, keys)

        gradient, terms = jax.grad(loss, has_aux=True)(d_state[0])
        d_params, d_opt, norm = self.update("d", *d_state, gradient)
        if limit := self.options.weight_clip:
            d_params = jax.tree.map(lambda w: jnp.clip(w, -limit, limit), d_params)
        return (d_params, d_opt), terms | norm


def train_step(
    parts: StepParts, state: TrainState, clips: jax.Array, key: jax.Array
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Computes the training step: n_critic updates of the discriminator, one of the generator.

    Args:
        parts: model, optimizers and options.
        state: before the step.
        clips: int16 audio `[n_critic, B, T, C]`, a batch for each update of the discriminator; for
            a model with `encode_once`, what `gan.encode` returned for them.
        key: key of the run; folded with the step, so that a resumed run draws the same numbers.

    Returns:
        The state after the step, and scalar metrics: the terms of both losses and the norms of both
        gradients.
    """
    gan, options = parts.gan, parts.options
    d_key, g_key = jax.random.split(jax.random.fold_in(key, state.step))
    z_key, *g_keys = jax.random.split(g_key, 3)
    g_params, d_state = state.params.g, (state.params.d, state.opt.d)

    def encode(clips):
        return clips if gan.encode_once else gan.encode(clips.astype(jnp.float32) / 32768)

    def update_on_new_fakes(d_state, clips_and_key):
        clips, key = clips_and_key
        z_key, *keys = jax.random.split(key, 5)
        real = encode(clips)
        fake, _ = parts.generate(g_params, len(real), z_key)
        return parts.update_discriminator(d_state, real, fake, keys)

    # 1. Updates of the discriminator, each on a batch of its own.
    if options.reuse_fakes:  # one batch of fakes for both networks: n_critic is 1
        real = encode(clips[0])
        fake, gradient_of_g = parts.generate(g_params, len(real), z_key)
        d_state, d_metrics = parts.update_discriminator(d_state, real, fake, jax.random.split(d_key, 4))
    else:
        n_critic = len(clips)
        d_state, d_metrics = jax.lax.scan(update_on_new_fakes, d_state, (clips, jax.random.split(d_key, n_critic)))
        d_metrics = jax.tree.map(lambda values: values[-1], d_metrics)
        real = encode(clips[-1])
        fake, gradient_of_g = parts.generate(g_params, len(real), z_key)

    # 2. One update of the generator, by the gradient that reaches its fakes.
    def loss_of_fakes(fake, d_params):
        return generator_loss(gan, options, fake, parts.gather(d_params), real, g_keys)

    g_loss, fake_gradient = jax.value_and_grad(loss_of_fakes)(fake, d_state[0])
    g_params, g_opt, g_norm = parts.update("g", g_params, state.opt.g, *gradient_of_g(fake_gradient))

    # 3. The average of the generator, from which sound is rendered. It starts with a lower decay,
    # so that it soon forgets the random start.
    decay = jnp.minimum(options.ema_decay, (1.0 + state.step) / (_EMA_WARM_UP + state.step))
    ema = optax.incremental_update(g_params, state.ema, 1 - decay)

    metrics = {"g/adversarial": g_loss} | g_norm | d_metrics
    return TrainState(state.step + 1, Pair(g_params, d_state[0]), Pair(g_opt, d_state[1]), ema), metrics


def make_train_step(
    gan: GAN,
    optimizers: Pair,
    options: StepOptions,
    batch_sharding: NamedSharding | None = None,
    state_shardings: TrainState | None = None,
) -> TrainStep:
    """Returns the pure function (state, clips, key) -> (state, metrics) that computes `train_step`.

    Args:
        gan: the model.
        optimizers: one for each network.
        options: from the config.
        batch_sharding: sharding of the rows of a batch over several devices; None for one device.
        state_shardings: shardings of each array of the state; None: every device has the whole state.
    """
    parts = StepParts(gan, optimizers, options, batch_sharding, state_shardings)
    return lambda state, clips, key: train_step(parts, state, clips, key)


def all_finite(tree: Any) -> jax.Array:
    """Returns `[]` bool: whether the arrays contain neither NaN nor Inf."""
    return jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]).all()


def skip_not_finite(step: TrainStep) -> TrainStep:
    """Returns a step that only counts where a metric or the new state is NaN or Inf.

    The metrics of such a step are all NaN.
    """

    def guarded_step(state, clips, key):
        new, metrics = step(state, clips, key)
        good = all_finite((new, metrics))
        kept = jax.tree.map(lambda after, before: jnp.where(good, after, before), new, state)
        return kept._replace(step=new.step), jax.tree.map(lambda value: jnp.where(good, value, jnp.nan), metrics)

    return guarded_step


def run_several(step: TrainStep, pick_clips: Callable[[jax.Array, jax.Array], jax.Array] | None = None) -> Callable:
    """Returns a function that runs several steps in one dispatch.

    Args:
        step: from `make_train_step`.
        pick_clips: (dataset, picks) -> clips, where the whole dataset is in the devices' memory;
            None: it is not.

    Returns:
        (state, clips `[steps, n_critic, B, ...]`, key) -> (state, metrics `[steps]` each). With
        `pick_clips` the pair (dataset, picks `[steps, ...]`) takes the place of the clips.
    """

    def steps(state, clips, key):
        if pick_clips is None:
            return jax.lax.scan(lambda state, clips: step(state, clips, key), state, clips)
        dataset, picks = clips
        return jax.lax.scan(lambda state, picks: step(state, pick_clips(dataset, picks), key), state, picks)

    return steps
