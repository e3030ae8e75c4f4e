"""What is learned of a model afterwards: named directions, densities of its encodings, and the latents of given faces."""
