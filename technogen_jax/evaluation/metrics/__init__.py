"""Figures that compare two sets of clips, with the track as the unit of all statistics.

    embedded_set        embedded clips with their tracks: the input of all distances
    distances           the table of distances: kernel, Fréchet, precision and recall, diversity
    permutations        p-values by assigning tracks to the two sets at random
    feature_comparison  one musical feature in two sets
    two_sample          can a classifier distinguish the sets? With the claims that its result allows

Each figure means something only beside the same figure of real clips, its floor.
"""
