"""Batches from shards on disk: TechnoGen's reader, Grain's and tf.data's, with the same consumer.

The dataset is noise, its files in the page cache. Each side gives shuffled int16 batches, read and
decoded on all cores:

    ours           technogen_jax.data.batching as training uses it: shuffled over the whole dataset, resumable at any step
    grain          grain.MapDataset over the same records, shuffled, batched, with Grain's own reading options
    grain_stream   grain.experimental.TFRecordIterDataset, files interleaved, shuffled in a window
    tf.data        TFRecordDataset, shuffled in a buffer, parsed in parallel, batched, prefetched: all by AUTOTUNE

Every round starts each side again. The first third of its time does not count, so that everything
that was read ahead is used up. `ratio` is our clips a second over theirs; `fraction` is ours over plain
reading of the same files with Python.
"""

from __future__ import annotations

import argparse
import functools
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator

import grain
import numpy as np

from experiments.bench import steps, timing
from technogen_jax.data import batching
from technogen_jax.data.clip_source import ClipSource

CASES = {  # clip samples, channels, clips in the dataset, clips in a batch
    "paper": (16384, 1, 4096, 320),
    "8 s stereo": (352_800, 2, 128, 16),
}
_WINDOW = 1024  # records in the shuffle window of a stream


def add_options(add):
    """Adds options: how long, how many rounds."""
    add("--seconds", type=float, default=1.0, help="about how long each side runs in a round (default: %(default)s)")
    add("--rounds", type=int, default=5, help="(default: %(default)s)")
    add("--read_threads", type=int, default=2, help="config.data.read_threads (default: %(default)s)")


def run(options) -> dict:
    """Measures each case."""
    sides = {
        "ours": functools.partial(ours, read_threads=options.read_threads),
        "grain": grain_plainly,
        "grain_stream": grain_stream,
    }
    result = timing.about("grain", "tensorflow", "tensorflow-cpu", "numpy")
    try:
        import tensorflow as tf

        tf.config.set_visible_devices([], "GPU")
        sides["tf.data"] = tf_data
    except ImportError as error:
        result["tf.data"] = f"skipped: {error}"
    result["read_threads"] = options.read_threads
    with tempfile.TemporaryDirectory() as folder:
        result["cases"] = [case(name, pathlib.Path(folder) / name, sides, options) for name in CASES]
    return result


def case(name: str, folder: pathlib.Path, sides: dict[str, Callable], options: argparse.Namespace) -> dict:
    """Measures one shape of clips."""
    clip_samples, channels, clips, batch = CASES[name]
    steps.make_set(folder, rate_hz=44100, channels=channels, clip_samples=clip_samples, clips=clips)
    paths = sorted(folder.glob("*.tfrecord*"))
    rates = {side: [] for side in (*sides, "reading")}
    for warm in (True, *[False] * options.rounds):
        for side, start in sides.items():
            rate = consume(start(folder, clip_samples, channels, batch), options.seconds)
            rates[side] += [] if warm else [rate]
        rate = read_plainly(paths) / (2 * clip_samples * channels)
        rates["reading"] += [] if warm else [rate]
    medians = {side: statistics.median(values) for side, values in rates.items()}
    return {
        "case": name,
        "clip_samples": clip_samples,
        "channels": channels,
        "clips": clips,
        "batch": batch,
        "rounds": options.rounds,
        "clips_per_s": {side: timing.spread(values) for side, values in rates.items()},
        "ours_mb_per_s": round(medians["ours"] * 2 * clip_samples * channels / 1e6),
        "ratio": {side: round(medians["ours"] / medians[side], 2) for side in sides if side != "ours"},
        "fraction": round(medians["ours"] / medians["reading"], 3),
    }


def consume(batches: Iterator[np.ndarray], seconds: float) -> float:
    """Returns clips a second, reading one sample of each clip."""
    begun, clips, start, total = time.perf_counter(), 0, None, 0
    for batch in batches:
        total += int(batch[..., -1, 0].sum())
        now = time.perf_counter()
        if start is not None:
            clips += batch[..., -1, 0].size
            if now - start > seconds:
                break
        elif now - begun > seconds / 2:
            start = now
    if hasattr(batches, "close"):
        batches.close()
    return clips / (now - start)


def ours(folder, clip_samples, channels, batch, read_threads=2) -> Iterator[np.ndarray]:
    """Reads as training does."""
    rows = batching.ProcessRows(batch, 0, batch)
    clips = batching.ClipAudio(ClipSource(folder, "train"))
    window = batching.Window(length=clip_samples)
    return batching.iterate_batches(clips, rows=rows, n_critic=1, window=window, seed=0, read_threads=read_threads)


def grain_plainly(folder, clip_samples, channels, batch) -> Iterator[np.ndarray]:
    """Reads by random access with Grain's defaults."""
    source = ClipSource(folder, "train")
    dataset = grain.MapDataset.source(source).seed(0).shuffle().repeat().map(lambda clip: clip["audio"]).batch(batch)
    return iter(dataset.to_iter_dataset())


def grain_stream(folder, clip_samples, channels, batch) -> Iterator[np.ndarray]:
    """Reads TFRecord files one after the other with Grain."""
    from tensorflow_datasets.proto import tf_example_pb2

    def parse(record):
        example = tf_example_pb2.Example.FromString(record)
        pcm = example.features.feature["audio"].bytes_list.value[0]
        return np.frombuffer(pcm, np.int16).reshape(clip_samples, channels)

    files = grain.MapDataset.source(sorted(map(str, folder.glob("*.tfrecord*")))).seed(0).shuffle().repeat()
    streams = files.map(lambda path: grain.experimental.TFRecordIterDataset(path))
    dataset = grain.experimental.InterleaveIterDataset(streams, cycle_length=4)
    dataset = grain.experimental.WindowShuffleIterDataset(dataset, window_size=min(_WINDOW, 128), seed=0)
    return iter(dataset.map(parse).batch(batch))


def tf_data(folder, clip_samples, channels, batch) -> Iterator[np.ndarray]:
    """Reads as TensorFlow's guide recommends."""
    import tensorflow as tf

    def parse(record):
        pcm = tf.io.parse_single_example(record, {"audio": tf.io.FixedLenFeature([], tf.string)})["audio"]
        return tf.reshape(tf.io.decode_raw(pcm, tf.int16), (clip_samples, channels))

    files = tf.data.Dataset.list_files(str(folder / "*.tfrecord*"), seed=0)
    dataset = files.interleave(tf.data.TFRecordDataset, cycle_length=4, num_parallel_calls=tf.data.AUTOTUNE)
    dataset = dataset.repeat().shuffle(_WINDOW if clip_samples < 1e5 else 128, seed=0)
    dataset = dataset.map(parse, num_parallel_calls=tf.data.AUTOTUNE).batch(batch).prefetch(tf.data.AUTOTUNE)
    return dataset.as_numpy_iterator()


def read_plainly(paths: list[pathlib.Path]) -> float:
    """Returns bytes a second of plain reading."""
    start, count = time.perf_counter(), 0
    for path in paths:
        count += len(path.read_bytes())
    return count / (time.perf_counter() - start)
