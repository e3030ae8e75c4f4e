"""The contracts that everything else is built on: models, recipes, runs, devices and processes. Imports torch alone."""
