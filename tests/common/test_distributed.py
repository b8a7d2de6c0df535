import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT
from jax.sharding import PartitionSpec

from technogen_jax.common import distributed
from technogen_jax.data import batching
from technogen_jax.runs.checkpoints import Checkpoints
from technogen_jax.runs.metrics_log import METRICS_FILE
from technogen_jax.training import loop

# Trains as the command does, and writes down what reached the devices and how many records were read.
DRIVER = """
import json, sys
import jax, numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict
from technogen_jax.training import loop
from technogen_jax.common import distributed as devices
from technogen_jax.data import batching as data, tfrecords as records

given = json.loads(sys.argv[1])
batches, reads = [], []

def to_device(local, *rest, original=data.to_device):
    def noted():
        for batch in local:
            batches.append(batch)
            yield batch
    return original(noted(), *rest)

def read(self, index, original=records.TFRecordSource.__getitem__):
    reads.append(index)
    return original(self, index)

data.to_device, records.TFRecordSource.__getitem__ = to_device, read
with devices.join_processes(*given["join"]):
    for run in given["runs"]:
        batches.clear(), reads.clear()
        config = ConfigDict(given["config"])
        config.train.shard_parameters = run["shard"]
        devices.make_mesh = lambda: Mesh(np.array(jax.devices()[:run["devices"]]), ("data",))
        state = loop.train(config, run["workdir"])
        leaf = max(jax.tree.leaves(state.opt.g), key=lambda leaf: leaf.size)
        np.savez(run["note"], batches=np.stack(batches), reads=len(reads), share=leaf.addressable_data(0).size / leaf.size)
"""
LIMIT_S = 1800  # on a busy machine
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}


@pytest.fixture
def config(tiny_config):
    """Four steps of eight clips with what compiles fast; RMSProp, for Adam would blow up the rounding of small gradients."""
    tiny_config.train.update(steps=4, batch_size=8, log_every=1, save_every=2, sample_every=0, ema_decay=0.5)
    tiny_config.optimizer.update(name="rmsprop")
    tiny_config.loss.update(adversarial="hinge", r1_weight=0.0, r2_weight=0.0)
    tiny_config.model.update(channels=8, latent_size=32)
    tiny_config.audio.clip_samples = 256
    tiny_config.eval.every = 0
    tiny_config.data.read_threads = 0
    return tiny_config


def start(config, runs, join=(None, 1, None), count=1):
    given = json.dumps(dict(config=config.to_dict(), runs=runs, join=join))
    environment = ENVIRONMENT | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={count}"}
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return subprocess.Popen([sys.executable, "-c", DRIVER, given], cwd=ROOT, env=environment, **pipes)


def finish(*processes):
    outputs = [process.communicate(timeout=LIMIT_S) for process in processes]
    for process, (_, error) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, error
    return outputs


def run_of(folder, name, count, shard=False):
    return dict(workdir=str(folder / name), note=str(folder / f"{name}.npz"), devices=count, shard=shard)


def address():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def losses(workdir, first=1):
    rows = [json.loads(line) for line in (workdir / METRICS_FILE).read_text().splitlines()]
    return np.array(
        [
            [row[name] for name in ("d/adversarial", "g/adversarial", "d/gradient_norm")]
            for row in rows
            if row["step"] >= first
        ]
    )


def parameters(config, workdir):
    _, _, new_state = loop.build_training(config)
    with Checkpoints(workdir, read_only=True) as checkpoints:
        state = checkpoints.restore(4, jax.jit(new_state)(jax.random.key(0)))
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves((state.params, state.ema))])


@pytest.mark.slow
def test_one_two_and_eight_devices_and_two_processes_train_alike(config, tmp_path):
    """The same batches to the bit; losses and weights to float32's rounding, weights over devices or not."""
    runs = [run_of(tmp_path, "two", 2), run_of(tmp_path, "eight", 8), run_of(tmp_path, "shares", 8, shard=True)]
    many = start(config, runs, count=8)
    finish(start(config, [run_of(tmp_path, "one", 1)]))
    finish(many)
    # The two processes go on from the one's second step.
    shutil.copytree(tmp_path / "one", tmp_path / "both")
    shutil.rmtree(tmp_path / "both" / "checkpoints" / "4")
    where = address()
    halves = [dict(run_of(tmp_path, "both", 2), note=str(tmp_path / f"half{i}.npz")) for i in range(2)]
    told = finish(*(start(config, [halves[i]], join=(where, 2, i)) for i in range(2)))
    assert "resumed from step 2" in told[0][0] and "device(s)" in told[0][0]
    assert not [line for line in told[1][0].splitlines() if "Gloo" not in line]

    notes = {name: np.load(tmp_path / f"{name}.npz") for name in ("one", "two", "eight", "shares", "half0", "half1")}
    whole, exact = notes["one"]["batches"], parameters(config, tmp_path / "one")
    for name in ("two", "eight", "shares"):
        np.testing.assert_array_equal(notes[name]["batches"], whole)
    both = np.concatenate([notes["half0"]["batches"], notes["half1"]["batches"]], axis=3)
    np.testing.assert_array_equal(both[:2], whole[2:4])
    # Each process reads its rows; besides one record when it opens the shard, and one for its length.
    assert notes["one"]["reads"] == 2 + 8 * len(whole)
    assert notes["half0"]["reads"] == notes["half1"]["reads"] == 2 + 4 * len(both)
    assert notes["eight"]["share"] == 1 and notes["shares"]["share"] == 1 / 8
    for name in ("two", "eight", "shares", "both"):
        np.testing.assert_allclose(losses(tmp_path / name), losses(tmp_path / "one"), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(parameters(config, tmp_path / name), exact, rtol=1e-4, atol=1e-6)
    # And what eight saved, shared out, goes on with one.
    config.train.steps = 6
    assert int(loop.train(config, tmp_path / "shares", say=lambda line: None).step) == 6


@pytest.mark.slow
def test_signal_to_one_of_two_processes_stops_both_at_the_same_step(config, tmp_path):
    config.train.update(steps=100_000, save_every=2, keep_last=1)
    config.audio.clip_samples = 2048
    config.model.update(channels=2, latent_size=8)
    config.eval.every = 2
    where, processes = address(), []
    command = [sys.executable, "-m", "technogen_jax.train", "--config", "configs/wavegan.py:relativistic"]
    command.append(f"--workdir={tmp_path / 'run'}")
    for part in ("audio", "data", "loss", "model", "optimizer", "train", "eval"):
        for name, value in config[part].items():
            if value is not None:
                command.append(f"--config.{part}.{name}={value}")
    for number, more in enumerate(
        [["--coordinator", where, "--processes=2", "--process=0"], []],
    ):
        environment = dict(JAX_COORDINATOR_ADDRESS=where, JAX_NUM_PROCESSES="2", JAX_PROCESS_ID=str(number))
        pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        processes.append(
            subprocess.Popen(command + more, cwd=ROOT, env=ENVIRONMENT | (environment if not more else {}), **pipes)
        )
    metrics = tmp_path / "run" / METRICS_FILE
    end = time.monotonic() + LIMIT_S
    while not (metrics.exists() and '{"step": 2, "eval/' in metrics.read_text()):
        assert all(process.poll() is None for process in processes) and time.monotonic() < end
        time.sleep(0.05)
    processes[1].send_signal(signal.SIGTERM)
    (told, _), (silent, _) = finish(*processes)
    assert "the same command resumes it" in told and "step" not in silent
    with Checkpoints(tmp_path / "run", read_only=True) as checkpoints:
        last = checkpoints.steps()[-1]
    assert last == max(json.loads(line)["step"] for line in metrics.read_text().splitlines())
    assert f"step {last} of" in told
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir() if "tmp" in path.name) == []


@pytest.mark.parametrize(
    "environment, given, expected",
    [
        ({}, (None, None, None), None),
        ({}, (None, 1, None), None),
        ({"SLURM_STEP_NODELIST": "a[1-2]", "SLURM_NTASKS": "2"}, (None, None, None), {}),
        ({"SLURM_STEP_NODELIST": "a[1-2]", "SLURM_NTASKS": "2"}, (None, 1, None), None),
        ({"SLURM_STEP_NODELIST": "a1", "SLURM_NTASKS": "1"}, (None, None, None), None),
        ({"SLURM_NTASKS": "2"}, (None, None, None), None),  # in sbatch, outside srun
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "0"}, (None, None, None), {}),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, (None, None, None), None),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, (None, None, None), {}),
    ],
)
def test_plan_detects_many_processes_of_a_platform(environment, given, expected):
    assert distributed.plan_initialization(*given, environment, has_tpu=False) == expected


@pytest.mark.parametrize(
    "environment, expected",
    [
        ({}, {}),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, {}),
        ({"TPU_WORKER_HOSTNAMES": "a"}, None),
        ({"TPU_SKIP_MDS_QUERY": "1"}, None),
    ],
)
def test_plan_detects_a_tpu_pod_by_its_hosts(environment, expected):
    assert distributed.plan_initialization(None, None, None, environment, has_tpu=True) == expected


def test_plan_reads_arguments_before_the_environment():
    wanted = dict(coordinator_address="a:1", num_processes=3, process_id=0, cluster_detection_method="deactivate")
    assert distributed.plan_initialization("a:1", 3, 0, {}, False) == wanted
    environment = {"JAX_COORDINATOR_ADDRESS": "b:2", "JAX_NUM_PROCESSES": "3", "JAX_PROCESS_ID": "0"}
    assert distributed.plan_initialization("a:1", None, None, environment, False) == wanted
    with pytest.raises(
        distributed.JoinError, match="expected --coordinator HOST:PORT, --processes N .* got a:1, 3 and None"
    ):
        distributed.plan_initialization("a:1", 3, None, {}, False)
    with pytest.raises(distributed.JoinError, match="a --process from 0 to 2, got a:1 and 3"):
        distributed.plan_initialization("a:1", 3, 3, {}, False)


def test_choose_shardings_cuts_large_arrays_along_their_largest_divisible_axis(monkeypatch):
    mesh = jax.sharding.AbstractMesh((8,), ("data",))
    shapes = [(25, 64, 128), (100, 33), (7, 9000), (3, 4096, 4096), ()]
    tree = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    found = [sharding.spec for sharding in distributed.choose_shardings(tree, mesh, shard=True)]
    cut = PartitionSpec(None, "data")
    assert found == [PartitionSpec(None, None, "data"), PartitionSpec(), cut, cut, PartitionSpec()]
    assert {sharding.spec for sharding in distributed.choose_shardings(tree, mesh, shard=False)} == {PartitionSpec()}


def test_batch_size_that_devices_do_not_divide_is_an_error(monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 8)
    with pytest.raises(ValueError, match="config.train.batch_size: expected a multiple of the 8 devices, got 12"):
        batching.assign_rows(12)


def test_single_process_needs_no_agreement(tmp_path):
    assert distributed.call_in_first_process(lambda: 0.25) == 0.25
    agree = distributed.make_agreement(distributed.make_mesh(), lag=2)
    assert [agree(False), agree(True)] == [False, True]
    with contextlib.suppress(KeyError), distributed.end_together():
        raise KeyError  # and it does not end the process
    with pytest.raises(distributed.JoinError, match="process 0 has written it.*all hosts need the same --workdir"):
        distributed.check_shared(tmp_path / "config.json")
