import xml.etree.ElementTree as ET

import numpy as np
import pytest

from technogen_jax.evaluation import charts

RANDOM = np.random.default_rng(0)
DRAWN = {
    "ratios": lambda: charts.draw_ratios([("timbre", 3.0), ("a ratio far below one", 0.001), ("rhythm", 40.0)]),
    "histograms": lambda: charts.draw_histograms(
        [
            ("tempo, BPM", RANDOM.normal(130, 5, 50), RANDOM.normal(140, 5, 70)),
            ("never defined", np.full(3, np.nan), np.full(3, np.nan)),
            ("always the same", np.zeros(5), np.zeros(5)),
        ]
    ),
    "spectra": lambda: charts.draw_spectra(
        np.geomspace(30, 8000, 20), [("real", charts.REAL, RANDOM.normal(-60, 5, (9, 20)))]
    ),
    "scatter": lambda: charts.draw_scatter([("real", charts.REAL, RANDOM.normal(0, 1, (30, 2)))]),
}


@pytest.mark.parametrize("name", DRAWN)
def test_a_chart_is_self_contained_svg(name):
    svg = DRAWN[name]()
    root = ET.fromstring(svg)
    assert root.tag.endswith("svg") and float(root.get("width").removesuffix("pt")) > 100
    assert "<metadata" not in svg and 'href="http' not in svg


def test_a_chart_contains_its_labels_and_is_reproducible():
    chart = DRAWN["ratios"]()
    texts = " ".join(ET.fromstring(chart).itertext())
    assert "timbre" in texts and "0.001" in texts and "40" in texts
    assert DRAWN["ratios"]() == chart
