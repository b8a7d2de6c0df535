"""Devices that programs are compiled for, and meshes of them."""

from __future__ import annotations

import dataclasses
import math
import os

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh

# The format is XLA's `GpuTargetConfigProto`. Figures: NVIDIA's data sheets and CUDA's tables of
# compute capabilities.
_GPU_DESCRIPTION = """
gpu_device_info {{ threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152
  shared_memory_per_core: {shared_per_core} threads_per_core_limit: {threads_per_core} core_count: {cores}
  fpus_per_core: {fpus_per_core} block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: {bandwidth} l2_cache_size: {l2_cache} clock_rate_ghz: {clock_ghz} device_memory_size: {memory}
  shared_memory_per_block_optin: {shared_per_block}
  cuda_compute_capability {{ major: {major} minor: {minor} }} registers_per_core_limit: 65536
  registers_per_block_limit: 65536 }}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 }}
runtime_version {{ major: 12 minor: 9 patch: 0 }}
device_description_str: "{name}"
"""
# libtpu then looks for no device, and does not wait for another process that uses it.
_ENVIRONMENT = {
    "CUDA_VISIBLE_DEVICES": "-1",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
_TPU_GRIDS = {1: "2x2", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 256: "16x16"}  # devices -> topology


def use_no_device() -> None:
    """Makes this process compute on the CPU alone; call it before JAX computes."""
    os.environ.update(_ENVIRONMENT)
    jax.config.update("jax_platforms", "cpu")


@dataclasses.dataclass(frozen=True)
class Target:
    """A kind of device.

    Attributes:
        platform: "tpu" or "cuda".
        name: as XLA calls it.
        tflops: of the fastest products that the config's arithmetic may use: bfloat16 on a TPU,
            TF32 on H200, float32 on T4.
        bandwidth_gb_s: of its memory.
        memory_gb: its size.
        clock_ghz: of the cycles that the compiler estimates.
        details: for the description of a GPU.
    """

    platform: str
    name: str
    tflops: float
    bandwidth_gb_s: float
    memory_gb: float
    clock_ghz: float
    details: dict[str, int] = dataclasses.field(default_factory=dict)

    @property
    def backend(self) -> str:
        """What `jax.default_backend()` returns on such a device."""
        return "tpu" if self.platform == "tpu" else "gpu"

    def make_mesh(self, devices: int) -> Mesh:
        """Returns a mesh of that many devices, as `common.distributed.make_mesh` does.

        Raises:
            ValueError: a TPU does not come in that number.
        """
        if self.platform == "tpu":
            if devices not in _TPU_GRIDS:
                raise ValueError(f"--devices: expected one of {', '.join(map(str, _TPU_GRIDS))}, got {devices}")
            grid = topologies.get_topology_desc(platform="tpu", topology_name=f"{self.name}:{_TPU_GRIDS[devices]}")
        else:
            description = _GPU_DESCRIPTION.format(
                name=self.name,
                bandwidth=round(self.bandwidth_gb_s * 1e9),
                memory=math.floor(self.memory_gb * 1e9),
                clock_ghz=self.clock_ghz,
                **self.details,
            )
            grid = topologies.get_topology_desc(platform="cuda", target_config=description, topology=f"1x1x{devices}")
        found = sorted(grid.devices, key=lambda device: (device.process_index, device.id))
        return Mesh(np.array(found[:devices]), ("data",))


# The clocks of TPUs are derived: peak of the products / (multiply-adds of all matrix units in a
# cycle): v5e 4 units of 128 x 128; v6e 2 of 256 x 256, whose rate of 3.5 GHz counts two cycles.
TARGETS = {
    "v5e": Target("tpu", "v5e", 197, 819, 16, 1.5),
    "v6e": Target("tpu", "v6e", 918, 1640, 32, 1.75),
    "h200": Target(
        "cuda",
        "NVIDIA H200",
        495,
        4800,
        150.7,
        1.98,
        dict(
            cores=132,
            fpus_per_core=128,
            shared_per_core=233472,
            shared_per_block=232448,
            threads_per_core=2048,
            l2_cache=52428800,
            major=9,
            minor=0,
        ),
    ),
    "t4": Target(
        "cuda",
        "Tesla T4",
        8.1,
        320,
        15.8,
        1.59,
        dict(
            cores=40,
            fpus_per_core=64,
            shared_per_core=65536,
            shared_per_block=65536,
            threads_per_core=1024,
            l2_cache=4194304,
            major=7,
            minor=5,
        ),
    ),
}
