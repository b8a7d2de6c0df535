"""Distances and tests between sets of clips; the track is the unit of all of them. Numpy and scikit-learn, float64."""
