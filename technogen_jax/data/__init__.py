"""The prepared dataset: its files, and batches of its clips.

    tfrecords        bytes of shards and records; TensorFlow Datasets' metadata
    manifest         manifest.json and clips.jsonl: rate, splits, tracks, labels
    clip_source      random access to the clips of one split
    batching         endless shuffled batches, the same for any number of processes
    dataset_config   completes a config from a dataset and checks that both match

`data_prep` writes these files; training and evaluation read them.
"""
