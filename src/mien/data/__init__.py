"""From photographs to a pack, and from a pack to batches."""
