"""Spectrograms against librosa, pictures by their pixels."""

import io
import os

import librosa
import numpy as np
import pytest
from matplotlib import image

from technogen_jax.audio import spectrogram_images


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 96000])
def test_filters_match_librosa(rate):
    n_fft = spectrogram_images.frame_sizes(rate, rate)[0]
    want = librosa.filters.mel(
        sr=rate, n_fft=n_fft, n_mels=spectrogram_images.N_MELS, fmin=spectrogram_images.MEL_FMIN_HZ, norm=None
    )
    np.testing.assert_allclose(spectrogram_images.mel_filters(rate, n_fft), want, atol=1e-5)


def test_spectrogram_matches_librosa():
    rate = 22050
    audio = np.random.default_rng(0).standard_normal((2 * rate, 1)).astype(np.float32)
    n_fft, hop_length = spectrogram_images.frame_sizes(len(audio), rate)
    window = 0.5 * n_fft / 2  # the sum of a Hann window, halved: a full-scale sine has power 1
    power = librosa.feature.melspectrogram(
        y=audio[:, 0],
        sr=rate,
        n_fft=n_fft,
        hop_length=hop_length,
        n_mels=spectrogram_images.N_MELS,
        fmin=spectrogram_images.MEL_FMIN_HZ,
        norm=None,
        pad_mode="constant",
    )
    want = 10 * np.log10(np.maximum(power / window**2, 1e-10))
    np.testing.assert_allclose(
        spectrogram_images.mel_db(audio, rate), want[:, : spectrogram_images.mel_db(audio, rate).shape[1]], atol=0.01
    )


@pytest.mark.parametrize("rate", [16000, 44100])
def test_a_full_scale_sine_is_0_db_in_its_band(rate):
    t = np.arange(rate) / rate
    levels = spectrogram_images.mel_db(np.sin(2 * np.pi * 1000 * t).astype(np.float32)[:, None], rate)
    middle = levels[:, levels.shape[1] // 2]
    assert abs(middle.max()) < 2
    centres = librosa.mel_frequencies(
        spectrogram_images.N_MELS + 2, fmin=spectrogram_images.MEL_FMIN_HZ, fmax=rate / 2
    )[1:-1]
    assert abs(centres[middle.argmax()] / 1000 - 1) < 0.05


@pytest.mark.parametrize("samples", [1, 10, 16384, 352800, 44100 * 200])
def test_image_width_is_bounded_for_any_length(samples):
    levels = spectrogram_images.mel_db(np.zeros((samples, 2), np.float32), 44100)
    assert levels.shape[0] == spectrogram_images.N_MELS and 1 <= levels.shape[1] <= 401
    np.testing.assert_allclose(levels, -100, atol=1e-4)


def test_image_has_low_frequencies_at_the_bottom():
    t = np.arange(16384) / 16000
    picture = spectrogram_images.mel_image(np.sin(2 * np.pi * 100 * t).astype(np.float32)[:, None], 16000)
    assert picture.dtype == np.uint8 and picture.shape[0] == 2 * spectrogram_images.N_MELS and picture.shape[2] == 3
    brightness = picture.sum(axis=(1, 2), dtype=np.int64)
    assert brightness.argmax() > 0.8 * len(brightness)


@pytest.mark.parametrize("count", [1, 3, 12])
def test_write_contact_sheet_writes_one_image(tmp_path, count):
    rng = np.random.default_rng(0)
    clips = [rng.standard_normal((4000, 1)).astype(np.float32) for _ in range(count)]
    titles = ["$\\bad_{ math", "new\nline", "日本語.wav", "x" * 300, "latin \\xe9", *"abcdefg"][:count]
    spectrogram_images.write_contact_sheet(tmp_path / "sheet.png", clips, 16000, titles, heading="$heading")
    data = (tmp_path / "sheet.png").read_bytes()
    shape = image.imread(io.BytesIO(data)).shape
    assert shape[0] > 200 and shape[1] > 300
    assert os.listdir(tmp_path) == ["sheet.png"]


def test_lines_show_beats_and_brighter_ones_bars(tmp_path):
    pictures = []
    for bars in (None, 2):
        spectrogram_images.write_contact_sheet(
            tmp_path / "sheet.png", [np.zeros((16000, 1), np.float32)], 8000, heading="h", note="look", bars=bars
        )
        pictures.append(image.imread(io.BytesIO((tmp_path / "sheet.png").read_bytes()))[..., :3].mean(-1))
    plain, lined = pictures
    row = plain.shape[0] // 2  # through the picture, which is black: silence
    brighter = (lined - plain)[row] > 0.1
    starts = np.flatnonzero(np.diff(brighter.astype(int)) == 1)
    assert len(starts) == 7, "two bars of four beats; the first beat is the frame"
    heights = [(lined - plain)[row, start + 1 : start + 4].max() for start in starts]
    assert heights[3] > 1.3 * max(heights[:3] + heights[4:]), "the second bar"
    distances = np.diff(starts)
    assert distances.max() - distances.min() <= 2


def test_invalid_arguments_are_errors(tmp_path):
    with pytest.raises(ValueError, match="at least one clip"):
        spectrogram_images.write_contact_sheet(tmp_path / "a.png", [], 16000)
    with pytest.raises(ValueError, match="1 titles for 2 clips"):
        spectrogram_images.write_contact_sheet(tmp_path / "a.png", [np.zeros((9, 1))] * 2, 16000, ["a"])
    for audio in (np.zeros(9), np.zeros((0, 1))):
        with pytest.raises(ValueError, match=r"expected audio \[T, C\]"):
            spectrogram_images.mel_db(audio, 16000)
