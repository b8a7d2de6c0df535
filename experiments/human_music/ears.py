"""Compares real, decoded and generated clips with training clips, by several embeddings.

    python -m experiments.human_music.ears --data human/records --wheel musicnn-0.1.0-py3-none-any.whl \
        --codec runs/human --models xs=runs/human

Prints a table for each embedding. Rows: real clips of other tracks (the floor), the same encoded and decoded by the codec
of a TechnoGAN, and as many clips of each model. All are compared with the training clips:

    techno      mean probability of the tag "techno"
    Fréchet     distance in the 32 principal components of the training clips (whitened for tmr-v1 alone)
    ratio       the same, divided by the floor
    MMD²        kernel distance there
    classifier  share that a logistic regression classifies correctly, in five folds by track; half is chance

For decoded clips it also prints the difference of their log-mel levels (96 bands to 8 kHz, every 16 ms) from the original,
in dB rms.
"""

from __future__ import annotations

import argparse
import json
import pathlib

import jax
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from technogen_jax.audio import audio_files, spectral
from technogen_jax.evaluation import clip_sets
from technogen_jax.evaluation.embeddings import load_embeddings
from technogen_jax.evaluation.features import musicnn
from technogen_jax.evaluation.features.embedding import Embedding
from technogen_jax.evaluation.features.projection import MOST_DIMENSIONS, fit_projection
from technogen_jax.evaluation.metrics import distances
from technogen_jax.evaluation.metrics.embedded_set import EmbeddedSet
from technogen_jax.sampling import generator

BANDS_HZ = ((0, 200), (200, 1000), (1000, 4000), (4000, 8000))
_BATCH = 8
_FOLDS = 5


def read_clips(clips: clip_sets.ClipSet, indices: np.ndarray) -> np.ndarray:
    """Returns int16 clips `[n, T, C]`."""
    return np.stack(list(clips.read(indices)))


def decode_clips(clips: np.ndarray, trained: generator.Trained) -> np.ndarray:
    """Returns int16 clips `[n, T, C]`, encoded and decoded by a model."""
    classes = trained.gan.classes  # of which the decoder makes no use
    weights = (np.full((_BATCH, len(classes)), 1 / len(classes), np.float32),) if classes else ()
    roundtrip = jax.jit(lambda audio: trained.gan.decode(trained.gan.encode(audio, *weights)))
    decoded = []
    for start in range(0, len(clips), _BATCH):
        batch = clips[np.arange(start, start + _BATCH) % len(clips)]  # one shape, one compilation
        decoded.append(np.asarray(roundtrip(audio_files.from_int16(batch))))
    return audio_files.to_int16(np.concatenate(decoded)[: len(clips)])


def embed_clips(clips: np.ndarray, embedding: Embedding, sample_rate_hz: int) -> np.ndarray:
    """Returns the embedding of int16 clips, `[n, D]`."""
    parts = [
        embedding.embed(audio_files.from_int16(clips[start : start + _BATCH]), sample_rate_hz, loop=True)
        for start in range(0, len(clips), _BATCH)
    ]
    return np.concatenate(parts)


def level_differences_db(clips: np.ndarray, decoded: np.ndarray, sample_rate_hz: int) -> list[float]:
    """Returns the rms of the differences of log-mel levels in each of `BANDS_HZ`, in dB.

    Levels more than 60 dB below the loudest one of a clip count as equal to that.
    """
    filters = spectral.mel_filters(musicnn.RATE_HZ, musicnn.N_FFT, musicnn.N_MELS, 0.0)
    centres_hz = filters @ np.fft.rfftfreq(musicnn.N_FFT, 1 / musicnn.RATE_HZ) / filters.sum(axis=1)
    levels = []
    for side in (clips, decoded):
        frames = [musicnn.log_mel_frames(audio_files.from_int16(clip[None]), sample_rate_hz)[0] for clip in side]
        levels.append(10 * np.log10((10 ** np.stack(frames).astype(np.float64) - 1) / 10_000 + 1e-12))
    floor_db = levels[0].max(axis=(1, 2), keepdims=True) - 60
    difference = np.maximum(levels[0], floor_db) - np.maximum(levels[1], floor_db)
    inside = [(centres_hz >= low) & (centres_hz < high) for low, high in BANDS_HZ]
    return [float(np.sqrt(np.mean(difference[..., band] ** 2))) for band in inside]


def classify(train: EmbeddedSet, other: EmbeddedSet) -> float:
    """Returns the balanced share of clips that a logistic regression classifies correctly, by folds of tracks."""
    values = np.concatenate([train.values, other.values])
    labels = np.repeat([0, 1], [len(train.values), len(other.values)])
    groups = np.unique(np.concatenate([train.tracks, other.tracks]), return_inverse=True)[1]
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, class_weight="balanced"))
    found = cross_val_predict(model, values, labels, groups=groups, cv=GroupKFold(_FOLDS, shuffle=True, random_state=0))
    return float(balanced_accuracy_score(labels, found))


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, metavar="DIR", help="prepared dataset")
    parser.add_argument("--wheel", required=True, metavar="FILE", help="from pip download --no-deps musicnn")
    parser.add_argument("--codec", metavar="RUN", help="run or file of a TechnoGAN whose codec is measured")
    parser.add_argument("--models", nargs="*", default=[], metavar="NAME=RUN", help="models to compare")
    parser.add_argument("--per_track", type=int, default=5, metavar="N", help="clips of a track (5)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the generated clips (0)")
    parser.add_argument("--output", metavar="FILE", help="write the figures as JSON, too")
    options = parser.parse_args()
    train, test = (clip_sets.from_records(options.data, [split]) for split in ("train", "test"))
    rate_hz = train.sample_rate_hz
    chosen = {
        side: clip_sets.choose(clips, per_track=options.per_track) for side, clips in (("train", train), ("test", test))
    }
    train_clips, real = read_clips(train, chosen["train"]), read_clips(test, chosen["test"])
    rows = {"other tracks (the floor)": (real, test.tracks[chosen["test"]])}
    found = {"levels_db": None, "clips": {"train": len(train_clips), "test": len(real)}}
    if options.codec:
        decoded = decode_clips(real, generator.load(options.codec))
        rows["the same, decoded"] = (decoded, test.tracks[chosen["test"]])
        found["levels_db"] = level_differences_db(real, decoded, rate_hz)
    for name, _, path in (entry.partition("=") for entry in options.models):
        clips = clip_sets.from_generator(generator.load(path), len(real), options.seed)
        rows[name] = (read_clips(clips, np.arange(len(real))), clips.tracks)
    print(f"{len(train_clips)} training clips, {len(real)} of other tracks")
    if found["levels_db"]:
        bands = (
            f"{low} to {high} Hz {level:.1f}" for (low, high), level in zip(BANDS_HZ, found["levels_db"], strict=True)
        )
        print(f"decoded, level differences in dB rms: {', '.join(bands)}")
    wanted = f"tmr-v1,musicnn={options.wheel},musicnn-vgg={options.wheel}"
    for name, embedding in load_embeddings(wanted, None, 0).items():
        reference = embed_clips(train_clips, embedding, rate_hz)
        tracks = train.tracks[chosen["train"]]
        project = fit_projection(reference, tracks, {}, MOST_DIMENSIONS, whiten=embedding.whiten).apply
        projected = EmbeddedSet(project(reference)["all"], tracks)
        print(f"\n| {name} | techno | Fréchet | ratio | MMD² | classifier |\n| --- | --- | --- | --- | --- | --- |")
        found[name], floor = {}, None
        for row, (clips, its_tracks) in rows.items():
            values = embed_clips(clips, embedding, rate_hz)
            other = EmbeddedSet(project(values)["all"], its_tracks)
            tags = None if embedding.tagger is None else embedding.tagger.probabilities(values).mean(axis=0)
            figures = {
                "techno": None if tags is None else float(tags[embedding.tagger.names.index("techno")]),
                "frechet": distances.frechet_distance(projected, other),
                "mmd": distances.rbf_mmd(projected, other),
                "classifier": classify(EmbeddedSet(reference, tracks), EmbeddedSet(values, its_tracks)),
            }
            floor = floor or figures["frechet"]
            found[name][row] = figures | {"ratio": figures["frechet"] / floor}
            techno = "" if tags is None else f"{figures['techno']:.2f}"
            print(
                f"| {row} | {techno} | {figures['frechet']:.2f} | {figures['frechet'] / floor:.2f} | {figures['mmd']:.3f} | "
                f"{figures['classifier']:.2f} |",
                flush=True,
            )
    if options.output:
        pathlib.Path(options.output).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
