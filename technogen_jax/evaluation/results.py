"""Results of evaluations as files, and the comparison of results."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from technogen_jax.common import atomic_files, json_files

RESULT_FILE = "result.json"
# Two results can be compared only if these parts of them are equal.
COMPARABLE = (
    "version",
    "context.sample_rate_hz",
    "context.clip_samples",
    "context.channels",
    "context.rendering",
    "context.options",
    "sets.reference.pcm_sha256",
    "sets.reference.tracks",
    "sets.other.pcm_sha256",
    "draws.tracks",
    "embeddings",
)


class ResultError(ValueError):
    """A result that cannot be read, or results that cannot be compared."""


def write(folder: str | os.PathLike, result: dict[str, Any]) -> None:
    """Writes result.json; it appears complete or not at all.

    Raises:
        ValueError: NaN or Inf in the result.
    """
    text = json.dumps(result, indent=1, allow_nan=False) + "\n"
    atomic_files.write_text(pathlib.Path(folder) / RESULT_FILE, text)


def read(path: str | os.PathLike) -> dict[str, Any]:
    """Returns a result.

    Args:
        path: its file, or the folder that contains it.

    Raises:
        ResultError: no result.
    """
    path = pathlib.Path(path)
    path = path / RESULT_FILE if path.is_dir() else path
    try:
        result = json_files.read(path)
        if not {"version", "context", "sets", "distances"} <= result.keys():
            raise ValueError("not a result")
    except (OSError, ValueError, AttributeError) as error:
        raise ResultError(f"{path}: expected the {RESULT_FILE} of an evaluation ({error})") from error
    return result


def differences(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """Returns why two results cannot be compared, one line a reason; empty if they can."""
    return [line for name in COMPARABLE for line in _differences(name, _value(first, name), _value(second, name))]


def compare(paths: Sequence[str | os.PathLike], allow_mismatch: bool = False) -> str:
    """Returns a table of results side by side.

    Args:
        paths: the paths of two or more results.
        allow_mismatch: whether results that cannot be compared get a warning instead of an error.

    Raises:
        ResultError: results that cannot be compared; the message names what differs.
    """
    found = [read(path) for path in paths]
    lines = []
    for path, result in zip(paths[1:], found[1:], strict=True):
        if differ := differences(found[0], result):
            text = f"{paths[0]} and {path} are not comparable: {'; '.join(differ)}"
            if not allow_mismatch:
                raise ResultError(f"{text}. --allow_mismatch prints them anyway")
            lines.append(f"WARNING: {text}")
    try:
        width = max(len(str(path)) for path in paths)
        columns = [
            (
                f"{metric} {embedding} {block}",
                [_value(result, f"distances.{embedding}.{block}.{metric}") for result in found],
            )
            for embedding, blocks in found[0]["distances"].items()
            for block in blocks
            for metric in blocks[block]
        ]
        for path, result in zip(paths, found, strict=True):
            lines.append(f"{str(path):<{width}}  {result['sets']['generated']['name']}")
        for name, values in columns:
            cells = ["–" if value is None else f"{value['value']:.4g} (floor {value['floor']:.4g})" for value in values]
            lines.append(f"{name:<40} " + "  ".join(f"{cell:>26}" for cell in cells))
    except (KeyError, TypeError, ValueError, AttributeError) as error:  # edited by hand
        raise ResultError(f"expected complete results of an evaluation, one has another form ({error!r})") from error
    return "\n".join(lines)


def line(result: dict[str, Any]) -> str:
    """Returns the result as one line of JSON for scripts, without settings and long lists."""
    kept = {name: value for name, value in result.items() if name not in ("embeddings", "features")}
    kept["features"] = {
        name: {key: value for key, value in found.items() if key not in ("unit", "says")}
        for name, found in result["features"].items()
    }
    if result["memorisation"]:
        kept["memorisation"] = {k: v for k, v in result["memorisation"].items() if not isinstance(v, list)}
    return json.dumps(kept, allow_nan=False)


def _value(result: dict[str, Any], dotted: str) -> Any:
    value: Any = result
    for part in dotted.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _differences(name: str, first: Any, second: Any) -> list[str]:
    if isinstance(first, dict) and isinstance(second, dict):
        parts = sorted(first.keys() | second.keys())
        return [line for part in parts for line in _differences(f"{name}.{part}", first.get(part), second.get(part))]
    return [] if first == second else [f"{name}: {_short(first)} and {_short(second)}"]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 80 else text[:77] + "..."
