"""What only the running process knows: caches, owned rows and counts, apart from the use cases."""
