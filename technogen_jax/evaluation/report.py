"""An evaluation's result as one HTML page: figures, charts, spectrograms and sound.

The page loads nothing from elsewhere: charts are inline SVG, images PNG, sound FLAC. It shows every
distance, feature and embedding that the result has.
"""

from __future__ import annotations

import base64
import html
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from technogen_jax.audio import audio_files, spectrogram_images
from technogen_jax.common import atomic_files
from technogen_jax.evaluation import charts, embeddings, opinions, summary
from technogen_jax.evaluation.metrics import distances

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --warn: #c60; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 1080px; margin: 0 auto; padding: 1rem; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line); }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.25rem 0.7rem; text-align: right; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
.wide { overflow-x: auto; } .small { font-size: 0.85rem; opacity: 0.8; }
.cards { display: grid; gap: 0.8rem; grid-template-columns: repeat(auto-fit, minmax(200px, 1fr)); margin: 1rem 0; }
.card { background: var(--soft); border-radius: 8px; padding: 0.8rem 1rem; } .card > b { font-size: 1.5rem; display: block; }
.clips { display: grid; gap: 0.8rem; grid-template-columns: repeat(auto-fill, minmax(230px, 1fr)); }
.clips figure { margin: 0; } .clips img { width: 100%; height: 110px; display: block; border-radius: 4px; }
.clips audio, .pair audio { width: 100%; height: 32px; } figcaption { font-size: 0.8rem; overflow-wrap: anywhere; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 0.8rem; margin-bottom: 1.2rem; }
.chart { background: #fff; border-radius: 8px; padding: 0.5rem; overflow-x: auto; }
.chart svg { max-width: 100%; min-width: 520px; height: auto; display: block; }
.warn { border-left: 4px solid var(--warn); padding: 0.2rem 0.8rem; margin: 0.5rem 0; background: var(--soft); font-size: 0.9rem; }
.verdict { font-size: 1.2rem; border-left: 4px solid #2b8cbe; padding: 0.2rem 1rem; } .verdict b { display: block; }
nav a { margin-right: 1rem; white-space: nowrap; } a { color: inherit; }
td:first-child { min-width: 10rem; }
@media (prefers-color-scheme: dark) { .chart { background: #1b1b1b; } .chart svg { filter: invert(0.9) hue-rotate(180deg); } }
@media (max-width: 600px) { .pair { grid-template-columns: 1fr; } th, td { padding: 0.25rem 0.4rem; } h1 { font-size: 1.4rem; } }
pre { overflow-x: auto; font-size: 0.8rem; }
"""


_SHOWN = ("frechet", "mmd", "precision", "recall", "coverage")  # of the table of embeddings
_TAGS = 8


class Sound(NamedTuple):
    """A clip in the report.

    Attributes:
        title: the text below it.
        pcm: int16 `[T, C]`.
    """

    title: str
    pcm: np.ndarray


class Exhibits(NamedTuple):
    """The sounds and the data of the charts that a report shows beside the figures.

    Attributes:
        sample_rate_hz: the sample rate of the sounds.
        generated: generated clips.
        real: real clips.
        copies: (generated clip, training clip, what matched) of clips that may be copies.
        features: (title, real values, generated values).
        spectra: (name, colour, `[n, L]` dB).
        spectra_hz: `[L]`.
        points: (name, colour, `[n, 2]`), clips in the plane.
    """

    sample_rate_hz: int
    generated: Sequence[Sound]
    real: Sequence[Sound]
    copies: Sequence[tuple[Sound, Sound, str]]
    features: Sequence[tuple[str, np.ndarray, np.ndarray]]
    spectra: Sequence[tuple[str, str, np.ndarray]]
    spectra_hz: np.ndarray
    points: Sequence[tuple[str, str, np.ndarray]]


def write(path: str | os.PathLike, result: dict[str, Any], exhibits: Exhibits) -> None:
    """Writes the report; the file appears complete or not at all."""
    path = pathlib.Path(path)
    sets = result["sets"]
    title = f"{sets['generated']['name']} against {sets['reference']['name']}"
    what, meaning = summary.verdict(result)
    sections = [
        ("Listen", _render_listening(exhibits) + _render_warnings(result, "clips")),
        ("What a musician can act on", _render_features(result, exhibits)),
        ("How far from real clips", _render_distances(result, exhibits)),
        ("Do the embeddings agree?", _render_opinions(result)),
        ("How techno do they sound?", _render_tags(result)),
        ("Can a classifier distinguish them?", _render_two_sample(result)),
        ("Copied?", _render_copies(result, exhibits)),
        ("Labels", _render_labels(result)),
        (
            "How this was computed",
            "<p>Results are comparable where all of this but the generated set is the same.</p>"
            f"<details><summary>the whole result</summary><pre>{_escape(json.dumps(result, indent=1))}</pre></details>",
        ),
    ]
    sections = [(_identifier(name), name, content) for name, content in sections if content]
    parts = [
        f"<h1>{_escape(title)}</h1>",
        f"<p class=verdict><b>{_escape(what)}</b> {_escape(meaning)}</p>",
        f"<p class=small>{_render_context(result)}</p>",
        _render_cards(result),
        f"<nav aria-label=contents>{' '.join(f'<a href=#{at}>{_escape(name)}</a>' for at, name, _ in sections)}</nav>",
        *(f"<h2 id={at}>{_escape(name)}</h2>{content}" for at, name, content in sections),
    ]
    atomic_files.write_text(
        path,
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{_escape(title)}</title><style>{_STYLE}</style><body>\n" + "\n".join(parts) + "\n</body></html>\n",
    )


def _render_context(result: dict[str, Any]) -> str:
    context, sets = result["context"], result["sets"]
    sides = [
        f"{sets[side]['clips']} clips of {sets[side]['tracks']} tracks ({side})" for side in ("generated", "reference")
    ]
    return _escape(
        f"{context['seconds']:g} s at {context['sample_rate_hz']} Hz, "
        f"{'stereo' if context['channels'] == 2 else 'mono'}; {', '.join(sides)}; figures are means over {result['draws']['count']} random choices of "
        f"{result['draws']['tracks']} tracks, one clip each"
    )


def _identifier(title: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in title.lower()).split())


def _render_warnings(result: dict[str, Any], about: str) -> str:
    """Returns the warnings about one kind of figure."""
    texts = [warning["text"] for warning in result["warnings"] if warning["about"] == about]
    return "".join(f"<p class=warn><b>Warning.</b> {_escape(text)}.</p>" for text in texts)


def _render_cards(result: dict[str, Any]) -> str:
    """Returns the main figures, each with its meaning and its warnings; no figure that a warning calls flattering."""
    cards = []
    flattered = summary.flattered(result)
    for name, blocks in result["distances"].items():
        block = blocks.get("all") or next(iter(blocks.values()))
        frechet, coverage = block["frechet"], block["coverage"]
        far = "not shown" if flattered else _format_ratio(frechet["ratio"])
        note = f"times as far from real clips as other real clips are (1: as close). Fréchet distance in {name}"
        cards.append(("distance", far, _escape(note), "distance"))
        note = (
            f"of the real clips have a generated clip near them; of other real clips {coverage['floor']:.0%} ({name})"
        )
        cards.append(("variety", f"{coverage['value']:.0%}", _escape(note), ""))
    for name, test in opinions.all_tests(result).items():
        by = f" ({name})" if len(result["distances"]) > 1 else ""
        note = f"of its answers are right{by}; guessing gives 50%. {test['verdict']}"
        cards.append(("a classifier", f"{test['accuracy']:.0%}", _escape(note), "classifier"))
    if panel := result["memorisation"]:
        note = f"of the generated clips look copied; of real clips {panel['held_out_flagged_share']:.1%}"
        cards.append(("copies", f"{panel['flagged_share']:.1%}", _escape(note), "copies"))
    elif _render_warnings(result, "copies"):
        cards.append(("copies", "not known", "", "copies"))
    shown = {about: _render_warnings(result, about) for about in ("distance", "classifier", "copies")}
    body = "".join(
        f"<div class=card>{_escape(name)}<b>{value}</b>{note}{shown.pop(about, '')}</div>"
        for name, value, note, about in cards
    )
    return f"<div class=cards>{body}</div><p class=small>{_escape(result['claim']['sentence'])}</p>"


def _render_listening(exhibits: Exhibits) -> str:
    return (
        f"<h3>Generated</h3>{_render_clips(exhibits.generated, exhibits.sample_rate_hz)}"
        f"<h3>Real, not trained on</h3>{_render_clips(exhibits.real, exhibits.sample_rate_hz)}"
        "<p class=small>Pictures are mel spectrograms: time to the right, frequency upwards, bright is loud.</p>"
    )


def _render_clips(sounds: Sequence[Sound], sample_rate_hz: int) -> str:
    return f"<div class=clips>{''.join(_render_clip(sound, sample_rate_hz) for sound in sounds)}</div>"


def _render_clip(sound: Sound, sample_rate_hz: int) -> str:
    picture = spectrogram_images.png(spectrogram_images.mel_image(audio_files.from_int16(sound.pcm), sample_rate_hz))
    flac = audio_files.encode(sound.pcm, sample_rate_hz, ".flac")
    return (
        f"<figure><img alt='mel spectrogram' src='{_encode_data_url('image/png', picture)}'>"
        f"<audio controls loop preload=metadata src='{_encode_data_url('audio/flac', flac)}'></audio>"
        f"<figcaption>{_escape(sound.title)}</figcaption></figure>"
    )


def _render_opinions(result: dict[str, Any]) -> str:
    """Returns the embeddings side by side, and where they disagree; "" for one embedding."""
    if len(result["distances"]) < 2:
        return ""
    tests, rows = opinions.all_tests(result), []
    for name, blocks in result["distances"].items():
        block = blocks.get("all") or next(iter(blocks.values()))
        pairs = [
            f"{_format_number(block[figure]['value'])} ({_format_number(block[figure]['floor'])})" for figure in _SHOWN
        ]
        right = f"{tests[name]['correct']} of {tests[name]['clips']}"
        rows.append([name, _format_ratio(block["frechet"]["ratio"]), *pairs, f"{block['mmd']['p']:.3g}", right])
    titles = [distances.titles()[figure].partition(":")[0] for figure in _SHOWN]
    head = ["", "Fréchet / floor", *titles, "p of MMD²", "classifier right"]
    found = "".join(f"<p class=warn>{_escape(line)}.</p>" for line in result["disagreements"])
    return (
        "<p>Each embedding is an independent opinion. Each figure is followed by its floor, the same figure of other real "
        f"clips.</p>{found or '<p>They agree.</p>'}{_render_table(head, rows)}"
    )


def _render_tags(result: dict[str, Any]) -> str:
    """Returns the tags that networks give the clips; "" without such a network."""
    parts = []
    for name, tags in result["tags"].items():
        by_difference = sorted(tags, key=lambda tag: abs(tags[tag]["generated"] - tags[tag]["reference"]), reverse=True)
        by_mean = sorted(tags, key=lambda tag: max(tags[tag].values()), reverse=True)
        shown = dict.fromkeys(["techno", *by_mean[:_TAGS], *by_difference[:_TAGS]])
        rows = [
            [tag, *(f"{tags[tag][side]:.2f}" for side in ("generated", "reference", "other"))]
            for tag in shown
            if tag in tags
        ]
        parts.append(
            f"<h3>{_escape(name)}</h3><p>The mean probability of tags, by a network that learned them from people: "
            "“techno”, the most probable tags, and those that differ most.</p>"
            + _render_table(["tag", "generated", "real", "other real"], rows)
        )
    return "".join(parts)


def _render_distances(result: dict[str, Any], exhibits: Exhibits) -> str:
    tables, bars = [], []
    metric_titles, block_titles = distances.titles(), embeddings.block_titles()
    sources = [
        *result["distances"].items(),
        *((f"{n} at one loudness", b) for n, b in result["loudness_matched"].items()),
    ]
    for name, blocks in sources:
        rows = []
        for block, metrics in blocks.items():
            title = block_titles.get(block, block)
            if metrics["frechet"]["ratio"]:
                bars.append((f"{name} {title}", metrics["frechet"]["ratio"]))
            for metric, found in metrics.items():
                figures = [_format_number(found[name]) for name in ("value", "sd", "floor", "floor_sd", "ratio")]
                p = f"{found['p']:.3g}" if "p" in found else ""
                rows.append([f"{title}: {metric_titles.get(metric, metric)}", *figures, p])
        head = ["", "generated", "±", "real/real floor", "±", "ratio", "p"]
        tables.append(f"<h3>{_escape(name)}</h3>{_render_table(head, rows)}")
    return (
        _render_warnings(result, "distance") + "<p>Clips are compared as points in an embedding: numbers that describe "
        "their sound. tmr-v1 has timbre, modulation and rhythm. The <b>floor</b> is the same figure of real clips of other "
        "tracks, and the <b>ratio</b> is the figure divided by it; only the floor of the kernel distance is zero on average, "
        "and its ratio is to the 95th percentile of chance. <b>±</b> is the standard deviation over draws of tracks. "
        "<b>p</b> is the probability of a kernel distance as large by chance. For precision, recall, density and coverage 1 "
        "is best. The figures are not comparable with published values of the Fréchet audio distance (FAD).</p>"
        f"<div class=chart>{charts.draw_ratios(bars)}</div>"
        f"<details open><summary>all figures</summary>{''.join(tables)}</details>"
        f"<h3>Clips in the plane of the two widest dimensions</h3><div class=chart>{charts.draw_scatter(exhibits.points)}</div>"
    )


def _render_features(result: dict[str, Any], exhibits: Exhibits) -> str:
    rows = []
    for name, found in summary.rank_features(result["features"]):
        middle = [
            "{}<br><span class=small>{} to {}</span>".format(
                *(_format_number(found[side][point]) for point in ("median", "p10", "p90"))
            )
            for side in ("reference", "generated")
        ]
        words = name.removesuffix(f"_{found['unit'].lower()}").replace("_", " ")
        unit = f", {_escape(found['unit'])}" if found["unit"] else ""
        title = f"{_escape(words)}{unit}<br><span class=small>{_escape(found['says'])}</span>"
        figures = [_format_number(found[figure]) for figure in ("wasserstein", "floor", "p")]
        rows.append([title, *middle, *figures])
    head = ["the most wrong first", "real", "generated", "distance", "floor", "p"]
    ltas = result["features"]["ltas"]
    return (
        "<p>Each row is a property of the sound: its median, and the range of the middle 80 % of clips. <b>Distance</b> is "
        "how far the generated clips are from the real ones, in standard deviations of the real clips (Wasserstein "
        "distance). The <b>floor</b> is this distance between real clips of different tracks: rows above it are what to work "
        "on. <b>p</b> is the probability of a difference as large by chance (Kolmogorov-Smirnov, tracks permuted).</p>"
        f"{_render_table(head, rows, raw=True)}<h3>The same as distributions</h3>"
        f"<div class=chart>{charts.draw_histograms(exhibits.features)}</div>"
        f"<h3>Long-term spectrum</h3><p>Its shape is {ltas['shape_db']:.2g} dB from the real one (real/real "
        f"{ltas['floor_shape_db']:.2g}), its level {ltas['offset_db']:+.2g} dB (real/real {ltas['floor_offset_db']:+.2g}).</p>"
        f"<div class=chart>{charts.draw_spectra(exhibits.spectra_hz, exhibits.spectra)}</div>"
    )


def _render_two_sample(result: dict[str, Any]) -> str:
    found = result["two_sample"]

    named = {"real or generated?": found["test"], "the same from file properties alone": found["shortcuts"]}
    named |= {f"control: {name}": test for name, test in found["controls"].items()}
    for embedding, tests in found["others"].items():
        named[f"{embedding}: real or generated?"] = tests["test"]
        named |= {f"{embedding}: control: {name}": test for name, test in tests["controls"].items()}
    rows = [
        [
            f"{name} ({test['classifier']})",
            f"{test['accuracy']:.1%}",
            f"{test['low']:.0%} to {test['high']:.0%}",
            test["clips"],
            f"{test['p']:.3g}",
            f"{test['auc']:.2f}",
            f"{test['detectable']:.0%}",
            test["verdict"],
        ]
        for name, test in named.items()
    ]
    head = ["", "right", "95 %", "clips", "p", "AUC", "detectable", "result"]
    return (
        _render_warnings(result, "classifier")
        + "<p>It is trained on half the tracks and tested on one clip of each other track. <b>right</b>: the share of right "
        "answers; 50 % is chance. <b>95 %</b>: its confidence interval. <b>p</b>: the probability of as many right answers "
        "by chance. <b>AUC</b>: the area under the ROC curve, the probability that a generated clip gets a higher score than "
        "a real one; 0.5 is chance. <b>detectable</b>: the smallest accuracy that a test of this number of clips detects. "
        "A control says whether the test works.</p>" + _render_table(head, rows)
    )


def _render_copies(result: dict[str, Any], exhibits: Exhibits) -> str:
    panel = result["memorisation"]
    if not panel:
        return "<p>Not tested: the training tracks were not given.</p>" + _render_warnings(result, "copies")
    rows = [
        [name.replace("_", " "), _format_number(value)]
        for name, value in panel.items()
        if isinstance(value, (int, float))
    ]
    pairs = "".join(
        f"<h3>{_escape(what)}</h3><div class='pair clips'>{_render_clip(fake, exhibits.sample_rate_hz)}{_render_clip(real, exhibits.sample_rate_hz)}</div>"
        for fake, real, what in exhibits.copies
    )
    return (
        _render_warnings(result, "copies")
        + "<p>A clip is flagged if it is closer to a training clip than 99.9 % of held-out real clips are, "
        "by the correlation of spectrograms at any shift or by a fingerprint of spectral peaks. Flagged pairs, with the "
        "generated clip on the left:</p>" + (pairs or "<p>None.</p>") + _render_table(["", ""], rows)
    )


def _render_labels(result: dict[str, Any]) -> str:
    found = result.get("labels")
    if not found:
        return ""
    rows = [
        [name.replace("_", " "), _format_number(value)]
        for name, value in found.items()
        if isinstance(value, (int, float))
    ]
    return "<p>By a classifier that was trained on the labels of the dataset.</p>" + _render_table(["", ""], rows)


def _render_table(head: Sequence[str], rows: Sequence[Sequence[Any]], raw: bool = False) -> str:
    cell = str if raw else _escape
    lines = "".join(f"<tr>{''.join(f'<td>{cell(value)}</td>' for value in row)}</tr>" for row in rows)
    return (
        f"<div class=wide><table><tr>{''.join(f'<th>{_escape(name)}</th>' for name in head)}</tr>{lines}</table></div>"
    )


def _format_pair(found: dict[str, float]) -> str:
    return f"{_format_number(found['value'])}; {_format_number(found['floor'])}"


def _format_ratio(ratio: float | None) -> str:
    return "–" if ratio is None else f"{ratio:.2g} ×"


def _format_number(value: float | None) -> str:
    # Rounding errors, like the deviation of equal values, become 0.
    return "–" if value is None else f"{value if abs(value) > 1e-12 else 0:.3g}"


def _escape(value: Any) -> str:
    return html.escape(str(value))


def _encode_data_url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
