import numpy as np
import pytest
from helpers import building, codecs
from helpers.bars import PARTS, SMALL, TONES

from technogen_jax.models.technogan.layout import BeatGrid, CodeLayout, group_members

ORDER = ("mid", "side", "low", "pitch", "partials", "side_partials", "pan")


@pytest.mark.parametrize(
    "channels, shaper, missing",
    [(2, "new", ()), (2, "none", ORDER[3:6]), (1, "new", ("side", "side_partials", "pan"))],
)
def test_plan_lays_the_existing_parts_end_to_end(channels, shaper, missing):
    fields = SMALL | PARTS | TONES | dict(audio_channels=channels, shaper=shaper)
    layout = CodeLayout.plan(*building.configs("technogan", **fields))
    assert [name for name, _ in layout.items()] == [name for name in ORDER if name not in missing]
    code = np.arange(layout.size)
    np.testing.assert_array_equal(np.concatenate([part.take(code) for _, part in layout.items()]), code)
    assert (layout.mid.size, layout.mid.features, layout.low.size) == (12, 4 * 16, 10)


def test_grid_of_several_clips_is_the_same_grid_over_more_bars():
    config, audio = building.configs("technogan", **SMALL | PARTS)
    one, three = (BeatGrid.of_clips(config, audio, clips) for clips in (1, 3))
    assert one == codecs.GRID
    assert (three.bars, three.samples) == (3, 3 * one.samples)
    same = ("hop_length", "n_fft", "step_samples", "low_samples", "rate_hz", "low_rate_hz")
    assert all(getattr(one, name) == getattr(three, name) for name in same)


def test_group_members_puts_each_element_into_one_of_equal_groups():
    members = group_members(20, 8)
    np.testing.assert_array_equal(members.sum(0), 1)
    assert set(members.sum(1)) == {2, 3}


def test_split_returns_what_each_part_takes():
    layout = codecs.tonal()[0].layout
    code = np.random.default_rng(0).normal(size=(2, 16, layout.size)).astype(np.float32)
    parts = layout.split(code)
    for name, part in layout.items():
        np.testing.assert_array_equal(getattr(parts, name), part.take(code))
