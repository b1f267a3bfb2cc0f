"""The `fal` command: a thin face of the SDK for people at a terminal and for scripts."""
