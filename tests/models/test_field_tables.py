import pytest

from technogen_jax.models import field_tables


def test_the_page_has_the_fields_as_they_are_declared():
    page = field_tables.PAGE.read_text(encoding="utf-8")
    assert page == field_tables.write_tables(page), "run python -m technogen_jax.models.field_tables"


def test_a_page_without_the_marker_is_an_error():
    with pytest.raises(ValueError, match="expected the line <!--"):
        field_tables.write_tables("# A page")
