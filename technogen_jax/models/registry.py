"""The models by name, and what a config makes of them.

To add a model: write a file with a config dataclass and `build`, add a line to `MODELS`, and write
a config file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from technogen_jax.common import config_fields, run_config
from technogen_jax.common.run_config import AudioConfig
from technogen_jax.models import specgan, wavegan
from technogen_jax.models.gan import GAN, Params
from technogen_jax.models.stages import Stage
from technogen_jax.models.technogan import adaptation
from technogen_jax.models.technogan import model as technogan
from technogen_jax.models.technogan import stages as technogan_stages
from technogen_jax.models.technogan.codec import statistics as codec_statistics
from technogen_jax.models.technogan.config import TechnoGANConfig

Statistics = dict[str, np.ndarray]


class Adaptation(NamedTuple):
    """How a trained model is fitted to another dataset, for a run that starts from it.

    Attributes:
        statistics: (statistics, config, audio of the new run) -> statistics.
        generator: (params, old config, new config) -> params.
        discriminator: (params, old config, new config, old audio, new audio) -> params.
    """

    statistics: Callable[..., Statistics]
    generator: Callable[..., Params]
    discriminator: Callable[..., Params]


class Model(NamedTuple):
    """A model: the declaration of its fields, and its functions.

    Attributes:
        config_class: the dataclass of its fields.
        build: (config, audio, statistics) -> GAN; statistics is None before they are measured.
        measure: (batches of audio `[B, T, C]`, config, audio) -> statistics of the dataset; None if
            the model has none.
        stages: other work on the dataset before the first step, in order; see `models.stages`.
        measured_s: seconds of audio, from all over the dataset, that `measure` needs; None: all.
        adaptation: fits a trained model to another dataset; None: it fits as it is.
    """

    config_class: type[config_fields.Section]
    build: Callable[..., GAN]
    measure: Callable[..., Statistics] | None = None
    stages: tuple[Stage, ...] = ()
    measured_s: float | None = None
    adaptation: Adaptation | None = None


MODELS = {
    "wavegan": Model(wavegan.WaveGANConfig, wavegan.build),
    "specgan": Model(specgan.SpecGANConfig, specgan.build, specgan.measure),
    "technogan": Model(
        TechnoGANConfig,
        technogan.build,
        codec_statistics.measure,
        technogan_stages.STAGES,
        technogan_stages.MEASURED_S,
        Adaptation(adaptation.adapt_statistics, adaptation.adapt_generator, adaptation.adapt_discriminator),
    ),
}


def find(config: ConfigDict) -> Model:
    """Returns the model that `config.model.name` names.

    Raises:
        FieldError: no such model.
    """
    name = config.model.get("name") if isinstance(config.get("model"), ConfigDict) else None
    if not isinstance(name, str) or name not in MODELS:
        raise config_fields.FieldError(f"config.model.name: expected one of {', '.join(MODELS)}, got {name!r:.80}")
    return MODELS[name]


def read_config(config: ConfigDict) -> tuple[config_fields.Section, AudioConfig]:
    """Returns the fields of the model and of the audio in a run's config.

    Fields of the model that are missing have their defaults.

    Raises:
        FieldError: a field that is unknown, of the wrong type or out of its range.
    """
    model = find(config)
    fields = {name: config.model[name] for name in config.model if name != "name"}
    fields = config_fields.read_section(model.config_class, fields, owner=config.model.name, partial=True)
    return fields, config_fields.read_section(AudioConfig, config.audio)


def check_values(config: ConfigDict, complete: bool = False) -> None:
    """Checks each value of a config alone.

    Args:
        config: the config of a run, with or without all fields.
        complete: None is a value; else the dataset will give those fields a value.

    Raises:
        FieldError: a value of the wrong type or out of its range.
    """
    for section in [*run_config.SECTIONS, find(config).config_class]:
        values = config.get(section.section, ConfigDict()) if section.section else config
        if not isinstance(values, ConfigDict):
            raise config_fields.FieldError(f"config.{section.section}: expected its fields, got {values!r:.80}")
        for spec in config_fields.field_specs(section).values():
            value = values.get(spec.name)
            value = tuple(value) if isinstance(value, list) else value  # as JSON has it
            if value is not None or (complete and spec.name in values):
                config_fields.check_value(spec, value, config_fields.dotted(section.section, spec.name))


def default_fields(name: str) -> ConfigDict:
    """Returns the section `model` of a config with the defaults of the model of that name."""
    fields = ConfigDict(dict(name=name))
    fields.update(config_fields.default_section(MODELS[name].config_class))
    return fields


def build(config: ConfigDict, statistics: Statistics | None = None) -> GAN:
    """Returns the GAN that a config describes.

    Args:
        config: the config of a run; the sections `model` and `audio` are used.
        statistics: what `measure` returned. A model that measures its dataset can be built without,
            but can't encode or decode.

    Raises:
        FieldError: fields that the model can't use.
        ValueError: statistics that do not fit the fields.
    """
    return find(config).build(*read_config(config), statistics)


def measure(config: ConfigDict, batches: Iterable[np.ndarray]) -> Statistics:
    """Returns the statistics of the dataset that the config's model needs.

    Args:
        config: the config of a run.
        batches: the clips of the dataset, `[B, T, C]` in [-1, 1].
    """
    return find(config).measure(batches, *read_config(config))


def differences(old: ConfigDict, new: ConfigDict) -> list[str]:
    """Returns the dotted names, sorted, of the fields that make two configs learn different things."""
    fields = config_fields.names(old) | config_fields.names(new)
    return [
        field
        for field in sorted(fields - _changeable_fields())
        if config_fields.value(old, field) != config_fields.value(new, field)
    ]


def add_missing_fields(content: dict[str, Any]) -> list[str]:
    """Gives missing fields of a run's config their defaults.

    Args:
        content: what config.json has, a nested dict; it is changed in place.

    Returns:
        The dotted names of the fields that were missing.
    """
    sections = list(run_config.SECTIONS)
    model = content.get("model")
    if isinstance(model, dict) and model.get("name") in MODELS:
        sections.append(MODELS[model["name"]].config_class)
    added = []
    for section in sections:
        values = content.setdefault(section.section, {}) if section.section else content
        for spec in config_fields.field_specs(section).values():
            if isinstance(values, dict) and spec.name not in values:
                values[spec.name] = json.loads(json.dumps(spec.default))  # a tuple is a list there
                added.append(config_fields.dotted(section.section, spec.name))
    return added


def _changeable_fields() -> set[str]:
    """Returns the dotted names of the fields with which a run can be resumed at another value."""
    sections = [*run_config.SECTIONS, *(model.config_class for model in MODELS.values())]
    return {
        config_fields.dotted(section.section, spec.name)
        for section in sections
        for spec in config_fields.field_specs(section).values()
        if spec.changeable
    }
