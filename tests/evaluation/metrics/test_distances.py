import itertools

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
from sklearn.metrics import pairwise

from technogen_jax.evaluation.metrics import distances

METRICS = [distances.rbf_mmd, distances.polynomial_mmd, distances.frechet_distance]


def clips_of(values, tracks=None, prefix="r"):
    values = np.asarray(values, float)
    values = values[:, None] if values.ndim == 1 else values
    tracks = range(len(values)) if tracks is None else tracks
    return distances.embedded(values, [f"{prefix}{track}" for track in tracks], prefix)


def normal(seed, tracks, dims, clips_a_track=1, within=0.1, shift=0.0, prefix="r"):
    """Tracks are normal draws, and the clips of a track lie close together."""
    rng = np.random.default_rng(seed)
    centres = np.repeat(rng.standard_normal((tracks, dims)), clips_a_track, axis=0)
    noise = within * rng.standard_normal(centres.shape) if clips_a_track > 1 else 0
    return clips_of(centres + noise + shift, np.repeat(np.arange(tracks), clips_a_track), prefix)


# Sets


@pytest.mark.parametrize(
    "values, tracks, message",
    [
        (np.eye(3)[0], [1], r"expected values \[n, D\], got shape \(3,\)"),
        (np.zeros((3, 0)), [1, 2, 3], r"expected values \[n, D\]"),
        (np.eye(3), [1, 2], "expected one track id .* each of 3 clips"),
        (np.eye(3), None, "expected one track id"),
        (np.eye(3), [0.1, 0.2, 0.3], "expected one track id .* float64"),
        (np.eye(3), ["a", None, "b"], "expected one track id .* object"),
        (np.eye(3)[:1], [1], "expected clips of at least 2 tracks, got 1 clips of 1"),
        (np.eye(3), [7, 7, 7], "expected clips of at least 2 tracks, got 3 clips of 1"),
        (np.vstack([np.eye(2), [[np.nan, 0]]]), [1, 2, 3], "1 of 3 clips hold NaN or Inf, the first is clip 2"),
        (np.full((3, 2), 0.3), [1, 2, 3], "all 3 clips have the same values"),
    ],
)
def test_what_is_no_set_is_an_error_that_names_it(values, tracks, message):
    with pytest.raises(ValueError, match=f"generated: {message}"):
        distances.embedded(values, tracks, "generated")


@pytest.mark.parametrize("metric", [*METRICS, distances.rbf_mmd_test, distances.prdc, distances.frechet_at_infinity])
def test_tracks_cannot_be_left_out_and_dimensions_must_agree(metric):
    with pytest.raises(TypeError, match="the track of each clip is needed"):
        metric(np.eye(9), np.eye(9))
    with pytest.raises(ValueError, match="got 9 and 8 dimensions"):
        metric(clips_of(np.eye(9)), clips_of(np.eye(8), prefix="g"))


def test_one_a_track_takes_another_clip_with_another_seed():
    clips = clips_of(np.arange(40), np.repeat(np.arange(10), 4))
    drawn = {tuple(distances.one_a_track(clips, seed=seed).values[:, 0]) for seed in range(20)}
    assert len(drawn) > 15
    assert all((np.array(values) // 4 == np.arange(10)).all() for values in drawn)


# MMD


def test_mmd_has_the_values_worked_out_by_hand():
    assert distances.polynomial_mmd(clips_of([0, 1]), clips_of([2, 3])) == 297.5
    by_hand = 2 * np.exp(-1 / 2) - (3 * np.exp(-1 / 8) + np.exp(-9 / 8)) / 2
    assert by_hand == pytest.approx(-0.2730102681308011, abs=1e-15)
    assert distances.rbf_mmd(clips_of([0, 2]), clips_of([1, 3])) == pytest.approx(by_hand, abs=1e-14)
    reference, other = clips_of([(0, 0), (3, 4), (0, 8)]), clips_of([(1, 1), (2, 2)])
    assert distances.rbf_mmd(reference, other) == pytest.approx(0.02247876669623561, abs=1e-14)


def mmd_of_kernels(within_a, within_b, between, tracks_a, tracks_b):
    apart_a = tracks_a[:, None] != tracks_a
    apart_b = tracks_b[:, None] != tracks_b
    return within_a[apart_a].mean() + within_b[apart_b].mean() - 2 * between.mean()


@pytest.mark.parametrize("spread", [1, 2])  # of the other set, on which the kernel's width must not depend
def test_mmd_agrees_with_sklearn_and_skips_pairs_of_one_track(spread, monkeypatch):
    rng = np.random.default_rng(0)
    a = clips_of(rng.standard_normal((17, 6)), rng.integers(0, 5, 17))
    b = clips_of(spread * rng.standard_normal((23, 6)) + 0.5, rng.integers(0, 8, 23), "g")
    gaps = [np.linalg.norm(a.values[i] - a.values[j]) for i in range(17) for j in range(i)]
    gamma = 1 / (2 * np.median(gaps) ** 2)
    pairs = (a.values, a.values), (b.values, b.values), (a.values, b.values)
    rbf = [pairwise.rbf_kernel(x, y, gamma) for x, y in pairs]
    cubic = [pairwise.polynomial_kernel(x, y, degree=3, gamma=1 / 6, coef0=1) for x, y in pairs]
    for chunk in (distances._CHUNK_VALUES, 100):  # all at once, and two clips at a time
        monkeypatch.setattr(distances, "_CHUNK_VALUES", chunk)
        assert distances.rbf_mmd(a, b) == pytest.approx(mmd_of_kernels(*rbf, a.tracks, b.tracks), abs=1e-13)
        assert distances.polynomial_mmd(a, b) == pytest.approx(mmd_of_kernels(*cubic, a.tracks, b.tracks), rel=1e-12)


def test_mmd_is_about_zero_for_one_distribution_and_negative_for_a_set_and_itself():
    a = normal(0, 200, 8)
    same = [distances.rbf_mmd(a, normal(seed, 200, 8)) for seed in range(1, 9)]
    assert min(same) < 0 < max(same) and abs(np.mean(same)) < 2e-3
    assert distances.rbf_mmd(a, a) < 0
    shifted = [distances.rbf_mmd(a, normal(9, 200, 8, shift=shift)) for shift in (0.2, 0.5, 1.0)]
    assert max(same) < shifted[0] < shifted[1] < shifted[2]
    assert distances.rbf_mmd(a, normal(9, 200, 8, within=0, shift=0.5)) != pytest.approx(
        distances.rbf_mmd(normal(9, 200, 8, within=0, shift=0.5), a), rel=1e-3
    )


def test_the_p_value_is_that_of_all_ways_to_deal_the_tracks():
    rng = np.random.default_rng(3)
    sizes = np.array([2, 2, 2, 3, 1, 4, 2])  # of three tracks of the reference and four others
    tracks = np.repeat(np.arange(7), sizes)
    values = rng.standard_normal((len(tracks), 3)) + (tracks[:, None] < 3) * 0.6
    a, b = clips_of(values[tracks < 3], tracks[tracks < 3]), clips_of(values[tracks >= 3], tracks[tracks >= 3], "g")
    gamma = 1 / (2 * np.median(scipy.spatial.distance.pdist(a.values)) ** 2)
    kernel = pairwise.rbf_kernel(values, gamma=gamma)
    everyone = []
    for chosen in itertools.combinations(range(7), 3):
        side = np.isin(tracks, chosen)
        blocks = kernel[side][:, side], kernel[~side][:, ~side], kernel[side][:, ~side]
        everyone.append(mmd_of_kernels(*blocks, tracks[side], tracks[~side]))
    exact = np.mean(np.array(everyone) >= everyone[0] - 1e-12)
    mmd, p, null_95 = distances.rbf_mmd_test(a, b, permutations=4000)
    assert np.mean(np.array(everyone) <= null_95) == pytest.approx(0.95, abs=0.06)
    assert mmd == pytest.approx(everyone[0], abs=1e-13)
    assert 0.1 < exact < 0.9
    assert p == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 4000))


def test_the_smallest_p_value_is_one_of_all_permutations():
    result = distances.rbf_mmd_test(normal(0, 30, 4), normal(1, 30, 4, shift=3, prefix="g"), permutations=99)
    assert result.p == 1 / 100
    with pytest.raises(ValueError, match="at least 1 permutation"):
        distances.rbf_mmd_test(normal(0, 30, 4), normal(1, 30, 4, prefix="g"), permutations=0)
    with pytest.raises(ValueError, match="30 in both"):
        distances.rbf_mmd_test(normal(0, 30, 4), normal(1, 30, 4))


def test_permuted_by_track_the_test_keeps_its_level_and_permuted_by_clip_it_does_not():
    by_track, by_clip = [], []
    for seed in range(200):
        a, b = (normal((seed, side), 15, 6, 4, prefix="rg"[side]) for side in (0, 1))
        by_track.append(distances.rbf_mmd_test(a, b, permutations=99, seed=seed).p)
        # Each clip a track of its own: what a call without tracks would be.
        a, b = clips_of(a.values), clips_of(b.values, prefix="g")
        by_clip.append(distances.rbf_mmd_test(a, b, permutations=99, seed=seed).p)
    assert np.mean(np.array(by_track) <= 0.05) <= 0.09
    assert np.mean(np.array(by_clip) <= 0.05) > 0.5


def test_a_reference_of_copies_has_no_width():
    mostly_same = clips_of(np.vstack([np.zeros((9, 2)), np.ones((1, 2))]))
    with pytest.raises(ValueError, match="most clips have the same values"):
        distances.rbf_mmd(mostly_same, clips_of(np.eye(2)))


# Fréchet distance


def test_frechet_distance_of_gaussians_known_in_closed_form():
    distance = distances.frechet_from_moments
    assert distance([0, 0], np.diag([1, 4]), [1, 2], np.diag([4, 9])) == pytest.approx(7, abs=1e-12)
    two = distance([3, 3], [[2, 1], [1, 2]], [3, 3], [[1, 0], [0, 3]])
    assert two == pytest.approx(8 - 2 * np.sqrt(14), abs=1e-12)
    assert two == pytest.approx(0.516685226452117, abs=1e-12)
    with pytest.raises(ValueError, match="expected two covariance matrices"):
        distance([0], [[-1.0]], [0], [[0.0]])


@pytest.mark.parametrize("n, m, dims", [(40, 60, 5), (9, 12, 30), (50, 8, 20), (2, 2, 3)])
def test_frechet_distance_obeys_its_closed_forms_at_any_rank(n, m, dims):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((n, dims)) + 7, 2 * rng.standard_normal((m, dims)) + 6
    a, b = clips_of(x), clips_of(y)
    trace = x.var(0, ddof=1).sum()
    distance = distances.frechet_distance(a, b)
    assert abs(distances.frechet_distance(a, a)) < 1e-10 * trace
    assert distances.frechet_distance(a, clips_of(x + 2)) == pytest.approx(4 * dims, rel=1e-10)
    scaled = clips_of(3 * (x - x.mean(0)) + x.mean(0))
    assert distances.frechet_distance(a, scaled) == pytest.approx(4 * trace, rel=1e-10)
    turn = np.linalg.qr(rng.standard_normal((dims, dims)))[0]
    assert distances.frechet_distance(clips_of(x @ turn), clips_of(y @ turn)) == pytest.approx(distance, rel=1e-9)
    assert distances.frechet_distance(b, a) == pytest.approx(distance, rel=1e-10)
    moments = x.mean(0), np.cov(x.T), y.mean(0), np.cov(y.T)
    assert distances.frechet_from_moments(*moments) == pytest.approx(distance, rel=1e-6)


def test_frechet_distance_agrees_with_the_matrix_square_root():
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((300, 12)) @ rng.standard_normal((12, 12)), rng.standard_normal((200, 12)) + 1
    root = scipy.linalg.sqrtm(np.cov(x.T) @ np.cov(y.T)).real
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(np.cov(x.T) + np.cov(y.T) - 2 * root)
    assert distances.frechet_distance(clips_of(x), clips_of(y)) == pytest.approx(expected, rel=1e-8)


def test_the_bias_of_the_frechet_distance_follows_its_law():
    law = distances.frechet_bias(np.ones(64), 1000, 1000)
    assert law == pytest.approx((64 + 64 * 65 / 4) / 500, rel=1e-12) == pytest.approx(2.208)
    measured = [distances.frechet_distance(normal(seed, 1000, 64), normal(seed + 50, 1000, 64)) for seed in range(4)]
    assert np.mean(measured) == pytest.approx(law, rel=0.05)
    spectrum = 0.9 ** np.arange(24)
    a, b = (
        [normal(seed, 400, 24).values * np.sqrt(spectrum) for seed in range(start, start + 20)] for start in (0, 20)
    )
    measured = [distances.frechet_distance(clips_of(x), clips_of(y)) for x, y in zip(a, b, strict=True)]
    assert np.mean(measured) == pytest.approx(distances.frechet_bias(spectrum, 400, 400), rel=0.06)
    assert distances.frechet_bias([1, 0, 0], 10, 10) == distances.frechet_bias([1], 10, 10)


def test_the_bias_goes_by_tracks_and_not_by_clips():
    halves = [distances.frechet_distance(normal(seed, 150, 32, 4), normal(seed + 10, 150, 32, 4)) for seed in range(4)]
    by_tracks, by_clips = (distances.frechet_bias(np.ones(32), count, count) for count in (150, 600))
    assert np.mean(halves) == pytest.approx(by_tracks, rel=0.15)
    assert np.mean(halves) > 3 * by_clips


def test_extrapolated_the_bias_goes_unless_clips_are_drawn_with_replacement():
    true = 64 * 0.05**2
    a, b = normal(1, 2000, 64), normal(2, 2000, 64, shift=0.05, prefix="g")
    value, error = distances.frechet_at_infinity(a, b)
    assert 0.11 < value < 0.23
    assert 0.01 < error < 0.1

    rng = np.random.default_rng(0)
    sizes = np.linspace(500, 2000, 15).astype(int)
    drawn = [b.values[rng.integers(0, 2000, size)] for size in sizes]
    plain = [distances.frechet_from_moments(np.zeros(64), np.eye(64), x.mean(0), np.cov(x.T)) for x in drawn]
    with_replacement = np.polynomial.polynomial.polyfit(1 / sizes, plain, 1)[0]
    assert with_replacement > true + 0.35


def test_extrapolated_by_tracks_although_the_clips_of_a_track_are_alike():
    plain, extrapolated, errors = [], [], []
    for seed in range(8):
        a, b = normal(seed, 120, 8, 4), normal(seed + 100, 120, 8, 4, prefix="g")
        plain.append(distances.frechet_distance(a, b))
        value, error = distances.frechet_at_infinity(a, b, seed=seed)
        extrapolated.append(value)
        errors.append(error)
    assert abs(np.mean(extrapolated)) < np.mean(plain) / 5
    assert 0.5 < np.mean(errors) / np.std(extrapolated) < 3
    assert distances.frechet_at_infinity(a, b, seed=1) == distances.frechet_at_infinity(a, b, seed=1)
    with pytest.raises(ValueError, match="at least 20 tracks, got 19"):
        distances.frechet_at_infinity(normal(0, 19, 8, 4), b)


# Precision, recall, density, coverage


@pytest.mark.parametrize("k, expected", [(1, (0.5, 0.75, 1.0, 0.75)), (2, (0.5, 1.0, 0.75, 1.0))])
def test_prdc_has_the_values_worked_out_by_hand(k, expected):
    assert distances.prdc(clips_of([0, 1, 2, 3]), clips_of([0.5, 1.5, 10, 11]), k) == expected


def test_prdc_by_its_definition_in_any_number_of_pieces(monkeypatch):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((31, 3)), 0.7 * rng.standard_normal((23, 3)) + 0.4
    k = 3
    between = np.array([[np.linalg.norm(u - v) for v in x] for u in y])
    x_radius = np.array([sorted(np.linalg.norm(u - v) for v in x)[k] for u in x])
    y_radius = np.array([sorted(np.linalg.norm(u - v) for v in y)[k] for u in y])
    expected = (
        np.mean([any(row < x_radius) for row in between]),
        np.mean([any(column < y_radius) for column in between.T]),
        np.sum(between < x_radius) / (k * 23),
        np.mean(between.min(0) < x_radius),
    )
    for chunk in (distances._CHUNK_VALUES, 70):
        monkeypatch.setattr(distances, "_CHUNK_VALUES", chunk)
        assert distances.prdc(clips_of(x), clips_of(y), k) == pytest.approx(expected, abs=1e-12)


def test_prdc_of_a_set_and_itself_is_exactly_one():
    clips = normal(0, 200, 16)
    assert distances.prdc(clips, clips) == (1, 1, 1, 1)


def test_density_and_coverage_of_one_distribution_are_those_expected():
    def mean_of(m):
        results = [distances.prdc(normal(s, 400, 8), normal(s + 50, m, 8)) for s in range(6)]
        return np.mean([r.density for r in results]), np.mean([r.coverage for r in results])

    for m in (400, 200):
        ranks = np.arange(5)
        expected = 1 - np.prod((399 - ranks) / (399 + m - ranks))
        density, coverage = mean_of(m)
        assert density == pytest.approx(1, abs=0.05)
        assert coverage == pytest.approx(expected, abs=0.015)


def test_collapse_shows_in_coverage_and_recall_and_not_in_precision():
    reference, varied = normal(0, 300, 6), normal(1, 300, 6, prefix="g").values
    rng = np.random.default_rng(2)
    results, worth = [], []
    for modes in (1, 5, 20, 100, 300):
        other = varied[np.arange(300) % modes] + 1e-3 * rng.standard_normal(varied.shape)
        results.append(distances.prdc(reference, clips_of(other)))
        worth.append(distances.vendi_score(other))
    precision, recall, _, coverage = np.array(results).T
    assert (np.diff(coverage) > 0).all() and (np.diff(recall) >= 0).all() and (np.diff(worth) > 0).all()
    assert coverage[0] < 0.1 and coverage[-1] > 0.9 and recall[0] < 0.1 and recall[-1] > 0.9
    assert precision[1:].min() > 0.5


def test_a_dropped_half_shows_in_recall_and_coverage_and_not_in_precision():
    rng = np.random.default_rng(0)
    mode = np.where(rng.random(400) < 0.5, 3, -3)[:, None] * np.eye(4)[0]
    x, y = (rng.standard_normal((400, 4)) + mode for _ in range(2))
    all_modes = distances.prdc(clips_of(x), clips_of(y[:200]))
    dropped = distances.prdc(clips_of(x), clips_of(y[y[:, 0] > 0][:200]))
    assert dropped.precision > 0.9
    assert dropped.recall < 0.65 * all_modes.recall
    assert dropped.coverage < 0.65 * all_modes.coverage


def test_copies_in_the_reference_leave_no_ball_and_are_an_error():
    rng = np.random.default_rng(0)
    copies = np.vstack([np.repeat(rng.standard_normal((1, 3)), 6, axis=0), rng.standard_normal((20, 3))])
    with pytest.raises(ValueError, match="reference: 6 of 26 clips have 5 exact copies"):
        distances.prdc(clips_of(copies), normal(0, 26, 3))
    distances.prdc(clips_of(copies[1:]), normal(0, 25, 3))


def test_a_generator_that_repeats_itself_is_precise_and_covers_little():
    real = normal(0, 200, 3)
    one = distances.embedded(np.repeat(real.values[:1] + 1e-3, 200, axis=0), np.arange(200), "one", may_be_alike=True)
    found = distances.prdc(real, one)
    assert found.precision == 1 and found.recall == 0 and found.coverage < 0.1
    nearly = clips_of(one.values + 1e-9 * np.random.default_rng(1).standard_normal((200, 3)))
    assert distances.prdc(real, nearly).coverage == found.coverage
    with pytest.raises(ValueError, match="the same values"):
        distances.embedded(one.values, one.tracks, "one")


# What holds for all of them


@pytest.mark.parametrize("metric", [*METRICS, distances.prdc])
def test_the_order_of_clips_the_names_of_tracks_and_the_input_type_change_nothing(metric):
    a, b = normal(0, 40, 6, 3), normal(1, 40, 6, 3, shift=0.3, prefix="g")
    a, b = (clips._replace(values=clips.values.astype(np.float32).astype(float)) for clips in (a, b))
    order = np.random.default_rng(0).permutation(120)
    names = np.array([f"{7919 * int(track[1:]) % 1000}" for track in a.tracks])
    expected = metric(a, b)
    assert metric(distances.embedded(a.values[order], a.tracks[order], "r"), b) == pytest.approx(expected, rel=1e-9)
    assert metric(distances.embedded(a.values, names, "r"), b) == pytest.approx(expected, rel=1e-9)
    assert metric(distances.embedded(a.values.astype(np.float32), a.tracks, "r"), b) == pytest.approx(
        expected, rel=1e-9
    )


# One set, and labels


def test_inception_score_has_the_values_worked_out_by_hand():
    assert distances.inception_score([[0.9, 0.1], [0.2, 0.8]])[0] == pytest.approx(1.3170522760436802, abs=1e-14)
    assert distances.inception_score(np.full((6, 4), 1 / 4)) == pytest.approx((1, 0))
    assert distances.inception_score(np.tile(np.eye(5), (3, 1))) == pytest.approx((5, 0))
    assert distances.inception_score(np.eye(5)[[2, 2, 2]]) == (1, 0)
    parts = np.vstack([np.tile(np.eye(2), (2, 1)), np.eye(2)[[0] * 4]])
    assert distances.inception_score(parts, splits=2) == pytest.approx((1.5, 0.5))
    for bad in ([[0.5, 0.6]], [[1.5, -0.5]], [[np.nan, 1]], [0.5, 0.5]):
        with pytest.raises(ValueError, match="rows sum to 1"):
            distances.inception_score(bad)
    with pytest.raises(ValueError, match="1 to 2 splits"):
        distances.inception_score(np.eye(2), splits=3)


def test_vendi_score_counts_right_angles():
    assert distances.vendi_score(3 * np.eye(5)) == pytest.approx(5)
    assert distances.vendi_score(np.ones((7, 3))) == pytest.approx(1)
    x = np.random.default_rng(0).standard_normal((30, 4))
    eigenvalues = np.linalg.eigvalsh(pairwise.cosine_similarity(x) / 30)
    expected = np.exp(scipy.stats.entropy(eigenvalues[eigenvalues > 1e-12]))
    assert distances.vendi_score(x) == pytest.approx(expected, rel=1e-10)
    with pytest.raises(ValueError, match="drop silent clips"):
        distances.vendi_score(np.eye(3)[:2, :2] * [[1], [0]])


def test_clusters_filled_differently_are_counted():
    assert distances.proportions_z(0.5, 100, 0.4, 100) == pytest.approx(1.4213381090374024, abs=1e-14)
    jitter = np.random.default_rng(0).random(100)
    reference, other = clips_of(np.repeat([0, 10], 50) + jitter), clips_of(np.repeat([0, 10], [90, 10]) + jitter)
    result = distances.ndb(reference, other, clusters=2)
    assert result[:2] == (2, 2)
    assert result.js == pytest.approx(0.10174922507919676, abs=1e-14)
    assert distances.ndb(reference, reference, clusters=2) == (0, 2, 0)
    with pytest.raises(ValueError, match="2 to 5 clusters"):
        distances.ndb(reference, other, clusters=6)


# Features


def test_a_feature_is_compared_as_scipy_compares_it():
    rng = np.random.default_rng(0)
    x, y = rng.normal(130, 4, 80), rng.normal(131, 6, 60).round()  # with ties
    tracks_x, tracks_y = np.arange(80), np.arange(100, 160)
    result = distances.compare_feature(x, tracks_x, y, tracks_y, permutations=4000)
    expected = scipy.stats.wasserstein_distance((x - x.mean()) / x.std(), (y - x.mean()) / x.std())
    assert result.wasserstein == pytest.approx(expected, rel=1e-12)
    assert result.ks == pytest.approx(scipy.stats.ks_2samp(x, y).statistic, abs=1e-12)
    assert result.reference == (*np.percentile(x, [50, 10, 90]), 80, 1.0)
    same = distances.compare_feature(x, tracks_x, x, tracks_x + 1000)
    assert same.wasserstein == 0 and same.ks == 0 and same.p == 1


def test_a_feature_has_the_exact_p_value_where_tracks_have_one_clip_and_an_honest_one_where_they_have_more():
    rng = np.random.default_rng(1)
    x, y = rng.normal(0, 1, 40), rng.normal(0.4, 1, 30)
    result = distances.compare_feature(x, np.arange(40), y, np.arange(40, 70), permutations=4000)
    exact = scipy.stats.ks_2samp(x, y, method="exact").pvalue
    assert 0.02 < exact < 0.5
    assert result.p == pytest.approx(exact, abs=4 * np.sqrt(exact / 4000))
    by_track, by_clip = [], []
    for _ in range(100):
        x, y = np.repeat(rng.standard_normal((2, 15)), 6, axis=1)
        tracks = np.repeat(np.arange(30), 6)
        by_track.append(distances.compare_feature(x, tracks[:90], y, tracks[90:], permutations=99).p)
        by_clip.append(scipy.stats.ks_2samp(x, y).pvalue)
    assert np.mean(np.array(by_track) <= 0.05) <= 0.1
    assert np.mean(np.array(by_clip) <= 0.05) > 0.3


def test_clips_without_the_feature_are_left_out_and_counted():
    values = [1.0, None, 3.0, np.nan, 2.0]
    result = distances.compare_feature(values, range(5), [4.0, 6.0, None], [10, 11, 12], permutations=9)
    assert result.reference == pytest.approx((2, 1.2, 2.8, 3, 0.6))
    assert result.other == pytest.approx((5, 4.2, 5.8, 2, 2 / 3))
    assert result.wasserstein == pytest.approx(3 / np.std([1, 2, 3]))
    nothing = distances.compare_feature([1.0, 2.0], [1, 2], [None, None, 7.0], [3, 4, 5])
    assert nothing[:3] == (None, None, None)
    assert nothing.other == (7, 7, 7, 1, 1 / 3)
    assert distances.compare_feature([1.0, 2.0], [1, 2], [None], [3]).other == (None, None, None, 0, 0)


def test_a_feature_without_spread_in_the_reference_has_no_distance_in_its_deviations():
    result = distances.compare_feature([0.1] * 30, range(30), [0.1] * 20 + [0.2] * 10, range(30, 60))
    assert result.wasserstein is None
    assert result.ks == pytest.approx(1 / 3)
    assert result.p < 0.01


@pytest.mark.parametrize(
    "values, tracks, message",
    [
        ([1.0, np.inf], [3, 4], "other: 1 of 2 values are infinite"),
        ([1.0, 2.0], [3], "other: expected one track id .* each of 2 clips, got shape .1,."),
        ([1.0, 2.0], [2, 3], "expected different tracks in the two sets, got 1 in both"),
        ([], [], r"other: expected values \[n\], n at least 1"),
    ],
)
def test_what_is_no_feature_is_an_error(values, tracks, message):
    with pytest.raises(ValueError, match=message):
        distances.compare_feature([1.0, 2.0], [1, 2], values, tracks)
