import dataclasses
import math

import pytest
from conftest import load_config

from technogen_jax.common import config_fields
from technogen_jax.common.config_fields import FieldError, Section, field


@dataclasses.dataclass(frozen=True, kw_only=True)
class Small(Section):
    section = "model"
    size: int = field(2, "A size.", unit="samples", least=1, most=8)
    rate: float = field(0.5, "A rate.", least=0, below=1, changeable=True)
    share: float = field(1.0, "A share.", above=0, most=1)
    kind: str = field("a", "A kind.", choices=("a", "b", "c"))
    path: str | None = field(None, "A path.")
    on: bool = field(False, "A switch.")
    names: tuple[str, ...] = field((), "Names.")


@pytest.mark.parametrize(
    ("name", "good", "bad", "expected"),
    [
        ("size", [1, 8], [0, 9, 2.0, True, "2", None], "a whole number from 1 to 8"),
        ("rate", [0, 0.0, 0.999], [-1e-9, 1, math.nan, math.inf, "0", None], "a number of at least 0 and below 1"),
        ("share", [1e-9, 1], [0, 1.001, False], "a number above 0 and of at most 1"),
        ("kind", ["a", "c"], ["d", "", None, ["a"]], "one of a, b, c"),
        ("path", [None, "x"], ["", " ", "x\0", 1], "None or a text"),
        ("on", [True, False], [0, 1, None, "True"], "True or False"),
        ("names", [(), ("x", "y"), ["x"]], [("x", "x"), ("",), (1,), "x", None], "a tuple of different names"),
    ],
)
def test_a_section_checks_its_values_when_it_is_made(name, good, bad, expected):
    for value in good:
        made = getattr(Small(**{name: value}), name)
        assert made == (tuple(value) if isinstance(value, list) else value)
    for value in bad:
        with pytest.raises(FieldError) as error:
            Small(**{name: value})
        assert str(error.value) == f"config.model.{name}: expected {expected}, got {value!r}"


def test_numbers_without_a_largest_value_end_where_arithmetic_does():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Open(Section):
        section = "train"
        steps: int = field(1, "Steps.", least=1)

    Open(steps=2**31 - 1)
    with pytest.raises(FieldError, match="of at least 1 and at most 2147483647, got 2147483648"):
        Open(steps=2**31)


def test_a_section_is_read_from_a_config():
    assert config_fields.read_section(Small, dict(size=3, names=["x"]), partial=True) == Small(size=3, names=("x",))
    with pytest.raises(FieldError, match=r"config\.model\.kind: missing"):
        config_fields.read_section(Small, dict(size=3))
    with pytest.raises(FieldError, match="config.model: small has no field sizes, typo"):
        config_fields.read_section(Small, dict(sizes=3, typo=1), owner="small", partial=True)


def test_defaults_know_their_type_where_they_are_none():
    defaults = config_fields.default_section(Small)
    assert defaults.to_dict() == dataclasses.asdict(Small())
    with pytest.raises(TypeError):
        defaults.path = 3
    defaults.path = "x"


def test_values_are_found_by_dotted_name():
    config = load_config("default")
    assert config_fields.value(config, "train.batch_size") == 64
    assert config_fields.value(config, "seed") == 0
    assert config_fields.value(config, "train.batch") is None
    assert config_fields.value(config, "seed.x") is None


def test_old_names_of_fields_are_renamed():
    old = dict(model=dict(name="technogan", line_components=3, side_line_components=4), train=dict(shaping_steps=5))
    assert config_fields.rename_old_fields(old) == dict(
        model=dict(name="technogan", partial_components=3, side_partial_components=4, shaping_steps=5), train={}
    )
    assert old["train"] == dict(shaping_steps=5)
    other = dict(model=dict(name="wavegan", channels=2), train=dict(shaping_steps=0, steps=1))
    assert config_fields.rename_old_fields(other) == dict(model=other["model"], train=dict(steps=1))
    for strange in ({}, dict(model=3), dict(model=dict(name=["x"])), dict(model={}, train=4)):
        assert config_fields.rename_old_fields(strange) == strange
