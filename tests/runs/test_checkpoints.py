import errno
import json
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from technogen_jax.runs import checkpoints as checkpoints_module
from technogen_jax.runs.checkpoints import (
    CHECKPOINTS_FOLDER,
    CHECKSUMS_FILE,
    DAMAGED_FOLDER,
    Checkpoints,
    _changed_file,
    ocp,
)
from technogen_jax.runs.workdir import WorkdirError
from technogen_jax.training.state import Pair, TrainState

OPTIMIZER = optax.adam(1e-3)


def make_state(step, width=4):
    params = {"layer": {"kernel": jnp.full((width, 3), float(step)), "bias": jnp.arange(3.0) * step}}
    opt = OPTIMIZER.init(params)
    return TrainState(jnp.asarray(step, jnp.int32), Pair(params, params), Pair(opt, opt), params)


def test_restore_returns_the_saved_state_bit_for_bit(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(make_state(7))
    with Checkpoints(tmp_path) as checkpoints:
        restored = checkpoints.restore(7, make_state(0))
        ema = checkpoints.restore_ema(7, jax.eval_shape(lambda: make_state(0).ema))
    assert jax.tree.structure(restored) == jax.tree.structure(make_state(7))
    jax.tree.map(np.testing.assert_array_equal, restored, make_state(7))
    jax.tree.map(np.testing.assert_array_equal, ema, make_state(7).ema)


def test_restore_weights_keeps_step_and_optimizer(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(make_state(7))
        checkpoints.wait()
        other = make_state(0)._replace(opt=Pair(None, None))
        restored = checkpoints.restore_weights(7, other)
    assert int(restored.step) == 0 and restored.opt == Pair(None, None)
    jax.tree.map(np.testing.assert_array_equal, restored.params, make_state(7).params)


def test_last_best_and_every_fifth_checkpoints_are_kept(tmp_path):
    scores = {1: None, 2: 0.5, 3: 0.7, 4: None, 5: None, 6: 0.8, 7: None, 8: None}
    with Checkpoints(tmp_path, keep_last=2, keep_every=5) as checkpoints:
        for step, score in scores.items():
            checkpoints.save(make_state(step), score)
        checkpoints.wait()
        assert checkpoints.steps() == [2, 5, 7, 8]
        assert checkpoints.best_step() == 2
    with Checkpoints(tmp_path, keep_last=2, keep_every=5) as checkpoints:  # known to the next run, too
        assert checkpoints.best_step() == 2
        checkpoints.save(make_state(9), 0.4)
        checkpoints.save(make_state(10))
        checkpoints.wait()
        assert checkpoints.steps() == [5, 9, 10]
        assert checkpoints.best_step() == 9


def test_best_step_without_evaluations_is_none(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(make_state(1))
        checkpoints.wait()
        assert checkpoints.best_step() is None


def test_step_is_saved_once(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(make_state(1), 0.5)
        checkpoints.save(make_state(1))
        checkpoints.wait()
        assert checkpoints.steps() == [1] and checkpoints.best_step() == 1


def test_half_written_checkpoint_is_ignored_and_deleted(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(make_state(1))
    folder = tmp_path / CHECKPOINTS_FOLDER
    shutil.copytree(folder / "1", folder / "2.orbax-checkpoint-tmp")
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        assert checkpoints.steps() == [1]
    assert (folder / "2.orbax-checkpoint-tmp").exists()  # it may be another process that is writing it
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps() == [1]
    assert os.listdir(folder) == ["1"]


def test_restoring_another_model_names_the_array(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(make_state(1))
        checkpoints.wait()
        with pytest.raises(WorkdirError, match=r"kernel \(5, 3\), found \(4, 3\).*another model"):
            checkpoints.restore(1, make_state(0, width=5))
        more = make_state(0)._replace(ema={"layer": make_state(0).ema["layer"], "extra": jnp.zeros(2)})
        with pytest.raises(WorkdirError, match=r"expected extra \(2,\), found nothing"):
            checkpoints.restore(1, more)
        with pytest.raises(WorkdirError, match="no checkpoint of step 2; there are: 1"):
            checkpoints.restore(2, make_state(0))


def flip(path, place=0.5):
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1
    path.write_bytes(content)


def files_in(folder):
    return [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]


def test_flipped_bit_in_any_file_is_detected(tmp_path):
    """Orbax alone restores other numbers when a byte of an array changes."""
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(make_state(1))
        checkpoints.save(make_state(2, width=400), 0.5)
    folder = tmp_path / CHECKPOINTS_FOLDER / "2"
    files = files_in(folder)
    assert {"params/manifest.ocdbt", "metrics/metrics", "_CHECKPOINT_METADATA", CHECKSUMS_FILE} < set(files)
    like, saved = make_state(0, width=400), make_state(2, width=400)

    def restored():
        with Checkpoints(tmp_path, read_only=True) as checkpoints:
            return checkpoints.restore(2, like)

    for number, name in enumerate(files):
        content = (folder / name).read_bytes()
        flip(folder / name, number / len(files))
        if "/" not in name and name != CHECKSUMS_FILE:  # Orbax' own notes: nothing is restored by them
            jax.tree.map(np.testing.assert_array_equal, restored(), saved)
        else:
            with pytest.raises(WorkdirError) as caught:
                restored()
            if name.startswith("metrics/"):
                assert str(caught.value).startswith(f"{folder}/metrics/metrics: damaged; delete the folder it is in")
            else:
                assert f"{folder}: damaged ({name} is not as it was written); the newest whole" in str(caught.value)
                assert str(caught.value).endswith("that of step 1")
        (folder / name).write_bytes(content)
    jax.tree.map(np.testing.assert_array_equal, restored(), saved)


def test_flipped_bit_in_the_checksums_is_detected(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(make_state(1))
    folder = tmp_path / CHECKPOINTS_FOLDER / "1"
    content = (folder / CHECKSUMS_FILE).read_bytes()
    draw = np.random.default_rng(0)
    for place in draw.choice(len(content), 100, replace=False):
        flip(folder / CHECKSUMS_FILE, (place + 0.5) / len(content))
        assert _changed_file(folder) == CHECKSUMS_FILE
        (folder / CHECKSUMS_FILE).write_bytes(content)
    assert _changed_file(folder) is None


def test_newest_skips_and_moves_damaged_checkpoints(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(make_state(step), 0.1 * step)
    folder, printed = tmp_path / CHECKPOINTS_FOLDER, []
    flip(folder / "3" / "params" / "ocdbt.process_0" / "manifest.ocdbt")
    flip(folder / "2" / "metrics" / "metrics", 0.9)  # another number
    with Checkpoints(tmp_path) as checkpoints:
        jax.tree.map(np.testing.assert_array_equal, checkpoints.newest(make_state(0), printed.append), make_state(2))
        assert checkpoints.steps() == [1, 2] and checkpoints.best_step() == 1
        checkpoints.save(make_state(3))
        checkpoints.wait()
        assert checkpoints.steps() == [1, 2, 3]
    assert len(printed) == 2 and "2/metrics/metrics: damaged, and deleted" in printed[0]
    assert "checkpoints/3: damaged" in printed[1] and "newest whole checkpoint is that of step 2" in printed[1]
    assert os.listdir(tmp_path / DAMAGED_FOLDER) == ["3"]


def test_newest_is_an_error_if_all_are_damaged(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(make_state(1))
    for path in (tmp_path / CHECKPOINTS_FOLDER / "1").rglob("d/*"):
        path.write_bytes(b"")
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(WorkdirError, match="none of its checkpoints can be restored"):
            checkpoints.newest(make_state(0), lambda line: None)


def test_failed_background_write_is_an_error_at_the_next_save(tmp_path, monkeypatch):
    with pytest.raises(WorkdirError, match=r"could not be written .*No space left.*whole ones: 1$"):
        with Checkpoints(tmp_path) as checkpoints:
            checkpoints.save(make_state(1))
            checkpoints.wait()
            monkeypatch.setattr(ocp.StandardCheckpointHandler, "async_save", full_disk)
            checkpoints.save(make_state(2))
            checkpoints.wait()
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        jax.tree.map(np.testing.assert_array_equal, checkpoints.newest(make_state(0), print), make_state(1))


class FullDisk:
    """A write in the background that fails; failing before it would leave Orbax' thread waiting for it for minutes."""

    def result(self, timeout=None):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


async def full_disk(*_, **__):
    return [FullDisk()]


def test_newest_without_checkpoints_is_none(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.newest(make_state(0), lambda line: None) is None


def test_checkpoint_without_checksums_is_restored(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(make_state(1))
    (tmp_path / CHECKPOINTS_FOLDER / "1" / CHECKSUMS_FILE).unlink()
    with Checkpoints(tmp_path) as checkpoints:
        jax.tree.map(np.testing.assert_array_equal, checkpoints.restore(1, make_state(0)), make_state(1))


def test_checksums_that_name_a_file_outside_of_the_checkpoint_are_damage(tmp_path, monkeypatch):
    """Such as a device that never ends, in a checkpoint of somebody else's."""
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(make_state(7))
    folder = tmp_path / CHECKPOINTS_FOLDER / "7"
    content = json.loads((folder / CHECKSUMS_FILE).read_text())["files"]
    (tmp_path / "outside").write_text("")
    for name in ("params/../../../outside", "../../outside"):
        (folder / CHECKSUMS_FILE).write_text(checkpoints_module._as_text(content | {name: "0"}))
        monkeypatch.setattr(checkpoints_module, "_checksum", lambda path: pytest.fail(str(path)))
        assert _changed_file(folder, ["..", "params"]) == CHECKSUMS_FILE
