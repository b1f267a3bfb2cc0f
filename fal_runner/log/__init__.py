"""A runner's output: read, split into lines, and cleaned of secrets. It is spooled on disk until it is stored."""
