"""Faces from trained models: the Sampler, addresses, styles, directions, densities and inversion."""
