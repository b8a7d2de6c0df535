"""Measures what the codec keeps of human music: clips of the test split, encoded and decoded.

    python -m experiments.human_music.decoder_study --data human/records --musicnn musicnn-0.1.0-py3-none-any.whl \
        [--components 40,16 120,48] [--passes 0 1]

Prints one line of JSON for each number of components (mid, side) and each number of level passes:

    rms_db          difference of log-mel levels (96 bands to 8 kHz, every 16 ms) from the original's, in three bands
    lost_db         the same between the levels that go into the code and those that come out of it: no decoder can be closer
    frechet         to the training clips, divided by that of the original test clips, in musicnn and in tmr-v1
    same_tracks     Fréchet distance to the original test clips, divided by the same
    classified      decoded and real test clips distinguished by logistic regression on musicnn, folds by track; 0.5 is chance
    partials        share of the energy from 200 Hz to 4.5 kHz in sustained partials
    kick_similarity median; see the musical features
    realtime        times real time of encoding and decoding, one clip after the other

The codec is measured on eight clips of each training track. A line takes about a minute of one core after the first.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import NamedTuple

import jax
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from technogen_jax.audio import audio_files, spectral
from technogen_jax.common.run_config import AudioConfig
from technogen_jax.evaluation import clip_sets
from technogen_jax.evaluation.features import musical, musicnn, tmr
from technogen_jax.evaluation.features.embedding import Embedding
from technogen_jax.evaluation.features.projection import Projection, fit_projection
from technogen_jax.evaluation.metrics.distances import frechet_distance
from technogen_jax.evaluation.metrics.embedded_set import make_embedded_set
from technogen_jax.models.technogan.codec import correction, partials, statistics
from technogen_jax.models.technogan.codec.analysis import analyze, make_bands, split_mid_side
from technogen_jax.models.technogan.codec.codec import Codec
from technogen_jax.models.technogan.config import TechnoGANConfig
from technogen_jax.models.technogan.layout import BeatGrid

BANDS_HZ = ((200, 1000), (1000, 4000), (4000, 8000))
TRAIN_CLIPS, TEST_CLIPS = 8, 5  # of each track
_BATCH = 4
_BEATS = 8


class Clips(NamedTuple):
    """Clips `[n, T, 2]` in [-1, 1] with their tracks `[n]`."""

    audio: np.ndarray
    tracks: np.ndarray


class Measured(NamedTuple):
    """What is measured of clips: levels `[n, N, 96]` in dB, embeddings by name, and two features `[n]`."""

    levels_db: np.ndarray
    embedded: dict[str, np.ndarray]
    partials: np.ndarray
    kick_similarity: np.ndarray


def read_clips(data: str, split: str, of_track: int) -> Clips:
    """Returns as many clips of each track, from all over it."""
    found = clip_sets.from_records(data, [split])
    rows = [np.flatnonzero(found.tracks == track) for track in np.unique(found.tracks)]
    chosen = sorted(int(i) for row in rows for i in np.unique(row[np.linspace(0, len(row) - 1, of_track).astype(int)]))
    return Clips(np.stack([audio_files.from_int16(clip) for clip in found.read(chosen)]), found.tracks[chosen])


def measure_clips(audio: np.ndarray, rate_hz: int, grid: BeatGrid, embeddings: dict[str, Embedding]) -> Measured:
    """Measures clips `[n, T, 2]`."""
    mono = np.stack([audio_files.resample(clip.mean(-1, keepdims=True), rate_hz, 16_000)[:, 0] for clip in audio])
    power = jax.lax.map(lambda x: abs(spectral.stft(x, 512, 256)) ** 2, mono, batch_size=_BATCH)
    levels_db = 10 * np.log10(np.asarray(power) @ spectral.mel_filters(16_000, 512, 96, 0.0).T + 1e-6)
    embedded = {
        name: np.concatenate(
            [one.embed(audio[i : i + _BATCH], rate_hz, loop=True) for i in range(0, len(audio), _BATCH)]
        )
        for name, one in embeddings.items()
    }

    @jax.jit
    def share(clip):
        loop = spectral.resample_circular(split_mid_side(clip[None]), grid.samples)
        return partials.measure_energy_shares(loop[:, 0], grid.rate_hz, grid.steps).sum()

    kicks = [musical.measure(clip, rate_hz, beats=_BEATS, loop=True)["kick_similarity"] for clip in audio]
    return Measured(
        levels_db, embedded, np.array([float(share(clip)) for clip in audio]), np.array(kicks, dtype=np.float64)
    )


def rms_by_band(difference: np.ndarray, centres_hz: np.ndarray) -> list[float]:
    """Root mean squares of `[..., bands]` in the bands of `BANDS_HZ`."""
    is_in = [(centres_hz >= low) & (centres_hz < high) for low, high in BANDS_HZ]
    return [round(float(np.sqrt(np.mean(difference[..., band] ** 2))), 2) for band in is_in]


def find_centres(filters: np.ndarray, rate_hz: float) -> np.ndarray:
    """Centre frequency of each band of filters `[bands, F]`."""
    return filters @ np.linspace(0, rate_hz / 2, filters.shape[1]) / filters.sum(1)


def classify(real: np.ndarray, decoded: np.ndarray, tracks: np.ndarray) -> float:
    """Balanced accuracy of a classifier that has never seen the track."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    is_decoded = np.repeat([0, 1], len(real))
    found = cross_val_predict(
        model, np.concatenate([real, decoded]), is_decoded, groups=np.tile(tracks, 2), cv=GroupKFold(5)
    )
    return round(float(np.mean(found == is_decoded)), 2)


def compare(name: dict, test: Clips, real: Measured, found: Measured, spaces: dict) -> dict:
    """Returns the figures of decoded clips."""
    centres_hz = find_centres(spectral.mel_filters(16_000, 512, 96, 0.0), 16_000)
    row = name | {"rms_db": rms_by_band(found.levels_db - real.levels_db, centres_hz)}
    for part in ("frechet", "same_tracks"):
        row[part] = {}
    for key, (projection, train) in spaces.items():
        original, decoded = (
            make_embedded_set(projection.apply(side.embedded[key])["all"], test.tracks, key) for side in (real, found)
        )
        floor = frechet_distance(train, original)
        row["frechet"][key] = round(frechet_distance(train, decoded) / floor, 3)
        row["same_tracks"][key] = round(frechet_distance(original, decoded) / floor, 3)
        if key == musicnn.MUSICNN.name:
            row["classified"] = classify(original.values, decoded.values, test.tracks)
    row["partials"] = round(float(found.partials.mean()), 3)
    return row | {"kick_similarity": round(float(np.nanmedian(found.kick_similarity)), 3)}


def measure_codec(train: Clips, config: TechnoGANConfig, audio: AudioConfig) -> dict[str, np.ndarray]:
    """The codec's statistics, corrected on an eighth of the clips."""

    def batches(stride):
        kept = train.audio[::stride]
        return (kept[i : i + _BATCH] for i in range(0, len(kept) - len(kept) % _BATCH, _BATCH))

    measured = statistics.measure(batches(1), config, audio)
    return correction.correct(lambda: batches(8), measured, config, audio)


def measure_loss(codec: Codec, clips: np.ndarray, n_mels: int) -> list[float]:
    """The difference of levels of the mid before and after the code, in dB rms by band."""
    grid, bands = codec.grid, make_bands(codec.grid, n_mels)

    @jax.jit
    def lose(clip):
        features = analyze(clip[None], grid, bands, tonal=False).mid
        return (codec.components.mid.decode(codec.encode_part("mid", features)) - features).reshape(-1, n_mels)

    difference = 20 / np.log(10) * np.stack([lose(clip) for clip in clips])
    return rms_by_band(difference, find_centres(bands.mid, grid.rate_hz))


def fit(train: Measured, tracks: np.ndarray, embeddings: dict[str, Embedding]) -> dict[str, tuple[Projection, object]]:
    """For each embedding the projection to principal components and the training clips in it."""
    spaces = {}
    for name, values in train.embedded.items():
        one = embeddings[name]
        projection = fit_projection(values, tracks, one.blocks(2), 32, whiten=one.whiten)
        spaces[name] = projection, make_embedded_set(projection.apply(values)["all"], tracks, name)
    return spaces


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, metavar="DIR", help="a prepared dataset, stereo, two bars")
    parser.add_argument("--musicnn", required=True, metavar="WHEEL", help="what pip download --no-deps musicnn writes")
    parser.add_argument("--components", nargs="+", default=["40,16", "120,48"], metavar="MID,SIDE")
    parser.add_argument("--passes", nargs="+", type=int, default=[0, 1], metavar="N", help="level passes (0 1)")
    options = parser.parse_args()
    train, test = read_clips(options.data, "train", TRAIN_CLIPS), read_clips(options.data, "test", TEST_CLIPS)
    rate_hz = clip_sets.from_records(options.data, ["test"]).sample_rate_hz
    audio = AudioConfig(sample_rate_hz=rate_hz, channels=2, clip_samples=test.audio.shape[1])
    grid = BeatGrid.of_clips(TechnoGANConfig(bars=2), audio)
    embeddings = {
        musicnn.MUSICNN.name: musicnn.load_embedding(options.musicnn, musicnn.MUSICNN),
        tmr.TMR_V1.name: tmr.TMR_V1,
    }
    spaces = fit(measure_clips(train.audio, rate_hz, grid, embeddings), train.tracks, embeddings)
    real = measure_clips(test.audio, rate_hz, grid, embeddings)
    print(json.dumps(compare({"clips": "original"}, test, real, real, spaces)), flush=True)
    for sizes in options.components:
        mid, side = map(int, sizes.split(","))
        for passes in options.passes:
            config = TechnoGANConfig(
                bars=2, shaper="shipped", mid_components=mid, side_components=side, level_passes=passes
            )
            codec = Codec(config, audio, measure_codec(train, config, audio))
            decode = jax.jit(lambda clip, codec=codec: codec.decode(codec.encode(clip[None]))[0])
            decode(test.audio[0]).block_until_ready()
            begin = time.perf_counter()
            decoded = np.stack([decode(clip) for clip in test.audio])
            seconds = time.perf_counter() - begin
            found = measure_clips(decoded, rate_hz, grid, embeddings)
            row = compare({"components": sizes, "passes": passes}, test, real, found, spaces)
            row["lost_db"] = measure_loss(codec, test.audio[::4], config.n_mels)
            row["realtime"] = round(test.audio.shape[0] * test.audio.shape[1] / rate_hz / seconds)
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
