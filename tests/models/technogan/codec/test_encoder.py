import numpy as np
from helpers import codecs
from helpers.bars import TONES

from technogen_jax.models.technogan.codec import analysis
from technogen_jax.models.technogan.codec import statistics as statistics_module


def test_encode_partial_peaks_raises_the_band_in_which_a_sine_is_loudest():
    """The code has all components, so that none is left out."""
    bars = codecs.bars()
    made, statistics = codecs.measure(bars, **TONES | dict(mid_components=64, side_components=68), shaper="new")
    grid, time_s = codecs.GRID, np.arange(14336)[:, None] / 8000
    filters = codecs.BANDS
    for part, lowest_hz, channels in (("mid", 220, [1, 1]), ("side", 125, [1, -1])):
        basis, deviation, scale, within = (
            statistics[f"{part}_{name}"] for name in ("basis", "deviation", "scale", "within")
        )
        deviation = np.maximum(deviation, statistics_module.LEAST_DEVIATION)
        read = statistics_module.weigh_changes((deviation / scale * basis).T, 4, 1 / float(within))
        for band in (4, 7, 10):
            position = round(60 * np.log2(getattr(filters, part)[band].argmax() * 8000 / grid.n_fft / lowest_hz))
            sine = np.float32(np.sin(2 * np.pi * lowest_hz * 2 ** (position / 60) * time_s) * channels)
            features = getattr(analysis.analyze(sine[None], grid, filters, tonal=False), part)
            levels = (made.encode_partial_peaks(part)[position] @ read).reshape(4, -1)
            loudest = np.asarray(features).reshape(-1, levels.shape[1]).mean(0).argmax()
            assert loudest == band and (levels.argmax(1) == band).all()
            np.testing.assert_allclose(levels[:, band], 1, atol=0.05)
