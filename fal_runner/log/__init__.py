"""A runner's output: read, split into lines, cleaned of secrets, and spooled on disk until it is stored."""
