"""One verb a file: a typed function whose signature is its flags and whose docstring is its help."""
