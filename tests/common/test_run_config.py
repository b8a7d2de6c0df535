import math

import jax
import pytest
from conftest import ROOT, load_config
from helpers.fuzzing import fuzzed
from hypothesis import example, given
from hypothesis import strategies as st
from ml_collections import ConfigDict

from technogen_jax import models
from technogen_jax.common import config_fields, run_config
from technogen_jax.data import batching
from technogen_jax.training import loop, losses
from technogen_jax.training.optimizers import make_optimizer


def every_config():
    """The config of each file in configs/, by name."""
    configs = {path.stem: load_config(path.stem) for path in sorted((ROOT / "configs").glob("*.py"))}
    for config in configs.values():
        config.data.dir = "somewhere"
    return configs


CONFIGS = every_config()
# (config, field): the general fields once, and those of each model.
FIELDS = sorted(
    {
        (name if "model." in field else "default", field)
        for name in ("default", "specgan", "technogan")
        for field in config_fields.names(CONFIGS[name])
    }
)
BAD_VALUES = {  # type of a default -> values that no such field accepts
    bool: [0, 1, "True", None, [], 0.5],
    int: ["1", 1.5, True, None, [1], {}, math.nan, math.inf, -1, -(2**70), 2**63, 10**30],
    float: ["1", True, None, [1.0], {}, math.nan, math.inf, -math.inf, -1.0, -1e-9, 1e308, 10**40],
    str: ["", " ", "nothing\0", "nothing", 5, True, None, ["adam"], {}],
    type(None): ["", True, [1], {}, math.nan, -1, -1.0, 10**40, math.inf],
    tuple: ["acid", 5, None, (1,), ("",), ("acid", "acid"), [["acid"]], {}],
}
ANY_TEXT = ("data.dir", "data.split")  # compared with the dataset later


def with_value(name, field, value):
    """A copy of a config with another value of a field, which may be of another type."""
    content = CONFIGS[name].to_dict()
    *sections, last = field.split(".")
    section = content
    for part in sections:
        section = section[part]
    section[last] = value
    return ConfigDict(content)


def error_of(name, field, value):
    """The text of the ValueError that a value causes; None if the value is accepted."""
    try:
        loop.build_training(with_value(name, field, value))
    except ValueError as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", CONFIGS)
def test_the_configs_are_valid(name):
    run_config.check(CONFIGS[name])


def test_the_configs_have_exactly_the_declared_fields():
    for config in CONFIGS.values():
        sections = [*run_config.SECTIONS, models.find(config).config_class]
        declared = {
            config_fields.dotted(section.section, name)
            for section in sections
            for name in config_fields.field_specs(section)
        }
        assert config_fields.names(config) == declared | {"model.name"}


@pytest.mark.parametrize("name, field", FIELDS)
def test_a_bad_value_is_an_error_that_names_the_field_before_anything_compiles(name, field):
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: compiled.append(event) if "backend_compile" in event else None
    )
    old = config_fields.value(CONFIGS[name], field)
    for value in BAD_VALUES[type(old)]:
        if value == "nothing" and field in ANY_TEXT:
            continue
        message = error_of(name, field, value)
        assert message and f"config.{field}" in message, f"{value!r}: {message}"
        assert len(message) < 500 and "\n" not in message.strip()
    assert not compiled


@fuzzed
@given(
    st.sampled_from(FIELDS),
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.integers(0, 9),
        st.floats(),
        st.floats(0, 1),
        st.text(max_size=9),
        st.binary(max_size=9),
        st.lists(st.integers() | st.text(max_size=9), max_size=3).map(tuple),
    ),
)
@example(("technogan", "model.n_mels"), 1)  # leaves fewer components than the config has
def test_any_value_is_accepted_or_an_error_names_the_field(place, value):
    message = error_of(*place, value)
    assert message is None or place[1].rpartition(".")[2] in message


def test_ranges_include_or_exclude_their_ends():
    for field, good, bad in (
        ("seed", (0, 2**32 - 1), (-1, 2**32)),
        ("train.ema_decay", (0, 1, 1.0), (1.0000001,)),
        ("optimizer.b1", (0, 0.999), (1, 1.0)),
        ("train.minutes", (None, 1, 1e-9), (0, 0.0)),
        ("audio.channels", (1, 2), (0, 3, 1.0)),
        ("data.read_threads", (0, 1024), (1025,)),
    ):
        for value in good:
            run_config.check(with_value("default", field, value))
        for value in bad:
            with pytest.raises(config_fields.FieldError, match=rf"^config\.{field}: expected .*, got {value}$"):
                run_config.check(with_value("default", field, value))


def test_missing_fields_unknown_fields_and_huge_batches_are_errors():
    config = ConfigDict(CONFIGS["default"].to_dict())
    del config.train["n_critic"]
    with pytest.raises(config_fields.FieldError, match=r"^config\.train\.n_critic: missing"):
        run_config.check(config)
    with pytest.raises(config_fields.FieldError, match="missing"):
        run_config.check(with_value("default", "train", 3))
    for field in ("train.epochs", "epochs"):
        with pytest.raises(config_fields.FieldError, match="has no field epochs"):
            run_config.check(with_value("default", field, 3))
    with pytest.raises(
        config_fields.FieldError, match=r"train\.batch_size x n_critic is 5242880 clips of 16384 samples"
    ):
        run_config.check(with_value("default", "train.batch_size", 2**20))


def test_fields_that_do_not_work_together_are_errors():
    for name, changes, message in (
        ("default", {"model.batch_norm": True}, "config.model.batch_norm is True"),
        ("default", {"train.reuse_fakes": True}, "config.train.reuse_fakes is True"),
        ("default", {"eval.every": 1500}, "config.eval.every is 1500 and config.train.save_every is 1000"),
    ):
        for field, value in changes.items():
            with pytest.raises(config_fields.FieldError, match=message):
                run_config.check(with_value(name, field, value))


def test_declared_choices_are_those_that_the_code_has():
    choices = {
        (section.section, spec.name): set(spec.choices)
        for section in run_config.SECTIONS
        for spec in config_fields.field_specs(section).values()
        if spec.choices
    }
    assert choices["loss", "adversarial"] == set(losses.ADVERSARIAL)
    assert choices["data", "crop"] == set(batching.CROPS)
    for name in choices["optimizer", "name"]:
        make_optimizer(name, 1e-4, 0.5, 0.9)
