import os

import pytest

from technogen_jax.common import atomic_files


@pytest.mark.parametrize("shared", [False, True])
def test_a_file_comes_to_be_whole_or_not_at_all(tmp_path, shared):
    path = tmp_path / "x.txt"
    for content in ("first", "second"):
        with atomic_files.replacing(path, shared=shared) as temporary:
            temporary.write_text(content)
            assert temporary.parent == tmp_path and temporary.name.startswith(".x.txt.")
        assert path.read_text() == content
    with pytest.raises(KeyboardInterrupt):
        with atomic_files.replacing(path, shared=shared) as temporary:
            temporary.write_text("half of the th")
            raise KeyboardInterrupt
    assert path.read_text() == "second" and os.listdir(tmp_path) == ["x.txt"]


def test_what_a_killed_process_left_is_used_up(tmp_path):
    (tmp_path / ".x.txt.tmp").write_text("half of the th")
    with atomic_files.replacing(tmp_path / "x.txt") as temporary:
        temporary.write_text("whole")
    assert os.listdir(tmp_path) == ["x.txt"] and (tmp_path / "x.txt").read_text() == "whole"
