"""The beat grid against the corpus's ground truth, drums at known times, and what has no beat; warping against sines."""

import numpy as np
import pytest
import scipy.signal
from helpers.beats import beat_times, drums

from data_prep.corpus.compose import compose
from data_prep.corpus.render import render
from data_prep.tracks import tempo

RANGE_BPM = (100.0, 180.0)
R = tempo.RATE_HZ


def sections_of(samples):
    meter = tempo.BandEnergyAnalyzer()
    for start in range(0, len(samples), 30_001):
        meter.add(np.asarray(samples[start : start + 30_001], np.float32))
    return tempo.find_sections(meter.energies(), RANGE_BPM)


def errors_s(section, bpm, downbeat_s):
    """How far the section's first and last bar lines are from the nearest true beat, and how many beats from a downbeat."""
    places = (np.array([section.time_s(0), section.time_s(section.bars)]) - downbeat_s) * bpm / 60
    return np.abs(places - np.rint(places)).max() * 60 / bpm, set(np.rint(places).astype(int) % 4)


@pytest.mark.parametrize("index", range(8))
def test_find_sections_on_the_built_in_corpus(index):
    track = compose(31, index, (0.5, 0.7))
    [section], _ = sections_of(render(track, R).mean(axis=1))
    error_s, beats = errors_s(section, track.bpm, track.first_downbeat_s)
    assert abs(section.bpm - track.bpm) < 0.05
    assert error_s < 0.005
    assert beats == {0}
    assert section.bars >= track.bars - 1 and section.start_s < 240 / track.bpm
    assert section.confidence > 0.9


def test_energies_do_not_depend_on_the_block_length():
    samples = np.random.default_rng(0).standard_normal(R).astype(np.float32)
    whole, pieces = tempo.BandEnergyAnalyzer(), tempo.BandEnergyAnalyzer()
    whole.add(samples)
    for piece in np.split(samples, [1, 50, 51, 7000, 7048, 20_011]):
        pieces.add(piece)
    np.testing.assert_array_equal(whole.energies(), pieces.energies())
    low = scipy.signal.sosfilt(scipy.signal.butter(2, (30, 120), "band", fs=R, output="sos"), samples.astype(float))
    width = R // tempo.FRAME_RATE_HZ
    np.testing.assert_allclose(whole.energies()[:, 0], (low.reshape(-1, width) ** 2).mean(axis=1), rtol=1e-4)
    assert tempo.BandEnergyAnalyzer().energies().shape == (0, 6)


@pytest.mark.parametrize("bpm", [103.37, 128.0, 133.33, 149.99, 176.4])
def test_find_sections_measures_tempo_to_a_hundredth_of_a_bpm(bpm):
    [section], best = sections_of(drums(150, R, beat_times(bpm, 150, 0.3)))
    assert abs(section.bpm - bpm) < 0.002
    assert errors_s(section, bpm, 0.3)[0] < 0.002
    assert best == section.confidence > 0.95


def test_find_sections_detects_a_weak_beat_in_a_long_track():
    """As in a dense master: below noise that is a little louder."""
    noise = 0.1 * np.random.default_rng(0).standard_normal(150 * R)
    samples = noise + 0.08 * drums(150, R, beat_times(131, 150, 0.2))
    assert sections_of(samples[: 25 * R])[0] == []
    [section], _ = sections_of(samples)
    assert abs(section.bpm - 131) < 0.01
    assert errors_s(section, 131, 0.2)[0] < 0.005


def test_swing_and_loud_offbeat_hats_do_not_move_the_beat():
    kicks, bpm = beat_times(131, 60, 0.2), 131
    eighth_s = 30 / bpm
    hats = [kicks + 2 * 0.6 * eighth_s * 0.5, kicks + eighth_s, kicks + eighth_s * (1 + 0.6)]
    [section], _ = sections_of(drums(61, R, kicks, np.concatenate([*hats, kicks + eighth_s])))
    assert errors_s(section, bpm, 0.2)[0] < 0.003


def test_a_section_continues_across_a_breakdown():
    kicks = beat_times(138, 120, 0.25)
    kicks = kicks[(kicks < 40) | (kicks > 75)]
    hats = beat_times(138, 120, 0.25) + 30 / 138
    for beside in ((), hats[(hats > 40) & (hats < 75)]):  # nothing plays in it, or hats off the beat
        [section], _ = sections_of(drums(120, R, kicks, beside))
        assert abs(section.bpm - 138) < 0.005
        assert errors_s(section, 138, 0.25)[0] < 0.003
        assert section.bars == 68  # of 68.9 in two minutes: the grid covers all of it


@pytest.mark.parametrize(("bpm", "found"), [(70, 140), (240, 120), (133, 133)])
def test_half_and_double_tempo_are_mapped_into_the_range(bpm, found):
    [section], _ = sections_of(drums(60, R, beat_times(bpm, 60)))
    assert abs(section.bpm - found) < 0.01


def test_bars_begin_where_the_arrangement_changes():
    bpm, first_s = 126, 0.0
    times = beat_times(bpm, 100, first_s)
    for downbeat in range(4):
        # Hats come and go every eight bars, counted from beat number `downbeat`; nothing else tells the beats apart.
        plays = (np.arange(len(times)) - downbeat) // 32 % 2 == 1
        [section], _ = sections_of(drums(100, R, times, times[plays] + 30 / bpm)[round(0.2 * R) :])
        assert errors_s(section, bpm, first_s - 0.2)[1] == {downbeat}
        assert section.downbeat_confidence > 0.5


def test_a_mix_has_a_section_for_each_tempo():
    one, other = beat_times(128, 45), beat_times(141, 60)
    joined = np.concatenate([drums(45, R, one), drums(60, R, other)])
    first, second = sections_of(joined)[0]
    assert abs(first.bpm - 128) < 0.01 and abs(second.bpm - 141) < 0.01
    assert errors_s(first, 128, 0)[0] < 0.003 and errors_s(second, 141, 45)[0] < 0.003
    assert 40 < first.time_s(first.bars) < 46.9 and 42 < second.start_s < 50
    jumped = np.concatenate([drums(45, R, one), drums(60, R, beat_times(128, 60, 0.21))])
    first, second = sections_of(jumped)[0]
    assert errors_s(first, 128, 0)[0] < 0.003 and errors_s(second, 128, 45.21)[0] < 0.003


def syllables(seconds, draw):
    out, at = 0.01 * draw.standard_normal(round(seconds * R)), 0.1
    while at < seconds - 1:
        t = np.arange(round(draw.uniform(0.08, 0.3) * R)) / R
        pitch = draw.uniform(90, 220)
        out[round(at * R) :][: len(t)] += np.hanning(len(t)) * scipy.signal.sawtooth(2 * np.pi * pitch * t)
        at += len(t) / R + (draw.exponential(0.08) if draw.random() < 0.8 else draw.uniform(0.3, 1))
    return out


def pads(seconds, draw):
    t = np.arange(round(seconds * R)) / R
    waves = [
        np.sin(2 * np.pi * f * t) * (1 + np.sin(2 * np.pi * draw.uniform(0.03, 0.3) * t))
        for f in draw.uniform(80, 900, 8)
    ]
    return sum(waves) + 0.05 * draw.standard_normal(len(t))


def accelerating(seconds, first_bpm, last_bpm):
    times = [0.0]
    while times[-1] < seconds:
        times.append(times[-1] + 60 / (first_bpm + (last_bpm - first_bpm) * times[-1] / seconds))
    return drums(seconds, R, times[:-1])


def in_three(seconds):
    times = beat_times(140, seconds)
    return drums(seconds, R, times, kick_levels=np.where(np.arange(len(times)) % 3, 0.35, 1))


NO_BEAT = {
    "silence": lambda draw: np.zeros(60 * R),
    "a constant": lambda draw: np.ones(60 * R),
    "white noise": lambda draw: draw.standard_normal(60 * R),
    "brown noise": lambda draw: scipy.signal.lfilter([1], [1, -0.99], draw.standard_normal(60 * R)),
    "syllables": lambda draw: syllables(60, draw),
    "pads": lambda draw: pads(60, draw),
    "clicks at random": lambda draw: drums(60, R, np.cumsum(draw.exponential(0.25, 200))),
    "accelerating": lambda draw: accelerating(60, 110, 170),
    "slowly accelerating": lambda draw: accelerating(60, 125, 135),
    "in three": lambda draw: in_three(60),
}


@pytest.mark.parametrize("name", NO_BEAT)
def test_audio_without_a_steady_beat_of_four_has_no_sections(name):
    sections, best = sections_of(NO_BEAT[name](np.random.default_rng(5)))
    assert not sections
    assert best < 0.5


@pytest.mark.parametrize("noise", [pads, syllables])
def test_long_audio_without_a_beat_has_no_sections(noise):
    sections, best = sections_of(noise(180, np.random.default_rng(5)))
    assert not sections
    assert best < 0.5


def test_find_sections_handles_short_tracks():
    assert sections_of(np.zeros(0)) == ([], 0.0)
    assert sections_of(drums(2, R, beat_times(130, 2)))[0] == []
    [section], _ = sections_of(drums(960 / 130, R, beat_times(130, 960 / 130)))  # a loop of four bars
    assert section.bars == 4 and abs(section.start_s) < 0.003 and abs(section.bpm - 130) < 0.05
