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
from technogen_jax.training import loop


def every_config():
    """Name -> config, of each file in configs/."""
    configs = {path.stem: load_config(path.stem) for path in sorted((ROOT / "configs").glob("*.py"))}
    for config in configs.values():
        config.data.dir = "somewhere"
    return configs


CONFIGS = every_config()
# A field of every model once, a model's own once for each.
FIELDS = sorted(
    {
        (name if "model." in field else "default", field)
        for name in ("default", "specgan", "technogan")
        for field in config_fields.names(CONFIGS[name])
    }
)
OF_TYPE = {  # what no field with a value of that type takes
    bool: [0, 1, "True", None, [], 0.5],
    int: ["1", 1.5, True, None, [1], {}, math.nan, math.inf, -1, -(2**70), 2**63, 10**30],
    float: ["1", True, None, [1.0], {}, math.nan, math.inf, -math.inf, -1.0, -1e-9, 1e308, 10**40],
    str: ["", " ", "nothing\0", "nothing", 5, True, None, ["adam"], {}],
    type(None): ["", True, [1], {}, math.nan, -1, -1.0, 10**40, math.inf],
    tuple: ["acid", 5, None, (1,), ("",), ("acid", "acid"), [["acid"]], {}],
}
ANY_TEXT = ("data.dir", "data.split", "data.crop")  # `data.check` says what goes


def with_value(name, field, value):
    """A config's copy with a field of any type, which assigning would not allow."""
    content = CONFIGS[name].to_dict()
    *sections, last = field.split(".")
    section = content
    for part in sections:
        section = section[part]
    section[last] = value
    return ConfigDict(content)


def complaint(name, field, value):
    """What is said of a value, None where it goes. Anything else than a ValueError fails."""
    try:
        loop.build_training(with_value(name, field, value))
    except ValueError as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", CONFIGS)
def test_the_configs_pass(name):
    run_config.check(CONFIGS[name])


def test_the_configs_have_the_fields_that_are_declared():
    for config in CONFIGS.values():
        sections = [*run_config.SECTIONS, models.find(config).config_class]
        declared = {
            config_fields.dotted(section.section, name)
            for section in sections
            for name in config_fields.field_specs(section)
        }
        assert config_fields.names(config) == declared | {"model.name"}


@pytest.mark.parametrize("name, field", FIELDS)
def test_a_value_that_cannot_go_is_named_before_anything_compiles(name, field):
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: compiled.append(event) if "backend_compile" in event else None
    )
    old = config_fields.value(CONFIGS[name], field)
    for value in OF_TYPE[type(old)]:
        if value == "nothing" and field in ANY_TEXT:
            continue
        said = complaint(name, field, value)
        assert said and f"config.{field}" in said, f"{value!r}: {said}"
        assert len(said) < 500 and "\n" not in said.strip()
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
def test_a_value_goes_or_is_named(place, value):
    said = complaint(*place, value)
    assert said is None or place[1].rpartition(".")[2] in said


def test_values_by_dotted_name():
    config = CONFIGS["default"]
    assert config_fields.value(config, "train.batch_size") == 64
    assert config_fields.value(config, "seed") == 0
    assert config_fields.value(config, "train.batch") is None
    assert config_fields.value(config, "seed.x") is None


def test_the_ends_of_ranges():
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


def test_fields_that_are_not_there_and_batches_beyond_memory_are_named():
    config = ConfigDict(CONFIGS["default"].to_dict())
    del config.train["n_critic"]
    with pytest.raises(config_fields.FieldError, match=r"^config\.train\.n_critic: missing"):
        run_config.check(config)
    with pytest.raises(config_fields.FieldError, match="missing"):
        run_config.check(with_value("default", "train", 3))
    with pytest.raises(
        config_fields.FieldError, match=r"train\.batch_size x n_critic is 5242880 clips of 16384 samples"
    ):
        run_config.check(with_value("default", "train.batch_size", 2**20))


def test_only_what_is_learnt_makes_a_difference():
    config, other = load_config("default"), load_config("default")
    other.data.dir = "elsewhere"
    other.train.steps = 5
    assert models.first_difference(config, other) is None
    other.train.n_critic = 2
    assert models.first_difference(config, other) == "train.n_critic"
    del other.train.n_critic
    assert models.first_difference(config, other) == "train.n_critic"
