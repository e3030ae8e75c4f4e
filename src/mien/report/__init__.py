"""What a run shows: grids, plots, films, its report page, its model card, and the leaderboard of several runs."""
