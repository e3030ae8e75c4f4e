"""The explorer: a Starlette server and a page over samplers and runs."""
