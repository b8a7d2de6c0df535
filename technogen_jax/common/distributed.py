"""Many devices and processes: joining the processes, the mesh of devices, agreement.

All devices form one axis, "data". Each device has a share of the rows of a batch, and the whole
state or, for large models, a share of it. All processes run the same programs in the same order;
what only one of them knows (a signal, the clock, a score, an error) becomes known to all here. A
single process opens no connection.
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

# A private module: JAX has no public key-value store, and its public broadcasts wait on the
# devices, which time out while the first process measures a dataset for minutes.
from jax._src import distributed as jax_distributed
from jax.sharding import Mesh, NamedSharding, PartitionSpec

_AXIS = "data"
_LEAST_SHARDED = 2**12  # chosen: arrays with fewer elements are not worth a message between devices
_WAIT_MS = 1000  # a process that waits handles its signals this often
_TPU_FILES = ("/dev/accel0", "/dev/vfio/0")  # a host with TPU chips has one of these
_calls = 0  # counts calls of `call_in_first_process`; equal in all processes, it names the answers


class JoinError(ValueError):
    """Why the processes of a run can't work together."""


class ElsewhereError(ValueError):
    """Another process failed; it prints the reason."""


@contextlib.contextmanager
def join_processes(
    coordinator: str | None = None, processes: int | None = None, process: int | None = None
) -> Iterator[None]:
    """Connects this process to the others of its run, if there are others.

    Arguments, the environment or the platform say whether there are others. It must be entered before
    JAX uses a device.

    Args:
        coordinator: HOST:PORT of process 0; if None, $JAX_COORDINATOR_ADDRESS.
        processes: their count; if None, $JAX_NUM_PROCESSES. 1: this process is alone, whatever the
            platform says.
        process: the index of this process; if None, $JAX_PROCESS_ID.

    Raises:
        JoinError: only some of the three are known, or the other processes do not answer.
    """
    options = plan_initialization(coordinator, processes, process, os.environ, _has_tpu())
    if options is None:
        yield
        return
    try:
        jax.distributed.initialize(**options)
    except (RuntimeError, ValueError, KeyError) as error:
        raise JoinError(
            f"the processes of this run did not connect: {' '.join(str(error).split())}. Name them with --coordinator "
            "HOST:PORT --processes N --process I, or train in one process with --processes 1"
        ) from error
    # JAX's handler of SIGTERM only takes a note. Until the trainer sets its own, a signal must end
    # the process.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with end_together():
        yield
    jax.distributed.shutdown()


@contextlib.contextmanager
def end_together() -> Iterator[None]:
    """Ends this process at once after an error, if there are others.

    Else all would wait for each other forever. JAX then ends the others, which miss its heartbeat.
    """
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        if jax.process_count() == 1:
            raise
        if not isinstance(error, ElsewhereError):
            reason = str(error) or type(error).__name__
            print(f"train: process {jax.process_index()}: {reason}", file=sys.stderr, flush=True)
        os._exit(1)


def plan_initialization(
    coordinator: str | None, processes: int | None, process: int | None, environment: Mapping[str, str], has_tpu: bool
) -> dict[str, Any] | None:
    """Returns the arguments of `jax.distributed.initialize`.

    {} where JAX finds them itself; None for a single process.

    Raises:
        JoinError: see `join_processes`.
    """
    given = (
        coordinator or environment.get("JAX_COORDINATOR_ADDRESS"),
        environment.get("JAX_NUM_PROCESSES") if processes is None else processes,
        environment.get("JAX_PROCESS_ID") if process is None else process,
    )
    if given[1] is not None and int(given[1]) == 1:
        return None
    if all(value is None for value in given):
        return {} if _is_one_of_many(environment, has_tpu) else None
    if any(value is None for value in given):
        raise JoinError(
            "many processes: expected --coordinator HOST:PORT, --processes N and --process I (or $JAX_COORDINATOR_ADDRESS, "
            f"$JAX_NUM_PROCESSES and $JAX_PROCESS_ID), got {given[0]}, {given[1]} and {given[2]}"
        )
    address, count, index = given[0], int(given[1]), int(given[2])
    if not (0 <= index < count and ":" in address):
        raise JoinError(
            f"expected --coordinator HOST:PORT and a --process from 0 to {count - 1}, got {address} and {index}"
        )
    return dict(
        coordinator_address=address, num_processes=count, process_id=index, cluster_detection_method="deactivate"
    )


def _is_one_of_many(environment: Mapping[str, str], has_tpu: bool) -> bool:
    """Whether the platform started several processes.

    `jax.distributed.initialize` detects the platform, but not whether it is needed: for a single
    task of srun or mpirun it would hide all GPUs but the first, and in a pod of Kubernetes that is
    no indexed job it fails. Checked with JAX 0.10.
    """
    hosts = environment.get("TPU_PROCESS_ADDRESSES", environment.get("TPU_WORKER_HOSTNAMES"))
    return (
        ("SLURM_STEP_NODELIST" in environment and int(environment.get("SLURM_NTASKS", 1)) > 1)  # within srun
        or ("JOB_COMPLETION_INDEX" in environment and "KUBERNETES_SERVICE_HOST" in environment)  # an indexed Job
        or int(environment.get("OMPI_COMM_WORLD_SIZE", 1)) > 1  # mpirun
        or (has_tpu and ("," in hosts if hosts else "TPU_SKIP_MDS_QUERY" not in environment))
    )


def _has_tpu() -> bool:
    return importlib.util.find_spec("libtpu") is not None and any(os.path.exists(file) for file in _TPU_FILES)


def is_first_process() -> bool:
    """Whether this process prints, writes and draws for all."""
    return jax.process_index() == 0


def make_mesh() -> Mesh:
    """Returns all devices in a row, ordered by process, as the rows of a batch are."""
    return Mesh(np.array(sorted(jax.devices(), key=lambda device: (device.process_index, device.id))), (_AXIS,))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding with which each device has the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def sharded(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """Returns the sharding that gives each device an equal part of the array, cut along an axis."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, _AXIS))


def choose_shardings(tree: Any, mesh: Mesh, shard: bool) -> Any:
    """Returns a sharding for each array: large ones are cut along an axis that the devices divide.

    Args:
        tree: arrays or their shapes.
        mesh: the mesh of all devices.
        shard: False: no array is cut.
    """

    def choose(leaf):
        axes = [axis for axis, length in enumerate(leaf.shape) if length % mesh.size == 0]
        if not (shard and axes and leaf.size >= _LEAST_SHARDED):
            return replicated(mesh)
        return sharded(mesh, max(axes, key=lambda axis: leaf.shape[axis]))

    return jax.tree.map(choose, tree)


def gather_on_one_device(tree: Any, mesh: Mesh) -> Any:
    """Returns the whole arrays on one device of each process; all processes must call it."""
    if mesh.size == 1:
        return tree
    whole = jax.jit(lambda tree: tree, out_shardings=replicated(mesh))(tree)
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), whole)


def make_agreement(mesh: Mesh, lag: int) -> Callable[[bool], bool]:
    """Returns a function that tells each process whether any process called it with True.

    All processes must call it equally often, and all get the same answers.

    Args:
        mesh: the mesh of all devices.
        lag: answers lag by this many calls, so that no call waits for the devices. A single
            process gets its answer at once.
    """
    if jax.process_count() == 1:
        return lambda value: value
    local = jax.local_device_count()
    votes = {
        vote: jax.make_array_from_process_local_data(sharded(mesh), np.full(local, vote), (mesh.size,))
        for vote in (False, True)
    }
    any_of = jax.jit(jnp.any, out_shardings=replicated(mesh))
    answers = collections.deque()

    def agree(vote: bool) -> bool:
        answers.append(any_of(votes[vote]))
        return len(answers) > lag and bool(answers.popleft())

    return agree


def call_in_first_process(work: Callable[[], Any]) -> Any:
    """Calls `work` in the first process and returns its result in all.

    The others wait, however long it takes.

    Args:
        work: returns what JSON can represent.

    Raises:
        Exception: in the first process what `work` raises; in the others ElsewhereError.
    """
    if jax.process_count() == 1:
        return work()
    global _calls
    _calls += 1
    store, key = jax_distributed.global_state.client, f"technogen/{_calls}"
    if is_first_process():
        answer = {"failed": True}
        try:
            answer = {"value": work()}
        finally:
            store.key_value_set(key, json.dumps(answer))
        return answer["value"]
    while True:
        try:
            answer = json.loads(store.blocking_key_value_get(key, _WAIT_MS))
            break
        except jax.errors.JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise
    if "failed" in answer:
        raise ElsewhereError("process 0 failed")
    return answer["value"]


def check_shared(path: pathlib.Path) -> None:
    """Checks that this process sees a file that the first process wrote.

    Raises:
        JoinError: the hosts do not share its folder.
    """
    if not path.exists():
        raise JoinError(
            f"{path}: process 0 has written it, and process {jax.process_index()} does not see it; all hosts need the same "
            "--workdir, on storage that they share"
        )
