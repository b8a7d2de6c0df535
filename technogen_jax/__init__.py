"""Trains GANs on techno and generates new sound. Each package imports only from those above it.

    common      files, config fields, the command line, progress, many devices
    audio       audio files, spectra, loudness, pictures of spectrograms
    data        the prepared dataset: records, manifest, batches
    models      WaveGAN, SpecGAN, TechnoGAN
    runs        a run's folder: config, checkpoints, metrics, and a generator as one file
    sampling    sound from a trained generator: clips and tracks
    evaluation  how near generated clips are to real ones, and whether they are copies
    training    the training loop and the training step
    exporting   a generator for programs without TechnoGen

Commands: `train`, `sample`, `evaluate`, `export`, `app`, `listen`; `__main__` is the command
`technogen`, which has all of them.
"""

__version__ = "0.2.0"
