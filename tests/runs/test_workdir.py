import json

import pytest
from ml_collections import ConfigDict

from technogen_jax.runs.workdir import CONFIG_FILE, WorkdirError, read_config, write_config


def test_config_is_read_as_written(tmp_path):
    config = ConfigDict({"seed": 3, "model": {"name": "wavegan", "max_channels": None, "rate": 1e-4, "on": True}})
    write_config(tmp_path, config)
    assert read_config(tmp_path) == config.lock()


def test_missing_or_damaged_config_is_an_error(tmp_path):
    with pytest.raises(WorkdirError, match="config.json: not found"):
        read_config(tmp_path)
    for text in ('{"seed": ', json.dumps([1])):
        (tmp_path / CONFIG_FILE).write_text(text)
        with pytest.raises(WorkdirError, match="config.json: unreadable"):
            read_config(tmp_path)
