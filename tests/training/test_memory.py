import types

import pytest

from technogen_jax.training import memory
from technogen_jax.training.errors import TrainError


def program(fixed, rest):
    sizes = types.SimpleNamespace(argument_size_in_bytes=fixed, temp_size_in_bytes=rest)
    return types.SimpleNamespace(memory_analysis=lambda: sizes)


@pytest.mark.parametrize(
    ("fixed", "rest", "advice"),
    [(1e9, 8e9, None), (1e9, 90e9, "try config.train.batch_size=32$"), (1e9, 5e12, "lower config.model.channels$"),
     (11e9, 1e9, "lower config.model.channels$")],
)  # fmt: skip
def test_a_step_that_does_not_fit_names_a_batch_that_does(tiny_config, monkeypatch, fixed, rest, advice):
    monkeypatch.setattr(memory, "read_memory_bytes", lambda: 10e9)
    tiny_config.train.batch_size = 400
    if advice is None:
        memory.check_step_fits(tiny_config, program(fixed, rest))
        return
    with pytest.raises(TrainError, match=f"^config.train.batch_size: a step with 400 clips needs .* 10 GB; {advice}"):
        memory.check_step_fits(tiny_config, program(fixed, rest))


def test_the_limit_of_a_container_counts(monkeypatch, tmp_path):
    whole = memory.read_memory_bytes()
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "other").write_text("max\n")
    limits = [tmp_path / "memory.max", tmp_path / "other", tmp_path / "missing"]
    monkeypatch.setattr(memory, "_CONTAINER_LIMITS", limits[1:])
    assert memory.read_memory_bytes() >= whole
    monkeypatch.setattr(memory, "_CONTAINER_LIMITS", limits)
    assert memory.read_memory_bytes() == 1_000_000
