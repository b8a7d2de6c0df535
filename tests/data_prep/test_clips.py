"""Cutting, levels and splits, against brute force."""

import collections
import math

import numpy as np
import pytest

from data_prep import clips


def test_count_clips_and_piece_bounds_match_brute_force():
    rng = np.random.default_rng(0)
    for _ in range(300):
        samples, clip, stride, longest = rng.integers(1, [400, 60, 80, 50])
        starts = [start for start in range(0, samples, stride) if start + clip <= samples]
        assert clips.count_clips(samples, clip, stride) == len(starts)
        if starts:
            bounds = clips.piece_bounds(starts, clip, longest).tolist()
            assert bounds[0] == 0 and bounds[-1] == starts[-1] + clip
            assert all(0 < b - a <= longest for a, b in zip(bounds[:-1], bounds[1:], strict=True))
            assert {edge for start in starts for edge in (start, start + clip)} <= set(bounds)


def test_track_gain_normalises_and_never_clips():
    assert clips.track_gain("none", 0.1, -20, None) == (1.0, False)
    assert clips.track_gain("peak", 4.0, -20, None).factor * 4 * 32768 == pytest.approx(32767)
    quieter = clips.track_gain("loudness", 0.9, -8, -14)
    assert quieter.factor == pytest.approx(10 ** (-6 / 20)) and not quieter.limited
    louder = clips.track_gain("loudness", 0.9, -20, -14)  # 6 dB are asked for, 0.9 dB are there
    assert louder.factor * 0.9 == pytest.approx(clips.FULL_SCALE) and louder.limited
    assert clips.track_gain("loudness", 0.5, -math.inf, -14).limited
    with pytest.raises(ValueError, match="expected peak, loudness or none, got 'rms'"):
        clips.track_gain("rms", 1, 0, None)


def test_split_counts_round_by_largest_remainder():
    assert clips.split_counts(100, (0.8, 0.1, 0.1)) == [80, 10, 10]
    assert clips.split_counts(10, (0.8, 0.1, 0.1)) == [8, 1, 1]
    assert clips.split_counts(4, (0.5, 0.25, 0.25)) == [2, 1, 1]
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
        if tracks >= clips.FEW_TRACKS:
            assert all(count for count, share in zip(counts, shares, strict=True) if share)
        if tracks >= 3:
            assert max(abs(count - tracks * share) for count, share in zip(counts, shares, strict=True)) < 3


def test_assign_splits_distributes_labels_and_ignores_order():
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


def test_assign_splits_keeps_equal_audio_in_one_split():
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


def test_of_few_tracks_at_most_one_is_held_out():
    for tracks in range(1, clips.FEW_TRACKS):
        train, valid, test = clips.split_counts(tracks, (0.8, 0.1, 0.1))
        assert train >= tracks - 1 and train > 0 and valid + test <= 1
    assert clips.split_counts(3, (0.8, 0.1, 0.1)) == [3, 0, 0]
    assert clips.split_counts(5, (0.8, 0.1, 0.1)) == [4, 1, 0]
