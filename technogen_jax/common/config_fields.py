"""Declares the fields of a config, and checks values against the declarations.

A section of a config is a frozen dataclass, a subclass of `Section`. Each field is declared once,
with `field`: its default, meaning, unit and range. The check, the text of an error, the defaults in
`configs/` and the table in `docs/configuration.md` are made from the declaration. A section checks
its values when it is made:

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class TrainConfig(Section):
        section = "train"
        batch_size: int = field(64, "Clips in one update of the discriminator.", least=1)

    TrainConfig(batch_size=0)
    # FieldError: config.train.batch_size: expected a whole number of at least 1, got 0
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import types
import typing
from collections.abc import Mapping
from typing import Any, ClassVar

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

# The largest number of a field without a largest value of its own: JAX counts in int32; squares of
# 1e30 overflow float32.
_LARGEST = {int: 2**31 - 1, float: 1e30}

# Fields that earlier versions wrote to config.json under another name: the model that has them ->
# old name -> new name.
OLD_NAMES = {
    "technogan": {
        "model.line_components": "model.partial_components",
        "model.side_line_components": "model.side_partial_components",
        "train.shaping_steps": "model.shaping_steps",
    },
}


class FieldError(ValueError):
    """A value that a field does not accept, or two fields that do not work together."""


@dataclasses.dataclass(frozen=True)
class FieldSpec:
    """The declaration of a field, as `field_specs` returns it.

    Attributes:
        name: the field's name within its section.
        kind: bool, int, float, str or tuple (of str).
        optional: whether None is accepted.
        default: the default value.
        help: what the field means.
        unit: the unit of its numbers, "" if they have none.
        least: smallest accepted number.
        most: largest accepted number.
        above: accepted numbers are larger than this one.
        below: accepted numbers are smaller than this one.
        choices: the only accepted values; None if there is no such list.
        changeable: whether a run can be resumed with another value.
    """

    name: str
    kind: type
    optional: bool
    default: Any
    help: str
    unit: str
    least: float | None
    most: float | None
    above: float | None
    below: float | None
    choices: tuple | None
    changeable: bool

    @property
    def expected(self) -> str:
        """The accepted values in words, such as "a whole number from 1 to 8"."""
        if self.choices:
            text = " or ".join(map(str, self.choices))
            if len(self.choices) > 2:
                text = f"one of {', '.join(map(str, self.choices))}"
        elif self.kind in (int, float):
            text = "a whole number" if self.kind is int else "a number"
            if self.least is not None and self.most is not None:
                text += f" from {self.least} to {self.most}"
            else:
                bounds = {"of at least": self.least, "above": self.above, "below": self.below, "of at most": self.most}
                bounds = [f"{word} {bound}" for word, bound in bounds.items() if bound is not None]
                text = " ".join([text, " and ".join(bounds)]).strip()
        else:
            text = {bool: "True or False", str: "a text", tuple: "a tuple of different names"}[self.kind]
        return f"None or {text}" if self.optional else text

    def accepts(self, value: Any) -> bool:
        """Whether the field accepts a value. Types count: 1 is neither True nor 1.0."""
        if value is None:
            return self.optional
        if self.choices:
            return any(type(value) is type(choice) and value == choice for choice in self.choices)
        if self.kind is bool:
            return type(value) is bool
        if self.kind is str:
            return _is_text(value)
        if self.kind is tuple:
            return isinstance(value, tuple) and all(map(_is_text, value)) and len(set(value)) == len(value)
        if type(value) not in ((int,) if self.kind is int else (int, float)):
            return False
        least = -_LARGEST[self.kind] if self.least is None else self.least
        most = _LARGEST[self.kind] if self.most is None else self.most
        return (  # False for NaN, which no comparison is true of
            least <= value <= most
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )


class Section:
    """A section of a config: the base class of frozen dataclasses with declared fields.

    Raises:
        FieldError: a field of the wrong type or out of its range.
    """

    section: ClassVar[str]  # its name in a config; "" for the fields at the top

    def __post_init__(self):
        """Checks each field; a list, which is what JSON has for a tuple, becomes a tuple."""
        for spec in field_specs(type(self)).values():
            if spec.kind is tuple and isinstance(getattr(self, spec.name), list):
                object.__setattr__(self, spec.name, tuple(getattr(self, spec.name)))
            check_value(spec, getattr(self, spec.name), dotted(self.section, spec.name))


def field(
    default: Any,
    help: str,
    *,
    unit: str = "",
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    below: float | None = None,
    choices: tuple | None = None,
    changeable: bool = False,
) -> Any:
    """Declares a field of a `Section`.

    None is accepted where the annotation says so, as in `int | None`.

    Args:
        default: the default value.
        help: what the field means, a sentence or two.
        unit: the unit of its numbers.
        least: smallest accepted number.
        most: largest accepted number.
        above: accepted numbers are larger than this one.
        below: accepted numbers are smaller than this one.
        choices: the only accepted values.
        changeable: whether a run can be resumed with another value, since what is learned does not
            depend on it.
    """
    declared = dict(help=help, unit=unit, least=least, most=most, above=above, below=below, choices=choices)
    return dataclasses.field(default=default, metadata=declared | dict(changeable=changeable))


@functools.cache
def field_specs(section: type[Section]) -> dict[str, FieldSpec]:
    """The declarations of a section's fields, by name."""
    hints = typing.get_type_hints(section)
    specs = {}
    for declared in dataclasses.fields(section):
        hint = hints[declared.name]
        optional = isinstance(hint, types.UnionType) and type(None) in typing.get_args(hint)
        kind = typing.get_args(hint)[0] if optional else hint
        kind = typing.get_origin(kind) or kind  # tuple[str, ...] -> tuple
        specs[declared.name] = FieldSpec(
            name=declared.name, kind=kind, optional=optional, default=declared.default, **declared.metadata
        )
    return specs


def check_value(spec: FieldSpec, value: Any, name: str) -> None:
    """Checks one value.

    Raises:
        FieldError: the field does not accept it.
    """
    if spec.accepts(value):
        return
    expected = spec.expected
    unlimited = spec.most is None and spec.below is None
    if unlimited and type(value) in (int, float) and value > _LARGEST.get(spec.kind, value):
        expected += f" and at most {_LARGEST[spec.kind]}"
    raise FieldError(f"config.{name}: expected {expected}, got {value!r:.80}")


def check_condition(ok: bool, name: str, expected: str, value: Any) -> None:
    """Raises a `FieldError` unless `ok`.

    For conditions that a declaration can't express, such as one between two fields.
    """
    if not ok:
        raise FieldError(f"config.{name}: expected {expected}, got {value!r:.80}")


def read_section(
    section: type[Section], config: Mapping[str, Any], *, owner: str = "this version", partial: bool = False
) -> Section:
    """Returns a section with the values of a config.

    Args:
        section: the dataclass.
        config: the values by name.
        owner: who has these fields, for the error that names an unknown one.
        partial: fields that are missing have their defaults; else they are an error.

    Raises:
        FieldError: a field that is unknown, missing, of the wrong type or out of its range.
    """
    specs = field_specs(section)
    name = f"config.{section.section}".rstrip(".")
    if not isinstance(config, Mapping | ConfigDict):
        raise FieldError(f"{name}: its fields are missing, got {config!r:.80}; docs/configuration.md lists them")
    values = {field: config[field] for field in config}
    if unknown := sorted(values.keys() - specs.keys()):
        raise FieldError(f"{name}: {owner} has no field {', '.join(unknown)}")
    if (missing := sorted(specs.keys() - values.keys())) and not partial:
        raise FieldError(f"{name}.{missing[0]}: missing; docs/configuration.md lists every field")
    return section(**values)


def default_section(section: type[Section]) -> ConfigDict:
    """Returns the section's defaults as a ConfigDict.

    A default of None becomes a placeholder that knows the type.
    """
    specs = field_specs(section).values()
    return ConfigDict({spec.name: placeholder(spec.kind) if spec.default is None else spec.default for spec in specs})


def rename_old_fields(content: dict[str, Any]) -> dict[str, Any]:
    """Returns a config, a nested dict, with today's names of the fields in `OLD_NAMES`.

    Other models than their owner had no use for these fields and lose them.
    """
    content = copy.deepcopy(content)
    model = content.get("model")
    name = model.get("name") if isinstance(model, dict) else None
    for owner, new_names in OLD_NAMES.items():
        for old, new in new_names.items():
            old_section, old_field = old.split(".")
            section = content.get(old_section)
            if not isinstance(section, dict) or old_field not in section:
                continue
            moved = section.pop(old_field)
            if name == owner:
                new_section, new_field = new.split(".")
                content[new_section][new_field] = moved
    return content


def names(config: ConfigDict, prefix: str = "") -> set[str]:
    """Returns the dotted names of all fields."""
    found = set()
    for name in config:
        value = config[name]
        found |= names(value, f"{prefix}{name}.") if isinstance(value, ConfigDict) else {prefix + name}
    return found


def value(config: ConfigDict, dotted: str) -> Any:
    """Returns the value of a dotted name; None where there is no such field."""
    for name in dotted.split("."):
        config = config.get(name) if isinstance(config, ConfigDict) else None
    return config


def dotted(section: str, name: str) -> str:
    """Returns the dotted name of a field."""
    return f"{section}.{name}" if section else name


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip()) and "\0" not in value  # no file's name contains NUL
