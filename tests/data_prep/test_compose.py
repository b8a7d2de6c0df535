import pytest

from data_prep.corpus import compose, drums


def test_compose_depends_only_on_seed_and_index():
    one, same = compose.compose(3, 5), compose.compose(3, 5)
    assert one.parameters == same.parameters and one.parts == same.parts and one.bpm == same.bpm
    for other in (compose.compose(4, 5), compose.compose(3, 7)):
        assert other.parameters != one.parameters


def test_compose_keeps_tempo_length_and_parts_in_range():
    tracks = [compose.compose(0, index) for index in range(200)]
    assert [track.genre for track in tracks[:4]] == ["acid", "industrial", "acid", "industrial"]
    assert all(60 <= track.seconds <= 180 for track in tracks)
    assert min(track.seconds for track in tracks) < 75 and max(track.seconds for track in tracks) > 165
    assert all(125 <= track.bpm <= 150 for track in tracks)
    assert all(0 <= track.first_downbeat_s <= 0.5 for track in tracks)
    assert len({track.bpm for track in tracks}) > 15
    integers = sum(track.bpm.is_integer() for track in tracks)
    assert 100 < integers < 195
    for track in tracks:
        names = [part.name for part in track.parts]
        assert {"intro", "build", "drop", "break"} <= set(names) and names[0] == "intro"
        ends = [part.start_bar + part.bars for part in track.parts]
        assert [part.start_bar for part in track.parts] == [0, *ends[:-1]]
        assert track.time_s(track.bars) <= track.seconds
        assert track.bars % 4 == 0  # phrases
        for part in track.parts:
            if part.name == "drop":
                assert track.levels["kick"][part.start_bar : part.start_bar + part.bars].all()


@pytest.mark.parametrize("minutes", [(0.2, 0.2), (1.0, 1.0), (0.5, 0.51), (2.0, 10.0)])
def test_compose_accepts_any_range_of_lengths(minutes):
    for index in range(20):
        track = compose.compose(1, index, minutes)
        assert 60 * minutes[0] - 1e-9 <= track.seconds <= 60 * minutes[1] + 1e-9
        assert {"intro", "build", "drop", "break"} <= {part.name for part in track.parts}
        assert track.time_s(track.bars) <= track.seconds


def test_every_kind_of_metal_has_an_instrument():
    assert set(compose._METAL) == set(drums.METAL)
