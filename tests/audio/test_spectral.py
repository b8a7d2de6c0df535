import jax
import jax.numpy as jnp
import librosa
import numpy as np
import pytest
import scipy.signal

from technogen_jax.audio import spectral

NOISE = np.random.default_rng(0).standard_normal((2, 3000)).astype(np.float32)


@pytest.mark.parametrize("n_fft, hop_length", [(256, 128), (1024, 160), (512, 512)])
def test_stft_matches_librosa(n_fft, hop_length):
    expected = librosa.stft(NOISE, n_fft=n_fft, hop_length=hop_length, center=False, window="hann")
    np.testing.assert_allclose(spectral.stft(NOISE, n_fft, hop_length), expected.swapaxes(-1, -2), atol=2e-4)


def test_stft_of_less_than_a_frame_is_an_error():
    with pytest.raises(ValueError, match="at least n_fft = 256 samples, got 255"):
        spectral.stft(np.zeros(255, np.float32), 256, 64)


@pytest.mark.parametrize("samples, frames", [(16384, 128), (16385, 129), (300, 3), (100, 1)])
def test_stft_with_padding_completes_every_frame_that_begins(samples, frames):
    audio = np.resize(NOISE, samples)
    padded = np.pad(audio, (0, 256))[: (frames - 1) * 128 + 256]
    expected = librosa.stft(padded, n_fft=256, hop_length=128, center=False, window="hann")
    np.testing.assert_allclose(spectral.stft(audio, 256, 128, pad_end=True), expected.T, atol=2e-4)
    assert expected.shape[1] == frames


@pytest.mark.parametrize("n_fft, hop_length", [(256, 128), (1024, 256), (512, 64)])
def test_istft_matches_librosa_and_is_bounded_at_the_ends(n_fft, hop_length):
    # Of numbers that are no audio's spectrum; there the ends would be without bound.
    shape = (2, 40, n_fft // 2 + 1)
    rng = np.random.default_rng(0)
    spectrum = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)
    audio = np.asarray(jax.jit(spectral.istft, static_argnums=(1, 2))(spectrum, n_fft, hop_length))
    assert audio.shape == (2, 39 * hop_length + n_fft)
    options = dict(n_fft=n_fft, hop_length=hop_length, center=False, window="hann")
    expected = librosa.istft(spectrum.swapaxes(-1, -2), **options)
    middle = slice(n_fft, -n_fft)
    np.testing.assert_allclose(audio[:, middle], expected[:, middle], atol=1e-5)
    assert np.abs(audio).max() < 5 * np.abs(audio[:, middle]).max() < np.abs(expected).max()


def test_istft_inverts_stft():
    audio = spectral.istft(spectral.stft(NOISE, 256, 128), 256, 128)
    seen = slice(64, audio.shape[1] - 64)  # nearer the ends the only window is below sqrt(0.1)
    np.testing.assert_allclose(audio[:, seen], NOISE[:, : audio.shape[1]][:, seen], atol=1e-5)


def test_istft_leaves_no_modulation_where_plain_overlap_add_leaves_6_db():
    steady = np.ones(16000, np.float32)
    spectrum = np.asarray(spectral.stft(steady, 256, 128))
    corrected = np.asarray(spectral.istft(spectrum, 256, 128))[256:-256]

    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(256) / 256)
    plain = np.zeros(16000)
    for n, frame in enumerate(np.fft.irfft(spectrum) * window):  # the authors' inverse
        plain[128 * n : 128 * n + 256] += frame
    plain = plain[256 : 256 + len(corrected)]

    def swing_db(audio):
        return 20 * np.log10(audio.max() / audio.min())

    assert swing_db(plain) == pytest.approx(20 * np.log10(2), abs=0.01)
    assert np.abs(np.fft.rfft(plain[:12800])[1:]).argmax() + 1 == 12800 * 125 // 16000  # the bin of 125 Hz
    assert swing_db(corrected) < 1e-4


@pytest.mark.parametrize("hop_length", [100, 256])
def test_istft_rejects_an_invalid_hop_length(hop_length):
    with pytest.raises(ValueError, match=f"divides n_fft = 256 into two or more, got {hop_length}"):
        spectral.istft(np.zeros((4, 129), np.complex64), 256, hop_length)


@pytest.mark.parametrize("n_fft, hop_length", [(256, 128), (256, 64)])
@pytest.mark.parametrize("momentum", [0.0, 0.99])
def test_griffin_lim_matches_librosa(n_fft, hop_length, momentum):
    time_s = np.arange(16000) / 16000
    audio = np.sin(2 * np.pi * 300 * time_s**2) * np.exp(-3 * (time_s % 0.25)) + 0.1 * np.resize(NOISE, 16000)
    magnitude = np.abs(librosa.stft(audio, n_fft=n_fft, hop_length=hop_length, center=False, window="hann"))
    options = dict(n_iter=8, momentum=momentum, init=None, center=False, window="hann")
    expected = librosa.griffinlim(magnitude, n_fft=n_fft, hop_length=hop_length, **options)
    found = np.asarray(spectral.griffin_lim(magnitude.T.astype(np.float32), n_fft, hop_length, 8, momentum))
    # Eight iterations and the last inverse carry what differs at the ends nine frames inwards.
    middle = slice(9 * n_fft, -9 * n_fft)
    error = np.linalg.norm(found[middle] - expected[middle]) / np.linalg.norm(expected[middle])
    assert error < 1e-3
    assert np.abs(found).max() < 3 * np.abs(audio).max()


def test_griffin_lim_accepts_batches_and_silence():
    magnitude = np.abs(np.asarray(spectral.stft(NOISE, 256, 128)))
    together = np.asarray(spectral.griffin_lim(np.stack([magnitude, 0 * magnitude]), 256, 128, 4, 0.99))
    assert together.shape == (2, 2, 2944)
    np.testing.assert_allclose(together[0, 1], spectral.griffin_lim(magnitude[1], 256, 128, 4, 0.99), atol=1e-5)
    assert not together[1].any()


def test_log_mel_matches_librosa():
    audio = (0.1 * np.random.default_rng(0).standard_normal((2, 16000))).astype(np.float32)
    sizes = dict(n_fft=1024, hop_length=160, n_mels=64)
    expected = librosa.feature.melspectrogram(y=audio, sr=16000, center=False, fmin=30.0, **sizes)
    log_mel = spectral.log_mel(audio, 16000, fmin_hz=30.0, **sizes)
    np.testing.assert_allclose(log_mel, np.log(expected + 1e-5).swapaxes(-1, -2), atol=1e-4)


def test_log_mel_of_a_tone_peaks_in_its_band():
    tone = np.sin(2 * np.pi * 440 * np.arange(16000) / 16000).astype(np.float32)
    mel = np.asarray(spectral.log_mel(tone, 16000, n_fft=1024, hop_length=160, n_mels=64, fmin_hz=30.0)).mean(0)
    centres_hz = librosa.mel_frequencies(66, fmin=30.0, fmax=8000)[1:-1]
    assert abs(centres_hz[mel.argmax()] - 440) == abs(centres_hz - 440).min()


def with_empty_bands():
    """[50, 30]: a diagonal band that leaves the first rows and the last columns out."""
    rows, columns = np.mgrid[:50, :30]
    return (np.abs(rows - 2 * columns - 4) < 3) * np.random.default_rng(0).random((50, 30))


@pytest.mark.parametrize(
    "matrix",
    [
        spectral.mel_filters(22050, 512, 40, 30.0).T,
        spectral.mel_filters(22050, 512, 40, 30.0),
        with_empty_bands(),
        np.ones((5, 3)),
    ],
)
def test_matmul_banded_matches_matmul(matrix):
    x = np.random.default_rng(1).standard_normal((2, 3, len(matrix)))
    found = spectral.matmul_banded(np.float32(x), np.float32(matrix))
    np.testing.assert_allclose(found, x @ matrix, atol=1e-5)


RATE_HZ = 44100
CEILING = np.float32(10 ** (-0.5 / 20))
limit = jax.jit(spectral.limit_circular, static_argnums=1, static_argnames=("attack_s", "hold_s", "release_s"))


def loud_loop(samples=44100):
    """[2, T, 2]: noise and bursts up to 14 dB above the ceiling, with one at the seam."""
    rng = np.random.default_rng(1)
    time_s = np.arange(samples) / RATE_HZ
    kick = 5 * CEILING * np.sin(2 * np.pi * 55 * time_s) * np.exp(-8 * ((time_s + 0.01) % 0.25))
    return (kick[:, None] + 0.3 * rng.standard_normal((2, samples, 2))).astype(np.float32)


def test_saturate_compresses_only_above_the_ceiling():
    audio = np.float32([0, 0.3, -CEILING, 2 * CEILING, -16 * CEILING])
    found = np.asarray(spectral.saturate(audio))
    np.testing.assert_array_equal(found[:3], audio[:3])
    np.testing.assert_allclose(found[3:], CEILING * np.float32([2**0.25, -2]), rtol=1e-5)
    assert np.isfinite(jax.grad(lambda x: spectral.saturate(x).sum())(audio)).all()


def test_limiter_matches_a_direct_computation():
    audio = loud_loop(3000)
    doublings = 5  # 2 ** 5 samples, nearest to half of 1.5 ms
    found = np.asarray(limit(audio, RATE_HZ, attack_s=0.0015, hold_s=0.002, release_s=0.005))
    needed_db = np.maximum(20 * np.log10(np.abs(audio.astype(np.float64)).max(-1) / CEILING), 0)
    attack, hold, release = 2 * (2**doublings - 1), round(0.002 * RATE_HZ), round(8 * 0.005 * RATE_HZ)
    held = np.max([np.roll(needed_db, k, 1) for k in range(-attack, hold + 1)], 0)
    falling = np.max([np.roll(held, k, 1) * np.exp(-k / (0.005 * RATE_HZ)) for k in range(release)], 0)
    triangle = np.convolve(np.ones(2**doublings), np.ones(2**doublings)) / 4**doublings
    smooth = sum(weight * np.roll(falling, k, 1) for k, weight in enumerate(triangle))
    np.testing.assert_allclose(found, audio * 10 ** (-smooth / 20)[..., None], atol=2e-6)


@pytest.mark.parametrize("gain", [1.0, 100.0])
def test_limited_peaks_reach_but_never_exceed_the_ceiling(gain):
    limited = np.asarray(limit(gain * loud_loop(), RATE_HZ))
    assert np.abs(limited).max() <= CEILING
    assert np.abs(limited).max() > 0.999 * CEILING


def test_limiter_does_not_change_audio_below_the_ceiling():
    audio = loud_loop()
    audio *= CEILING / np.abs(audio).max()
    np.testing.assert_array_equal(limit(audio, RATE_HZ), audio)


def test_limiter_commutes_with_rotation():
    audio = loud_loop()
    np.testing.assert_array_equal(limit(np.roll(audio, 12345, 1), RATE_HZ), np.roll(limit(audio, RATE_HZ), 12345, 1))


def test_a_peak_changes_only_samples_near_it():
    quiet = 0.1 * loud_loop()
    quiet *= CEILING / np.abs(quiet).max() / 2
    other = quiet.copy()
    other[:, 20000] = 4.0
    changed = np.flatnonzero((np.asarray(limit(other, RATE_HZ)) != quiet).any((0, 2)))
    assert 20000 - 0.003 * RATE_HZ <= changed[0] < 20000
    assert 20000 < changed[-1] <= 20000 + (0.003 + 0.01 + 8 * 0.05) * RATE_HZ


@pytest.mark.parametrize("above_db", [6, 14])
def test_limiter_does_not_distort_a_loud_bass_note(above_db):
    tone = CEILING * 10 ** (above_db / 20) * np.sin(2 * np.pi * 50 * np.arange(RATE_HZ) / RATE_HZ)
    spectrum = np.abs(np.fft.rfft(limit(tone[None, :, None].astype(np.float32), RATE_HZ)[0, :, 0]))
    harmonics = spectrum[100::50]
    assert np.sqrt((harmonics**2).sum()) < 1e-4 * spectrum[50]  # clipped: 0.23 at 6 dB


def test_stft_circular_equals_librosa_on_a_repeated_loop_and_can_be_inverted():
    audio = np.random.default_rng(0).standard_normal((2, 960)).astype(np.float32)
    for n_fft, hop in ((256, 64), (192, 64)):
        spectrum = spectral.stft_circular(audio, n_fft, hop)
        start = 960 - (n_fft - hop) // 2
        repeated = np.tile(audio, 3)[:, start : start + 960 - hop + n_fft]
        wanted = librosa.stft(repeated, n_fft=n_fft, hop_length=hop, center=False).swapaxes(1, 2)
        np.testing.assert_allclose(spectrum, wanted, atol=1e-4)
        for pieces in (1, 3, 5):
            again = spectral.resynthesize_circular(
                lambda s, _: s.swapaxes(0, 1), audio[None], (), n_fft, hop, pieces=pieces
            )
            np.testing.assert_allclose(again[0], audio, atol=1e-5)
    turned = spectral.stft_circular(jnp.roll(audio, 64, -1), 256, 64)
    np.testing.assert_allclose(turned, jnp.roll(spectral.stft_circular(audio, 256, 64), 1, -2), atol=1e-4)


def test_resynthesis_in_pieces_equals_resynthesis_at_once():
    rng = np.random.default_rng(1)
    audio, gains = rng.standard_normal((2, 2, 960)).astype(np.float32), rng.uniform(0, 2, (2, 15)).astype(np.float32)

    def mixed(spectra, gains):
        later, now = spectra[:, 0, :-2], spectra[:, 1, 2:]
        return later, later * gains[..., None] - now

    loops = [
        spectral.resynthesize_circular(mixed, audio, gains, 256, 64, pieces=pieces, before=2) for pieces in (1, 3, 5)
    ]
    np.testing.assert_allclose(loops[0][:, 0], np.roll(audio[:, 0], 128, -1), atol=1e-5)  # two hops later
    spectrum = spectral.stft_circular(audio, 256, 64)
    spectrum = np.roll(spectrum[:, 0], 2, 1) * gains[..., None] - spectrum[:, 1]
    repeated = librosa.istft(np.tile(spectrum, (1, 3, 1)).swapaxes(1, 2), n_fft=256, hop_length=64, center=False)
    wanted = np.roll(repeated[:, 960 : 2 * 960], -96, -1)  # the middle of a frame is the middle of its hop
    for found in loops:
        np.testing.assert_allclose(found[:, 1], wanted, atol=1e-4)


@pytest.mark.parametrize("pieces", [2, 15])  # of 15 frames
def test_resynthesis_rejects_a_number_of_pieces_that_does_not_fit(pieces):
    with pytest.raises(ValueError, match=f"divides 15 frames and leaves 3 or more in each, got {pieces}"):
        spectral.resynthesize_circular(lambda s, _: [s[:, 0]], jnp.zeros((1, 1, 960)), (), 256, 64, pieces=pieces)


@pytest.mark.parametrize("samples, hop", [(1000, 64), (960, 60), (192, 64)])
def test_a_loop_that_is_not_whole_hops_is_an_error(samples, hop):
    for transform in (
        lambda audio: spectral.stft_circular(audio, 256, hop),
        lambda audio: spectral.resynthesize_circular(lambda s, _: [s[:, 0]], audio[None, None], (), 256, hop),
    ):
        with pytest.raises(ValueError, match=f"n_fft = 256 .* got a hop_length of {hop} and {samples} samples"):
            transform(jnp.zeros(samples))


def test_resynthesis_rejects_frames_that_do_not_overlap():
    with pytest.raises(ValueError, match="two hops a frame or more, got 256 of 256"):
        spectral.resynthesize_circular(lambda s, _: [s[:, 0]], jnp.zeros((1, 1, 1024)), (), 256, 256)


@pytest.mark.parametrize("samples", [999, 1001, 1500, 400])
def test_resample_circular_equals_scipy(samples):
    audio = np.random.default_rng(0).standard_normal((2, 1000)).astype(np.float32)
    spectrum = np.fft.rfft(audio)
    spectrum[:, (min(samples, 1000) + 1) // 2 :] = 0  # scipy keeps the bin at half the rate, resample_circular does not
    wanted = scipy.signal.resample(np.fft.irfft(spectrum, 1000), samples, axis=-1)
    np.testing.assert_allclose(spectral.resample_circular(audio, samples), wanted, atol=1e-5)
