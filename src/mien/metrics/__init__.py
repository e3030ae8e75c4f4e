"""Judging a generator: features of images, distances between sets of features, scores that carry their protocol."""
