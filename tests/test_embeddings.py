import librosa
import numpy as np
import pytest

from technogen_jax import embeddings


@pytest.mark.parametrize("rate_hz, n_fft", [(16000, 1024), (44100, 2048)])
def test_timbre_is_the_statistics_of_librosas_mel_spectrogram(rate_hz, n_fft):
    audio = (0.1 * np.random.default_rng(0).standard_normal((2, rate_hz // 2, 2))).astype(np.float32)
    hop_length = rate_hz // 100
    power = librosa.feature.melspectrogram(
        y=audio.mean(2), sr=rate_hz, n_fft=n_fft, hop_length=hop_length, n_mels=64, fmin=30, center=False
    )
    mel = np.log(power.astype(np.float64) + 1e-5)
    spread = np.percentile(mel, 90, axis=2) - np.percentile(mel, 10, axis=2)
    expected = np.concatenate([mel.mean(2), mel.std(2), np.diff(mel, axis=2).std(2), spread], axis=1)
    np.testing.assert_allclose(embeddings.timbre(audio, rate_hz), expected, atol=2e-3)


def test_a_clip_is_embedded_alike_in_any_company():
    audio = np.random.default_rng(0).uniform(-1, 1, (35, 4000, 1)).astype(np.float32)
    together = embeddings.timbre(audio, 8000)
    assert together.shape == (35, 256)
    np.testing.assert_allclose(embeddings.timbre(audio[34:], 8000), together[34:], atol=1e-5)


def test_clips_of_less_than_two_frames_are_an_error():
    with pytest.raises(ValueError, match="at least 592 samples at 8000 Hz, got 591"):
        embeddings.timbre(np.zeros((2, 591, 1), np.float32), 8000)
