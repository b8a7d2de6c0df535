"""Charts of the report: SVG text, drawn by matplotlib without a display."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np

REAL, GENERATED, OTHER = "#2b8cbe", "#e6550d", "#888888"  # colour-blind readers can distinguish them too
_BINS = 24
_COLUMNS = 4


def draw_ratios(rows: Sequence[tuple[str, float]]) -> str:
    """Returns a bar chart of distances as multiples of the floor, on a logarithmic axis.

    Args:
        rows: (name, ratio), each above 0; a ratio below 0.1 is drawn as 0.1.
    """
    figure, axis = _make_figure(7, 0.8 + 0.26 * len(rows))
    names, values = zip(*rows, strict=True)
    shown = np.maximum(values, 0.1)
    places = np.arange(len(rows))[::-1]
    axis.barh(places, shown, left=0, color=[GENERATED if value > 1 else REAL for value in shown], height=0.6)
    for place, value, end in zip(places, values, shown, strict=True):
        axis.text(end * 1.05, place, f"{value:.3g}", va="center", fontsize=8)
    axis.set_xscale("log")
    axis.set_xlim(0.09, max(12, 3 * max(shown)))
    axis.axvline(1, color=OTHER, linewidth=1)
    axis.set_yticks(places, names, fontsize=8)
    axis.set_xlabel("multiple of the distance between real clips (1: as close as real clips)", fontsize=8)
    return _to_svg(figure)


def draw_histograms(rows: Sequence[tuple[str, np.ndarray, np.ndarray]]) -> str:
    """Returns one small histogram a feature, each with real and generated clips.

    Args:
        rows: (title, values of real clips, values of generated clips); values that are not finite
            are left out.
    """
    lines = -(-len(rows) // _COLUMNS)
    figure, axes = _make_figure(11, 1.9 * lines + 0.4, lines, _COLUMNS)
    for axis, row in zip(axes.flat, [*rows, *[None] * (axes.size - len(rows))], strict=True):
        if row is None:
            axis.set_axis_off()
            continue
        title, *sides = row
        sides = [values[np.isfinite(values)] for values in sides]
        both = np.concatenate(sides)
        # Without limits one outlier would put all other clips into one bin.
        low, high = np.percentile(both, [0.5, 99.5]) if len(both) else (0, 1)
        bins = np.linspace(low, high if high > low else low + 1, _BINS)
        for values, colour, name in zip(sides, (REAL, GENERATED), ("real", "generated"), strict=True):
            if len(values):
                weights = np.full(len(values), 1 / len(values))
                values = np.clip(values, bins[0], bins[-1])
                axis.hist(values, bins, weights=weights, color=colour, alpha=0.55, label=name)
        axis.set_title(title, fontsize=8)
        axis.set_yticks([])
        axis.tick_params(labelsize=7)
        axis.locator_params(axis="x", nbins=4)  # more numbers would overlap
    axes.flat[0].legend(fontsize=7, frameon=False)
    return _to_svg(figure)


def draw_spectra(centres_hz: np.ndarray, lines: Sequence[tuple[str, str, np.ndarray]]) -> str:
    """Returns a chart of long-term spectra: the median as a line, the middle 80 % as a band.

    Args:
        centres_hz: `[L]`.
        lines: (name, colour, levels in dB `[n, L]`).
    """
    figure, axis = _make_figure(7, 3)
    for name, colour, levels in lines:
        low, middle, high = np.percentile(levels, [10, 50, 90], axis=0)
        axis.plot(centres_hz, middle, color=colour, label=name)
        axis.fill_between(centres_hz, low, high, color=colour, alpha=0.2, linewidth=0)
    axis.set_xscale("log")
    axis.set_xlabel("Hz", fontsize=8)
    axis.set_ylabel("dB, each third of an octave", fontsize=8)
    axis.tick_params(labelsize=8)
    axis.legend(fontsize=8, frameon=False)
    return _to_svg(figure)


def draw_scatter(groups: Sequence[tuple[str, str, np.ndarray]]) -> str:
    """Returns a chart of clips as points in the first two dimensions of an embedding.

    Args:
        groups: (name, colour, `[n, d]`, d at least 2).
    """
    figure, axis = _make_figure(5, 4.2)
    for name, colour, points in groups:
        axis.scatter(
            points[:, 0], points[:, 1], s=9, color=colour, alpha=0.5, linewidths=0, label=name, rasterized=True
        )
    axis.set_xticks([])
    axis.set_yticks([])
    axis.legend(fontsize=8, frameon=False)
    return _to_svg(figure)


def _make_figure(width: float, height: float, rows: int = 1, columns: int = 1):
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    FigureCanvasSVG(figure)
    several = rows * columns > 1
    axes = figure.subplots(rows, columns, squeeze=not several)
    for axis in axes.flat if several else [axes]:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _to_svg(figure) -> str:
    import matplotlib

    text = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "technogen"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    svg = text.getvalue()
    start, end = svg.index("<metadata>"), svg.index("</metadata>") + len("</metadata>")
    return svg[svg.index("<svg") : start] + svg[end:]  # metadata has no use inside HTML
