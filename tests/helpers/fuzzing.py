"""How hard property tests try: the same hundred inputs in every run of the suite, FUZZ_INPUTS new ones where that is set."""

import os

from hypothesis import HealthCheck, settings

_INPUTS = int(os.environ.get("FUZZ_INPUTS", 0))
fuzzed = settings(
    max_examples=_INPUTS or 100,
    derandomize=not _INPUTS,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
