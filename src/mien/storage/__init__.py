"""What a run leaves on disk: its directory, checkpoints, atomic writes, locks, the control file."""
