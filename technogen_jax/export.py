"""Makes one file of a trained generator: the command; the work is done by `exporting.model_file`.

python -m technogen_jax.export --workdir runs/technogan --licence CC0-1.0 --data "the built-in corpus"
python -m technogen_jax.export --workdir technogen_jax/pretrained/technogan.npz --format onnx
"""

from __future__ import annotations

import argparse
import pathlib
import sys
from collections.abc import Sequence

from technogen_jax.exporting import model_file
from technogen_jax.runs import bundle

# What the file is read with, where there is JAX and no TechnoGen.
RELOAD = """\
import json, jax.export, numpy as np, soundfile
card = json.load(open("techno.stablehlo.json"))
sound = jax.export.deserialize(bytearray(open("techno.stablehlo", "rb").read()))
draw = np.random.default_rng(7)
parts = [draw.normal(size=part["size"]) if part["draw"] == "normal" else draw.uniform(-1, 1, part["size"]) for part in card["latents"]]
if card["labels"]:
    parts[-1] = np.eye(len(card["labels"]))[card["labels"].index("acid")]
latents = np.float32(np.concatenate(parts))[None]  # [B, Z]
audio = np.asarray(sound.call(latents))  # [B, T, C]
soundfile.write("techno.wav", np.clip(audio[0], -1, 1), card["sample_rate_hz"])"""


def parse_options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of a command line; exits with 2 and one line where they cannot work."""
    parser = argparse.ArgumentParser(
        prog="python -m technogen_jax.export",
        description="Makes one file of a trained generator, to be given away, with a card that says licence, data and how it is\n"
        "played.  npz: averaged weights and config, for TechnoGen, about 2 MB a million parameters.  stablehlo: for any program\n"
        "with JAX, as new as the one here or newer.  onnx: for any program with an ONNX runtime, one clip at a time; TechnoGAN's\n"
        "takes its noise as a second input. Of the last two the card is beside the file, FILE.json.",
        epilog="""examples:
  the newest checkpoint:
    python -m technogen_jax.export --workdir runs/technogan --licence CC0-1.0 --data "the built-in corpus"
  the checkpoint that was evaluated best, under a name:
    python -m technogen_jax.export --workdir runs/technogan --step best --output techno.npz --licence MIT --data "our tracks"
  to hear it, or to evaluate it, name the file where a run's folder is asked for:
    python -m technogen_jax.sample --workdir techno.npz --output sound
  its card:
    python -c "import numpy; print(numpy.load('techno.npz')['card'])"
  for programs without TechnoGen (pip install -r requirements-export.txt), of a run or of such a file:
    python -m technogen_jax.export --workdir techno.npz --format onnx
    python -m technogen_jax.export --workdir techno.npz --format stablehlo
  which is read there by:
"""
        + "\n".join(f"    {line}" for line in RELOAD.replace("%", "%%").splitlines()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "--workdir",
        required=True,
        metavar="DIR",
        help="the run's folder, given to technogen_jax.train, or an .npz of this command",
    )
    add("--format", default="npz", choices=list(model_file.SUFFIXES), help="what it is for, see above (npz)")
    add("--output", metavar="FILE", help="the file (WORKDIR/stepN.FORMAT)")
    add("--step", default="latest", metavar="STEP", help="latest, best, or a step that has a checkpoint (latest)")
    add("--licence", metavar="TEXT", help="of the weights, as an SPDX name or a sentence (what an .npz says)")
    add("--data", metavar="TEXT", help="what it was trained on, and with what right (what an .npz says)")
    options = parser.parse_args(argv)
    if not options.step.isdigit() and options.step not in ("latest", "best"):
        parser.error(f"--step: expected latest, best or a number, got {options.step}")
    suffix, is_file = model_file.SUFFIXES[options.format], pathlib.Path(options.workdir).suffix == bundle.SUFFIX
    if options.output and pathlib.Path(options.output).suffix != suffix:
        parser.error(f"--output: expected a name that ends in {suffix}, got {options.output}")
    if is_file and options.format == "npz":
        parser.error(
            f"--workdir: {options.workdir} is such a file already; expected a run's folder, or another --format"
        )
    for name in ("licence", "data"):
        value = getattr(options, name)
        if value is None and not is_file:
            parser.error(f"--{name} is required with a run's folder")
        if value is not None and not value.strip():
            parser.error(f"--{name}: expected some words, got none")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status: 0 done, 1 failed, 2 an option that cannot work."""
    options = parse_options(argv)
    try:
        model_file.export(options)
    except (ValueError, OSError, ImportError) as error:  # onnx, flatbuffers: pip install -r requirements-export.txt
        print(f"export: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
