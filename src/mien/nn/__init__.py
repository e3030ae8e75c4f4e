"""Blocks used by two models or more."""
