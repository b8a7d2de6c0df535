import jax
import numpy as np
import pytest

from technogen_jax.common import array_files
from technogen_jax.models.technogan.codec import shaper

KEY = jax.random.key(0)


def test_shipped_shaper_has_the_shapes_of_a_new_one_and_is_trained():
    params = shaper.read("shipped", 44100, 8, 96)
    wanted = jax.eval_shape(shaper.make_shaper(96).init, KEY)
    assert jax.tree.map(np.shape, params) == jax.tree.map(lambda leaf: leaf.shape, wanted)
    assert all(np.isfinite(value).all() for value in jax.tree.leaves(params))
    assert np.abs(params["gates"]["kernel"]).max() > 0.01  # a new one's are zero
    assert shaper.read("none", 8000, 4, 16) is None


def test_read_raises_for_another_grid_and_for_a_file_without_a_shaper(tmp_path):
    with pytest.raises(
        ValueError, match="config.model.shaper: expected 8 frames_per_step, 96 n_mels .* got 8, 96 and 16000"
    ):
        shaper.read("shipped", 16000, 8, 96)
    with pytest.raises(ValueError, match="expected shipped, none, new or a file, got '.*absent.npz'"):
        shaper.read(str(tmp_path / "absent.npz"), 44100, 8, 96)
    array_files.write(tmp_path / "other.npz", {"a": np.zeros(3)})
    with pytest.raises(ValueError, match="other.npz: expected a shaper, as in the statistics.npz of a run"):
        shaper.read(str(tmp_path / "other.npz"), 44100, 8, 96)
