import itertools

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
from sklearn.metrics import pairwise

from technogen_jax.evaluation.metrics import distances
from technogen_jax.evaluation.metrics.embedded_set import choose_one_a_track, make_embedded_set

METRICS = [distances.rbf_mmd, distances.frechet_distance]


def clips_of(values, tracks=None, prefix="r"):
    values = np.asarray(values, float)
    values = values[:, None] if values.ndim == 1 else values
    tracks = range(len(values)) if tracks is None else tracks
    return make_embedded_set(values, [f"{prefix}{track}" for track in tracks], prefix)


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
        (np.vstack([np.eye(2), [[np.nan, 0]]]), [1, 2, 3], "1 of 3 clips have NaN or Inf, the first is clip 2"),
        (np.full((3, 2), 0.3), [1, 2, 3], "all 3 clips have the same values"),
    ],
)
def test_an_invalid_set_raises_with_its_name(values, tracks, message):
    with pytest.raises(ValueError, match=f"generated: {message}"):
        make_embedded_set(values, tracks, "generated")


@pytest.mark.parametrize("metric", [*METRICS, distances.rbf_mmd_test, distances.prdc, distances.frechet_at_infinity])
def test_tracks_are_required_and_dimensions_must_agree(metric):
    with pytest.raises(TypeError, match="the track of each clip is needed"):
        metric(np.eye(9), np.eye(9))
    with pytest.raises(ValueError, match="got 9 and 8 dimensions"):
        metric(clips_of(np.eye(9)), clips_of(np.eye(8), prefix="g"))


def test_choose_one_a_track_depends_on_the_seed():
    clips = clips_of(np.arange(40), np.repeat(np.arange(10), 4))
    drawn = {tuple(choose_one_a_track(clips, seed=seed).values[:, 0]) for seed in range(20)}
    assert len(drawn) > 15
    assert all((np.array(values) // 4 == np.arange(10)).all() for values in drawn)


# MMD


def test_mmd_has_the_values_computed_by_hand():
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
def test_mmd_agrees_with_sklearn_without_pairs_of_one_track(spread, monkeypatch):
    rng = np.random.default_rng(0)
    a = clips_of(rng.standard_normal((17, 6)), rng.integers(0, 5, 17))
    b = clips_of(spread * rng.standard_normal((23, 6)) + 0.5, rng.integers(0, 8, 23), "g")
    gaps = [np.linalg.norm(a.values[i] - a.values[j]) for i in range(17) for j in range(i)]
    gamma = 1 / (2 * np.median(gaps) ** 2)
    pairs = (a.values, a.values), (b.values, b.values), (a.values, b.values)
    rbf = [pairwise.rbf_kernel(x, y, gamma) for x, y in pairs]
    for chunk in (distances._CHUNK_VALUES, 100):  # all at once, and two clips at a time
        monkeypatch.setattr(distances, "_CHUNK_VALUES", chunk)
        assert distances.rbf_mmd(a, b) == pytest.approx(mmd_of_kernels(*rbf, a.tracks, b.tracks), abs=1e-13)


def test_mmd_is_about_zero_for_one_distribution_and_negative_for_one_set():
    a = normal(0, 200, 8)
    same = [distances.rbf_mmd(a, normal(seed, 200, 8)) for seed in range(1, 9)]
    assert min(same) < 0 < max(same) and abs(np.mean(same)) < 2e-3
    assert distances.rbf_mmd(a, a) < 0
    shifted = [distances.rbf_mmd(a, normal(9, 200, 8, shift=shift)) for shift in (0.2, 0.5, 1.0)]
    assert max(same) < shifted[0] < shifted[1] < shifted[2]
    assert distances.rbf_mmd(a, normal(9, 200, 8, within=0, shift=0.5)) != pytest.approx(
        distances.rbf_mmd(normal(9, 200, 8, within=0, shift=0.5), a), rel=1e-3
    )


def test_the_p_value_approaches_that_of_all_assignments_of_tracks():
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


def test_the_smallest_p_value_is_one_over_the_permutations():
    result = distances.rbf_mmd_test(normal(0, 30, 4), normal(1, 30, 4, shift=3, prefix="g"), permutations=99)
    assert result.p == 1 / 100
    with pytest.raises(ValueError, match="at least 1 permutation"):
        distances.rbf_mmd_test(normal(0, 30, 4), normal(1, 30, 4, prefix="g"), permutations=0)
    with pytest.raises(ValueError, match="30 in both"):
        distances.rbf_mmd_test(normal(0, 30, 4), normal(1, 30, 4))


def test_permuting_tracks_keeps_the_level_and_permuting_clips_does_not():
    by_track, by_clip = [], []
    for seed in range(200):
        a, b = (normal((seed, side), 15, 6, 4, prefix="rg"[side]) for side in (0, 1))
        by_track.append(distances.rbf_mmd_test(a, b, permutations=99, seed=seed).p)
        # Each clip a track of its own: what a call without tracks would be.
        a, b = clips_of(a.values), clips_of(b.values, prefix="g")
        by_clip.append(distances.rbf_mmd_test(a, b, permutations=99, seed=seed).p)
    assert np.mean(np.array(by_track) <= 0.05) <= 0.09
    assert np.mean(np.array(by_clip) <= 0.05) > 0.5


def test_a_reference_of_copies_has_no_kernel_width():
    mostly_same = clips_of(np.vstack([np.zeros((9, 2)), np.ones((1, 2))]))
    with pytest.raises(ValueError, match="most clips have the same values"):
        distances.rbf_mmd(mostly_same, clips_of(np.eye(2)))


# Fréchet distance


def frechet_of_moments(mean_a, covariance_a, mean_b, covariance_b):
    """The squared distance of two Gaussians, by the eigenvalues of their covariances."""
    eigenvalues, vectors = np.linalg.eigh(covariance_a)
    root = vectors * np.sqrt(np.maximum(eigenvalues, 0)) @ vectors.T
    overlap = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ covariance_b @ root), 0)).sum()
    return ((mean_a - mean_b) ** 2).sum() + np.trace(covariance_a) + np.trace(covariance_b) - 2 * overlap


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
    assert frechet_of_moments(*moments) == pytest.approx(distance, rel=1e-6)


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


def test_the_bias_depends_on_tracks_and_not_on_clips():
    halves = [distances.frechet_distance(normal(seed, 150, 32, 4), normal(seed + 10, 150, 32, 4)) for seed in range(4)]
    by_tracks, by_clips = (distances.frechet_bias(np.ones(32), count, count) for count in (150, 600))
    assert np.mean(halves) == pytest.approx(by_tracks, rel=0.15)
    assert np.mean(halves) > 3 * by_clips


def test_extrapolation_removes_the_bias_and_drawing_with_replacement_does_not():
    true = 64 * 0.05**2
    a, b = normal(1, 2000, 64), normal(2, 2000, 64, shift=0.05, prefix="g")
    value, error = distances.frechet_at_infinity(a, b)
    assert 0.11 < value < 0.23
    assert 0.01 < error < 0.1

    rng = np.random.default_rng(0)
    sizes = np.linspace(500, 2000, 15).astype(int)
    drawn = [b.values[rng.integers(0, 2000, size)] for size in sizes]
    plain = [frechet_of_moments(np.zeros(64), np.eye(64), x.mean(0), np.cov(x.T)) for x in drawn]
    with_replacement = np.polynomial.polynomial.polyfit(1 / sizes, plain, 1)[0]
    assert with_replacement > true + 0.35


def test_extrapolation_by_tracks_works_for_similar_clips_of_a_track():
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
def test_prdc_has_the_values_computed_by_hand(k, expected):
    assert distances.prdc(clips_of([0, 1, 2, 3]), clips_of([0.5, 1.5, 10, 11]), k) == expected


def test_prdc_equals_its_definition_for_any_chunk_size(monkeypatch):
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


def test_mode_collapse_lowers_coverage_and_recall_and_not_precision():
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


def test_a_missing_mode_lowers_recall_and_coverage_and_not_precision():
    rng = np.random.default_rng(0)
    mode = np.where(rng.random(400) < 0.5, 3, -3)[:, None] * np.eye(4)[0]
    x, y = (rng.standard_normal((400, 4)) + mode for _ in range(2))
    all_modes = distances.prdc(clips_of(x), clips_of(y[:200]))
    dropped = distances.prdc(clips_of(x), clips_of(y[y[:, 0] > 0][:200]))
    assert dropped.precision > 0.9
    assert dropped.recall < 0.65 * all_modes.recall
    assert dropped.coverage < 0.65 * all_modes.coverage


def test_copies_in_the_reference_raise():
    rng = np.random.default_rng(0)
    copies = np.vstack([np.repeat(rng.standard_normal((1, 3)), 6, axis=0), rng.standard_normal((20, 3))])
    with pytest.raises(ValueError, match="reference: 6 of 26 clips have 5 exact copies"):
        distances.prdc(clips_of(copies), normal(0, 26, 3))
    distances.prdc(clips_of(copies[1:]), normal(0, 25, 3))


def test_a_generator_that_repeats_one_clip_is_precise_with_low_coverage():
    real = normal(0, 200, 3)
    one = make_embedded_set(np.repeat(real.values[:1] + 1e-3, 200, axis=0), np.arange(200), "one", may_be_alike=True)
    found = distances.prdc(real, one)
    assert found.precision == 1 and found.recall == 0 and found.coverage < 0.1
    nearly = clips_of(one.values + 1e-9 * np.random.default_rng(1).standard_normal((200, 3)))
    assert distances.prdc(real, nearly).coverage == found.coverage
    with pytest.raises(ValueError, match="the same values"):
        make_embedded_set(one.values, one.tracks, "one")


# What holds for all of them


@pytest.mark.parametrize("metric", [*METRICS, distances.prdc])
def test_order_of_clips_names_of_tracks_and_input_type_do_not_matter(metric):
    a, b = normal(0, 40, 6, 3), normal(1, 40, 6, 3, shift=0.3, prefix="g")
    a, b = (clips._replace(values=clips.values.astype(np.float32).astype(float)) for clips in (a, b))
    order = np.random.default_rng(0).permutation(120)
    names = np.array([f"{7919 * int(track[1:]) % 1000}" for track in a.tracks])
    expected = metric(a, b)
    assert metric(make_embedded_set(a.values[order], a.tracks[order], "r"), b) == pytest.approx(expected, rel=1e-9)
    assert metric(make_embedded_set(a.values, names, "r"), b) == pytest.approx(expected, rel=1e-9)
    assert metric(make_embedded_set(a.values.astype(np.float32), a.tracks, "r"), b) == pytest.approx(expected, rel=1e-9)


# One set, and labels


def test_inception_score_has_the_values_computed_by_hand():
    assert distances.inception_score([[0.9, 0.1], [0.2, 0.8]]) == pytest.approx(1.3170522760436802, abs=1e-14)
    assert distances.inception_score(np.full((6, 4), 1 / 4)) == pytest.approx(1)
    assert distances.inception_score(np.tile(np.eye(5), (3, 1))) == pytest.approx(5)
    assert distances.inception_score(np.eye(5)[[2, 2, 2]]) == 1
    for bad in ([[0.5, 0.6]], [[1.5, -0.5]], [[np.nan, 1]], [0.5, 0.5]):
        with pytest.raises(ValueError, match="rows sum to 1"):
            distances.inception_score(bad)


def test_vendi_score_counts_orthogonal_vectors():
    assert distances.vendi_score(3 * np.eye(5)) == pytest.approx(5)
    assert distances.vendi_score(np.ones((7, 3))) == pytest.approx(1)
    x = np.random.default_rng(0).standard_normal((30, 4))
    eigenvalues = np.linalg.eigvalsh(pairwise.cosine_similarity(x) / 30)
    expected = np.exp(scipy.stats.entropy(eigenvalues[eigenvalues > 1e-12]))
    assert distances.vendi_score(x) == pytest.approx(expected, rel=1e-10)
    with pytest.raises(ValueError, match="drop silent clips"):
        distances.vendi_score(np.eye(3)[:2, :2] * [[1], [0]])
