import numpy as np
import pytest
from scipy import signal

from technogen_jax.audio import corruptions

RATE_HZ = 16000


@pytest.fixture(scope="module")
def loop():
    """One second, stereo: a click and a decaying tone on each of four beats."""
    time_s = np.arange(RATE_HZ) / RATE_HZ
    beat = np.sin(2 * np.pi * 400 * time_s) * np.exp(-20 * (time_s % 0.25))
    beat[:: RATE_HZ // 4] += 0.5
    return np.stack([0.5 * beat, 0.3 * beat[::-1]], axis=1)


def test_add_noise_has_the_requested_power(loop):
    noise = corruptions.add_noise(loop, 20, seed=1) - loop
    assert 10 * np.log10(np.mean(loop**2) / np.mean(noise**2)) == pytest.approx(20, abs=0.1)
    assert abs(np.corrcoef(noise.T)[0, 1]) < 0.05
    with pytest.raises(ValueError, match="got silence"):
        corruptions.add_noise(np.zeros((100, 1)), 20, seed=1)


def test_low_pass_equals_the_steady_state_of_scipys_filter(loop):
    sections = signal.butter(8, 3000, fs=RATE_HZ, output="sos")
    expected = signal.sosfilt(sections, np.tile(loop, (3, 1)), axis=0)[-RATE_HZ:]
    np.testing.assert_allclose(corruptions.low_pass(loop, RATE_HZ, 3000), expected, atol=1e-9)
    with pytest.raises(ValueError, match="between 0 and 8000 Hz, got 9000"):
        corruptions.low_pass(loop, RATE_HZ, 9000)


@pytest.mark.parametrize("pieces", [4, 7])
def test_shuffle_keeps_the_pieces_and_equal_neighbours(loop, pieces):
    alike = np.tile(loop[: RATE_HZ // 4], (4, 1))
    shuffled = corruptions.shuffle(loop, RATE_HZ, pieces, seed=3, crossfade_s=0)
    np.testing.assert_array_equal(np.sort(shuffled, axis=0), np.sort(loop, axis=0))
    assert not np.array_equal(shuffled, loop)
    np.testing.assert_allclose(corruptions.shuffle(alike, RATE_HZ, 4, seed=3), alike, atol=1e-12)
    np.testing.assert_allclose(corruptions.shuffle(loop, RATE_HZ, 1, seed=3), loop, atol=1e-12)


def test_shuffle_causes_no_clicks():
    tone = np.sin(2 * np.pi * 101 * np.arange(RATE_HZ) / RATE_HZ)[:, None]  # no whole number of periods a piece
    step = np.abs(np.diff(tone, axis=0)).max()
    cut, faded = (corruptions.shuffle(tone, RATE_HZ, 8, 0, crossfade_s) for crossfade_s in (0, 0.005))
    assert np.abs(np.diff(cut, axis=0)).max() > 10 * step
    assert np.abs(np.diff(faded, axis=0)).max() < 2 * step


def test_jitter_moves_beats_by_the_deviation_and_keeps_attacks():
    beats, rng = 64, np.random.default_rng(0)
    impulses = np.zeros((beats * 4000, 1))
    impulses[::4000] = rng.uniform(1, 2, (beats, 1))
    moved = corruptions.jitter(impulses, RATE_HZ, beats, 0.01, seed=5)
    found = np.flatnonzero(moved[:, 0])
    offsets = (found + 2000) % 4000 - 2000
    np.testing.assert_allclose(np.sort(moved[found, 0]), np.sort(impulses[::4000, 0]))
    assert np.std(offsets) == pytest.approx(0.01 * RATE_HZ, rel=0.25)
    np.testing.assert_allclose(corruptions.jitter(impulses, RATE_HZ, beats, 0, seed=5), impulses, atol=1e-12)


def test_randomise_phase_is_gradual_and_keeps_the_spectrum(loop):
    np.testing.assert_allclose(corruptions.randomise_phase(loop, RATE_HZ, 0, seed=1), loop, atol=1e-12)
    mild, full = (corruptions.randomise_phase(loop, RATE_HZ, amount, seed=1) for amount in (0.25, 1))
    likeness = [np.corrcoef(changed[:, 0], loop[:, 0])[0, 1] for changed in (mild, full)]
    assert 0.8 < likeness[0] < 0.99 and abs(likeness[1]) < 0.3
    bands = [signal.welch(audio[:, 0], RATE_HZ, nperseg=256)[1] for audio in (loop, mild)]
    assert np.abs(10 * np.log10(bands[1][1:20] / bands[0][1:20])).max() < 4


def test_clip_gain_and_reverse_change_samples_as_defined(loop):
    clipped = corruptions.clip(loop, 6)
    assert np.abs(clipped).max() == pytest.approx(np.abs(loop).max() / 10**0.3)
    quiet = np.abs(loop) < np.abs(clipped).max()
    np.testing.assert_array_equal(clipped[quiet], loop[quiet])
    np.testing.assert_allclose(corruptions.gain(loop, -20), loop / 10)
    np.testing.assert_array_equal(corruptions.reverse(loop)[0], loop[-1])


@pytest.mark.parametrize("samples", [RATE_HZ, 4001])
@pytest.mark.parametrize("name", corruptions.CORRUPTIONS)
def test_each_corruption_changes_audio_and_depends_on_its_seed(loop, name, samples):
    clip = loop[:samples]
    first, again, other = (
        corruptions.CORRUPTIONS[name](clip, RATE_HZ, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert first.shape == clip.shape and first.dtype == np.float64 and np.isfinite(first).all()
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - clip).max() > 1e-3
    assert name == "reverse" or not np.array_equal(first, other)
