import librosa
import numpy as np
import pytest

from technogen_jax import dsp


@pytest.mark.parametrize("n_fft, hop_length", [(256, 128), (1024, 160), (512, 512)])
def test_stft_is_librosas(n_fft, hop_length):
    audio = np.random.default_rng(0).standard_normal((2, 3000)).astype(np.float32)
    expected = librosa.stft(audio, n_fft=n_fft, hop_length=hop_length, center=False, window="hann")
    np.testing.assert_allclose(dsp.stft(audio, n_fft, hop_length), expected.swapaxes(-1, -2), atol=2e-4)


def test_stft_of_less_than_a_frame_is_an_error():
    with pytest.raises(ValueError, match="at least n_fft = 256 samples, got 255"):
        dsp.stft(np.zeros(255, np.float32), 256, 64)


def test_log_mel_is_librosas():
    audio = (0.1 * np.random.default_rng(0).standard_normal((2, 16000))).astype(np.float32)
    sizes = dict(n_fft=1024, hop_length=160, n_mels=64)
    expected = librosa.feature.melspectrogram(y=audio, sr=16000, center=False, fmin=30.0, **sizes)
    log_mel = dsp.log_mel(audio, 16000, fmin_hz=30.0, **sizes)
    np.testing.assert_allclose(log_mel, np.log(expected + 1e-5).swapaxes(-1, -2), atol=1e-4)


def test_a_tone_peaks_in_its_band():
    tone = np.sin(2 * np.pi * 440 * np.arange(16000) / 16000).astype(np.float32)
    mel = np.asarray(dsp.log_mel(tone, 16000, n_fft=1024, hop_length=160, n_mels=64, fmin_hz=30.0)).mean(0)
    centres_hz = librosa.mel_frequencies(66, fmin=30.0, fmax=8000)[1:-1]
    assert abs(centres_hz[mel.argmax()] - 440) == abs(centres_hz - 440).min()
