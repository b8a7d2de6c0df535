"""The training step: state in, state out, pure; what is logged is what is optimised."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from technogen_jax.models import GAN
from technogen_jax.training import losses
from technogen_jax.training.state import Pair, TrainState


def make_train_step(
    gan: GAN,
    adversarial: losses.Adversarial,
    optimizers: Pair,
    *,
    gp_weight: float = 0.0,
    r1_weight: float = 0.0,
    r2_weight: float = 0.0,
    penalty_share: float = 1.0,
    weight_clip: float = 0.0,
    reuse_fakes: bool = False,
    ema_decay: float = 0.999,
    batch_sharding: jax.sharding.NamedSharding | None = None,
    state_shardings: TrainState | None = None,
) -> Callable[[TrainState, jax.Array, jax.Array], tuple[TrainState, dict[str, jax.Array]]]:
    """Returns the pure train_step(state, clips, key) -> (state, metrics).

    `clips` is int16 audio `[n_critic, B, T, C]`, and where `gan.encode_once` what `gan.encode` made of it: the
    discriminator is updated once on each sub-batch, then the generator once. `key` is the run's; it is folded with the
    step, so that a resumed run draws what the uninterrupted one would have.

    Args:
        gan: the model.
        adversarial: the two losses.
        optimizers: one for each network.
        gp_weight: of WGAN-GP's penalty.
        r1_weight: γ of the zero-centred penalty on reals.
        r2_weight: γ of the zero-centred penalty on fakes.
        penalty_share: of a batch, the share whose gradients the penalties look at.
        weight_clip: largest magnitude of a discriminator's weight, 0 for no limit.
        reuse_fakes: the generator learns from the fakes that the discriminator has just been updated on, which need not be made
            twice; n_critic is 1.
        ema_decay: of the generator's average; it starts lower, (1 + t) / (10 + t), so that the average soon forgets
            the random start.
        batch_sharding: how the rows of a batch `[B, ...]` lie on several devices; None for one device.
        state_shardings: of each array of the state, where devices hold shares of it; each gathers the weights when it uses
            them. None: all hold all.
    """

    def whole(*params):
        if state_shardings is None:
            return params
        return jax.lax.with_sharding_constraint(params, batch_sharding.update(spec=jax.sharding.PartitionSpec()))

    def make(g_params, real, key):
        """As many fakes as reals, and the function from their gradient to that of the generator's parameters."""
        z = gan.sample_latents(key, len(real))
        if batch_sharding is not None:  # else every device would make, and judge, the whole batch of fakes
            z = jax.lax.with_sharding_constraint(z, batch_sharding)
        return jax.vjp(lambda g_params: gan.generate(*whole(g_params), z), g_params)

    def d_loss(d_params, real, fake, keys):
        (d_params,) = whole(d_params)
        real_key, fake_key, gp_key, mix_key = keys

        def score(key):
            return lambda x: gan.discriminate(d_params, x, key)

        metrics = {"d/adversarial": adversarial.d(score(real_key)(real), score(fake_key)(fake))}
        rows = max(1, round(penalty_share * len(real)))
        if gp_weight:
            metrics["d/gp"] = gp_weight * losses.wgan_gp_penalty(score(gp_key), real[:rows], fake[:rows], mix_key)
        # Of the whole batch with the key of the adversarial loss, so that XLA makes one forward pass of the two that are written.
        if r1_weight:
            metrics["d/r1"] = r1_weight * losses.zero_centered_penalty(score(real_key), real[:rows])
        if r2_weight:
            metrics["d/r2"] = r2_weight * losses.zero_centered_penalty(score(fake_key), fake[:rows])
        return sum(metrics.values()), metrics

    def g_loss(fake, d_params, real, keys):
        (d_params,) = whole(d_params)
        real_key, fake_key = keys
        # Where the loss does not look at the reals, XLA drops their logits.
        return adversarial.g(gan.discriminate(d_params, real, real_key), gan.discriminate(d_params, fake, fake_key))

    def update(side, params, opt, grads):
        updates, opt = getattr(optimizers, side).update(grads, opt, params)
        params = optax.apply_updates(params, updates)
        if state_shardings is not None:  # else the loop over the critic's updates would carry all of it
            shares = getattr(state_shardings.params, side), getattr(state_shardings.opt, side)
            params, opt = jax.lax.with_sharding_constraint((params, opt), shares)
        return params, opt, {f"{side}/gradient_norm": optax.tree.norm(grads)}

    def update_d(d_state, real, fake, keys):
        grads, metrics = jax.grad(d_loss, has_aux=True)(d_state[0], real, fake, keys)
        d_params, d_opt, norm = update("d", *d_state, grads)
        if weight_clip:
            d_params = jax.tree.map(lambda w: jnp.clip(w, -weight_clip, weight_clip), d_params)
        return (d_params, d_opt), metrics | norm

    def train_step(state, clips, key):
        d_key, g_key = jax.random.split(jax.random.fold_in(key, state.step))
        z_key, *g_keys = jax.random.split(g_key, 3)
        g_params, d_state = state.params.g, (state.params.d, state.opt.d)

        def encode(clips):
            return clips if gan.encode_once else gan.encode(clips.astype(jnp.float32) / 32768)

        def critic(d_state, clips_and_key):
            clips, key = clips_and_key
            z_key, *keys = jax.random.split(key, 5)
            real = encode(clips)
            return update_d(d_state, real, make(g_params, real, z_key)[0], keys)

        if reuse_fakes:
            real = encode(clips[0])
            fake, pull = make(g_params, real, z_key)
            d_state, d_metrics = update_d(d_state, real, fake, jax.random.split(d_key, 4))
        else:
            d_state, d_metrics = jax.lax.scan(critic, d_state, (clips, jax.random.split(d_key, len(clips))))
            d_metrics = jax.tree.map(lambda m: m[-1], d_metrics)
            real = encode(clips[-1])
            fake, pull = make(g_params, real, z_key)

        loss, toward = jax.value_and_grad(g_loss)(fake, d_state[0], real, g_keys)
        g_params, g_opt, norm = update("g", g_params, state.opt.g, *pull(toward))
        decay = jnp.minimum(ema_decay, (1.0 + state.step) / (10.0 + state.step))
        ema = optax.incremental_update(g_params, state.ema, 1 - decay)

        metrics = {"g/adversarial": loss} | norm | d_metrics
        return TrainState(state.step + 1, Pair(g_params, d_state[0]), Pair(g_opt, d_state[1]), ema), metrics

    return train_step


def all_finite(tree: Any) -> jax.Array:
    """`[]` bool: whether no number of the arrays is NaN or Inf."""
    return jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]).all()


def skipping(train_step: Callable) -> Callable:
    """`train_step` that, where a metric or a number of the new state is NaN or Inf, only counts on; the metrics are then all NaN."""

    def step(state, clips, key):
        new, metrics = train_step(state, clips, key)
        good = all_finite((new, metrics))
        kept = jax.tree.map(lambda after, before: jnp.where(good, after, before), new, state)
        return kept._replace(step=new.step), jax.tree.map(lambda value: jnp.where(good, value, jnp.nan), metrics)

    return step


def repeated(train_step: Callable, gather: Callable[[jax.Array, jax.Array], jax.Array] | None = None) -> Callable:
    """(state, clips of n steps `[n, n_critic, B, ...]`, key) -> (state, metrics `[n]` each): n steps in one dispatch.

    Args:
        train_step: from `make_train_step`.
        gather: where the set is on the devices, (set, picks) -> clips; those two take the place of the clips.
    """

    def train_steps(state, clips, key):
        whole, rows = clips if gather else (None, clips)

        def step(state, rows):
            return train_step(state, gather(whole, rows) if gather else rows, key)

        return jax.lax.scan(step, state, rows)

    return train_steps
