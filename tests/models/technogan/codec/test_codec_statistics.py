import librosa
import numpy as np
import pytest
import scipy.signal
from helpers import building, codecs
from helpers.bars import PARTS, SMALL
from sklearn.decomposition import PCA


def test_measure_returns_the_statistics_of_sklearns_pca():
    """Levels by numpy and librosa's mel filters, the waveform by scipy's resampling."""
    bars = codecs.bars()
    _, statistics = codecs.linear()
    n_fft, hop = 448, 224  # four frames in each of 16 steps of 896 samples, overlapping by half
    filters = librosa.filters.mel(sr=8000, n_fft=n_fft, n_mels=16, fmin=125)
    filters /= filters.sum(1, keepdims=True)
    below = np.r_[0, np.ones(6), np.zeros(218)][None] / 6  # of the side: 17.9 to 107 Hz
    window = scipy.signal.get_window("hann", n_fft)
    places = (np.arange(64)[:, None] * hop - (n_fft - hop) // 2 + np.arange(n_fft)) % 14336
    signals = dict(mid=bars.mean(-1, dtype=np.float64), side=(bars[..., 0] - bars[..., 1]).astype(np.float64) / 2)
    rows = {}
    for part, signal in signals.items():
        magnitude = np.abs(np.fft.rfft(signal[:, places] * window)) / (n_fft / 4)
        bands = filters if part == "mid" else np.concatenate([below, filters])
        rows[part] = np.log(magnitude @ bands.T + 1e-4).reshape(96, -1)
    low = np.fft.rfft(signals["mid"])
    low[:, 16 * 27 :] = 0
    rows["low"] = scipy.signal.resample(np.fft.irfft(low), 16 * 54, axis=-1)
    for distance in range(6):  # before and behind each boundary, a sixth of a lap of 54 // 8 samples after the other
        behind = np.arange(16) * 54 + distance
        before = (behind - 2 * distance - 1) % (16 * 54)
        angle = np.pi / 4 * (1 - np.sin(np.pi / 2 * (distance + 0.5) / 6))
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        rows["low"][:, [behind, before]] = np.einsum("ij,bjn->bin", turn, rows["low"][:, [behind, before]])
    rows["low"] = rows["low"].reshape(-1, 54)

    def weigh(part, values, factor):
        """The features with the side's changes between four frames multiplied by a factor."""
        if part != "side":
            return values
        frames = values.reshape(96, 4, -1)
        mean = frames.mean(1, keepdims=True)
        return (mean + factor * (frames - mean)).reshape(96, -1)

    for part, count in (("mid", 12), ("side", 3), ("low", 10)):
        weighted = weigh(part, rows[part], 3)
        wanted = PCA(count, svd_solver="full").fit(weighted)
        variances = statistics[f"{part}_deviation"] ** 2 * 96 / 95  # scikit-learn's are the sample's
        np.testing.assert_allclose(statistics[f"{part}_mean"], rows[part].mean(0), atol=2e-4)
        np.testing.assert_allclose(variances, wanted.explained_variance_, rtol=2e-3)
        lost = weigh(part, weighted - wanted.inverse_transform(wanted.transform(weighted)), 1 / 3)
        lost = np.square(lost).mean(0)
        np.testing.assert_allclose(statistics[f"{part}_lost"], lost, rtol=2e-3, atol=2e-4)
        leading = statistics[f"{part}_basis"][:, :3]  # later ones may lie close together and turn
        np.testing.assert_allclose(np.abs((leading * wanted.components_[:3].T).sum(0)), 1, atol=2e-3)


def test_components_have_mean_zero_the_deviation_of_scale_and_no_correlation():
    bars = codecs.bars()
    made, statistics = codecs.linear()
    x = np.asarray(made.encode(bars)).reshape(-1, 27)
    np.testing.assert_allclose(
        (made.scale[:12] / made.scale[0]),
        (statistics["mid_deviation"] / statistics["mid_deviation"][0]) ** 0.75,
        rtol=1e-4,
    )
    np.testing.assert_allclose(x.mean(0), 0, atol=1e-2)
    for part in (slice(0, 12), slice(12, 15), slice(15, 25), slice(25, 27)):
        np.testing.assert_allclose(np.cov(x[:, part].T, bias=True), np.diag(made.scale[part] ** 2), atol=2e-2)


def test_code_is_scaled_as_the_statistics_say():
    bars = codecs.bars()
    made, statistics = codecs.linear()
    other = building.build(
        "technogan", **SMALL | PARTS, statistics=statistics | {"side_scale": 3 * statistics["side_scale"]}
    )
    x, scaled = np.asarray(made.encode(bars[:2])), np.asarray(other.encode(bars[:2]))
    np.testing.assert_allclose(scaled[..., 12:15], 3 * x[..., 12:15], rtol=1e-5)
    np.testing.assert_array_equal(np.delete(scaled, range(12, 15), -1), np.delete(x, range(12, 15), -1))
    older = {name: value for name, value in statistics.items() if name != "side_scale"}
    with pytest.raises(ValueError, match="expected statistics with a side_scale; these are an older version's"):
        building.build("technogan", **SMALL | PARTS, statistics=older)


def test_measure_and_codec_raise_without_clips_or_statistics():
    bars = codecs.bars()
    options = SMALL | PARTS
    with pytest.raises(ValueError, match="expected clips to measure, got none"):
        building.measure("technogan", [], **options)
    with pytest.raises(ValueError, match="clip_samples = 14336, got 14000; .* --grid bars --bars 1"):
        building.measure("technogan", [bars[:, :14000]], **options)
    with pytest.raises(ValueError, match="no statistics of the training set"):
        codecs.make(None).encode(bars)
    with pytest.raises(ValueError, match=r"a mid_basis of \(64, 20\), got \(64, 12\)"):
        building.build("technogan", **SMALL | PARTS | dict(mid_components=20), statistics=codecs.linear()[1])
