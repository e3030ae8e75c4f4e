"""How a model learns: one way a file."""
