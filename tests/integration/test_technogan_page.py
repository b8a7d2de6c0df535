"""docs/technogan.md has the sizes of the model, and its figure is the one that the script draws."""

import re

import pytest
from conftest import ROOT

from experiments.figures import technogan

PAGE = (ROOT / "docs" / "technogan.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def sizes():
    return technogan.read_sizes()


def read_table(name):
    """The cells of each row, without the heading, of the table that follows the comment of that name."""
    rows = PAGE.split(f"<!-- table: {name} -->\n")[1].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


@pytest.mark.parametrize("name", ["latents", "step values", "bar values", "discriminator"])
def test_the_tables_have_the_sizes_of_the_model(name, sizes):
    assert {row[0]: int(row[1]) for row in read_table(name)} == {key: size for key, size in sizes[name].items() if size}


def test_the_table_of_parts_has_the_sizes_of_the_model(sizes):
    rows = read_table("parts")
    assert {row[0]: int(row[2]) for row in rows} == sizes["parts"]
    assert {row[0]: int(row[1]) for row in rows if row[1]} == sizes["features"]


def test_the_script_draws_the_figure_of_the_page(sizes, tmp_path):
    technogan.draw(sizes, tmp_path / "figure.svg")
    drawn, kept = (path.read_text(encoding="utf-8") for path in (tmp_path / "figure.svg", technogan.PATH))
    texts = [re.findall(r"<text[^>]*>([^<]*)</text>", figure) for figure in (drawn, kept)]
    assert texts[0] == texts[1] and len(texts[0]) > 20
