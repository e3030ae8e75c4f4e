"""What makes a face: one architecture a file, with its critic where it was published with one."""
