"""The folder of a run, the workdir, and a trained generator as one file.

workdir          config.json, data.json and statistics.npz: what the run is
checkpoints      checkpoints/: its states, with checksums, written in the background
metrics_log      metrics.jsonl and tensorboard/
encoded_dataset  codes-*.npy: the dataset, for models that encode it once
bundle           a .npz of one generator, without what only training needs
"""
