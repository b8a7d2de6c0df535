"""Writes the tables of `docs/configuration.md` from the declarations of the fields.

    python -m technogen_jax.models.field_tables

The text above the marker in the page is kept; everything below it is replaced.
"""

from __future__ import annotations

import pathlib

from technogen_jax.common import config_fields, run_config
from technogen_jax.models.registry import MODELS

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "configuration.md"
MARKER = "<!-- The tables below are written by: python -m technogen_jax.models.field_tables -->"


def write_tables(page: str) -> str:
    """Returns the page with tables of the fields as they are declared today.

    Raises:
        ValueError: the page has no marker.
    """
    text, marker, _ = page.partition(MARKER)
    if not marker:
        raise ValueError(f"expected the line {MARKER}")
    tables = [_write_table("Top of the config", run_config.TopConfig)]
    tables += [_write_table(f"`config.{section.section}`", section) for section in run_config.SECTIONS[1:]]
    for name, model in MODELS.items():
        tables.append(_write_table(f"`config.model` with `config.model.name={name}`", model.config_class))
    return "\n\n".join([text + marker, *tables]) + "\n"


def _write_table(title: str, section: type[config_fields.Section]) -> str:
    rows = [f"## {title}", "", section.__doc__.strip().split("\n")[0], ""]
    rows += ["| field | default | values | meaning |", "| --- | --- | --- | --- |"]
    for spec in config_fields.field_specs(section).values():
        name = f"`{spec.name}`" + (" \\*" if spec.changeable else "")
        unit = f", in {spec.unit}" if spec.unit else ""
        rows.append(f"| {name} | `{spec.default!r}` | {spec.expected}{unit} | {spec.help} |")
    return "\n".join(rows)


if __name__ == "__main__":
    PAGE.write_text(write_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
