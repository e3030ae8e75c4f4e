"""Other people's files: read without running anything that they name, and turned into models of mien's."""
