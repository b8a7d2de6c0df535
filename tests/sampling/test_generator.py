import shutil

import jax.numpy as jnp
import numpy as np
import pytest

from technogen_jax.runs.checkpoints import Checkpoints
from technogen_jax.runs.workdir import WorkdirError, read_config, write_config
from technogen_jax.sampling import generator


def test_load_takes_a_step(trained_workdir):
    latest, first = generator.load(trained_workdir), generator.load(trained_workdir, 2)
    assert (latest.step, first.step) == (6, 2)
    assert latest.weights != first.weights
    assert generator.load(trained_workdir).weights == latest.weights
    with Checkpoints(trained_workdir, read_only=True) as checkpoints:
        assert generator.load(trained_workdir, "best").step == checkpoints.best_step()


def test_load_raises_if_something_is_missing(trained_workdir, tmp_path):
    with pytest.raises(WorkdirError, match="config.json: not found"):
        generator.load(tmp_path)
    with pytest.raises(WorkdirError, match="no checkpoint of step 3; there are: 2, 4, 6"):
        generator.load(trained_workdir, 3)
    write_config(tmp_path, read_config(trained_workdir))
    with pytest.raises(WorkdirError, match="no checkpoint yet; the first comes after 2 steps"):
        generator.load(tmp_path)


def test_load_looks_again_if_a_training_deletes_the_checkpoint(trained_workdir, tmp_path, monkeypatch):
    shutil.copytree(trained_workdir, tmp_path / "run")
    restore, deleted = Checkpoints.restore_ema, []

    def delete_first(self, step, like):
        if step not in deleted:
            deleted.append(step)
            shutil.rmtree(self.folder / str(step))
        return restore(self, step, like)

    monkeypatch.setattr(Checkpoints, "restore_ema", delete_first)
    with pytest.raises(WorkdirError, match="the training deleted the checkpoint of step 4 while it was read"):
        generator.load(tmp_path / "run", 4)
    deleted.append(2)
    assert generator.load(tmp_path / "run").step == 2 and deleted == [4, 2, 6]


def test_a_latent_depends_on_seed_and_index_alone(trained_workdir):
    gan = generator.load(trained_workdir).gan
    latents = generator.draw_latents(gan, 5, range(6))
    assert latents.shape == (6, 8)
    assert len(np.unique(latents)) == latents.size
    np.testing.assert_array_equal(generator.draw_latents(gan, 5, [3]), latents[3:4])
    assert (generator.draw_latents(gan, 6, range(6)) != latents).all()
    np.testing.assert_array_equal(generator.draw_latents(gan, 5, range(6), 0.5), latents * np.float32(0.5))


def test_label_weights_are_set_and_not_truncated(trained_workdir):
    plain = generator.load(trained_workdir).gan
    classes = ("acid", "dub", "industrial")
    gan = plain._replace(
        classes=classes,
        sample_latents=lambda key, n: jnp.concatenate([plain.sample_latents(key, n), jnp.eye(3)[jnp.arange(n) + 1]], 1),
    )
    latents, drawn = generator.draw_latents(plain, 5, range(4), 0.5), [0, 1, 0]
    for label, weights in ((None, drawn), ("acid", [1, 0, 0]), ({"industrial": 3, "dub": 1.0}, [0, 0.25, 0.75])):
        rows = generator.draw_latents(gan, 5, range(4), 0.5, label)
        np.testing.assert_array_equal(rows, np.hstack([latents, np.tile(np.float32(weights), (4, 1))]))
    for label, message in (
        ("trance", "label 'trance': the model has acid, dub, industrial"),
        ({"acid": -1, "dub": 2}, "expected weights of 0 and more"),
        ({"acid": 0}, "expected weights of 0 and more"),
        ({"acid": np.nan}, "expected weights of 0 and more"),
    ):
        with pytest.raises(ValueError, match=message):
            generator.draw_latents(gan, 5, [0], label=label)
    with pytest.raises(ValueError, match="label acid: the model has none; train one with config.model.classes"):
        generator.draw_latents(plain, 5, [0], label="acid")


def test_interpolate_returns_a_straight_line_with_both_ends():
    path = generator.interpolate(np.array([0.0, 1.0], np.float32), np.array([1.0, -1.0], np.float32), 5)
    np.testing.assert_array_equal(path, [[0, 1], [0.25, 0.5], [0.5, 0], [0.75, -0.5], [1, -1]])


def test_a_clip_has_the_same_bits_in_any_order(trained_workdir):
    trained = generator.load(trained_workdir)
    latents = generator.draw_latents(trained.gan, 0, range(5))
    clips = list(generator.render(trained, latents))
    assert clips[0].shape == (2048, 1) and clips[0].dtype == np.float32
    (alone,) = generator.render(trained, latents[3:4])
    np.testing.assert_array_equal(alone, clips[3])
    assert np.abs(clips[3] - clips[2]).max() > 0


def test_render_batches_equals_render_up_to_rounding(trained_workdir):
    trained = generator.load(trained_workdir)
    latents = generator.draw_latents(trained.gan, 0, range(5))
    together = generator.render_batches(trained.gan, trained.params, latents, 2)
    np.testing.assert_allclose(together, np.stack(list(generator.render(trained, latents))), atol=1e-5)


def test_fingerprint_changes_with_a_bit_a_name_and_a_shape():
    params = {"a": np.zeros(3, np.float32)}
    prints = {
        generator.fingerprint(tree)
        for tree in (params, {"b": params["a"]}, {"a": np.array([0, 0, 1e-45], np.float32)}, {"a": np.zeros((3, 1))})
    }
    assert len(prints) == 4
