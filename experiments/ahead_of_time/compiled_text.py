"""What the text of a compiled program says: cycles, kernels, bytes, collectives.

XLA's own `cost_analysis` counts the body of a loop once; here it counts as often as it runs. All
figures are estimates: nothing was run.
"""

from __future__ import annotations

import collections
import math
import re
from typing import Any

_BYTES = {"pred": 1, "bf16": 2, "f16": 2} | {
    f"{kind}{bits}": bits // 8 for kind in "sufc" for bits in (8, 16, 32, 64, 128)
}
_SHAPE = re.compile(r"\b([a-z]+\d+|pred)\[([\d,]*)\](?:\{([^}]*)\})?")
_COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all")
# Instructions that move nothing, or whose time is that of others.
_FREE = (
    "parameter constant tuple get-tuple-element bitcast after-all partition-id replica-id iota while conditional call"
).split()
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (\([^=]*?\)|\S+) ([a-z][\w\-]*)\((.*)$")


class Program:
    """The instructions of a compiled program, as `compiled.as_text()` writes them."""

    def __init__(self, text: str):
        self._computations, self._entry, name = {}, None, None
        for line in re.sub(r"/\*.*?\*/", "", text).splitlines():
            head = re.match(r"^(ENTRY )?%?([\w.\-]+) .*\{\s*$", line)
            if head:
                name = head[2]
                self._computations[name] = []
                self._entry = name if head[1] else self._entry
            elif found := _INSTRUCTION.match(line):
                self._computations[name].append((*found.groups(), line))

    def run_order(self, computation: str | None = None, times: int = 1):
        """Yields (times, name, shape, opcode, line, shapes by name) of all that is launched."""
        instructions = self._computations.get(computation or self._entry, [])
        shapes = {name: shape for name, shape, *_ in instructions}
        for name, shape, opcode, _, line in instructions:
            if opcode == "while":
                condition, body = (re.search(rf"{key}=%?([\w.\-]+)", line)[1] for key in ("condition", "body"))
                yield from self.run_order(body, times * self._trips(line, condition))
            elif opcode in ("conditional", "call"):
                for called in re.findall(r"(?:to_apply|true_computation|false_computation)=%?([\w.\-]+)", line):
                    yield from self.run_order(called, times)
            if opcode not in _FREE and not opcode.endswith("-done"):
                yield times, name, shape, opcode, line, shapes

    def _trips(self, line: str, condition: str) -> int:
        """How often the body of a loop runs."""
        known = re.search(r"known_trip_count[^\d]*(\d+)", line)
        texts = [known[1]] if known else []
        for *_, of_condition in self._computations.get(condition, []):
            texts += re.findall(r"constant\((\d+)\)", of_condition)
        return int(texts[0]) if texts else 1

    def summarize(self) -> dict[str, Any]:
        """Returns kernels, bytes, cycles (of a TPU) and collectives of one run of the program."""
        kernels = moved = cycles = 0
        opcodes = collections.Counter()
        collectives = collections.defaultdict(lambda: [0, 0])
        for times, _, shape, opcode, line, shapes in self.run_order():
            kernels += times
            opcodes[opcode] += times
            moved += times * (count_bytes(shape) + self._count_operands(line, shapes))
            if found := re.search(r'"estimated_cycles":"(\d{1,12})"', line):
                cycles += times * int(found[1])
            if (kind := opcode.removesuffix("-start")) in _COLLECTIVES:
                size = count_bytes(shape, whole=True)
                collectives[kind][0] += times
                collectives[kind][1] += times * (size // 2 if shape.startswith("((") else size)
        return {
            "kernels": kernels,
            "opcodes": dict(opcodes.most_common(8)),
            "bytes": moved,
            "cycles": cycles,
            "collectives": {kind: {"count": count, "bytes": size} for kind, (count, size) in collectives.items()},
        }

    @staticmethod
    def _count_operands(line: str, shapes: dict[str, str]) -> int:
        inside = line.split("(", 1)[1].split("), ")[0]
        return sum(count_bytes(shapes[name]) for name in set(re.findall(r"%([\w.\-]+)", inside)) if name in shapes)


def count_bytes(shape: str, whole: bool = False) -> int:
    """Returns the bytes of a shape such as "(f32[8,4]{1,0}, s32[])".

    Args:
        shape: an array or a tuple of them.
        whole: whether to count arrays in a TPU's on-chip memory too.
    """
    return sum(
        _BYTES.get(kind, 0) * math.prod(int(length) for length in lengths.split(",") if length)
        for kind, lengths, layout in _SHAPE.findall(shape)
        if whole or "S(1)" not in layout
    )
