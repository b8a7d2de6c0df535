"""Many devices, many hosts: joining a run's processes, the mesh, how arrays lie on it, what processes have to agree on.

All devices form one axis, "data": each holds some rows of a batch, and all of the state or, for large models, a share of it.
Every process runs the same programs in the same order; what one of them alone knows (a signal, its clock, a score, an error)
becomes known to all here. One process on one machine needs none of it, and opens no connection.
"""

from __future__ import annotations

import collections
import contextlib
import importlib.util
import json
import os
import pathlib
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax._src import distributed  # for what JAX shows no other way: its key-value store, that waits without the devices
from jax.sharding import Mesh, NamedSharding, PartitionSpec

_AXIS = "data"
_LEAST = 2**12  # numbers: smaller arrays are not worth a message
_WAIT_MS = 1000  # between looks at signals
_TPU_FILES = ("/dev/accel0", "/dev/vfio/0")  # of chips of the host
_calls = 0  # of `from_first`, the same in all processes


class JoinError(ValueError):
    """Why the processes of a run cannot come together."""


class ElsewhereError(ValueError):
    """Another process failed, and tells why."""


@contextlib.contextmanager
def joined(coordinator: str | None = None, processes: int | None = None, process: int | None = None) -> Iterator[None]:
    """This process is one of many, where the arguments, the environment or the platform say so; before JAX is used.

    Args:
        coordinator: HOST:PORT of process 0; otherwise $JAX_COORDINATOR_ADDRESS.
        processes: in all, otherwise $JAX_NUM_PROCESSES; 1: this one is alone, whatever the platform says.
        process: this one's number, otherwise $JAX_PROCESS_ID.

    Raises:
        JoinError: some of the three are missing, or the others do not come.
    """
    options = plan(coordinator, processes, process, os.environ, _on_tpu())
    if options is None:
        yield
        return
    try:
        jax.distributed.initialize(**options)
    except (RuntimeError, ValueError, KeyError) as error:
        raise JoinError(
            f"the processes of this run did not come together: {' '.join(str(error).split())}. Name them with --coordinator "
            "HOST:PORT --processes N --process I, or train in one process with --processes 1"
        ) from error
    # JAX's own handler only takes notes; ours comes with the first step, and until then a signal ends the process.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with ended_together():
        yield
    jax.distributed.shutdown()


@contextlib.contextmanager
def ended_together() -> Iterator[None]:
    """With many processes, what fails in one ends it at once: it and the others would wait for each other for ever.

    The others are then ended by JAX, which misses it.
    """
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        if jax.process_count() == 1:
            raise
        if not isinstance(error, ElsewhereError):
            told = str(error) or type(error).__name__
            print(f"train: process {jax.process_index()}: {told}", file=sys.stderr, flush=True)
        os._exit(1)


def plan(
    coordinator: str | None, processes: int | None, process: int | None, environment: Mapping[str, str], on_tpu: bool
) -> dict[str, Any] | None:
    """What `jax.distributed.initialize` is to be told, nothing where it finds out; None for one process alone.

    Raises:
        JoinError: see `joined`.
    """
    given = (
        coordinator or environment.get("JAX_COORDINATOR_ADDRESS"),
        environment.get("JAX_NUM_PROCESSES") if processes is None else processes,
        environment.get("JAX_PROCESS_ID") if process is None else process,
    )
    if given[1] is not None and int(given[1]) == 1:
        return None
    if all(value is not None for value in given):
        address, count, number = given[0], int(given[1]), int(given[2])
        if not (0 <= number < count and ":" in address):
            raise JoinError(
                f"expected --coordinator HOST:PORT and a --process from 0 to {count - 1}, got {address} and {number}"
            )
        return dict(
            coordinator_address=address,
            num_processes=count,
            process_id=number,
            cluster_detection_method="deactivate",
        )
    if any(value is not None for value in given):
        raise JoinError(
            "many processes: expected --coordinator HOST:PORT, --processes N and --process I (or $JAX_COORDINATOR_ADDRESS, "
            f"$JAX_NUM_PROCESSES and $JAX_PROCESS_ID), got {given[0]}, {given[1]} and {given[2]}"
        )
    hosts = environment.get("TPU_PROCESS_ADDRESSES", environment.get("TPU_WORKER_HOSTNAMES"))
    one_of_many = (
        "SLURM_STEP_NODELIST" in environment and int(environment.get("SLURM_NTASKS", 1)) > 1,  # within srun
        "JOB_COMPLETION_INDEX" in environment and "KUBERNETES_SERVICE_HOST" in environment,  # a pod of an indexed Job
        int(environment.get("OMPI_COMM_WORLD_SIZE", 1)) > 1,  # mpirun
        on_tpu and ("," in hosts if hosts else "TPU_SKIP_MDS_QUERY" not in environment),  # its host knows of the others
    )
    return {} if any(one_of_many) else None


def _on_tpu() -> bool:
    return importlib.util.find_spec("libtpu") is not None and any(os.path.exists(file) for file in _TPU_FILES)


def is_first() -> bool:
    """Whether this is the process that prints, writes and draws for all."""
    return jax.process_index() == 0


def mesh() -> Mesh:
    """All devices in a row, those of a process side by side, as its rows of a batch are."""
    return Mesh(np.array(sorted(jax.devices(), key=lambda device: (device.process_index, device.id))), (_AXIS,))


def everywhere(mesh: Mesh) -> NamedSharding:
    """Each device holds all of an array."""
    return NamedSharding(mesh, PartitionSpec())


def by_row(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """Each device holds its share of the rows, which are along an axis."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, _AXIS))


def shardings(tree: Any, mesh: Mesh, shard: bool) -> Any:
    """How each array of a tree is to lie: everywhere, or, if it is large, cut along its largest axis that divides.

    Args:
        tree: arrays or their shapes.
        mesh: of all devices.
        shard: whether to cut.
    """

    def of(leaf):
        axes = [axis for axis, length in enumerate(leaf.shape) if length % mesh.size == 0]
        if not (shard and axes and leaf.size >= _LEAST):
            return everywhere(mesh)
        return by_row(mesh, max(axes, key=lambda axis: leaf.shape[axis]))

    return jax.tree.map(of, tree)


def on_one(tree: Any, mesh: Mesh) -> Any:
    """Arrays, whole, on one device of each process; all processes have to ask."""
    if mesh.size == 1:
        return tree
    whole = jax.jit(lambda tree: tree, out_shardings=everywhere(mesh))(tree)
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), whole)


def agreement(mesh: Mesh, lag: int) -> Callable[[bool], bool]:
    """(what this process says) -> whether any process said yes, the same for all of them, who have to call equally often.

    Args:
        mesh: of all devices.
        lag: calls that an answer comes late, so that no call waits for devices; one process alone is answered at once.
    """
    if jax.process_count() == 1:
        return lambda said: said
    local = jax.local_device_count()
    words = {
        said: jax.make_array_from_process_local_data(by_row(mesh), np.full(local, said), (mesh.size,))
        for said in (False, True)
    }
    any_of = jax.jit(jnp.any, out_shardings=everywhere(mesh))
    answers = collections.deque()

    def agree(said: bool) -> bool:
        answers.append(any_of(words[said]))
        return len(answers) > lag and bool(answers.popleft())

    return agree


def from_first(work: Callable[[], Any]) -> Any:
    """What `work` returns in the first process, in all of them: the others wait for it, however long it takes.

    Args:
        work: returns what JSON can hold.

    Raises:
        Exception: in the first process what `work` raises, in the others ElsewhereError.
    """
    if jax.process_count() == 1:
        return work()
    global _calls
    _calls += 1
    client, key = distributed.global_state.client, f"technogen/{_calls}"
    if is_first():
        answer = {"failed": True}
        try:
            answer = {"value": work()}
        finally:
            client.key_value_set(key, json.dumps(answer))
        return answer["value"]
    while True:
        try:
            answer = json.loads(client.blocking_key_value_get(key, _WAIT_MS))
            break
        except jax.errors.JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise
    if "failed" in answer:
        raise ElsewhereError("process 0 failed")
    return answer["value"]


def check_shared(path: pathlib.Path) -> None:
    """Raises if a file that the first process wrote is not to be seen here.

    Raises:
        JoinError: the hosts do not share that folder.
    """
    if not path.exists():
        raise JoinError(
            f"{path}: process 0 has written it, and process {jax.process_index()} does not see it; all hosts need the same "
            "--workdir, on storage that they share"
        )
