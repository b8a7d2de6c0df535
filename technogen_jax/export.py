"""Writes a trained generator as one file: the command.

python -m technogen_jax.export --workdir runs/technogan --licence CC0-1.0 --data "the built-in corpus"
python -m technogen_jax.export --workdir technogen_jax/pretrained/technogan.npz --format onnx
"""

from __future__ import annotations

import dataclasses
import pathlib
import sys
from collections.abc import Callable
from typing import Any

from technogen_jax.common import command_line
from technogen_jax.common.command_line import REQUIRED, expand_path, option, parse_step

_DESCRIPTION = """\
Writes a trained generator as one file, to keep or to give away. Its card states the licence, the training data and
how to use it.
  npz         averaged weights and config, for TechnoGen; about 2 MB for a million parameters
  stablehlo   for any program with JAX, of this version or newer
  onnx        for any program with an ONNX runtime; one clip at a time; TechnoGAN takes noise as a second input
The card of stablehlo and onnx is a file beside it, FILE.json."""

# How a stablehlo file is used where there is JAX but no TechnoGen.
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

_EXAMPLES = """\
examples:
  the newest checkpoint:
    python -m technogen_jax.export --workdir runs/technogan --licence CC0-1.0 --data "the built-in corpus"
  the checkpoint with the best evaluation, under a name:
    python -m technogen_jax.export --workdir runs/technogan --step best --output techno.npz --licence MIT --data "our tracks"
  the file can be used wherever a run's folder can:
    python -m technogen_jax.sample --workdir techno.npz --output sound
  print its card:
    python -c "import numpy; print(numpy.load('techno.npz')['card'])"
  for programs without TechnoGen (pip install -r requirements-export.txt), from a run or from such a file:
    python -m technogen_jax.export --workdir techno.npz --format onnx
    python -m technogen_jax.export --workdir techno.npz --format stablehlo
  how such a program uses the stablehlo file:
""" + "\n".join(f"    {line}" for line in RELOAD.splitlines())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(command_line.Options):
    """The options of the command."""

    workdir: str = option(
        REQUIRED,
        "run: the folder given to technogen_jax.train, or a .npz of this command",
        metavar="DIR",
        convert=expand_path,
    )
    format: str = option("npz", "format of the file, see above", metavar="FORMAT", choices=("npz", "stablehlo", "onnx"))
    output: str | None = option(None, "the file (default: WORKDIR/stepN.FORMAT)", metavar="FILE", convert=expand_path)
    step: int | str = option("latest", "checkpoint: latest, best or a step", metavar="STEP", convert=parse_step)
    licence: str | None = option(
        None, "licence of the weights: an SPDX name or a sentence; a .npz has it", metavar="TEXT", convert=str
    )
    data: str | None = option(
        None, "what it was trained on, and by what right; a .npz has it", metavar="TEXT", convert=str
    )
    discriminator: bool = option(
        False, "add the discriminator to a .npz, so that others can train it further (config.train.init_from)"
    )

    def __post_init__(self):
        super().__post_init__()
        is_file = pathlib.Path(self.workdir).suffix == ".npz"
        suffix = f".{self.format}"
        self.check(
            "output", not self.output or pathlib.Path(self.output).suffix == suffix, f"a name that ends in {suffix}"
        )
        if is_file and self.format == "npz":
            raise command_line.OptionError(
                f"--workdir: {self.workdir} is such a file already; expected a run's folder, or another --format"
            )
        self.check("discriminator", not self.discriminator or self.format == "npz", "--format npz")
        for name in ("licence", "data"):
            value = getattr(self, name)
            if value is None and not is_file:
                raise command_line.OptionError(f"--{name} is required with a run's folder")
            if value is not None and not value.strip():
                raise command_line.OptionError(f"--{name}: expected some words, got none")


def export(options: Options, say: Callable[[str], None]) -> dict[str, Any]:
    """Writes the file; returns its name, size and card."""
    from technogen_jax.exporting import model_file

    words = {name: value for name in ("licence", "data") if (value := getattr(options, name))}
    file, card = model_file.write(
        options.workdir, options.step, options.format, options.output, words, options.discriminator
    )
    megabytes = file.stat().st_size / 1e6
    say(f"{file}: {megabytes:.1f} MB, step {card['step']}, {card['parameters'] / 1e6:.2f} M parameters")
    facts = {"file": str(file), "bytes": file.stat().st_size}
    return facts | {name: card[name] for name in ("step", "parameters", "licence", "data") if name in card}


COMMAND = command_line.Command(
    "technogen_jax.export", Options, export, _DESCRIPTION, _EXAMPLES, requirements="requirements-export.txt"
)
parse_options, main = COMMAND.parse, COMMAND.main

if __name__ == "__main__":
    sys.exit(main())
