import dataclasses
import json

import jax
import numpy as np
import pytest
from conftest import load_config
from ml_collections import ConfigDict

from configs import default
from technogen_jax import models
from technogen_jax.common import config_fields
from technogen_jax.common.config_fields import Section, field
from technogen_jax.models import GAN, build

KEY = jax.random.key(0)


def test_build_reads_the_config():
    config = default.get_config()
    with config.unlocked():
        config.update(dict(audio=dict(clip_samples=512, channels=2), model=dict(channels=1, max_channels=1)))
    gan = build(config)
    assert isinstance(gan, GAN)
    assert gan.generate(gan.init_g(KEY), gan.sample_latents(KEY, 3)).shape == (3, 512, 2)


def test_a_model_receives_its_fields_the_audio_and_the_statistics(monkeypatch):
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class FakeConfig(Section):
        section = "model"
        size: int = field(1, "A factor.")

    def measure(batches, config, audio):
        return {"sum": sum(batch.sum() for batch in batches) * config.size * audio.sample_rate_hz}

    def fake(config, audio, statistics):
        return audio.clip_samples, config.size, statistics

    monkeypatch.setitem(models.MODELS, "fake", models.Model(FakeConfig, fake, measure))
    config = default.get_config().unlock()
    config.model = dict(name="fake", size=3)
    statistics = models.measure(config, iter([np.ones(2), np.ones(3)]))
    assert statistics == {"sum": 5 * 3 * 16000}
    assert build(config, statistics) == (16384, 3, statistics)
    assert build(config) == (16384, 3, None)
    assert models.find(default.get_config()).measure is None


def test_an_unknown_model_or_field_is_an_error():
    config = default.get_config()
    config.model.name = "wavegun"
    with pytest.raises(ValueError, match="config.model.name: expected one of wavegan.*, got 'wavegun'"):
        build(config)
    config = default.get_config()
    with config.unlocked():
        config.model.chanels = 3
    with pytest.raises(ValueError, match="wavegan has no field chanels"):
        build(config)


def test_configs_differ_by_the_fields_that_decide_what_is_learned():
    config, other = load_config("default"), load_config("default")
    other.data.dir = "elsewhere"
    other.train.steps = 5
    assert models.differences(config, other) == []
    other.train.n_critic = 2
    assert models.differences(config, other) == ["train.n_critic"]
    del other.train.n_critic
    assert models.differences(config, other) == ["train.n_critic"]


@pytest.mark.parametrize("name", ["technogan", "wavegan"])
def test_a_config_with_the_field_names_of_earlier_versions_equals_the_new_one(name):
    new = load_config(name).to_dict()
    old = json.loads(json.dumps(new))
    old["train"]["shaping_steps"] = old["model"].pop("shaping_steps", 0)
    for part in ("partial_components", "side_partial_components"):
        if part in old["model"]:
            old["model"][part.replace("partial", "line")] = old["model"].pop(part)
    renamed = ConfigDict(config_fields.rename_old_fields(old))
    assert models.differences(renamed, ConfigDict(json.loads(json.dumps(new)))) == []
    assert models.registry.read_config(renamed) == models.registry.read_config(ConfigDict(new))


@pytest.mark.parametrize("name", ["technogan", "wavegan", "specgan"])
def test_a_value_out_of_its_range_is_named_before_the_dataset_is_read(name):
    for section in models.registry.run_config.SECTIONS + (models.MODELS[name].config_class,):
        for spec in config_fields.field_specs(section).values():
            if spec.kind not in (int, float):
                continue
            field_name = config_fields.dotted(section.section, spec.name)
            for value in (-(10**40), 10**40, float("nan"), float("inf"), "x", {}, [1]):
                config = json.loads(json.dumps(load_config(name).to_dict()))
                (config[section.section] if section.section else config)[spec.name] = value
                with pytest.raises(config_fields.FieldError, match=f"^config.{field_name}: expected "):
                    models.check_values(ConfigDict(config))
