import hashlib
import tracemalloc
import zipfile

import numpy as np
import pytest

from technogen_jax.common import array_files


def test_a_hash_is_over_names_types_shapes_and_bytes():
    expected = hashlib.sha256(b"a <f8 (2,)\n" + np.array([1.0, 2.0], "<f8").tobytes()).hexdigest()
    assert array_files.content_hash({"a": np.array([1.0, 2.0], ">f8")}) == expected
    assert array_files.content_hash({"a": np.array([1, 2])}) != expected


def test_arrays_come_back_and_nothing_else_is_left(tmp_path):
    values = {"x": np.arange(6.0).reshape(2, 3), "names": np.array(["a", "bc"]), "n": np.int64(3)}
    array_files.write(tmp_path / "v.npz", values)
    found = array_files.read(tmp_path / "v.npz")
    assert found.keys() == values.keys()
    for name in values:
        np.testing.assert_array_equal(found[name], values[name])
    assert [path.name for path in tmp_path.iterdir()] == ["v.npz"]


def test_damaged_files_and_such_with_objects_are_errors(tmp_path):
    array_files.write(tmp_path / "v.npz", {"x": np.arange(1000)})
    with np.load(tmp_path / "v.npz") as file:
        content = dict(file)
    np.savez(tmp_path / "changed.npz", **content | {"x": content["x"] + 1})
    with pytest.raises(ValueError, match="does not match its hash"):
        array_files.read(tmp_path / "changed.npz")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "v.npz").read_bytes()[:300])
    np.savez(tmp_path / "objects.npz", x=np.array([{}], object), sha256="")
    np.savez(tmp_path / "foreign.npz", x=np.arange(3))
    for name in ("cut", "objects", "foreign"):
        with pytest.raises(ValueError, match="unreadable"):
            array_files.read(tmp_path / f"{name}.npz")
    with pytest.raises(FileNotFoundError):
        array_files.read(tmp_path / "missing.npz")


def test_a_small_file_does_not_fill_the_memory(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("x.npy", "w") as member:
            np.lib.format.write_array_header_1_0(member, {"descr": "|u1", "fortran_order": False, "shape": (2**29,)})
            for _ in range(2**7):
                member.write(bytes(2**22))
    with zipfile.ZipFile(tmp_path / "header.npz", "w") as archive, archive.open("x.npy", "w") as member:
        np.lib.format.write_array_header_1_0(member, {"descr": "<f4", "fortran_order": False, "shape": (10**12,)})
    with pytest.raises(ValueError, match="unreadable"):
        array_files.read(tmp_path / "header.npz")
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="unreadable .* grow to"):
            array_files.read(tmp_path / "bomb.npz")
        assert tracemalloc.get_traced_memory()[1] < 2**26
    finally:
        tracemalloc.stop()
