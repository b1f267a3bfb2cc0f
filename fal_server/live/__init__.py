"""State that only the running process has: caches, owned rows and counts."""
