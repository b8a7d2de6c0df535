"""Nobody is let in: what reads files runs none of what is in them, and nothing opens a connection to another machine.

The second is held for all tests, those that train, make sound and evaluate among them, by `stays_here` in conftest.py.
"""

import ast
import pickle
import socket

import conftest
import numpy as np
import pytest
from test_structure import SOURCES, TREES, imported

from technogen_jax.runs import encoded_dataset

# Modules whose readers run code that they find in a file.
RUNNING = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml", "sklearn.externals"}
CAUGHT = {"pretrained.py": {"pickle"}}  # by the name of its error, which torch raises at what it does not read


def calls(path):
    """(dotted name, keyword arguments) of every call in a file."""
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Call):
            constants = {word.arg: getattr(word.value, "value", ...) for word in node.keywords}
            yield ast.unparse(node.func), constants


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_no_reader_runs_what_it_reads(path):
    names = {name.split(".")[0] for name in imported(path)}
    assert not names & RUNNING - CAUGHT.get(path.name, set())
    for name, constants in calls(path):
        assert name not in ("eval", "exec", "compile", "__import__", "pickle.load", "pickle.loads", "pickle.Unpickler")
        assert constants.get("allow_pickle", False) is False, f"{path.name}: {name}"
        assert constants.get("trust_remote_code", False) is False
        if name == "torch.load":
            assert constants.get("weights_only") is True
        if name.endswith(".from_pretrained"):
            assert "local_files_only" in path.read_text(encoding="utf-8")


class Bomb:
    """What a pickle of it does when it is read."""

    def __reduce__(self):
        return pytest.fail, ("a file was run",)


def test_a_pickle_in_the_place_of_an_array_is_not_run(tmp_path):
    path = tmp_path / "codes.npy"
    np.save(path, np.array([Bomb()], object), allow_pickle=True)
    with pytest.raises(ValueError, match="unreadable"):
        encoded_dataset.read(path)
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match="unreadable"):
        encoded_dataset.read(path)


def test_a_connection_out_of_the_machine_fails_a_test():
    for connect in (lambda s: s.connect(("192.0.2.1", 9)), lambda s: s.sendto(b"", ("192.0.2.1", 9))):  # RFC 5737
        with socket.socket(type=socket.SOCK_DGRAM) as one, pytest.raises(conftest.NetworkError, match="192.0.2.1"):
            connect(one)
    with pytest.raises(conftest.NetworkError, match="example.org"):
        socket.getaddrinfo("example.org", 80)
    assert len(conftest.reached) == 3
    conftest.reached.clear()
