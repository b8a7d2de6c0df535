import numpy as np
import pytest
from helpers.loops import change_speed

from technogen_jax.audio import corruptions
from technogen_jax.evaluation.memorisation import fingerprints, image_matching, panel, peak_matching, set_statistics
from technogen_jax.evaluation.memorisation.fingerprints import FRAMES

RATE_HZ, SECONDS = 16000, 2.0
SAMPLES = round(RATE_HZ * SECONDS)
TRAIN, HELD_OUT, FRESH = 40, 200, 60


def track(seed, seconds=SECONDS):
    """A track from its start, `[T, 1]`: kick, hats, clap, a percussion and a bass line of sixteenths at its own tempo."""
    random = np.random.default_rng(seed)
    step_s = 15 / random.uniform(126, 145)
    mix = np.zeros(round(seconds * RATE_HZ) + RATE_HZ)
    t = np.arange(RATE_HZ) / RATE_HZ

    def play(sound, pattern, level):
        for step in range(int(seconds / step_s) + 1):
            start = round(step * step_s * RATE_HZ)
            mix[start : start + len(sound)] += (level * pattern[step % len(pattern)] * sound)[: len(mix) - start]

    def noise(low_hz, high_hz, decay_s):
        spectrum = np.fft.rfft(random.standard_normal(RATE_HZ))
        spectrum[: round(low_hz)] = spectrum[round(high_hz) :] = 0
        return np.fft.irfft(spectrum) * np.exp(-t / decay_s)

    sweep = random.uniform(45, 58) * t + random.uniform(2, 6) * (1 - np.exp(-t / random.uniform(0.01, 0.03)))
    play(np.sin(2 * np.pi * sweep) * np.exp(-t / random.uniform(0.08, 0.2)), [1, 0, 0, 0], 0.9)
    hats = [[0, 0, 1, 0], [1, 0.4, 0.7, 0.4], [0, 0.6, 1, 0.3]][random.integers(3)]
    play(noise(random.uniform(3000, 6000), 7900, random.uniform(0.02, 0.06)), hats, random.uniform(0.2, 0.4))
    clap = noise(800, random.uniform(3000, 7000), random.uniform(0.04, 0.12))
    play(clap, [0, 0, 0, 0, 1, 0, 0, 0], random.uniform(0.1, 0.5))
    ping = np.sin(2 * np.pi * random.uniform(200, 1800) * t) * np.exp(-t / random.uniform(0.03, 0.1))
    play(ping, random.random(16) < 0.3, random.uniform(0.1, 0.3))
    root, cutoff_hz, decay_s = random.integers(33, 45), random.uniform(400, 3000), random.uniform(0.05, 0.2)
    for note in random.choice([0, 3, 5, 7, 10, 12], 3, replace=False):
        hz = 440 * 2 ** ((root + note - 69) / 12) * np.arange(1, 20)[:, None]
        partials = np.sin(2 * np.pi * hz * t[: RATE_HZ // 2]) / (hz / hz[0]) / (1 + (hz / cutoff_hz) ** 4) * (hz < 7500)
        play(
            partials.sum(0) * np.exp(-t / decay_s)[: RATE_HZ // 2], random.random(16) < 0.25, random.uniform(0.15, 0.35)
        )
    return 0.5 * mix[: round(seconds * RATE_HZ), None]


def make(clips, name, **options):
    """Each clip is a track of its own, "<name><number>"."""
    names = [f"{name}{i}" for i in range(len(clips))]
    return fingerprints.make_fingerprints(clips, names, names, RATE_HZ, **{"seconds": SECONDS, **options})


@pytest.fixture(scope="module")
def corpus():
    """(training clips, their fingerprints, those of held-out clips, fresh clips)."""
    train = [track(seed) for seed in range(TRAIN)]
    held_out = [track(1000 + seed) for seed in range(HELD_OUT)]
    return train, make(train, "t"), make(held_out, "h"), [track(5000 + seed) for seed in range(FRESH)]


def faster(seed, factor):
    return change_speed(track(seed, SECONDS * 1.1), factor)[:SAMPLES]


def rotated(clip, seed):
    return np.roll(clip, int(np.random.default_rng(seed).integers(SAMPLES)), axis=0)


def dull(clip, seed):
    return corruptions.low_pass(corruptions.add_noise(rotated(clip, seed), 30, seed), RATE_HZ, 6000)


COPIES = {  # how a training clip is disguised, and the share that must be flagged
    "exact": (lambda clip, i: clip, 1),
    "noise 40 dB": (lambda clip, i: corruptions.add_noise(clip, 40, i), 1),
    "-6 dB": (lambda clip, i: corruptions.gain(clip, -6), 1),
    "rotated": (rotated, 1),
    "2 % faster": (lambda clip, i: faster(i, 1.02), 1),
    "clipped": (lambda clip, i: corruptions.clip(clip, 6), 0.9),
    "phase": (lambda clip, i: corruptions.randomise_phase(clip, RATE_HZ, 1, i), 0.9),
    "dull": (dull, 0.75),
    "noise 20 dB": (lambda clip, i: corruptions.add_noise(clip, 20, i), 0.6),
}


def test_copies_are_flagged(corpus):
    train, train_fingerprints, held_out, _ = corpus
    clips = [copy(clip, i) for copy, _ in COPIES.values() for i, clip in enumerate(train)]
    names = [f"{kind} t{i}" for kind in COPIES for i in range(TRAIN)]
    generated = fingerprints.make_fingerprints(clips, names, names, RATE_HZ, seconds=SECONDS)
    result = panel.detect_copies(generated, train_fingerprints, held_out)
    kinds = [flag.generated.rsplit(" ", 1)[0] for flag in result.flagged]
    shares = {kind: kinds.count(kind) / TRAIN for kind in COPIES}
    assert {kind: share for kind, share in shares.items() if share < COPIES[kind][1]} == {}
    for flag in result.flagged:
        assert flag.train == flag.train_track == flag.generated.rsplit(" ", 1)[1]
        assert flag.band == "full band"


def test_new_music_is_not_flagged(corpus):
    _, train, held_out, fresh = corpus
    result = panel.detect_copies(make(fresh, "g"), train, held_out)
    assert result.flagged_share <= 0.03
    # Two detectors, each with its maximum over 100 clips: 2 in 101 are expected.
    assert result.held_out_flagged_share <= 0.06
    assert (result.held_out_clips, result.held_out_tracks, result.threshold_is_maximum) == (HELD_OUT, HELD_OUT, True)
    found = panel.find_matches(held_out, train)
    highest = int(np.argmax(found.correlation)), int(np.argmax(found.fingerprint))
    assert found.correlation[highest[0]] == result.threshold_correlation
    assert found.fingerprint[highest[1]] == result.threshold_fingerprint
    clips = found.correlation_clip[highest[0]], found.fingerprint_clip[highest[1]]
    assert result.nearest_held_out == [(f"h{i}", f"t{k}") for i, k in zip(highest, clips, strict=True)]


def features(clip):
    """Level-free statistics of the bands, the same for a rotated clip."""
    power = fingerprints.mel_power(np.asarray(clip, np.float32), RATE_HZ, SAMPLES)
    log = fingerprints.log_power(power, len(power))
    log = log - log.max()
    return np.concatenate([log.mean(0), log.std(0)])


def test_copies_are_too_close_to_the_training_clips(corpus):
    train, _, _, fresh = corpus
    known, new = (np.stack([features(clip) for clip in clips]) for clips in (train, fresh))
    real = np.stack([features(track(1000 + seed)) for seed in range(60)])
    assert abs(set_statistics.data_copying_test(new, real, known)) < 3
    for kind in ("exact", "-6 dB", "rotated"):
        copies = np.stack([features(COPIES[kind][0](clip, i)) for i, clip in enumerate(train)])
        assert set_statistics.data_copying_test(copies, real, known) < -5
        assert set_statistics.auth_pct(copies, known, np.arange(TRAIN)) < 5


def images(found):
    return found.images.reshape(-1, FRAMES, fingerprints.BANDS).astype(np.float64)


def pearson(a, b):
    a, b = a - a.mean(0), b - b.mean(0)
    return (a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum())


def test_the_correlation_is_the_maximum_over_all_shifts_and_clips(corpus, monkeypatch):
    monkeypatch.setattr(image_matching, "_SPEEDS", (1.0,))
    train, fresh = corpus[1], make(corpus[3][:3], "g")
    expected = np.array(
        [
            [max(pearson(query, np.roll(clip, -shift, 0)) for shift in range(FRAMES)) for clip in images(train)[:10]]
            for query in images(fresh)
        ]
    )
    some = fingerprints.make_fingerprints([track(i) for i in range(10)], range(10), range(10), RATE_HZ, seconds=SECONDS)
    found = panel.find_matches(fresh, some)
    np.testing.assert_allclose(found.correlation, expected.max(1), atol=1e-5)
    np.testing.assert_array_equal(found.correlation_clip, expected.argmax(1))


def test_a_copy_from_any_position_of_longer_audio_is_detected():
    medley = np.concatenate([track(seed, 0.6) for seed in range(200, 212)])  # a track would repeat itself
    long = make([medley, track(1), track(2, 4.01), track(3, 6.0)], "t")
    starts_s = np.array([0.0, 0.7, 2.9, 5.17])
    clips = [medley[round(start_s * RATE_HZ) :][:SAMPLES] for start_s in starts_s] + [rotated(track(1), 0)]
    found = panel.find_matches(make(clips, "g"), long)
    np.testing.assert_array_equal(found.correlation_clip, [0, 0, 0, 0, 1])
    np.testing.assert_array_equal(found.fingerprint_clip, [0, 0, 0, 0, 1])
    assert found.correlation[:4].min() > 0.9 and found.correlation[4] > 0.98
    other = panel.find_matches(make([track(seed) for seed in range(50, 60)], "o"), long)
    assert found.fingerprint.min() > 3 * other.fingerprint.max()
    np.testing.assert_allclose(found.correlation_shift_s[:4], starts_s, atol=0.012)
    np.testing.assert_allclose(found.fingerprint_shift_s[:4], starts_s, atol=0.012)


def test_a_copy_of_a_quiet_part_is_detected():
    quiet = 0.01 * track(1, 5)
    copy = 10 * quiet[round(1.5 * RATE_HZ) :][:SAMPLES]
    found = panel.find_matches(make([copy], "g"), make([np.concatenate([track(0, 3), quiet])], "t"))
    assert found.correlation[0] > 0.95 and found.fingerprint[0] > 0.2
    assert found.correlation_shift_s[0] == pytest.approx(4.5, abs=0.012)


def test_the_correlation_with_longer_audio_is_the_maximum_over_all_positions(monkeypatch):
    monkeypatch.setattr(image_matching, "_SPEEDS", (1.0,))
    long, query = make([track(0, 5.3)], "t"), make([track(7)], "g")
    image = long.images.astype(np.float64)
    scores = [pearson(images(query)[0], image[i : i + FRAMES]) for i in range(len(image) - FRAMES + 1)]
    found = panel.find_matches(query, long)
    np.testing.assert_allclose(found.correlation, max(scores), atol=1e-5)
    assert found.correlation_shift_s[0] == pytest.approx(np.argmax(scores) * SECONDS / FRAMES)


@pytest.mark.parametrize(
    ("rate_hz", "samples", "channels"), [(8000, 8192, 1), (16000, 16384, 1), (44100, 88200, 2), (48000, 8 * 48000, 1)]
)
def test_copies_are_matched_at_any_window_rate_and_channel_count(rate_hz, samples, channels):
    random = np.random.default_rng(0)
    clips = []
    for _ in range(6):
        clip = 0.01 * random.standard_normal((samples, channels))
        for start in random.integers(samples, size=12):
            decay = np.exp(-np.arange(samples) / rate_hz / 0.1)
            tone = decay * np.sin(2 * np.pi * random.uniform(60, 3500) * np.arange(samples) / rate_hz)
            clip += 0.2 * np.roll(tone, start)[:, None]
        clips.append(clip)
    options = dict(sample_rate_hz=rate_hz, seconds=samples / rate_hz)
    train = fingerprints.make_fingerprints(clips[:3], "abc", "abc", **options)
    copies = [np.roll(clip, samples // 3, axis=0) for clip in clips[:3]]
    found = panel.find_matches(fingerprints.make_fingerprints(copies, "xyz", "xyz", **options), train)
    other = panel.find_matches(fingerprints.make_fingerprints(clips[3:], "xyz", "xyz", **options), train)
    np.testing.assert_array_equal(found.correlation_clip, range(3))
    np.testing.assert_array_equal(found.fingerprint_clip, range(3))
    assert found.correlation.min() > 0.97 > 0.8 > other.correlation.max()
    assert found.fingerprint.min() > 3 * other.fingerprint.max()
    np.testing.assert_allclose(
        found.correlation_shift_s, samples * 2 / 3 / rate_hz, atol=2 * samples / rate_hz / FRAMES
    )


def test_a_shared_bass_drum_is_flagged_as_low_band_only():
    def drum(seed):
        random = np.random.default_rng(seed)
        t = np.arange(SAMPLES) / RATE_HZ
        clip = np.zeros(SAMPLES)
        for start_s in random.uniform(0, SECONDS, 7):
            away_s = (t - start_s + SECONDS / 2) % SECONDS - SECONDS / 2
            clip += np.exp(-0.5 * (away_s / 0.03) ** 2) * np.sin(2 * np.pi * 60 * t)
        return 0.5 * clip[:, None]

    train = make([drum(seed) for seed in range(10)], "t")
    result = panel.detect_copies(
        make([np.roll(drum(3), 1234, axis=0)], "g"), train, make([drum(100 + seed) for seed in range(10)], "h")
    )
    (flag,) = result.flagged
    assert (flag.train, flag.band) == ("t3", "low band only")


def test_order_chunk_sizes_and_dtype_do_not_matter(corpus, monkeypatch):
    train, train_fingerprints, held_out, fresh = corpus
    clips = [train[3], fresh[0], rotated(train[8], 1), fresh[1]]
    before = panel.detect_copies(make(clips, "g"), train_fingerprints, held_out)
    for module, name, value in (
        (image_matching, "_SEGMENTS", 7),
        (image_matching, "_QUERIES", 3),
        (peak_matching, "_CLIPS", 11),
    ):
        monkeypatch.setattr(module, name, value)
    order = np.random.default_rng(0).permutation(TRAIN)
    names = [f"t{i}" for i in order]
    shuffled = fingerprints.make_fingerprints(
        (train[i].astype(np.float32) for i in order), names, names, RATE_HZ, seconds=SECONDS
    )
    after = panel.detect_copies(make(clips, "g"), shuffled, held_out)
    assert [flag.train for flag in before.flagged] == ["t3", "t8"]
    for a, b in zip(before.flagged, after.flagged, strict=True):
        assert a._replace(correlation=0, fingerprint=0) == b._replace(correlation=0, fingerprint=0)
        assert (a.correlation, a.fingerprint) == pytest.approx((b.correlation, b.fingerprint), abs=1e-6)
    assert after.threshold_correlation == pytest.approx(before.threshold_correlation, abs=1e-6)
    assert after.threshold_fingerprint == before.threshold_fingerprint


def test_silence_matches_nothing_and_is_counted(corpus):
    _, train, held_out, _ = corpus
    silent = np.zeros((SAMPLES, 1))
    with_silence = make([silent, silent], "s")
    result = panel.detect_copies(make([silent, track(3)], "g"), train, held_out)
    assert (result.generated_without_structure, [flag.generated for flag in result.flagged]) == (1, ["g1"])
    found = panel.find_matches(with_silence, with_silence)
    assert not found.correlation.any() and not found.fingerprint.any()


def test_invalid_fingerprints_raise(corpus):
    train_clips, train, held_out, _ = corpus
    clip = train_clips[0]
    with pytest.raises(ValueError, match="split by track"):
        panel.detect_copies(held_out, train, train)
    with pytest.raises(ValueError, match="at least 2 held-out tracks"):
        panel.detect_copies(held_out, train, make([clip], "h"))
    with pytest.raises(ValueError, match="cut it"):
        panel.find_matches(make([track(0, 3)], "g"), train)
    with pytest.raises(ValueError, match="one seconds"):
        panel.find_matches(make([clip], "g", seconds=1.0), train)
    with pytest.raises(ValueError, match="g0: expected"):
        make([clip[:-1]], "g")
    with pytest.raises(ValueError, match="g0: has NaN"):
        make([np.where(np.arange(SAMPLES)[:, None] == 5, np.nan, clip)], "g")
    with pytest.raises(ValueError, match="at least one clip"):
        make([], "g")
    with pytest.raises(ValueError, match="zip"):
        fingerprints.make_fingerprints([clip], ["a", "b"], ["a"], RATE_HZ, seconds=SECONDS)
