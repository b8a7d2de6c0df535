"""Evaluation: how far generated clips are from real ones, and whether they are copies.

    clip_sets           sets of clips: splits of a dataset, folders of audio files, a generator
    feature_extraction  reads every set once and keeps embeddings, features and fingerprints
    features/           the embeddings and the musical features
    embeddings          the table of embeddings by name
    classifier          a small convolutional net: the artefact net, and the classifier of labels
    metrics/            distances between two sets, feature comparison, two-sample test
    memorisation/       fingerprints, copy detection, statistics of copying
    scoring             all figures of a comparison, each beside its floor, and what may be claimed
    opinions            several embeddings side by side: where they disagree, and tags
    results, report     the result as JSON, and as one HTML page with `charts`

How to add a figure. Each kind has one table; the result and the report show whatever is in it.

    a distance    `metrics/distances.py`: a function of two embedded sets, one entry in `DISTANCES`
    a feature     `features/musical/`: a function of a clip's analysis, one entry in `GROUPS` of
                  `description.py`
    an embedding  `features/`: a function from clips to vectors, one entry in `EMBEDDINGS` of
                  `embeddings.py`

`tests/evaluation/test_recipe.py` adds one of each and writes a report.
"""
