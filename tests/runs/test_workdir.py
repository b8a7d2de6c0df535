import json
import multiprocessing
import os
import signal

import numpy as np
import pytest
from conftest import load_config
from ml_collections import ConfigDict

from technogen_jax.common import config_fields, run_config
from technogen_jax.data.manifest import read_manifest
from technogen_jax.models import MODELS
from technogen_jax.runs.workdir import (
    CHECKPOINTS_FOLDER,
    CONFIG_FILE,
    DATA_FILE,
    LOCK_FILE,
    STATISTICS_FILE,
    WorkdirError,
    claim_workdir,
    keep_older_behaviour,
    read_config,
    write_config,
    write_statistics,
)


def test_config_is_read_as_written(tmp_path):
    config = ConfigDict({"seed": 3, "model": {"name": "wavegan", "max_channels": None, "rate": 1e-4, "on": True}})
    write_config(tmp_path, config)
    read = read_config(tmp_path)
    assert read.seed == 3 and all(read.model[name] == value for name, value in config.model.items())
    assert read.train.batch_size == run_config.TrainConfig().batch_size  # a missing field has its default


def test_missing_or_damaged_config_is_an_error(tmp_path):
    with pytest.raises(WorkdirError, match="config.json: not found"):
        read_config(tmp_path)
    for text in ('{"seed": ', json.dumps([1])):
        (tmp_path / CONFIG_FILE).write_text(text)
        with pytest.raises(WorkdirError, match="config.json: unreadable"):
            read_config(tmp_path)


@pytest.fixture
def claim(tmp_path, prepared_set):
    """(config, fingerprint of the dataset) -> the context in which it has the workdir `tmp_path / "run"`."""
    manifest = read_manifest(prepared_set)

    def enter(config, fingerprint="x"):
        other = manifest.__class__(**vars(manifest) | {"fingerprint": fingerprint})
        return claim_workdir(tmp_path / "run", config, other)

    return enter


def hold(workdir, config, manifest, entered, leave):
    with claim_workdir(workdir, config, manifest):
        entered.set()
        leave.wait(60)


def test_a_second_training_in_a_workdir_is_told_who_has_it(claim, tmp_path, prepared_set):
    workdir, context = tmp_path / "run", multiprocessing.get_context("spawn")
    entered, leave = context.Event(), context.Event()
    config = load_config("wavegan")
    given = (workdir, config, read_manifest(prepared_set), entered, leave)
    first = context.Process(target=hold, args=given)
    first.start()
    assert entered.wait(60)
    before = (workdir / CONFIG_FILE).read_bytes(), (workdir / DATA_FILE).read_bytes()
    config.train.batch_size = 7
    with (
        pytest.raises(WorkdirError, match=rf"process {first.pid} on \S+ is training in it; wait for its end"),
        claim(config),
    ):
        pass
    assert ((workdir / CONFIG_FILE).read_bytes(), (workdir / DATA_FILE).read_bytes()) == before
    os.kill(first.pid, signal.SIGKILL)  # which leaves the file of the lock
    first.join()
    with claim(config):
        assert (workdir / LOCK_FILE).read_text().startswith(f"process {os.getpid()} on ")


def test_a_workdir_without_a_checkpoint_takes_another_config_and_dataset(claim, tmp_path):
    config, workdir = load_config("wavegan"), tmp_path / "run"
    with claim(config):
        write_statistics(workdir, {"mean": np.zeros(3)})
    with claim(config):
        assert (workdir / STATISTICS_FILE).exists()
    config.train.batch_size //= 2
    with claim(config, "y"):
        assert read_config(workdir).train.batch_size == config.train.batch_size
        assert not (workdir / STATISTICS_FILE).exists()
    (workdir / CHECKPOINTS_FOLDER / "500").mkdir(parents=True)
    with claim(config, "y"):
        pass
    with pytest.raises(WorkdirError, match="was begun on another dataset"), claim(config):
        pass
    config.train.batch_size //= 2
    with pytest.raises(WorkdirError, match="begun with config.train.batch_size = 32, now it is 16"), claim(config, "y"):
        pass


FIELDS = [
    (name, config_fields.dotted(section.section, spec.name))
    for name in MODELS
    for section in (*run_config.SECTIONS, MODELS[name].config_class)
    for spec in config_fields.field_specs(section).values()
]


@pytest.mark.parametrize(("model", "field"), FIELDS)
def test_a_run_from_before_a_field_existed_goes_on_with_its_default(model, field, claim, tmp_path):
    config, workdir = load_config(model), tmp_path / "run"
    with claim(config):
        (workdir / CHECKPOINTS_FOLDER / "500").mkdir(parents=True)
    content = json.loads((workdir / CONFIG_FILE).read_text())
    *sections, name = field.split(".")
    del (content[sections[0]] if sections else content)[name]
    (workdir / CONFIG_FILE).write_text(json.dumps(content))
    kept, changed = keep_older_behaviour(workdir, config.lock())
    section = run_config.SECTIONS if not field.startswith("model.") else (MODELS[model].config_class,)
    declared = {
        config_fields.dotted(each.section, spec.name): spec
        for each in section
        for spec in config_fields.field_specs(each).values()
    }
    default = declared[field].default
    given = config_fields.value(config, field)
    differs = json.dumps(given) != json.dumps(default) and not declared[field].changeable
    assert changed == [field] * differs
    assert json.dumps(config_fields.value(kept, field)) == json.dumps(default if differs else given)
    with claim(kept):
        assert config_fields.value(read_config(workdir), field) is not None or default is None or given is None


def test_fields_of_a_new_run_stay_as_they_were_given(claim, tmp_path):
    config = load_config("technogan")
    with claim(config):
        pass
    (tmp_path / "run" / CONFIG_FILE).write_text('{"seed": 0}')
    assert keep_older_behaviour(tmp_path / "run", config) == (config, [])
