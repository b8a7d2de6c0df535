"""What the suite tries once, tried long: broken files of other seeds, and inputs made up by the ten thousand.

    python -m experiments.torture [--only zoo|bars|fuzz] [--seeds 5] [--inputs 20000]

`zoo` prepares a folder of broken and odd files beside five good ones, as `tests/test_zoo.py` does, for each seed; `bars`
the same with --grid bars. `fuzz` runs the property tests of records and config fields, with so many inputs for each.
Prints a JSON line for each; the status is 1 if one failed.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any

ROOT = pathlib.Path(__file__).parent.parent
FUZZED = ("test_records.py", "test_fields.py")


def zoo(options: argparse.Namespace, how: str = "HALF_SECONDS") -> dict[str, Any]:
    """Broken and odd files of all seeds, and what became of them."""
    import test_zoo

    found = {"seeds": options.seeds, "kinds": len(test_zoo.zoo.KINDS), "left_out": 0, "tracks": 0}
    for seed in range(1, options.seeds + 1):  # the suite has 0
        with tempfile.TemporaryDirectory() as folder:
            left_out, tracks = test_zoo.check_zoo(pathlib.Path(folder), seed, getattr(test_zoo, how))
        found["left_out"] += left_out
        found["tracks"] += tracks
    return found


def bars(options: argparse.Namespace) -> dict[str, Any]:
    """The same, cut at bars."""
    return zoo(options, "BARS")


def fuzz(options: argparse.Namespace) -> dict[str, Any]:
    """The number of inputs for each property test; a failing one is in pytest's words on stderr."""
    argv = [sys.executable, "-m", "pytest", "-q", "-k", "or_named or goes_or", *(f"tests/{name}" for name in FUZZED)]
    environment = os.environ | {"FUZZ_INPUTS": str(options.inputs)}
    done = subprocess.run(argv, cwd=ROOT, env=environment, stdout=sys.stderr)
    if done.returncode:
        raise AssertionError(f"pytest ended with {done.returncode}; see above")
    return {"inputs_each": options.inputs}


def main() -> int:
    """The command."""
    trials = {function.__name__: function for function in (zoo, bars, fuzz)}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=trials, help="one of the trials (all)")
    parser.add_argument("--seeds", type=int, default=5, help="zoos (5)")
    parser.add_argument("--inputs", type=int, default=20_000, help="inputs for each property test (20000)")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT / "tests"))
    failed = False
    for name in [options.only] if options.only else trials:
        start_s = time.monotonic()
        try:
            result = trials[name](options)
        except (AssertionError, subprocess.TimeoutExpired) as error:
            result, failed = {"failed": str(error)}, True
        print(json.dumps({"torture": name} | result | {"seconds": round(time.monotonic() - start_s, 1)}), flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
