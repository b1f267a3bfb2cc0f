"""The `fal` command: a thin interface to the SDK. It serves people at a terminal and scripts."""
