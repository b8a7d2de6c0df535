import pytest

from technogen_jax.common import json_files


@pytest.mark.parametrize("text", ["[" * 10**5, '{"a":' * 10**5, "{", "", "9" * 5000, b"\xff"], ids=range(6))
def test_whatever_is_wrong_is_a_value_error(text, tmp_path):
    with pytest.raises(ValueError):
        json_files.parse(text)
    (tmp_path / "a.json").write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(ValueError):
        json_files.read(tmp_path / "a.json")


def test_a_value_is_returned(tmp_path):
    (tmp_path / "a.json").write_text('{"a": [1, "\u00fc"]}', encoding="utf-8")
    assert json_files.read(tmp_path / "a.json") == {"a": [1, "\u00fc"]}
