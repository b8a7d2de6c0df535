"""Curves and previews of a run, read from its workdir while it trains."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Mapping
from typing import Any

from technogen_jax.common import json_files
from technogen_jax.runs.metrics_log import METRICS_FILE
from technogen_jax.runs.workdir import SAMPLES_FOLDER

CHARTS = {  # title: names of the metrics
    "Losses": ("d/adversarial", "g/adversarial"),
    "Distance from real clips": ("eval/mmd_tmr-v1",),
    "Coverage, regular beat": ("eval/coverage", "eval/beat_regularity_low"),
    "Steps per second": ("time/steps_per_s",),
}
_MOST_POINTS = 400  # of a curve: more would be slower and not visible on a screen
_KINDS = (".png", ".wav")


def describe(workdir: pathlib.Path) -> dict[str, Any]:
    """Returns the charts of a run, why a chart is empty, and the steps that have a preview."""
    found = curves(workdir)
    newest = max((step for points in found.values() for step, _, _ in points), default=None)
    charts = [
        {"title": title, "points": points, "why": "" if points else _why_empty(title, newest)}
        for title, points in found.items()
    ]
    return {"charts": charts, "previews": previews(workdir), "step": newest}


def _why_empty(title: str, newest: int | None) -> str:
    if newest is None:
        return "Nothing has been logged yet."
    if any(name.startswith("eval/") for name in CHARTS[title]):
        return "The training has not been evaluated yet; config.eval.every says after how many steps."
    return "This training does not log it."


def curves(workdir: pathlib.Path) -> dict[str, list[tuple[int, float, str]]]:
    """Returns the points (step, value, name of the curve) of each chart in `CHARTS`; no points before the first log line."""
    try:
        lines = (workdir / METRICS_FILE).read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    found: dict[str, list[tuple[int, float]]] = {}
    for line in lines:
        try:
            values = json_files.parse(line)
            step = int(values.pop("step"))
        except (ValueError, KeyError, TypeError, AttributeError):
            continue  # the last line may be unfinished
        for name, value in values.items():
            if isinstance(value, (int, float)):
                found.setdefault(name, []).append((step, float(value)))
    charts = {}
    for title, names in CHARTS.items():
        charts[title] = [
            (step, value, name) for name in names for step, value in _thinned(found.get(name, [])) if value == value
        ]
    return charts


def _thinned(points: list) -> list:
    """Returns at most `_MOST_POINTS` of the points, always with the last one."""
    stride = -(-len(points) // _MOST_POINTS) or 1
    return points[::-1][::stride][::-1]


def previews(workdir: pathlib.Path) -> list[int]:
    """Returns the steps that have a preview, in ascending order."""
    steps = []
    for path in (workdir / SAMPLES_FOLDER).glob("step*.png"):
        number = path.stem.removeprefix("step")
        if number.isdigit() and path.with_suffix(".wav").is_file():
            steps.append(int(number))
    return sorted(steps)


def preview_file(workdirs: Mapping[str, pathlib.Path], name: str, step: str, kind: str) -> pathlib.Path | None:
    """Returns the file of a preview, or None. Client input is compared with existing names and never joined to a path."""
    if name not in workdirs or not re.fullmatch("[0-9]{1,12}", step) or kind not in _KINDS:
        return None
    workdir = workdirs[name]
    if int(step) not in previews(workdir):
        return None
    return workdir / SAMPLES_FOLDER / f"step{int(step):08d}{kind}"
