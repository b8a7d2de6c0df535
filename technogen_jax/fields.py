"""The fields of a config: by dotted names, and the values that go, checked before anything compiles."""

from __future__ import annotations

import math
from typing import Any

from ml_collections import ConfigDict

LEAST = {
    "seed": 0,
    "audio.sample_rate_hz": 1000,
    "audio.channels": 1,
    "audio.clip_samples": 1,
    "data.read_threads": 0,
    "loss.gp_weight": 0,
    "loss.r1_weight": 0,
    "loss.r2_weight": 0,
    "loss.weight_clip": 0,
    "optimizer.learning_rate_g": 0,
    "optimizer.learning_rate_d": 0,
    "optimizer.b1": 0,
    "optimizer.b2": 0,
    "train.steps": 1,
    "train.batch_size": 1,
    "train.n_critic": 1,
    "train.ema_decay": 0,
    "train.log_every": 1,
    "train.sample_every": 0,
    "train.sample_clips": 1,
    "eval.every": 0,
    "eval.clips": 10,
    "train.save_every": 1,
    "train.keep_last": 1,
    "train.keep_every": 0,
}
MOST = {"seed": 2**32 - 1, "audio.channels": 2, "optimizer.b1": 1, "optimizer.b2": 1, "train.ema_decay": 1}
# What may change from one start of a run to the next, since it does not change what is learnt.
FREE = (
    "model.iterations model.momentum data.dir data.read_threads train.init_from train.steps train.minutes train.log_every train.sample_every "
    "train.sample_clips eval.every eval.clips train.save_every train.keep_last train.keep_every"
).split()


class FieldError(ValueError):
    """A field, or two together, that cannot work; names them, their values and what would go."""


def names(config: ConfigDict, prefix: str = "") -> set[str]:
    """Dotted names of all fields."""
    found = set()
    for name in config:
        value = config[name]
        found |= names(value, f"{prefix}{name}.") if isinstance(value, ConfigDict) else {prefix + name}
    return found


def value(config: ConfigDict, dotted: str) -> Any:
    """The value of a dotted name; None where there is none."""
    for name in dotted.split("."):
        config = config.get(name) if isinstance(config, ConfigDict) else None
    return config


def check(config: ConfigDict) -> None:
    """Checks the fields that any model has; those of `config.model` are its builder's to check.

    Raises:
        FieldError: a field out of its range, or two that do not go together.
    """
    for field, least in LEAST.items():
        given, most = value(config, field), MOST.get(field, math.inf)
        if not isinstance(given, int | float) or not least <= given <= most:
            expected = f"at least {least}" if most == math.inf else f"{least} to {most}"
            raise FieldError(f"config.{field}: expected {expected}, got {given!r}")
    if config.train.minutes is not None and not config.train.minutes > 0:
        raise FieldError(f"config.train.minutes: expected more than 0, got {config.train.minutes}")
    if config.data.dir is None:
        raise FieldError("config.data.dir: missing; name the prepared set with --config.data.dir=DIR")
    if config.model.get("batch_norm") and (config.loss.gp_weight or config.loss.r1_weight or config.loss.r2_weight):
        raise FieldError(
            "config.model.batch_norm is True and config.loss has a gradient penalty: it wants each clip's gradient by "
            "itself, batch norm mixes them; set one of the two to off"
        )
    save, evaluate = config.train.save_every, config.eval.every
    if evaluate % save:
        raise FieldError(
            f"config.eval.every is {evaluate} and config.train.save_every {save}: an evaluated step must be saved to "
            "be kept as the best; make eval.every a multiple of train.save_every"
        )


def first_difference(old: ConfigDict, new: ConfigDict) -> str | None:
    """Of the fields that decide what is learnt, the first by name that differs; None where all are the same."""
    for field in sorted(names(old) | names(new)):
        if field not in FREE and value(old, field) != value(new, field):
            return field
    return None
