"""Trains a model on a prepared set.

    python -m technogen_jax.train --config configs/wavegan.py --workdir runs/wavegan --config.data.dir=data/16k

Any field of the config can be set on the command line; docs/configuration.md lists them all. For example, half the batch,
an hour at most, checkpoints more often:

    ... --config.train.batch_size=32 --config.train.minutes=60 --config.train.save_every=500 --config.eval.every=500

The workdir then holds config.json, statistics.npz and codes-*.npy (of the set, for models that need them), metrics.jsonl
(a line every train.log_every steps), checkpoints/, samples/ (previews of fixed latents, as sound and picture) and
tensorboard/ (look with: tensorboard --logdir runs). Stop with Ctrl-C or SIGTERM: it saves first. The same command
goes on from the newest checkpoint, and what comes out is, bit for bit, what an uninterrupted run would have made on
the same machine. Then: python -m technogen_jax.sample --workdir runs/wavegan

Many hosts: the same command on each, with the workdir on storage that all share. SLURM (srun), indexed Jobs of Kubernetes, TPU
pods and mpirun are found out; anywhere else add --coordinator HOST:PORT --processes N --process I. A signal to any process
stops all.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import threading

from absl import app, flags, logging
from ml_collections import config_flags

from technogen_jax.common import compilation_cache, distributed
from technogen_jax.training import loop

_LEAST_FREE = 1_000_000  # bytes: with less the disk counts as full

_CONFIG = config_flags.DEFINE_config_file("config", None, "File of the config, and with a dot its fields; see above.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; made if it is not there, gone on with if it is.")
_COORDINATOR = flags.DEFINE_string("coordinator", None, "Of many processes: HOST:PORT of process 0.")
_PROCESSES = flags.DEFINE_integer("processes", None, "Of many processes: how many; 1: this one alone.", lower_bound=1)
_PROCESS = flags.DEFINE_integer("process", None, "Of many processes: this one's number, from 0.", lower_bound=0)


def _parse(argv: list[str]) -> list[str]:
    """The parser of absl, with one line for what is wrong."""
    try:
        rest = flags.FLAGS(argv)
        if _CONFIG.value is None or _WORKDIR.value is None:
            raise loop.TrainError("expected --config FILE and --workdir DIR; --help explains")
        _CONFIG.value.keys()  # a config file that could not be loaded raises only now
        if len(rest) > 1:
            raise loop.TrainError(f"did not expect {' '.join(rest[1:])}")
    except (AttributeError, KeyError) as error:
        _exit(f"the config has no field {' '.join(str(error.args[0]).split())}; docs/configuration.md lists them all")
    except (flags.Error, TypeError, ValueError, OSError) as error:
        _exit(str(error).strip().splitlines()[-1])  # of a traceback within, the last line
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.FATAL)  # Orbax tells its whole day, and each error from several threads
    return rest


def _exit(message: str) -> None:
    print(f"train: {message}", file=sys.stderr)
    sys.exit(2)


def main(_: list[str]) -> None:
    """The command; exits with 0 done (or stopped by a signal, saved), 1 failed, 2 a flag that cannot work."""
    compilation_cache.use_cache()
    try:
        with distributed.join_processes(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value):
            loop.train(_CONFIG.value, _WORKDIR.value)
    except (ValueError, OSError) as error:
        threading.excepthook = sys.unraisablehook = lambda _: None  # TensorBoard, that it cannot write either
        print(f"train: {error}{_of_the_disk(_WORKDIR.value)}", file=sys.stderr)
        sys.exit(1)


def _of_the_disk(workdir: str) -> str:
    """What to do where an error may come from a full disk; it has as many faces as there are libraries that write."""
    with contextlib.suppress(OSError):
        if shutil.disk_usage(workdir).free < _LEAST_FREE:
            return f"\nThe disk of {workdir} is full: make room, then the same command goes on from the newest whole checkpoint"
    return ""


if __name__ == "__main__":
    app.run(main, flags_parser=_parse)
