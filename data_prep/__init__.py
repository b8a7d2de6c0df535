"""Turns tracks on disk into a dataset of fixed-length records. Does not use JAX.

    prepare     the command: tracks to dataset (options, phases: its options and its work)
    synthesize  the command that renders the built-in corpus
    tracks      finds and decodes tracks, detects tempo and beats
    clips       where clips start, their level, their split
    shards      writes the shards, the metadata and the manifest
    workers     worker processes, so that a crash of a decoder loses one track only
    corpus      composes and renders the built-in corpus

It imports the packages common, audio and data of technogen_jax.
"""
