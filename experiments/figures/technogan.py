"""Draws docs/technogan.svg: how TechnoGAN works, with all sizes read from the model.

    python -m experiments.figures.technogan

The model is that of configs/technogan.py:xs for two bars at 136 BPM. `read_sizes` is also used by
tests/integration/test_technogan_page.py, which compares the tables of docs/technogan.md with the model.
"""

from __future__ import annotations

import functools
import pathlib

import jax
import matplotlib
import matplotlib.patches

from configs import technogan as technogan_config
from technogen_jax import models
from technogen_jax.models import registry
from technogen_jax.models.technogan.code_synthesizer import CodeSynthesizer
from technogen_jax.models.technogan.codec.codec import Codec
from technogen_jax.models.technogan.critic_features import CriticFeatures
from technogen_jax.models.technogan.generator import LatentLayout

PATH = pathlib.Path(__file__).parents[2] / "docs" / "technogan.svg"
BARS, BAR_SAMPLES = 2, 77824  # a bar at 136 BPM and 44.1 kHz
_COLORS = {
    "audio": "#e8e8e8",
    "codec": "#dcebf7",
    "code": "#fff2cc",
    "generator": "#e2f0d9",
    "discriminator": "#f8dede",
}


def read_sizes() -> dict[str, dict[str, int]]:
    """Returns the sizes of the model by table: parts, features, latents, step values, bar values, and others."""
    config = technogan_config.get_config("xs").unlock()
    config.audio.update(sample_rate_hz=44100, channels=2, clip_samples=BARS * BAR_SAMPLES)
    config.model.bars, config.model.classes = BARS, ()
    fields, audio = registry.read_config(config)
    gan, codec = models.build(config), Codec(fields, audio)
    layout, synthesizer = codec.layout, CodeSynthesizer(codec)
    latents = LatentLayout.plan(fields, synthesizer.noise_size)
    parameters = [models.count_parameters(jax.eval_shape(init, jax.random.key(0))) for init in (gan.init_g, gan.init_d)]
    return {
        "parts": {name: part.size for name, part in layout.items()} | {"code": layout.size},
        "features": {name: part.features for name, part in layout.items()},
        "latents": {
            "style": latents.style_size,
            "anchor, without noise": latents.anchor_size,
            "noise of a bar": latents.whole_anchor_size - latents.anchor_size,
            "z of two bars": gan.sample_latents(jax.random.key(0), 1).shape[1],
        },
        "step values": synthesizer.step_sizes._asdict(),
        "bar values": synthesizer.bar_sizes._asdict(),
        "discriminator": {
            "code without `low`": layout.size - layout.low.size,
            "its change since a beat before": layout.size - layout.low.size,
            "critic features": CriticFeatures(codec).size,
        },
        "others": {
            "samples": audio.clip_samples,
            "steps": codec.grid.steps,
            "channels": fields.channels,
            "blocks": fields.blocks,
            "critic_channels": fields.critic_channels,
            "critic_blocks": fields.critic_blocks,
            "generator": parameters[0],
            "discriminator": parameters[1],
        },
    }


def _box(axes, kind, x, y, width, height, title, *lines):
    axes.add_patch(matplotlib.patches.Rectangle((x, y), width, height, facecolor=_COLORS[kind], edgecolor="#555555"))
    axes.text(x + width / 2, y + height - 1.4, title, ha="center", va="top", weight="bold")
    axes.text(x + width / 2, y + height - 4.4, "\n".join(lines), ha="center", va="top", linespacing=1.35)


def _arrow(axes, start, end):
    axes.annotate("", end, start, arrowprops=dict(arrowstyle="-|>", color="#333333"))


def _draw_decoding(axes, samples):
    box, arrow = functools.partial(_box, axes), functools.partial(_arrow, axes)
    axes.text(0, 21.5, "Decoding", style="italic")
    box("audio", 0, 3, 15, 15, "audio", f"[{samples}, 2]")
    box(
        "codec",
        21,
        1,
        27,
        19,
        "excitations × gates × levels",
        "noise, distorted low end,",
        "pulses, sines;",
        "gates by the shaper;",
        "below 235 Hz the waveform",
    )
    box("codec", 55, 3, 27, 15, "features", "levels, low waveform,", "pitch, partials, pan")
    arrow((89, 30), (78, 18))
    arrow((55, 10.5), (48, 10.5))
    arrow((21, 10.5), (15, 10.5))


def draw(sizes: dict[str, dict[str, int]], path: pathlib.Path = PATH) -> None:
    """Draws the figure; the same sizes give the same bytes."""
    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "technogan", "svg.fonttype": "none", "font.size": 9})
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(12, 7.6))
    axes.set(xlim=(0, 120), ylim=(0, 76))
    axes.axis("off")
    parts, others = sizes["parts"], sizes["others"]
    code, samples = f"[{others['steps']}, {parts['code']}]", f"{others['samples']:,}"
    step_size, bar_size = (sum(sizes[name].values()) for name in ("step values", "bar values"))
    part_lines = [f"{name}: {sizes['features'][name]} → {size}" for name, size in parts.items() if name != "code"]

    box, arrow = functools.partial(_box, axes), functools.partial(_arrow, axes)
    axes.text(0, 74, "Encoding, once for the whole dataset", style="italic")
    box("audio", 0, 54, 17, 17, "audio", f"{BARS} bars of 44.1 kHz", "stereo", f"[{samples}, 2]")
    box(
        "codec",
        25,
        54,
        23,
        17,
        "analysis",
        "of each sixteenth:",
        "log-mel spectra,",
        "low waveform, pitch,",
        "partials, pan",
    )
    box("codec", 56, 50, 28, 21, "principal components", *part_lines)
    box("code", 94, 54, 24, 17, "code of a real clip", code, "one vector for", "each sixteenth")
    for left, right in ((17, 25), (48, 56), (84, 94)):
        arrow((left, 62.5), (right, 62.5))

    latents = sizes["latents"]
    axes.text(0, 46, "Training", style="italic")
    box(
        "generator", 0, 25, 21, 19, "latents",
        f"style {latents['style']}",
        f"anchor of a bar {latents['anchor, without noise']}",
        f"noise of a bar {latents['noise of a bar']}",
        f"z: {latents['z of two bars']}",
    )  # fmt: skip
    box(
        "generator", 28, 25, 25, 19, "generator: backbone",
        f"{others['blocks']} residual blocks,", f"{others['channels']} channels", f"{others['generator'] / 1e6:.2f} M parameters",
        f"→ {step_size} values a sixteenth,", f"{bar_size} values a bar",
    )  # fmt: skip
    box(
        "generator", 60, 25, 22, 19, "generator: heads",
        "continuous, percussion,", "notes, partials,", "low end", "(no weights)",
    )  # fmt: skip
    box("code", 89, 29, 29, 11, "code of a generated clip", code)
    for left, right in ((21, 28), (53, 60), (82, 89)):
        arrow((left, 34.5), (right, 34.5))
    box(
        "discriminator", 89, 1, 29, 19, "discriminator",
        f"sees code, changes and {sizes['discriminator']['critic features']} features",
        f"{others['critic_blocks']} residual blocks, {others['critic_channels']} channels",
        f"{others['discriminator'] / 1e6:.2f} M parameters",
        "→ one logit a clip",
    )  # fmt: skip
    arrow((103.5, 29), (103.5, 20))
    axes.plot([118, 119.5, 119.5], [62.5, 62.5, 10], color="#333333", linewidth=1)
    arrow((119.5, 10), (118, 10))

    _draw_decoding(axes, samples)
    figure.tight_layout(pad=0.3)
    figure.savefig(path, format="svg", metadata={"Date": None})
    pyplot.close(figure)


if __name__ == "__main__":
    draw(read_sizes())
    print(PATH)
