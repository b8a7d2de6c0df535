"""Times of functions that take turns, and how to report them."""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
import platform
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

_PAUSE_S = 0.05  # until the threads of the previous side sleep


def taking_turns(sides: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Returns the seconds of each call: one call each to warm up, then `rounds` times one after the other."""
    return wall_and_processor(sides, rounds)[0]


def wall_and_processor(sides: Mapping[str, Callable[[], Any]], rounds: int) -> tuple[dict[str, list[float]], ...]:
    """Returns wall time and processor time of each call. Other programs affect processor time less."""
    for side in sides.values():
        side()
    clocks = (time.perf_counter, time.process_time)
    seconds = tuple({name: [] for name in sides} for _ in clocks)
    for _ in range(rounds):
        for name, side in sides.items():
            time.sleep(_PAUSE_S)
            start = [clock() for clock in clocks]
            side()
            for taken, clock, begun in zip(seconds, clocks, start, strict=True):
                taken[name].append(clock() - begun)
    return seconds


def spread(values: list[float], scale: float = 1.0) -> dict[str, Any]:
    """Returns median and quartiles, multiplied by `scale`, to four digits."""
    low, median, high = (digits(scale * value) for value in np.percentile(values, [25, 50, 75]))
    return {"median": median, "quartiles": [low, high]}


def digits(value: float, count: int = 4) -> float:
    """Rounds a value to `count` significant digits."""
    return float(f"{value:.{count}g}")


def about(*packages: str) -> dict[str, Any]:
    """Returns device and versions."""
    import jax

    versions = {"python": platform.python_version()}
    for package in ("jax", "flax", *packages):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "device": jax.devices()[0].device_kind,
        "processor": processor(),
        "cores": cores(),
        "load": [round(value, 1) for value in os.getloadavg()],
        "versions": versions,
    }


def cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def processor() -> str:
    """Returns the name of the processor, if the system tells it."""
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor()
