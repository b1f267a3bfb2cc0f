"""Isolates runners: a sandbox, a view of the file system, or a container."""
