import numpy as np
import pytest
from helpers import tf_checkpoints

from technogen_jax.evaluation.features import tf_checkpoint

ARRAYS = {
    "conv/kernel": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "conv/kernel/Adam": np.zeros((300, 2), np.float64),
    "conv_1/bias": np.array([-1.5], np.float32),
    "empty": np.zeros((0, 3), np.float32),
    "step": np.array(2**40),
    "small": np.array([[1], [-2]], np.int32),
} | {f"many/{number:03d}": np.full(number, number, np.float32) for number in range(200)}


@pytest.mark.parametrize("per_block", [1, 7, 1000])
def test_all_arrays_are_read(per_block):
    found = tf_checkpoint.read_arrays(*tf_checkpoints.write(ARRAYS, per_block))
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype and found[name].shape == array.shape


def test_a_checkpoint_that_tensorflow_wrote_is_read(tmp_path):
    tf = pytest.importorskip("tensorflow")
    variables = {name: tf.Variable(array) for name, array in ARRAYS.items()}
    path = tf.compat.v1.train.Saver(variables).save(None, str(tmp_path / "x"), write_meta_graph=False)
    index, data = ((tmp_path / f"x.{end}").read_bytes() for end in ("index", "data-00000-of-00001"))
    found = tf_checkpoint.read_arrays(index, data)
    assert path and found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array)


def test_other_files_raise():
    index, data = tf_checkpoints.write(ARRAYS)
    with pytest.raises(ValueError, match="expected the index of a TensorFlow checkpoint"):
        tf_checkpoint.read_arrays(b"PK" + bytes(100), data)
    with pytest.raises(ValueError, match="damaged checkpoint"):
        tf_checkpoint.read_arrays(index, data[:-4])
    with pytest.raises(ValueError, match="TensorFlow's type 7"):
        entry = tf_checkpoints.field(1, 7)
        table, _ = tf_checkpoints.write({})
        tf_checkpoint.read_arrays(_table_with(table, entry), b"")


def _table_with(table, entry):
    """The table of an empty checkpoint with one more entry."""
    content = tf_checkpoints.block([(b"", b""), (b"text", entry)])
    first = content + bytes(5)
    index = tf_checkpoints.block([(b"u", tf_checkpoints.varint(0) + tf_checkpoints.varint(len(content)))])
    place = tf_checkpoints.varint(len(first)) + tf_checkpoints.varint(len(index))
    return first + index + bytes(5) + (bytes(2) + place).ljust(40, b"\0") + table[-8:]
