"""The `fal` command: a thin interface to the SDK for people at a terminal and for scripts."""
