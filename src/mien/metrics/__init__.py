"""Metrics of a generator: image features, distances between feature sets, and scores with their protocols."""
