import pytest

from technogen_jax.common import config_files
from technogen_jax.common.config_files import load_config, split_name


@pytest.mark.parametrize(
    "name, parts",
    [
        ("configs/technogan.py:xs", ("configs/technogan.py", "xs")),
        ("wavegan", ("wavegan", None)),
        ("C:/music/my.py:xs", ("C:/music/my.py", "xs")),
        ("C:\\music\\my.py", ("C:\\music\\my.py", None)),
        ("a.py:b:c", ("a.py", "b:c")),
        ("t:xs", ("t", "xs")),
    ],
)
def test_a_name_is_a_path_and_an_argument(name, parts):
    assert split_name(name) == parts


def test_a_shipped_config_is_found_by_its_name_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("technogan:xs", "technogan.py:xs", "configs/technogan.py:xs"):
        assert load_config(name).model.channels == 80
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "technogan.py").write_text("def get_config(size):\n    return size + '!'\n")
    assert load_config("configs/technogan.py:xs") == "xs!"  # a user's own file comes first
    assert load_config("technogan:xs").model.channels == 80


def test_an_installed_package_has_its_configs_beside_it(tmp_path, monkeypatch):
    """Without a checkout, `configs` is a package in the folder of all packages."""
    installed = tmp_path / "lib" / "technogen_jax" / "common" / "config_files.py"
    monkeypatch.setattr(config_files, "__file__", str(installed))
    assert config_files.shipped_folder().name == "configs" and load_config("technogan:s").model.blocks == 5


@pytest.mark.parametrize(
    "text, message",
    [
        (None, "--config own.py: no such file; expected a Python file, or one of default,"),
        ("x = 1", "own.py: AttributeError: .*get_config"),
        ("def get_config():\n    return nowhere", "own.py: NameError: name 'nowhere' is not defined"),
        ("this is no program", "own.py: SyntaxError: invalid syntax"),
        ("import nowhere_at_all", "own.py: ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("def get_config():\n    raise ValueError('too small')", "^too small$"),
    ],
)
def test_a_file_that_is_no_config_is_an_error(text, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if text is not None:
        (tmp_path / "own.py").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_config("own.py")
