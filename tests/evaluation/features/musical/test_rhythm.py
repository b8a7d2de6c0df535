"""Rhythm features of loops of known tempo, beats and faults."""

import math

import numpy as np
import pytest
import scipy.signal
from helpers.techno_clips import RATE, four_to_the_floor, noise, sine

from technogen_jax.evaluation.features import musical


def rearranged(audio, pieces, order, shifts_s=None):
    """The loop's equal pieces in another order, or each moved by so much, with cross-fades of 5 ms."""
    edges = np.round(np.linspace(0, len(audio), pieces + 1)).astype(int)
    fade = round(0.005 * RATE)
    out = np.zeros_like(audio)
    for index, source in enumerate(order):
        length = edges[index + 1] - edges[index]
        shift = round(shifts_s[index] * RATE) if shifts_s is not None else 0
        places = np.arange(-fade, length)
        window = np.minimum(1, np.minimum(np.arange(length + fade) / fade, np.arange(length + fade)[::-1] / fade))
        taken = audio[(edges[source] + places - shift) % len(audio)]
        np.add.at(out, (edges[index] + places) % len(audio), taken * window[:, None])
    return out


def phase_randomised(audio, seed=0):
    spectrum = scipy.signal.stft(audio[:, 0], nperseg=1024)[2]
    spectrum = np.abs(spectrum) * np.exp(2j * np.pi * np.random.default_rng(seed).random(spectrum.shape))
    return scipy.signal.istft(spectrum, nperseg=1024)[1][: len(audio), None]


def test_beat_periodic_energy_ratio_has_closed_form_values():
    def impulses(hits, periods=8):
        envelope = np.zeros(48 * periods)
        envelope[(np.asarray(hits) * 48 * periods).astype(int)] = 1
        return envelope

    beats = np.arange(8) / 8
    ratio = musical.beat_periodic_energy_ratio
    assert ratio(impulses(beats), 8) == pytest.approx(1)
    assert ratio(impulses(np.delete(beats, 3)), 8) == pytest.approx(6 / 7)
    assert ratio(impulses(beats[::2]), 8) == pytest.approx(3 / 7)
    assert ratio(impulses(beats[::2]), 4) == pytest.approx(1)
    assert ratio(impulses(np.arange(32) / 32), 8) == ratio(impulses(np.arange(32) / 32), 32) == pytest.approx(1)
    rng = np.random.default_rng(0)
    assert np.mean([ratio(rng.standard_normal(384), 8) for _ in range(500)]) == pytest.approx(0, abs=0.01)
    assert ratio(np.full(384, 0.1), 8) is None
    with pytest.raises(ValueError, match="got 1 periods"):
        ratio(np.zeros(48), 1)


@pytest.mark.parametrize("loop", [False, True])
@pytest.mark.parametrize("beats", [4, 7, 8, 16])
def test_tempo_of_four_to_the_floor(beats, loop):
    for index, bpm in enumerate((125, 128, 132, 137.5, 140, 145, 150)):
        rate = (16000, 44100)[index % 2]
        values = musical.measure(four_to_the_floor(bpm, beats, rate, seed=index), rate, loop=loop)
        assert abs(values["tempo_bpm"] - bpm) <= 0.2 + 1e-9
        assert values["tempo_bars"] == pytest.approx(beats / 4, abs=0.01)


def test_speed_scales_the_tempo():
    loop = four_to_the_floor(130)
    for factor in (1.005, 1.02, 1.05, 1.1):
        faster = scipy.signal.resample(loop, round(len(loop) / factor))
        assert musical.measure(faster, RATE)["tempo_bpm"] == pytest.approx(130 * factor, abs=0.3)


def test_an_excerpt_has_the_features_of_its_loop():
    loop = four_to_the_floor(128, 16)
    whole = musical.measure(loop, RATE, beats=16, loop=True)
    cut = musical.measure(loop[5000 : 5000 + 5 * RATE], RATE)  # begins and ends anywhere: 10.7 beats
    assert cut["tempo_bpm"] == pytest.approx(128, abs=0.2)
    assert cut["bar_repetition"] > 0.9 and cut["kick_similarity"] > 0.95
    for band in musical.BANDS_HZ:
        for periods in ("beat", "sixteenth"):
            name = f"{periods}_regularity_{band}"
            assert cut[name] == pytest.approx(whole[name], abs=0.06)
    rolled = musical.measure(np.roll(loop, 3000, axis=0), RATE, beats=16, loop=True)
    assert rolled["beat_regularity_low"] == pytest.approx(whole["beat_regularity_low"], abs=1e-3)


def test_a_second_at_16_khz_has_two_beats():
    values = musical.measure(four_to_the_floor(128, 4)[:RATE], RATE)
    assert values["tempo_bpm"] == pytest.approx(128, abs=3) and 0.5 < values["tempo_bars"] < 0.6
    assert values["beat_regularity_low"] > 0.8 and values["kick_similarity"] > 0.85
    assert values["bar_repetition"] is None
    values = musical.measure(four_to_the_floor(128, 4)[: RATE // 2], RATE)
    assert values["tempo_bpm"] is values["pulse_clarity"] is values["kick_similarity"] is None
    assert values["loudness_lufs"] is not None and values["sub_ratio_db"] is not None


RHYTHM = ["beat_regularity_low", "pulse_clarity", "kick_similarity", "bar_repetition"]


def rhythm(audio):
    return {name: value for name, value in musical.measure(audio, RATE, beats=8, loop=True).items() if name in RHYTHM}


def test_shuffling_lowers_regularity_and_repetition():
    loop = four_to_the_floor()
    whole = rhythm(loop)
    assert whole["beat_regularity_low"] > 0.9 and whole["kick_similarity"] > 0.95 and whole["bar_repetition"] > 0.95
    assert rhythm(rearranged(loop, 2, [1, 0])) == pytest.approx(whole, rel=0.01)
    order = np.random.default_rng(3).permutation(32)
    assert rhythm(rearranged(loop, 32, order))["beat_regularity_low"] < 0.1
    assert rhythm(rearranged(loop, 32, order))["bar_repetition"] < 0.3


def test_jitter_lowers_regularity():
    loop = four_to_the_floor()
    rng = np.random.default_rng(0)
    shifts = rng.uniform(-1, 1, 8)
    found = [rhythm(rearranged(loop, 8, range(8), shifts * jitter_s)) for jitter_s in (0, 0.005, 0.015, 0.04)]
    for name in ("beat_regularity_low", "kick_similarity", "pulse_clarity"):
        values = [values[name] for values in found]
        assert values == sorted(values, reverse=True) and values[-1] < 0.75 * values[0], (name, values)


def test_random_phases_lower_kick_similarity():
    loop = four_to_the_floor()
    assert rhythm(loop + noise(8 * 60 / 132)[: len(loop)] * 0.3)["kick_similarity"] > 0.95
    random = phase_randomised(loop)
    assert rhythm(random)["kick_similarity"] < 0.2
    assert rhythm(random)["beat_regularity_low"] > 0.3  # the rhythm is still there
    assert (
        musical.ltas_distance(musical.ltas_db(loop, RATE, loop=True), musical.ltas_db(random, RATE, loop=True))[0] < 6
    )


def test_onset_pattern_has_peaks_at_the_onsets():
    silence, hits = noise(8 * 60 / 120) * 1e-3, {0: 60, 6: 60, 3: 800, 11: 800, 4: 6500, 14: 6500}
    t = np.arange(round(0.06 * RATE)) / RATE
    for step, hz in hits.items():
        for bar in (0, 16):
            start = (step + bar) * RATE // 8
            silence[start : start + len(t), 0] += 0.5 * np.sin(2 * np.pi * hz * t) * np.exp(-t / 0.02)
    pattern = musical.describe(silence, RATE, beats=8, loop=True).onset_pattern
    assert pattern.shape == (musical.STEPS, 3)
    for band, steps in enumerate([{0, 6}, {3, 11}, {4, 14}]):
        assert set(np.argsort(pattern[:, band])[-2:].tolist()) == steps
    assert musical.pattern_correlation(pattern, 3 * pattern + 1) == pytest.approx(1)
    assert musical.pattern_correlation(pattern, np.roll(pattern, 1, axis=0)) < 0.3
    assert musical.pattern_correlation(pattern, np.ones((16, 3))) is None
    flat = [(p - p.mean(axis=0)).ravel() for p in (pattern, pattern[::-1])]
    assert musical.pattern_correlation(pattern, pattern[::-1]) == pytest.approx(np.corrcoef(*flat)[0, 1])
    assert musical.describe(silence[: RATE // 2], RATE).onset_pattern is None
    assert musical.describe(0 * silence, RATE, beats=8).onset_pattern is None


def test_seam_of_a_sine_and_of_a_cut_sine():
    whole = musical.measure(sine(200, 2), RATE, beats=4, loop=True)["seam_db"]
    # The wrap is a zero crossing, and 3 samples to its sides are not yet the crest that 5 ms hold.
    assert whole == pytest.approx(20 * math.log10(math.sin(3 * 2 * math.pi * 200 / RATE)), abs=1e-6)
    quarter = sine(200, 2)[: 2 * RATE - RATE // 800]  # three quarters of its last cycle
    assert musical.measure(quarter, RATE, beats=4, loop=True)["seam_db"] > 30
    assert musical.measure(quarter, RATE, beats=4)["seam_db"] is None


def test_seam_is_high_for_loops_with_a_missing_tail():
    good, rolled, cut = [], [], []
    for seed in range(12):
        loop = four_to_the_floor(125 + 2 * seed, seed=seed)
        rng = np.random.default_rng(seed)
        short = loop[: -int(rng.uniform(0.012, 0.19) * RATE)]
        roll = np.roll(loop, int(rng.integers(len(loop))), axis=0)
        for found, audio in ((good, loop), (rolled, roll), (cut, short)):
            found.append(musical.measure(audio, RATE, beats=8, loop=True)["seam_db"])
    assert np.percentile(good, 90) <= 1 and np.percentile(rolled, 90) <= 1
    assert np.median(cut) >= 3
