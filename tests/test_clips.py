"""Cutting, levels and splits, against scipy in float64 and brute force."""

import collections
import math

import numpy as np
import pytest
import scipy.signal

from data_prep import clips


def bs1770_energies(samples, rate, sub_block):
    """Mean squares of the whole sub-blocks of K-weighted audio, summed over channels: float64, with scipy's filter."""
    filtered = scipy.signal.sosfilt(clips.k_weighting(rate), samples.astype(np.float64), axis=0)
    ends = [round(index * sub_block) for index in range(int(len(samples) / sub_block) + 1)]
    return np.array([(filtered[a:b] ** 2).sum() / (b - a) for a, b in zip(ends[:-1], ends[1:], strict=True)])


def bs1770_loudness(energies):
    """Gated loudness, as BS.1770 words it."""
    blocks = np.array([energies[index : index + 4].mean() for index in range(len(energies) - 3)])
    lufs = -0.691 + 10 * np.log10(blocks + 1e-30)
    gated = blocks[lufs > -70]
    threshold = -0.691 + 10 * np.log10(gated.mean()) - 10
    return -0.691 + 10 * np.log10(blocks[(lufs > -70) & (lufs > threshold)].mean())


def measure(samples, rate, block=12345):
    meter = clips.LoudnessMeter(rate, samples.shape[1])
    for start in range(0, len(samples), block):
        meter.add(samples[start : start + block])
    return meter.energies()


def test_k_weighting_is_the_standards_at_48_khz():
    # ITU-R BS.1770-5, annex 1, tables 1 and 2.
    shelf = [1.53512485958697, -2.69169618940638, 1.19839281085285, 1, -1.69065929318241, 0.73248077421585]
    high_pass = [1, -2, 1, 1, -1.99004745483398, 0.99007225036621]
    np.testing.assert_allclose(clips.k_weighting(48000), [shelf, high_pass], atol=1e-9)


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 44100, 48000, 96000])
@pytest.mark.parametrize("channels", [1, 2])
def test_meter_is_the_filter_in_float64(rate, channels):
    rng = np.random.default_rng(rate)
    t = np.arange(rate * 7) / rate
    samples = 0.05 * rng.standard_normal((len(t), channels)) + 0.5 * np.sin(2 * np.pi * 45 * t)[:, None]
    samples[3 * rate : 4 * rate] *= 1e-3
    samples = samples.astype(np.float32)
    got, want = measure(samples, rate), bs1770_energies(samples, rate, clips.sub_block_samples(rate))
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=2e-4, atol=1e-9)
    assert abs(clips.gated_loudness(got) - bs1770_loudness(want)) < 0.005
    exact = bs1770_loudness(bs1770_energies(samples, rate, rate / 10))  # by then another block passes the gate, or not
    assert abs(clips.gated_loudness(got) - exact) < 0.1
    np.testing.assert_allclose(measure(samples, rate, block=10**7), got, rtol=1e-6)


@pytest.mark.parametrize("channels,lufs", [(1, -3.01), (2, 0.0)])
def test_a_full_scale_997_hz_sine(channels, lufs):
    # BS.1770: 0 dBFS at 997 Hz in one front channel reads -3.01; two such channels double the energy.
    sine = np.sin(2 * np.pi * 997 * np.arange(48000 * 5) / 48000).astype(np.float32)
    assert abs(clips.gated_loudness(measure(np.stack([sine] * channels, axis=1), 48000)) - lufs) < 0.01


def test_gating_leaves_out_what_is_quiet():
    sine = np.sin(2 * np.pi * 997 * np.arange(48000 * 5) / 48000).astype(np.float32)[:, None]
    loud = clips.gated_loudness(measure(0.1 * sine, 48000))
    quiet_too = clips.gated_loudness(measure(np.concatenate([0.1 * sine, 0.01 * sine, 0 * sine]), 48000))
    assert abs(quiet_too - loud) < 0.3  # the blocks on the border count
    assert clips.gated_loudness(measure(0 * sine, 48000)) == -math.inf
    assert clips.gated_loudness(measure(1e-5 * sine, 48000)) == -math.inf
    assert clips.gated_loudness(measure(sine[:100], 48000)) == -math.inf


def test_clip_loudness_is_of_its_own_stretch():
    sine = np.sin(2 * np.pi * 997 * np.arange(48000) / 48000).astype(np.float32)[:, None]
    energies = measure(np.concatenate([gain * sine for gain in (1.0, 0.1, 0.01)]), 48000)
    for index, lufs in enumerate((-3.01, -23.01, -43.01)):
        # From within the second: the filter rings on from the louder one before it.
        got = clips.clip_loudness(energies, index * 48000 + 14400, 28800, 48000)
        assert abs(got - lufs) < 0.05


def test_clips_and_pieces_by_brute_force():
    rng = np.random.default_rng(0)
    for _ in range(300):
        samples, clip, stride, longest = rng.integers(1, [400, 60, 80, 50])
        starts = [start for start in range(0, samples, stride) if start + clip <= samples]
        assert clips.count_clips(samples, clip, stride) == len(starts)
        if starts:
            bounds = clips.piece_bounds(len(starts), clip, stride, longest).tolist()
            assert bounds[0] == 0 and bounds[-1] == starts[-1] + clip
            assert all(0 < b - a <= longest for a, b in zip(bounds[:-1], bounds[1:], strict=True))
            assert {edge for start in starts for edge in (start, start + clip)} <= set(bounds)


def test_gain():
    assert clips.track_gain("none", 0.1, -20, None) == (1.0, False)
    assert clips.track_gain("peak", 4.0, -20, None).factor * 4 * 32768 == pytest.approx(32767)
    quieter = clips.track_gain("loudness", 0.9, -8, -14)
    assert quieter.factor == pytest.approx(10 ** (-6 / 20)) and not quieter.limited
    louder = clips.track_gain("loudness", 0.9, -20, -14)  # 6 dB are asked for, 0.9 dB are there
    assert louder.factor * 0.9 == pytest.approx(clips.FULL_SCALE) and louder.limited
    assert clips.track_gain("loudness", 0.5, -math.inf, -14).limited
    with pytest.raises(ValueError, match="expected peak, loudness or none, got 'rms'"):
        clips.track_gain("rms", 1, 0, None)


def test_split_counts():
    assert clips.split_counts(100, (0.8, 0.1, 0.1)) == [80, 10, 10]
    assert clips.split_counts(3, (0.8, 0.1, 0.1)) == [1, 1, 1]
    assert clips.split_counts(2, (0.8, 0.1, 0.1)) == [1, 1, 0]
    assert clips.split_counts(5, (0.8, 0.1, 0.1)) == [3, 1, 1]
    assert clips.split_counts(5, (1, 0, 0)) == [5, 0, 0]
    assert clips.split_counts(1, (0, 0.5, 0.5)) == [0, 1, 0]
    rng = np.random.default_rng(0)
    for _ in range(300):
        shares = rng.dirichlet((1, 1, 1)) * rng.integers(0, 2, 3)
        if not shares.sum():
            continue
        shares /= shares.sum()
        tracks = int(rng.integers(0, 200))
        counts = clips.split_counts(tracks, shares)
        assert sum(counts) == tracks and min(counts) >= 0
        assert all(not count for count, share in zip(counts, shares, strict=True) if not share)
        if tracks >= 3:
            assert all(count for count, share in zip(counts, shares, strict=True) if share)
            assert max(abs(count - tracks * share) for count, share in zip(counts, shares, strict=True)) < 3


def test_assignment_spreads_labels_and_ignores_names_and_order():
    rng = np.random.default_rng(0)
    hashes = [rng.bytes(8).hex() for _ in range(200)]
    labels = ["acid"] * 150 + ["industrial"] * 50
    splits = clips.assign_splits(hashes, labels, (0.8, 0.1, 0.1), 0)
    assert collections.Counter(splits) == {0: 160, 1: 20, 2: 20}
    assert collections.Counter(splits[150:])[0] in range(38, 43)
    order = rng.permutation(200)
    again = clips.assign_splits([hashes[i] for i in order], [labels[i] for i in order], (0.8, 0.1, 0.1), 0)
    assert again == [splits[i] for i in order]
    assert clips.assign_splits(hashes, labels, (0.8, 0.1, 0.1), 1) != splits


def test_the_same_audio_falls_on_the_same_side():
    rng = np.random.default_rng(0)
    for seed in range(50):
        different = [rng.bytes(8).hex() for _ in range(int(rng.integers(1, 30)))]
        hashes = different + [different[index] for index in rng.integers(0, len(different), 40)]
        labels = [str(label) for label in rng.integers(0, 3, len(hashes))]
        splits = clips.assign_splits(hashes, labels, (0.6, 0.2, 0.2), seed)
        sides = collections.defaultdict(set)
        for value, split in zip(hashes, splits, strict=True):
            sides[value].add(split)
        assert all(len(side) == 1 for side in sides.values())
        counts = [list(map(min, sides.values())).count(split) for split in range(3)]
        assert counts == clips.split_counts(len(different), (0.6, 0.2, 0.2))
