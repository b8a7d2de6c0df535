"""Declares the fields that every run has, whatever its model, and checks them.

The fields of a model are declared beside it, in `models/`.
"""

from __future__ import annotations

import dataclasses

from ml_collections import ConfigDict

from technogen_jax.common import config_fields
from technogen_jax.common.config_fields import FieldError, Section, field

_LARGEST_BATCH_SAMPLES = 2**31  # of one step; 4 GB as 16-bit numbers


@dataclasses.dataclass(frozen=True, kw_only=True)
class TopConfig(Section):
    """The fields outside of the sections."""

    section = ""
    seed: int = field(
        0,
        "Seed of parameters, latents, shuffling and crops. The same seed gives the same run.",
        least=0,
        most=2**32 - 1,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class AudioConfig(Section):
    """The audio that a model makes."""

    section = "audio"
    sample_rate_hz: int = field(
        16000, "Sample rate. It must be the prepared dataset's.", unit="Hz", least=1000, most=768_000
    )
    channels: int = field(1, "Channels: 1 for mono, 2 for stereo. It must be the prepared dataset's.", choices=(1, 2))
    clip_samples: int = field(
        16384, "Length of a clip. Longer records of the dataset are cropped to it.", unit="samples", least=1
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig(Section):
    """The prepared dataset and how it is read."""

    section = "data"
    dir: str | None = field(None, "Folder that data_prep.prepare wrote.", changeable=True)
    split: str = field("train", "Split of the dataset to train on.")
    crop: str = field(
        "random",
        "Where a record longer than a clip is cropped: at a random place, or always at its start.",
        choices=("random", "start"),
    )
    rotate: int = field(
        0,
        "Encoded clips, which are loops, are rotated by a random multiple of this many rows. 0: no rotation.",
        unit="rows",
        least=0,
        most=2**16,
    )
    read_threads: int = field(
        2,
        "Threads that read and decode records ahead of the device.",
        least=0,
        most=1024,
        changeable=True,
    )
    resident: str = field(
        "auto",
        "Whether all clips (or encoded clips) are kept in the memory of the devices. auto: on accelerators only, if they "
        "take at most a tenth of it. On a CPU it gains nothing.",
        choices=("auto", "always", "never"),
        changeable=True,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossConfig(Section):
    """The losses of both networks."""

    section = "loss"
    adversarial: str = field(
        "wgan",
        "The adversarial loss.",
        choices=("wgan", "dcgan", "lsgan", "hinge", "relativistic"),
    )
    gp_weight: float = field(10.0, "Weight of the gradient penalty of WGAN-GP. 0: none.", least=0)
    r1_weight: float = field(
        0.0, "Weight (gamma) of R1, the zero-centered gradient penalty on real clips. 0: none.", least=0
    )
    r2_weight: float = field(
        0.0, "Weight (gamma) of R2, the zero-centered gradient penalty on generated clips. 0: none.", least=0
    )
    penalty_share: float = field(
        1.0,
        "Share of a batch that the gradient penalties are computed from. On the whole batch they take twice the time of "
        "everything else.",
        above=0,
        most=1,
    )
    weight_clip: float = field(
        0.0, "Largest absolute value of the discriminator's weights (WGAN without a penalty). 0: no limit.", least=0
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig(Section):
    """The optimizers of both networks."""

    section = "optimizer"
    name: str = field("adam", "The optimizer.", choices=("adam", "rmsprop"))
    learning_rate_g: float = field(1e-4, "Learning rate of the generator.", least=0)
    learning_rate_d: float = field(1e-4, "Learning rate of the discriminator.", least=0)
    tail: float = field(
        0.0,
        "Share of train.steps, at the end, in which both learning rates fall to zero along half a cosine. 0: constant rates.",
        least=0,
        most=1,
    )
    b1: float = field(0.5, "Decay of Adam's first moment.", least=0, below=1)  # at 1 Adam divides by zero
    b2: float = field(0.9, "Decay of the second moment, of Adam and of RMSProp.", least=0, below=1)
    largest_update: float = field(
        0.0,
        "Largest root mean square of the update of one parameter array, in multiples of the learning rate. 0: no limit.",
        least=0,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig(Section):
    """The training loop."""

    section = "train"
    steps: int = field(
        200_000,
        "Generator updates in all. A run that has ended can be resumed with a larger number.",
        least=1,
        changeable=True,
    )
    minutes: float | None = field(
        None,
        "Time limit of one start of the run, which then saves and ends; the same command resumes it. None: no limit.",
        unit="minutes",
        above=0,
        changeable=True,
    )
    init_from: str | None = field(
        None,
        "The trained model that a new run starts from, and whose config.model it takes: the workdir of a run, a file of "
        "technogen_jax.export, or shipped, the model of this package. None: random weights.",
        changeable=True,
    )
    batch_size: int = field(
        64, "Clips in one update of the discriminator, over all devices.", unit="clips", least=1, most=2**20
    )
    shard_parameters: bool = field(
        False,
        "Each device stores a part of the parameters, for a model that is too large for one device.",
        changeable=True,
    )
    n_critic: int = field(5, "Discriminator updates for each generator update.", least=1, most=1000)
    reuse_fakes: bool = field(
        False, "Both networks are updated from one batch of generated clips, which saves time. Needs n_critic = 1."
    )
    steps_per_dispatch: int = field(
        1,
        "Steps that the device is given at once. More than 1 saves time where a step takes milliseconds.",
        least=1,
        most=1000,
    )
    skip_not_finite: bool = field(
        False,
        "A step whose loss or gradient is NaN or Inf is skipped and counted. False: it ends the run.",
        changeable=True,
    )
    ema_decay: float = field(
        0.999, "Decay of the moving average of the generator's weights, which make the sound.", least=0, most=1
    )
    log_every: int = field(50, "Steps between two rows of metrics.", unit="steps", least=1, changeable=True)
    sample_every: int = field(
        1000, "Steps between two previews. 0: only at the end.", unit="steps", least=0, changeable=True
    )
    sample_clips: int = field(8, "Clips in a preview.", unit="clips", least=1, most=1024, changeable=True)
    save_every: int = field(1000, "Steps between two checkpoints.", unit="steps", least=1, changeable=True)
    keep_last: int = field(
        3, "Newest checkpoints that are kept; the best one is kept as well.", least=1, changeable=True
    )
    keep_every: int = field(
        10_000,
        "Checkpoints at multiples of this step are never deleted. 0: none.",
        unit="steps",
        least=0,
        changeable=True,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalConfig(Section):
    """The evaluation while training: of the averaged generator, against the valid split."""

    section = "eval"
    every: int = field(
        1000,
        "Steps between two evaluations, a multiple of train.save_every: eval/mmd_tmr-v1 decides which checkpoint is the "
        "best. 0: no evaluation.",
        unit="steps",
        least=0,
        changeable=True,
    )
    clips: int = field(
        256,
        "Generated clips in an evaluation, and at most as many real clips.",
        unit="clips",
        least=10,
        most=2**20,
        changeable=True,
    )


SECTIONS: tuple[type[Section], ...] = (
    TopConfig,
    AudioConfig,
    DataConfig,
    LossConfig,
    OptimizerConfig,
    TrainConfig,
    EvalConfig,
)


def default_config() -> ConfigDict:
    """Returns all fields with their defaults, without the section `model`.

    `models.default_fields` returns that section.
    """
    config = config_fields.default_section(TopConfig)
    for section in SECTIONS[1:]:
        config[section.section] = config_fields.default_section(section)
    return config


def check(config: ConfigDict) -> None:
    """Checks every field outside of the section `model`, which `models.registry` checks.

    Raises:
        FieldError: a field that is missing, unknown, of the wrong type or out of its range, or two
            fields that do not work together.
    """
    if config_fields.value(config, "data.dir") is None:
        raise FieldError("config.data.dir: missing; name the prepared dataset with --config.data.dir=DIR")
    sections = {section.section for section in SECTIONS[1:]} | {"model"}
    top = {name: config[name] for name in config if name not in sections}
    config_fields.read_section(TopConfig, top)
    for section in SECTIONS[1:]:
        config_fields.read_section(section, config.get(section.section, {}))
    if not isinstance(config.get("model"), ConfigDict):
        raise FieldError(
            f"config.model: expected a section with name and the model's fields, got {config.get('model')!r:.80}"
        )
    _check_batch_size(config)
    _check_batch_norm(config)
    _check_reuse_fakes(config)
    _check_evaluated_steps(config)


def _check_batch_size(config: ConfigDict) -> None:
    clips, samples = config.train.batch_size * config.train.n_critic, config.audio.clip_samples * config.audio.channels
    if clips * samples > _LARGEST_BATCH_SAMPLES:
        raise FieldError(
            f"config.train.batch_size x n_critic is {clips} clips of {samples} samples (config.audio.clip_samples x "
            f"channels): more than {_LARGEST_BATCH_SAMPLES} samples in one step; make one of them smaller"
        )


def _check_batch_norm(config: ConfigDict) -> None:
    if config.model.get("batch_norm") and (config.loss.gp_weight or config.loss.r1_weight or config.loss.r2_weight):
        raise FieldError(
            "config.model.batch_norm is True and config.loss has a gradient penalty. The penalty needs the gradient of each "
            "clip alone, and batch norm mixes the clips: turn off one of the two"
        )


def _check_reuse_fakes(config: ConfigDict) -> None:
    if config.train.reuse_fakes and config.train.n_critic != 1:
        raise FieldError(
            f"config.train.reuse_fakes is True and config.train.n_critic is {config.train.n_critic}: one batch of generated "
            "clips serves one update of each network; set n_critic to 1"
        )


def _check_evaluated_steps(config: ConfigDict) -> None:
    if config.eval.every % config.train.save_every:
        raise FieldError(
            f"config.eval.every is {config.eval.every} and config.train.save_every is {config.train.save_every}: an evaluated "
            "step must be saved, so that the best one is kept; make eval.every a multiple of train.save_every"
        )
