"""A small dataset of random clips, and damaged files."""

import json

import numpy as np
from hypothesis import strategies as st

from technogen_jax.common import atomic_files
from technogen_jax.data import tfrecords
from technogen_jax.data.manifest import CLIPS_FILE, Manifest, write_manifest

CLIP_SAMPLES = 50


def write_dataset(folder, clips=(7, 0, 2), shards=(3, 0, 1), channels=2, labels=("acid", "industrial")):
    """Writes a dataset of random clips into a folder and returns the examples by split."""
    rng = np.random.default_rng(0)
    features = tfrecords.make_features(CLIP_SAMPLES, channels, labels)
    examples, splits, info, lines = {}, {}, {}, []
    for split, count, shard_count in zip(tfrecords.SPLITS, clips, shards, strict=True):
        examples[split] = [
            {
                "audio": rng.integers(-32768, 32768, (CLIP_SAMPLES, channels), np.int16),
                "label": int(rng.integers(len(labels))),
                "track": f"acid/{split} träck {index}.wav",
                "offset": index * 2**33,
            }
            for index in range(count)
        ]
        names = tfrecords.shard_names(split, shard_count)
        parts = [examples[split][index::shard_count] for index in range(shard_count)]
        total = 0
        for shard, (name, part) in enumerate(zip(names, parts, strict=True)):
            total += tfrecords.write_shard(folder / name, (tfrecords.serialize_example(**e) for e in part))
            for index, example in enumerate(part):
                line = {"split": split, "shard": shard, "index": index, "track": example["track"]}
                lines.append(line | {"offset": example["offset"], "label": labels[example["label"]]})
        examples[split] = [example for part in parts for example in part]
        splits[split] = {"clips": count, "tracks": 1, "shards": names}
        if count:
            info[split] = ([len(part) for part in parts], total)
    tfrecords.write_dataset_info(folder, features, info, "A test.", {"sample_rate_hz": 16000})
    manifest = Manifest(
        sample_rate_hz=16000,
        channels=channels,
        clip_samples=CLIP_SAMPLES,
        stride_samples=CLIP_SAMPLES,
        labels=list(labels),
        splits=splits,
        tracks=[],
        rejected=[],
        options={},
        fingerprint="x",
    )
    atomic_files.write_text(folder / CLIPS_FILE, (json.dumps(line) + "\n" for line in lines))
    write_manifest(folder, manifest)
    return examples


def read_or_record_error(read):
    """Returns what `read` returns, None if it raises a RecordError of one line; other exceptions pass."""
    try:
        return read()
    except tfrecords.RecordError as error:
        assert "\n" not in str(error) and len(str(error)) < 1000
        return None


# (position, number of bytes left out there, bytes put there instead)
edits = st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 3), st.binary(max_size=4)), min_size=1, max_size=4)


def edited(content, edits):
    """Returns bytes with some stretches left out or replaced."""
    for place, length, new in edits:
        place %= len(content) + 1
        content = content[:place] + new + content[place + length :]
    return content
