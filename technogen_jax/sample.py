"""Makes sound from a trained model: the command; what it does is in `generate`.

python -m technogen_jax.sample --workdir runs/wavegan --n 16 --seed 3
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import pathlib
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jaxlib
import numpy as np

from technogen_jax import audio, generate, pictures, progress, records

FORMATS = ("wav", "flac")
_CARD_VERSION = 1
_PICTURED = 8  # clips in a row of the picture
_SILENT_DBFS = -60.0


class SampleError(ValueError):
    """Why there is no sound, in one line."""


def write_clips(
    trained: generate.Trained, latents: np.ndarray, cards: Sequence[dict[str, Any]], paths: Sequence[pathlib.Path]
) -> list[np.ndarray]:
    """Renders each latent into its file, with a JSON card beside it that makes the same file again.

    Args:
        trained: the generator.
        latents: `[n, Z]`.
        cards: n dicts: where each latent comes from.
        paths: n files, .wav or .flac; 16 bit.

    Returns:
        The clips as written, int16 `[T, C]` each.
    """
    written = []
    with progress.bar("sampling", len(paths), " clips") as bar:
        for clip, z, card, path in zip(generate.render(trained, latents), latents, cards, paths, strict=True):
            audio.write(path, clip, trained.config.audio.sample_rate_hz)
            pcm = audio.to_int16(clip)
            content = {
                "version": _CARD_VERSION,
                "workdir": trained.workdir,
                "step": trained.step,
                "weights": trained.weights,
                **card,
                "latents": z.tolist(),
                "sample_rate_hz": trained.config.audio.sample_rate_hz,
                "channels": pcm.shape[1],
                "samples": len(pcm),
                "pcm_sha256": hashlib.sha256(pcm.data).hexdigest(),
                "made_with": {"jax": jax.__version__, "jaxlib": jaxlib.__version__, "device": _device()},
            }
            records.write_text_atomically(path.with_suffix(".json"), json.dumps(content, indent=1) + "\n")
            written.append(pcm)
            bar.update()
    return written


def read_card(path: pathlib.Path) -> dict[str, Any]:
    """The JSON card of a clip.

    Raises:
        SampleError: not such a card.
    """
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        latents = np.asarray(card["latents"], np.float32)
        whole = card["version"] == _CARD_VERSION and latents.ndim == 1 and isinstance(card["step"], int)
        whole = whole and all(isinstance(card[name], str) for name in ("weights", "workdir", "pcm_sha256"))
    except OSError as error:
        raise SampleError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        raise SampleError(f"{path}: expected the JSON that this command writes beside a clip")
    return card


def describe(clips: Iterable[np.ndarray]) -> str:
    """In one line: how loud, how many clipped, silent and alike; of int16 `[T, C]` clips."""
    clips = [audio.from_int16(clip) for clip in clips]
    peak = max(float(np.abs(clip).max()) for clip in clips)
    levels = [_decibels(float(np.sqrt(np.mean(clip.astype(np.float64) ** 2)))) for clip in clips]
    clipped = sum(bool((np.abs(clip) >= 32767 / 32768).any()) for clip in clips)
    silent = sum(level < _SILENT_DBFS for level in levels)
    different = len({clip.tobytes() for clip in clips})
    parts = [
        f"peak {_decibels(peak):.1f} dBFS",
        f"RMS {min(levels):.1f} to {max(levels):.1f} dBFS",
        f"{clipped} with samples at full scale",
        f"{silent} silent",
    ]
    if different < len(clips):
        parts.append(f"only {different} different")
    return f"{len(clips)} clips: " + ", ".join(parts)


def sample(options: argparse.Namespace) -> None:
    """What the command line says; see `--help`."""
    step = int(options.step) if options.step.isdigit() else options.step
    trained = generate.load(options.workdir, step)
    folder = pathlib.Path(options.output or pathlib.Path(options.workdir) / "sound")
    folder.mkdir(parents=True, exist_ok=True)
    mark = "" if options.truncation == 1 else f"-truncation{options.truncation:g}"
    if options.interpolate:
        ends = [_latent(trained, end, options.truncation) for end in options.interpolate]
        latents = generate.interpolate(*ends, options.n)
        between = [pathlib.Path(end).stem for end in options.interpolate]
        name = f"step{trained.step}-{between[0]}-to-{between[1]}{mark}"
        cards = [{"interpolate": options.interpolate, "index": index, "of": options.n} for index in range(options.n)]
    else:
        latents = generate.draw_latents(trained.gan, options.seed, range(options.n), options.truncation)
        name = f"step{trained.step}-seed{options.seed}{mark}"
        cards = [{"seed": options.seed, "index": i, "truncation": options.truncation} for i in range(options.n)]
    paths = [folder / f"{name}-{index:03d}.{options.format}" for index in range(options.n)]
    clips = write_clips(trained, latents, cards, paths)
    picture = folder / f"{name}.png"
    _draw(trained, clips, picture, options.data)
    print(describe(clips))
    print(f"in {folder}: {paths[0].name} ... with a JSON beside each; the picture: {picture}")


def repeat(options: argparse.Namespace) -> bool:
    """Makes the clips of JSON cards again; True if each came out as it was, bit for bit."""
    same, load = True, functools.lru_cache(maxsize=1)(generate.load)
    for name in options.cards:
        path = pathlib.Path(name)
        card = read_card(path)
        trained = load(options.workdir or card["workdir"], card["step"])
        if trained.weights != card["weights"]:
            raise SampleError(
                f"{path}: made from other weights than {trained.workdir} has at step {trained.step}; "
                "name the folder of that very training with --workdir"
            )
        latents = np.asarray(card["latents"], np.float32)[None]
        folder = pathlib.Path(options.output) if options.output else path.parent
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / f"{path.stem}.{options.format}"
        origin = {key: card[key] for key in ("seed", "index", "truncation", "interpolate", "of") if key in card}
        (pcm,) = write_clips(trained, latents, [origin], [target])
        equal = hashlib.sha256(pcm.data).hexdigest() == card["pcm_sha256"]
        same = same and equal
        made = card.get("made_with", {})
        difference = f"differs in some bits: it was made with jaxlib {made.get('jaxlib')} on {made.get('device')}"
        print(f"{target}: {'the same, bit for bit' if equal else difference}")
    return same


def _latent(trained: generate.Trained, end: str, truncation: float) -> np.ndarray:
    """[Z]: of a seed's first clip, or of a JSON card."""
    if not end.endswith(".json"):
        try:
            return generate.draw_latents(trained.gan, int(end), [0], truncation)[0]
        except ValueError:
            raise SampleError(f"--interpolate {end}: expected a seed or the .json of a clip") from None
    latent = np.asarray(read_card(pathlib.Path(end))["latents"], np.float32)
    wanted = jax.eval_shape(lambda key: trained.gan.sample_latents(key, 1), jax.random.key(0)).shape[1]
    if len(latent) != wanted:
        raise SampleError(f"{end}: expected {wanted} latents, found {len(latent)}: it is another model's")
    return latent


def _draw(trained: generate.Trained, clips: Sequence[np.ndarray], path: pathlib.Path, data: str | None) -> None:
    """A contact sheet of the first clips, below them real ones where the set is at hand."""
    drawn = [audio.from_int16(clip) for clip in clips[:_PICTURED]]
    titles = [f"generated {index}" for index in range(len(drawn))]
    data = data or trained.config.data.dir
    try:
        source = records.ClipSource(data, trained.config.data.split)
        window = trained.config.audio.clip_samples
        for index in np.linspace(0, len(source) - 1, len(drawn)).astype(int):
            clip = source[int(index)]
            drawn.append(audio.from_int16(clip["audio"][:window]))
            titles.append(f"{clip['track']} @ {clip['offset'] / trained.config.audio.sample_rate_hz:.0f} s")
    except (records.RecordError, TypeError) as error:
        print(f"the picture is without real clips: {error}", file=sys.stderr)
    heading = f"step {trained.step}" + (": generated above, real below" if len(drawn) > len(clips[:_PICTURED]) else "")
    pictures.write_contact_sheet(path, drawn, trained.config.audio.sample_rate_hz, titles, heading=heading)


def _decibels(level: float) -> float:
    return 20 * float(np.log10(max(level, 1e-10)))


def _device() -> str:
    return jax.devices()[0].device_kind


def parse_options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of a command line; exits with 2 and one line where they cannot work."""
    parser = argparse.ArgumentParser(
        prog="python -m technogen_jax.sample",
        description="Makes clips from a trained model, each with a JSON beside it that makes the same clip again,\n"
        "and a picture of their spectrograms next to real ones.",
        epilog="""examples:
  sixteen clips from the newest checkpoint, into runs/wavegan/sound:
    python -m technogen_jax.sample --workdir runs/wavegan --n 16
  other ones, from the checkpoint that was evaluated best, as flac:
    python -m technogen_jax.sample --workdir runs/wavegan --n 16 --seed 7 --step best --format flac
  safer and more alike:
    python -m technogen_jax.sample --workdir runs/wavegan --truncation 0.7
  nine clips on the way from one sound to another (seeds, or the JSONs of clips):
    python -m technogen_jax.sample --workdir runs/wavegan --n 9 --interpolate 3 a.json
  the same sound again:
    python -m technogen_jax.sample --from runs/wavegan/sound/step1000-seed0-003.json""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--workdir", metavar="DIR", help="the folder that was given to technogen_jax.train")
    add("--output", metavar="DIR", help="where the files go (WORKDIR/sound; with --from beside the JSON)")
    add("--n", type=int, default=8, metavar="N", help="number of clips (8)")
    add("--seed", type=int, default=0, metavar="N", help="of the latents; clip i of a seed is always the same (0)")
    add("--step", default="latest", metavar="STEP", help="latest, best, or a step that has a checkpoint (latest)")
    add("--truncation", type=float, default=1.0, metavar="X", help="scale of the latents, 0 < X <= 1 (1)")
    add("--interpolate", nargs=2, metavar=("A", "B"), help="clips from A to B: seeds, or JSONs of clips")
    add("--format", default="wav", choices=FORMATS, help="wav or flac, 16 bit (wav)")
    add("--data", metavar="DIR", help="prepared set for the picture's real clips (the one trained on)")
    add("--from", dest="cards", nargs="+", metavar="FILE.json", help="make these clips again; nothing else is needed")
    options = parser.parse_args(argv)
    if not options.workdir and not options.cards:
        parser.error("--workdir is missing: the folder that was given to technogen_jax.train")
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
    try:
        if options.cards:
            return 0 if repeat(options) else 1
        sample(options)
    except (ValueError, OSError) as error:
        print(f"sample: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
