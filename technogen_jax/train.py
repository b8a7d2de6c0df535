"""Trains a model on a prepared dataset: the command.

python -m technogen_jax.train --config configs/wavegan.py --workdir runs/wavegan --config.data.dir=data/16k
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from technogen_jax.common import command_line
from technogen_jax.common.command_line import CommandError, OptionError, expand_path, option

if TYPE_CHECKING:
    from ml_collections import ConfigDict

_LEAST_FREE = 1_000_000  # bytes: with less the disk counts as full
_MOST_PROCESSES = 2**16  # chosen
_PATHS = (("data", "dir"), ("train", "init_from"))  # fields that are paths; they are made absolute

_DESCRIPTION = """\
Trains a model on a prepared dataset. Each field of the config can be set with --config.SECTION.FIELD=VALUE;
docs/configuration.md lists the fields. The folder WORKDIR then has:
  config.json, statistics.npz, codes-*.npy   the config, and what the model needs to know of the dataset
  metrics.jsonl, tensorboard/                losses and metrics (to see them: tensorboard --logdir runs)
  checkpoints/                               from which training resumes
  samples/                                   previews: the same latents at each step, as sound and picture
Ctrl-C, SIGTERM and SIGHUP stop the training after a checkpoint is saved. The same command resumes. The result is the same, bit
for bit, as that of a training without interruption on the same machine."""

_EXAMPLES = """\
examples:
  the config of a model, on your dataset:
    python -m technogen_jax.train --config configs/wavegan.py --workdir runs/wavegan --config.data.dir=data/16k
  half the batch, for an hour at most, with checkpoints more often; add to the command:
    --config.train.batch_size=32 --config.train.minutes=60 --config.train.save_every=500 --config.eval.every=500
  then generate sound:
    python -m technogen_jax.sample --workdir runs/wavegan

Many hosts: run the same command on each, with WORKDIR on storage that all share. SLURM (srun), indexed Jobs of Kubernetes,
TPU pods and mpirun are detected. Elsewhere add --coordinator HOST:PORT --processes N --process I. A signal to one process
stops all."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(command_line.Options):
    """The options of the command."""

    config: str | None = option(
        None,
        "Python file of the config, which is run as a program; its fields are set with --config.SECTION.FIELD=VALUE",
        metavar="FILE",
        convert=expand_path,
    )
    workdir: str | None = option(
        None, "folder of the run: made if there is none, resumed if there is one", metavar="DIR", convert=expand_path
    )
    coordinator: str | None = option(None, "many processes: address of process 0", metavar="HOST:PORT", convert=str)
    processes: int | None = option(
        None,
        "many processes: how many; 1: this one alone",
        metavar="N",
        convert=int,
        least=1,
        most=_MOST_PROCESSES,
    )
    process: int | None = option(
        None,
        "many processes: number of this one, from 0",
        metavar="I",
        convert=int,
        least=0,
        most=_MOST_PROCESSES - 1,
    )
    overrides: tuple[str, ...] = ()

    def __post_init__(self):
        super().__post_init__()
        for word in self.overrides:
            if word.startswith("-") and not word.startswith(("--config.", "--noconfig.", "-config.")):
                raise OptionError(f"unrecognized argument: {word}")
        if self.config is None or self.workdir is None:
            raise OptionError("expected --config FILE and --workdir DIR; --help explains")


def read_config(file: str, overrides: Sequence[str] = ()) -> ConfigDict:
    """Returns the config of a file, in which fields have other values.

    Args:
        file: a config's name, see `config_files.load_config`.
        overrides: words of the command line, such as --config.train.steps=10.

    Raises:
        OptionError: there is no such file, field or value.
    """
    from absl import flags
    from ml_collections import config_flags

    from technogen_jax.common import config_files

    argv = ["train", *overrides]
    values = flags.FlagValues()
    try:
        config = config_files.load_config(file)
    except ValueError as error:
        raise OptionError(str(error)) from error
    try:
        config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=argv)
        rest = values(argv)[1:]
    except (AttributeError, KeyError) as error:
        words = re.findall(r"\w+", str(error.args[0]).replace("\\n", " "))  # FIELD Did you mean LIKE instead of ...
        hint = (
            f"; did you mean {words[4]}?"
            if words[1:4] == ["Did", "you", "mean"]
            else "; docs/configuration.md lists them"
        )
        raise OptionError(f"the config has no field {words[0]}{hint}") from error
    except (flags.Error, TypeError, ValueError, OSError) as error:
        line = str(error).strip().splitlines()[-1]  # of a traceback within
        raise OptionError(line.strip().removeprefix("ValueError: ")) from error
    if rest:
        raise OptionError(f"did not expect {' '.join(rest)}")
    for section, field in _PATHS:
        if config.get(section) and isinstance(config[section].get(field), str):
            config[section][field] = _absolute(config[section][field])
    return config


def _absolute(path: str) -> str:
    """Returns a path that means the same file from every folder; "" and a word without a file of that name stay."""
    path = os.path.expanduser(path)
    return os.path.abspath(path) if path and (os.sep in path or os.path.exists(path)) else path


def train(options: Options, say: Callable[[str], None]) -> dict[str, Any]:
    """Trains; returns the step that was reached."""
    from absl import logging

    from technogen_jax.common import compilation_cache, distributed
    from technogen_jax.training import loop, signals

    config = read_config(options.config, options.overrides)
    logging.set_verbosity(logging.FATAL)  # Orbax logs all that it does, and each error from several threads
    compilation_cache.use_cache()
    try:
        joined = distributed.join_processes(options.coordinator, options.processes, options.process)
        with joined, signals.catch_stop_signals() as stop:
            state = loop.train(config, options.workdir, say, stop)
    except (ValueError, OSError) as error:
        threading.excepthook = sys.unraisablehook = lambda _: None  # TensorBoard fails too, and prints so
        if not _is_disk_full(options.workdir):
            raise
        raise CommandError(
            f"{error}\nThe disk of {options.workdir} is full: make room, then the same command resumes from the newest "
            "complete checkpoint"
        ) from error
    if stop.number == signal.SIGINT:  # saved; the status tells a script that follows to stop too
        raise KeyboardInterrupt
    return {"workdir": options.workdir, "step": int(state.step), "steps": config.train.steps}


def _is_disk_full(workdir: str) -> bool:
    """Whether a full disk may be the cause of an error; each library that writes has its own error for it."""
    with contextlib.suppress(OSError):
        return shutil.disk_usage(workdir).free < _LEAST_FREE
    return False


def _need_less_memory(options: Options) -> str:
    """Returns a sentence with half the batch, and half the channels of the model."""
    config = read_config(options.config, options.overrides)
    batch, channels = max(1, config.train.batch_size // 2), max(1, config.model.channels // 2)
    return f"Try --config.train.batch_size={batch}, or a smaller model: --config.model.channels={channels}"


COMMAND = command_line.Command(
    "technogen_jax.train",
    Options,
    train,
    _DESCRIPTION,
    _EXAMPLES,
    resumes=True,
    less_memory=_need_less_memory,
    rest="overrides",
)
parse_options, main = COMMAND.parse, COMMAND.main

if __name__ == "__main__":
    sys.exit(main())
