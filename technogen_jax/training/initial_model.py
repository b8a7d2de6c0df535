"""The model that a new run starts from, `train.init_from`: another run, an exported file, or "shipped".

The new run takes the fields of the model, the statistics and the weights from it. So its code
means the same, and the weights fit. What it does not take are the labels and the length of a clip,
which come from the new dataset.
"""

from __future__ import annotations

import pathlib
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from technogen_jax import models
from technogen_jax.models import registry
from technogen_jax.models.gan import Params
from technogen_jax.runs import bundle
from technogen_jax.runs.checkpoints import Checkpoints
from technogen_jax.runs.workdir import has_checkpoint, read_config, read_statistics
from technogen_jax.training.errors import TrainError
from technogen_jax.training.state import Pair, TrainState

SHIPPED = "shipped"
_SHIPPED_FILE = pathlib.Path(__file__).parents[1] / "pretrained" / "technogan.npz"
_OF_THE_DATASET = ("bars", "classes")  # fields of the model that the new run's dataset decides


class InitialModel(NamedTuple):
    """A trained model.

    Attributes:
        config: of the run that trained it.
        statistics: of its training dataset; None for a model without statistics.
        params: parameters of both networks; of the discriminator None if a file does not have it.
        ema: the averaged parameters of the generator.
    """

    config: ConfigDict
    statistics: models.Statistics | None
    params: Pair
    ema: Params

    @property
    def note(self) -> str:
        """What a user should know of it; "" if nothing."""
        return "; it has no discriminator, and a new one is trained" if self.params.d is None else ""


def read_model_config(name: str) -> ConfigDict:
    """Returns the config of the model with that name, a value of `train.init_from`.

    Raises:
        WorkdirError: there is no such run or file, or it is damaged.
        TrainError: the run has no checkpoint.
    """
    path = _find(name)
    if path.suffix == bundle.SUFFIX:
        return bundle.read(path).config
    config = read_config(path)
    if not has_checkpoint(path):
        raise TrainError(f"config.train.init_from: {path} has no checkpoint")
    return config


def read(name: str, step: int | None = None) -> InitialModel:
    """Returns the model with that name; of a run, that of a step (None: of its newest checkpoint).

    Raises:
        WorkdirError: there is no such run, checkpoint or file, or it is damaged.
    """
    path = _find(name)
    if path.suffix == bundle.SUFFIX:
        found = bundle.read(path)
        shapes = jax.eval_shape(found.gan.init_g, jax.random.key(0))
        params = _select(found.params, shapes)  # without the batch statistics that a file also has
        return InitialModel(found.config, found.statistics or None, Pair(params, found.discriminator), params)
    config = read_config(path)
    gan = models.build(config)
    shapes = Pair(*(jax.eval_shape(init, jax.random.key(0)) for init in (gan.init_g, gan.init_d)))
    with Checkpoints(path, read_only=True) as checkpoints:
        wanted = TrainState(step=None, params=shapes, opt=None, ema=shapes.g)
        state = checkpoints.restore_weights(step or checkpoints.steps()[-1], wanted)
    params, ema = jax.tree.map(np.asarray, (state.params, state.ema))
    return InitialModel(config, read_statistics(path) if models.find(config).measure else None, params, ema)


def take_model_fields(config: ConfigDict, workdir: pathlib.Path) -> tuple[ConfigDict, str]:
    """Returns a config whose model is that of `train.init_from`, and a line on the fields that changed.

    A run that has a checkpoint goes on with its own fields, and the line is "".

    Args:
        config: of the new run, before fields are taken from the dataset.
        workdir: the run's folder.

    Raises:
        TrainError: it is another kind of model, or has another sample rate or number of channels.
        WorkdirError: there is no such model.
    """
    resumed = has_checkpoint(workdir)
    name = str(workdir) if resumed else config.train.init_from
    theirs = read_model_config(name)
    if theirs.model.name != config.model.name:
        raise TrainError(
            f"config.train.init_from: {name} is a {theirs.model.name}, and the config describes a {config.model.name}; "
            "name a config of the same model"
        )
    for field in ("sample_rate_hz", "channels"):
        if config.audio.get(field) not in (None, theirs.audio[field]):
            raise TrainError(
                f"config.train.init_from: the audio of {name} has {field} {theirs.audio[field]}, that of the config "
                f"{config.audio[field]}; leave the field out, and prepare the tracks as that model's were"
            )
    config = config.copy_and_resolve_references().unlock()
    changed = []
    with config.ignore_type():
        for field, value in theirs.model.items():
            if field == "bars" and config.model.get(field) is None:
                config.model.bars = value
            if field not in _OF_THE_DATASET and config.model.get(field) != value:
                changed.append(field)
                config.model[field] = value
        for field in ("sample_rate_hz", "channels"):
            config.audio[field] = theirs.audio[field]
    if resumed or not changed:
        return config.lock(), ""
    values = ", ".join(f"{field} {config.model[field]!r}" for field in changed)
    return config.lock(), f"as in {name}, unlike the config: {values} (config.model)"


def adapt(initial: InitialModel, config: ConfigDict) -> InitialModel:
    """Returns the model fitted to the labels and the tempo of a run's config."""
    adaptation = models.find(config).adaptation
    if adaptation is None:
        return initial
    old, old_audio = registry.read_config(initial.config)
    new, audio = registry.read_config(config)
    generator, discriminator = initial.params
    if discriminator is not None:
        discriminator = adaptation.discriminator(discriminator, old, new, old_audio, audio)
    return initial._replace(
        statistics=adaptation.statistics(initial.statistics, new, audio),
        params=Pair(adaptation.generator(generator, old, new), discriminator),
        ema=adaptation.generator(initial.ema, old, new),
    )


def use_weights(state: TrainState, initial: InitialModel, shardings: TrainState) -> TrainState:
    """Returns a state with the weights of a trained model; its optimizers are new.

    Args:
        state: with random weights.
        initial: the model; a discriminator that it lacks stays random.
        shardings: the shardings of each array of the state.
    """
    if initial.params.d is None:
        initial = initial._replace(params=initial.params._replace(d=state.params.d))
    params, ema = jax.device_put((initial.params, initial.ema), (shardings.params, shardings.ema))
    return state._replace(params=params, ema=ema)


def _find(name: str) -> pathlib.Path:
    return _SHIPPED_FILE if name == SHIPPED else pathlib.Path(name)


def _select(params: Params, shapes: Params) -> Params:
    """Returns the entries of nested dicts that another nested dict has, too."""
    if not isinstance(shapes, dict):
        return params
    return {name: _select(params[name], shapes[name]) for name in shapes}
