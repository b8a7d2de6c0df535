"""Makes sound from a trained model: the command; the work is done by `sampling.sound_files`.

python -m technogen_jax.sample --workdir runs/wavegan --n 16 --seed 3
python -m technogen_jax.sample --workdir runs/technogan --minutes 10
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence

from technogen_jax.common import compilation_cache
from technogen_jax.sampling import sound_files


def _weights(text: str) -> dict[str, float]:
    """Of each label, from what `--label` says."""
    if "=" not in text:
        return {text: 1.0}
    pairs = [part.split("=") for part in text.split(",")]
    weights = {name.strip(): float(weight) for name, weight in pairs}
    if (
        len(weights) < len(pairs)
        or not all(0 <= weight < math.inf for weight in weights.values())
        or not any(weights.values())
    ):
        raise ValueError(text)
    return weights


def parse_options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of a command line; exits with 2 and one line where they cannot work."""
    parser = argparse.ArgumentParser(
        prog="python -m technogen_jax.sample",
        description="Makes clips from a trained model, each with a JSON beside it that makes the same clip again,\n"
        "and a picture of their spectrograms next to real ones. From a model of bars, as configs/technogan.py,\n"
        "also a track of any length.",
        epilog="""examples:
  sixteen clips from the newest checkpoint, into runs/wavegan/sound:
    python -m technogen_jax.sample --workdir runs/wavegan --n 16
  other ones, from the checkpoint that was evaluated best, as flac:
    python -m technogen_jax.sample --workdir runs/wavegan --n 16 --seed 7 --step best --format flac
  safer and more alike:
    python -m technogen_jax.sample --workdir runs/wavegan --truncation 0.7
  nine clips on the way from one sound to another (seeds, or the JSONs of clips):
    python -m technogen_jax.sample --workdir runs/wavegan --n 9 --interpolate 3 a.json
  of one label, or between two, where the model was trained with config.model.classes:
    python -m technogen_jax.sample --workdir runs/technogan --label acid=0.7,industrial=0.3
  ten minutes in one style, changing every eight bars:
    python -m technogen_jax.sample --workdir runs/technogan --minutes 10 --hold 8
  a track by a script, a TOML file with a [[section]] for each part, in order:
    python -m technogen_jax.sample --workdir runs/technogan --script track.toml
      [[section]]
      bars = 16              # its length
      label = "acid"         # or weights, { acid = 0.7, industrial = 0.3 }
      seed = 3               # of the style; without, that of the section before, as for the label
      energy = [0.2, 0.5]    # at its beginning and end, or one number; up to 0.5 the treble opens, then the kick comes in
      crossfade = 4          # bars in which it takes over from the section before; without, that one's last bar
  the same sound again:
    python -m technogen_jax.sample --from runs/wavegan/sound/step1000-seed0-003.json""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--workdir", metavar="DIR", help="the folder that was given to technogen_jax.train")
    add("--output", metavar="DIR", help="where the files go (WORKDIR/sound; with --from beside the JSON)")
    add("--n", type=int, metavar="N", help="number of clips (8)")
    add("--seed", type=int, default=0, metavar="N", help="of the latents; clip i of a seed is always the same (0)")
    add("--step", default="latest", metavar="STEP", help="latest, best, or a step that has a checkpoint (latest)")
    add("--truncation", type=float, default=1.0, metavar="X", help="scale of the latents, 0 < X <= 1 (1)")
    add("--label", metavar="LABEL", help="a name, or weights as acid=0.7,industrial=0.3 (drawn for each clip)")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--interpolate", nargs=2, metavar=("A", "B"), help="clips from A to B: seeds, or JSONs of clips")
    what.add_argument("--minutes", type=float, metavar="X", help="a track, to the nearest bar, or clip of the model")
    what.add_argument("--bars", type=int, metavar="N", help="a track, of so many bars")
    what.add_argument("--script", metavar="FILE.toml", help="a track by a script, see below")
    add(
        "--hold",
        type=int,
        metavar="N",
        help="bars of a track until something changes (4, or a clip where that is longer)",
    )
    add("--format", default="wav", choices=sound_files.FORMATS, help="wav or flac, 16 bit (wav)")
    add("--data", metavar="DIR", help="prepared set for the picture's real clips (the one trained on)")
    add("--from", dest="cards", nargs="+", metavar="FILE.json", help="make these clips again; nothing else is needed")
    options = parser.parse_args(argv)
    if not options.workdir and not options.cards:
        parser.error("--workdir is missing: the folder that was given to technogen_jax.train")
    track = next((f"--{name}" for name in ("minutes", "bars", "script") if getattr(options, name) is not None), None)
    if track and options.n is not None:
        parser.error(f"--n and {track}: clips or one track, not both")
    if options.hold is not None and not track:
        parser.error("--hold: is of a track; name its length with --minutes, --bars or --script")
    for name in ("minutes", "bars", "hold"):
        value = getattr(options, name)
        if value is not None and not 0 < value < 1e9:
            parser.error(f"--{name}: expected more than 0, got {value:g}")
    if options.label:
        try:
            options.label = _weights(options.label)
        except ValueError:
            parser.error(f"--label: expected a name, or weights as acid=0.7,industrial=0.3, got {options.label}")
    options.n = 8 if options.n is None else options.n
    if options.n < (2 if options.interpolate else 1):
        parser.error(f"--n: expected at least {2 if options.interpolate else 1}, got {options.n}")
    if not 0 < options.truncation <= 1:
        parser.error(f"--truncation: expected more than 0 and at most 1, got {options.truncation:g}")
    if not 0 <= options.seed < 2**32:
        parser.error(f"--seed: expected 0 to 4294967295, got {options.seed}")
    if not options.step.isdigit() and options.step not in ("latest", "best"):
        parser.error(f"--step: expected latest, best or a number, got {options.step}")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status: 0 done, 1 failed, 2 an option that cannot work."""
    options = parse_options(argv)
    compilation_cache.use_cache()
    try:
        if options.cards:
            return 0 if sound_files.repeat(options) else 1
        sound_files.sample(options)
    except (ValueError, OSError) as error:
        print(f"sample: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
