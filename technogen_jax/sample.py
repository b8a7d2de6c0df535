"""Generates sound with a trained model: the command.

python -m technogen_jax.sample --workdir runs/wavegan --n 16 --seed 3
python -m technogen_jax.sample --workdir runs/technogan --minutes 10
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import math
import pathlib
import re
import sys
import time
from collections.abc import Callable
from typing import Any

from technogen_jax.common import command_line
from technogen_jax.common.command_line import MOST_BARS, SEEDS, expand_path, option, parse_step

_DESCRIPTION = """\
Generates clips with a trained model. Each sound has a JSON file beside it, its recipe, from which the same
file can be made again. A picture compares spectrograms of generated and real clips. Models of whole bars,
such as configs/technogan.py, also generate tracks of any length."""

_EXAMPLES = """\
examples:
  sixteen clips from the newest checkpoint, into runs/wavegan/sound:
    python -m technogen_jax.sample --workdir runs/wavegan --n 16
  other clips, from the checkpoint with the best evaluation, as flac:
    python -m technogen_jax.sample --workdir runs/wavegan --n 16 --seed 7 --step best --format flac
  clips that are more typical, and more alike:
    python -m technogen_jax.sample --workdir runs/wavegan --truncation 0.7
  nine clips that change step by step from one sound into another (seeds, or recipes of clips):
    python -m technogen_jax.sample --workdir runs/wavegan --n 9 --interpolate 3 a.json
  a mixture of two labels, where the model was trained with config.model.classes:
    python -m technogen_jax.sample --workdir runs/technogan --label acid=0.7,industrial=0.3
  ten minutes in one style, with a change every eight bars:
    python -m technogen_jax.sample --workdir runs/technogan --minutes 10 --hold 8
  a track from a script, a TOML file with one [[section]] for each part, in order:
    python -m technogen_jax.sample --workdir runs/technogan --script track.toml
      [[section]]
      bars = 16              # length
      label = "acid"         # or weights, { acid = 0.7, industrial = 0.3 }; default: as in the section before
      seed = 3               # of the style; default: as in the section before
      energy = [0.2, 0.5]    # at start and end, or one number; 0 to 0.5 opens the treble, 0.5 to 1 adds the kick
      crossfade = 4          # bars of transition from the section before; default: in its last bar
  the same sound again:
    python -m technogen_jax.sample --from runs/wavegan/sound/wavegan-step1000-seed0-003.json"""


# A label and its weight; a label with = or , in it is in quotes.
_WEIGHT = re.compile(r'\s*(?:"([^"]+)"|([^=,"]+?))\s*=\s*([^=,"]+?)\s*(?:,|$)')


def _label(text: str) -> dict[str, float]:
    """Returns the weights of labels: of "acid", of "acid=0.7,industrial=0.3" or of '"a=b, c"=0.7,acid=0.3'."""
    if quoted := re.fullmatch('"([^"]+)"', text):
        return {quoted[1]: 1.0}
    pairs = [(quoted or plain, weight) for quoted, plain, weight in _WEIGHT.findall(text)]
    numbers = [_number(weight) for _, weight in pairs]
    if not any(number is not None for number in numbers) and '"' not in text:
        return {text: 1.0}  # a name, whatever is in it
    complete = not _WEIGHT.sub("", text).strip() and len({name for name, _ in pairs}) == len(pairs)
    valid = complete and all(number is not None and 0 <= number < math.inf for number in numbers)
    if not valid or not any(numbers):
        raise argparse.ArgumentTypeError(
            "expected a name, or weights as acid=0.7,industrial=0.3 (a name with = or , in double quotes), got " + text
        )
    return {name: number for (name, _), number in zip(pairs, numbers, strict=True)}


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(command_line.Options):
    """The options of the command."""

    workdir: str | None = option(
        None,
        "run: the folder given to technogen_jax.train, or a file of technogen_jax.export",
        metavar="DIR",
        convert=expand_path,
    )
    output: str | None = option(
        None,
        "folder for the files (default: WORKDIR/sound; with --from beside the JSON)",
        metavar="DIR",
        convert=expand_path,
    )
    n: int | None = option(None, "number of clips (default: 8)", metavar="N", convert=int, least=1, most=100_000)
    seed: int = option(0, "seed of the latents; clip i of a seed is always the same", metavar="N", least=0, most=SEEDS)
    step: int | str = option("latest", "checkpoint: latest, best or a step", metavar="STEP", convert=parse_step)
    truncation: float = option(1.0, "scale of the latents, more than 0 and at most 1", metavar="X", above=0, most=1)
    label: dict[str, float] | None = option(
        None,
        "a label, or weights as acid=0.7,industrial=0.3 (default: each clip draws one)",
        metavar="LABEL",
        convert=_label,
    )
    interpolate: list[str] | None = option(
        None, "clips from A to B: seeds, or recipes of clips", metavar=("A", "B"), convert=expand_path, nargs=2
    )
    minutes: float | None = option(
        None,
        "a track of this length, to the nearest clip of the model",
        metavar="X",
        convert=float,
        above=0,
        most=1440,
    )
    bars: int | None = option(None, "a track of this many bars", metavar="N", convert=int, least=1, most=MOST_BARS)
    script: str | None = option(None, "a track from a script, see below", metavar="FILE.toml", convert=expand_path)
    hold: int | None = option(
        None,
        "bars of a track until something changes (default: 4, or one clip if that is longer)",
        metavar="N",
        convert=int,
        least=1,
        most=MOST_BARS,
    )
    format: str = option("wav", "wav or flac, 16 bit", metavar="FORMAT", choices=("wav", "flac"))
    data: str | None = option(
        None,
        "prepared dataset for the real clips of the picture (default: the run's)",
        metavar="DIR",
        convert=expand_path,
    )
    recipes: list[str] | None = option(
        None, "make these sounds again", metavar="FILE.json", convert=expand_path, nargs="+", name="from"
    )

    def __post_init__(self):
        super().__post_init__()
        if not self.workdir and not self.recipes:
            raise command_line.OptionError("--workdir is missing: the folder that was given to technogen_jax.train")
        kinds = [name for name in ("interpolate", "minutes", "bars", "script") if getattr(self, name) is not None]
        if len(kinds) > 1:
            raise command_line.OptionError(f"--{kinds[1]}: not allowed with argument --{kinds[0]}")
        if self.track and self.n is not None:
            raise command_line.OptionError(f"--n and --{kinds[0]}: clips or one track, not both")
        if self.hold is not None and not self.track:
            raise command_line.OptionError("--hold: applies to tracks only; add --minutes, --bars or --script")
        self.check("n", not self.interpolate or self.n is None or self.n >= 2, "at least 2")

    @property
    def track(self) -> bool:
        """Whether a track is asked for, and not clips."""
        return any(value is not None for value in (self.minutes, self.bars, self.script))


def sample(options: Options, say: Callable[[str], None]) -> dict[str, Any]:
    """Generates what the options ask for; returns the files."""
    from technogen_jax.common import compilation_cache
    from technogen_jax.sampling import generator, sound_files

    compilation_cache.use_cache()
    if options.recipes:
        return _repeat(options, say)
    trained = generator.load(options.workdir, options.step)
    controls = sound_files.Controls(options.seed, options.truncation, options.label)
    folder = pathlib.Path(options.output or generator.folder_for(options.workdir) / "sound")
    folder.mkdir(parents=True, exist_ok=True)
    facts = {"workdir": trained.workdir, "step": trained.step}
    return facts | (_track if options.track else _clips)(options, trained, controls, folder, say)


def _clips(options, trained, controls, folder, say) -> dict[str, Any]:
    from technogen_jax.sampling import sound_files

    count = options.n or 8
    if options.interpolate:
        clips = sound_files.interpolate_clips(trained, options.interpolate, count, controls)
    else:
        clips = sound_files.draw_clips(trained, count, controls)
    paths = [folder / f"{name}.{options.format}" for name in clips.names]
    written = sound_files.write_clips(trained, clips.latents, clips.origins, paths)
    picture = folder / f"{clips.name}.png"
    if why := sound_files.draw_picture(trained, written, picture, options.data):
        print(f"the picture has no real clips: {why}", file=sys.stderr)
    say(sound_files.describe(written))
    say(f"in {folder}: {paths[0].name} ... with a JSON beside each; the picture: {picture}")
    return {"files": list(map(str, paths)), "picture": str(picture)}


def _track(options, trained, controls, folder, say) -> dict[str, Any]:
    from technogen_jax.sampling import arrangement, sound_files

    if options.script:
        sections = arrangement.read_script(options.script, options.seed, options.label)
        words = [pathlib.Path(options.script).stem]
    else:
        sections = sound_files.plan_track(trained, controls, bars=options.bars, minutes=options.minutes)
        words = [f"seed{options.seed}", f"{sections[0].bars}bars"]
    name = sound_files.file_name(trained, options.label, *words, truncation=options.truncation)
    target = folder / f"{name}.{options.format}"
    begin = time.perf_counter()
    sound_files.write_track(trained, sections, options.hold, options.truncation, target)
    length_s = sound_files.bar_seconds(trained) * sum(section.bars for section in sections)
    speed = length_s / (time.perf_counter() - begin)
    say(
        f"{target}: {length_s // 60:.0f} min {length_s % 60:.0f} s, generated {speed:.0f} times as fast as it plays; "
        "a JSON beside it"
    )
    return {"files": [str(target)], "seconds": length_s}


def _repeat(options: Options, say: Callable[[str], None]) -> dict[str, Any]:
    from technogen_jax.sampling import generator, sound_files

    load = functools.lru_cache(maxsize=1)(generator.load)
    found = []
    for name in map(pathlib.Path, options.recipes):
        folder = pathlib.Path(options.output) if options.output else name.parent
        target, difference = sound_files.repeat(name, folder, f".{options.format}", load, options.workdir)
        say(f"{target}: {difference or 'the same, bit for bit'}")
        found.append({"file": str(target), "same": not difference})
    facts = {"files": [each["file"] for each in found], "same": [each["same"] for each in found]}
    if not all(facts["same"]):
        raise command_line.CommandError(f"{facts['same'].count(False)} of {len(found)} sounds differ", facts)
    return facts


COMMAND = command_line.Command(
    "technogen_jax.sample",
    Options,
    sample,
    _DESCRIPTION,
    _EXAMPLES,
    less_memory="Generate on a device with more memory, or with JAX_PLATFORMS=cpu.",
)
parse_options, main = COMMAND.parse, COMMAND.main

if __name__ == "__main__":
    sys.exit(main())
