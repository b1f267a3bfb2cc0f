"""Isolates runners by a sandbox, a file system view, or a container."""
