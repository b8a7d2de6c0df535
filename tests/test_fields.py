import pytest
from conftest import load_config

from technogen_jax import fields


@pytest.fixture
def config():
    config = load_config("default")
    config.data.dir = "somewhere"
    return config


def test_the_defaults_pass(config):
    fields.check(config)
    assert {"seed", "data.dir", "train.batch_size", "model.name"} < fields.names(config)


def test_every_range_is_of_a_field_that_there_is(config):
    assert set(fields.LEAST) <= fields.names(config)
    families = [config, load_config("specgan")]
    assert set(fields.FREE) <= set().union(*map(fields.names, families))
    assert set(fields.MOST) <= set(fields.LEAST)


def test_values_by_dotted_name(config):
    assert fields.value(config, "train.batch_size") == 64
    assert fields.value(config, "seed") == 0
    assert fields.value(config, "train.batch") is None
    assert fields.value(config, "seed.x") is None


@pytest.mark.parametrize("field", fields.LEAST)
def test_a_number_below_its_range_is_named(config, field):
    section, _, name = field.rpartition(".")
    (config[section] if section else config)[name] = type(fields.value(config, field))(-1)
    with pytest.raises(fields.FieldError, match=rf"config\.{field}: expected .* got -1"):
        fields.check(config)


@pytest.mark.parametrize("field, value", [("loss.gp_weight", float("nan")), ("train.ema_decay", 1.5), ("seed", 2**32)])
def test_numbers_above_a_range_and_nan_are_named(config, field, value):
    section, _, name = field.rpartition(".")
    (config[section] if section else config)[name] = value
    with pytest.raises(fields.FieldError, match=f"config.{field}: expected"):
        fields.check(config)


def test_only_what_is_learnt_makes_a_difference(config):
    other = load_config("default")
    other.data.dir = "elsewhere"
    other.train.steps = 5
    assert fields.first_difference(config, other) is None
    other.train.n_critic = 2
    assert fields.first_difference(config, other) == "train.n_critic"
    del other.train.n_critic
    assert fields.first_difference(config, other) == "train.n_critic"
