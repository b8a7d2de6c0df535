"""The fields of a config: by dotted names, and the values that go, checked before anything compiles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

Rule = Callable[[Any], str | None]  # a value -> what was expected instead of it, None where it goes

_LARGEST_WHOLE = 2**31 - 1  # JAX counts to it
_LARGEST = 1e30  # far beyond what works; where squares are no longer float32


def whole(least: int, most: int = _LARGEST_WHOLE) -> Rule:
    """A whole number."""

    def expected(value):
        if type(value) is not int:
            return "a whole number"
        return None if least <= value <= most else _range(value, least, most)

    return expected


def number(least: float, most: float = _LARGEST, *, positive: bool = False, below: bool = False) -> Rule:
    """A number, neither NaN nor Inf: `positive` and not 0, `below` its upper end."""

    def expected(value):
        if type(value) not in (int, float):
            return "a number"
        if positive and not value > 0:
            return "more than 0"
        if below and value == most:
            return f"below {most}"
        return None if least <= value <= most else _range(value, least, most)

    return expected


def one_of(*values: Any) -> Rule:
    """One of a few values, and of its type."""
    known = [(type(value), value) for value in values]
    return lambda value: None if (type(value), value) in known else f"one of {', '.join(map(str, values))}"


def text(value: Any) -> str | None:
    """A text with something in it."""
    good = isinstance(value, str) and value.strip() and "\0" not in value  # no file's name holds that character
    return None if good else "a text"


def optional(rule: Rule) -> Rule:
    """None, or what the rule wants."""
    return lambda value: None if value is None else rule(value)


def _range(value: float, least: float, most: float) -> str:
    return f"{least} to {most}" if value > most else f"at least {least}"


# Every field but the models' own. An upper end is beyond what anyone wants.
RULES = {
    "seed": whole(0, 2**32 - 1),
    "audio.sample_rate_hz": whole(1000, 768_000),
    "audio.channels": whole(1, 2),
    "audio.clip_samples": whole(1),
    "data.dir": text,
    "data.split": text,
    "data.crop": text,
    "data.read_threads": whole(0, 1024),
    "data.resident": one_of("auto", "always", "never"),
    "model.name": text,
    "loss.adversarial": text,
    "loss.gp_weight": number(0),
    "loss.r1_weight": number(0),
    "loss.r2_weight": number(0),
    "loss.penalty_share": number(0, 1, positive=True),
    "loss.weight_clip": number(0),
    "optimizer.name": text,
    "optimizer.learning_rate_g": number(0),
    "optimizer.learning_rate_d": number(0),
    "optimizer.tail": number(0, 1),
    "optimizer.b1": number(0, 1, below=True),  # at 1 Adam divides by zero
    "optimizer.b2": number(0, 1, below=True),
    "optimizer.largest_update": number(0),
    "train.steps_per_dispatch": whole(1, 1000),
    "data.rotate": whole(0, 2**16),
    "train.steps": whole(1),
    "train.shaping_steps": whole(0),
    "train.minutes": optional(number(0, positive=True)),
    "train.init_from": optional(text),
    "train.batch_size": whole(1, 2**20),
    "train.shard_parameters": one_of(True, False),
    "train.n_critic": whole(1, 1000),
    "train.reuse_fakes": one_of(True, False),
    "train.skip_not_finite": one_of(True, False),
    "train.ema_decay": number(0, 1),
    "train.log_every": whole(1),
    "train.sample_every": whole(0),
    "train.sample_clips": whole(1, 1024),
    "train.save_every": whole(1),
    "train.keep_last": whole(1),
    "train.keep_every": whole(0),
    "eval.every": whole(0),
    "eval.clips": whole(10, 2**20),
}
# The largest numbers of a model: its builder says what goes, but with more of them would not come to an end.
MODEL_MOST = {
    "model.blocks": 64,
    "model.channels": 4096,
    "model.critic_blocks": 64,
    "model.critic_channels": 4096,
    "model.iterations": 1000,
}
_MODEL_MOST = 2**16  # of any other field
_LARGEST_BATCH = 2**31  # samples of a step, in 16 bits 4 GB
# What may change from one start of a run to the next, since it does not change what is learnt.
FREE = (
    "model.iterations model.momentum data.dir data.read_threads data.resident train.shard_parameters train.init_from train.steps train.minutes train.skip_not_finite train.log_every train.sample_every "
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
        FieldError: a field of another type or out of its range, or two that do not go together.
    """
    if value(config, "data.dir") is None:
        raise FieldError("config.data.dir: missing; name the prepared set with --config.data.dir=DIR")
    there = names(config)
    if missing := sorted(RULES.keys() - there):
        raise FieldError(f"config.{missing[0]}: missing; configs/default.py has every field")
    for field in sorted(there):
        given, rule = value(config, field), RULES.get(field) or _of_a_model(field)
        if expected := rule(given):
            raise FieldError(f"config.{field}: expected {expected}, got {given!r:.80}")
    batch, samples = config.train.batch_size * config.train.n_critic, config.audio.clip_samples * config.audio.channels
    if batch * samples > _LARGEST_BATCH:
        raise FieldError(
            f"config.train.batch_size x n_critic is {batch} clips of {samples} samples (config.audio.clip_samples x "
            f"channels): more than {_LARGEST_BATCH} samples a step; make one of them smaller"
        )
    if config.model.get("batch_norm") and (config.loss.gp_weight or config.loss.r1_weight or config.loss.r2_weight):
        raise FieldError(
            "config.model.batch_norm is True and config.loss has a gradient penalty: it wants each clip's gradient by "
            "itself, batch norm mixes them; set one of the two to off"
        )
    if config.train.reuse_fakes and config.train.n_critic != 1:
        raise FieldError(
            f"config.train.reuse_fakes is True and config.train.n_critic {config.train.n_critic}: fakes are for one update "
            "of the discriminator and one of the generator; make n_critic 1"
        )
    save, evaluate = config.train.save_every, config.eval.every
    if evaluate % save:
        raise FieldError(
            f"config.eval.every is {evaluate} and config.train.save_every {save}: an evaluated step must be saved to "
            "be kept as the best; make eval.every a multiple of train.save_every"
        )


def _of_a_model(field: str) -> Rule:
    most = MODEL_MOST.get(field, _MODEL_MOST)
    return lambda value: f"at most {most}" if type(value) in (int, float) and not abs(value) <= most else None


def first_difference(old: ConfigDict, new: ConfigDict) -> str | None:
    """Of the fields that decide what is learnt, the first by name that differs; None where all are the same."""
    for field in sorted(names(old) | names(new)):
        if field not in FREE and value(old, field) != value(new, field):
            return field
    return None
