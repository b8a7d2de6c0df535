"""Trains the shaper of TechnoGAN's codec on bars: what the package ships was made by it.

    python -m experiments.train_shaper --data data/bars --output shaper.npz

The set is one of `data_prep.prepare --grid bars --bars 1` at 32 kHz or more; --config.model.shaper=shaper.npz then uses the
result. Broken off, the same command goes on from the last hundred steps.
"""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Sequence

import jax

from technogen_jax import arrays, audio, data, package, progress, records, shaping
from technogen_jax.models import codec

_SAVE_EVERY = 100


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m experiments.train_shaper", description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, metavar="DIR", help="a prepared set of single bars")
    parser.add_argument("--output", default="shaper.npz", metavar="FILE", help="what is written (shaper.npz)")
    parser.add_argument("--steps", type=int, default=2400, metavar="N", help="steps in all (2400)")
    parser.add_argument("--batch", type=int, default=4, metavar="N", help="bars a step (4)")
    options = parser.parse_args(argv)

    source = records.ClipSource(options.data, "train")
    rate_hz, samples = source.manifest.sample_rate_hz, source.manifest.clip_samples
    grid = codec.grid_of(samples, rate_hz, 1, codec.FRAMES)
    with progress.bar("measuring the set", len(source), " clips") as bar:
        batches = data.whole(source, bar.update)
        statistics = codec.measure(batches, clip_samples=samples, sample_rate_hz=rate_hz, shaper="new")
    parts = codec.part_sizes(grid, codec.N_MELS, source.manifest.channels, True)
    counts = {part: statistics[f"{part}_basis"].shape[1] for part in parts}
    coder = codec.make(samples, rate_hz, grid, codec.N_MELS, counts, statistics)
    first, step = shaping.make_shaping_step(
        coder, codec.N_MELS, samples=grid.samples, sample_rate_hz=rate_hz, steps=options.steps
    )
    output = pathlib.Path(options.output)
    saved = output.with_suffix(".state.npz")
    state = first(jax.random.key(0))
    leaves, tree = jax.tree.flatten(state)
    if saved.exists():
        found = arrays.read(saved)
        state = jax.tree.unflatten(tree, [found[str(index)] for index in range(len(leaves))])
    begun = int(state.step)
    step = jax.jit(step, donate_argnums=0)
    batches = data.batches(
        data.Audio(source),
        rows=data.Rows(options.batch, 0, options.batch),
        n_critic=1,
        length=samples,
        seed=0,
        first_step=begun,
    )
    with progress.bar("shaping", options.steps, " steps", begun) as bar:
        for number in range(begun + 1, options.steps + 1):
            state, metrics = step(state, audio.from_int16(next(batches)[0, 0]), jax.random.key(1))
            bar.update()
            if number % _SAVE_EVERY == 0 or number == options.steps:
                bar.set_postfix_str(f"loss {float(metrics['loss']):.4f}", refresh=False)
                arrays.write(saved, {str(index): leaf for index, leaf in enumerate(jax.tree.leaves(state))})
    params = {
        f"{codec.SHAPER}{layer}/{kind}": value for layer, kinds in state.ema.items() for kind, value in kinds.items()
    }
    arrays.write(output, {name: package.stored(value) for name, value in params.items()})
    saved.unlink()
    print(f"{output}: {output.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
