"""State of the running process: caches, owned rows and counts."""
