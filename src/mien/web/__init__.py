"""The explorer's server: one route is one question to a sampler."""
