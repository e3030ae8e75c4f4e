"""Output of a run for readers: grids, plots, films, its report page, its model card, and the leaderboard of several runs."""
