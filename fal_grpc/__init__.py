"""The wire in Python: stubs, and an adapter between messages and objects."""

VERSION = "0.1.0"
"""The version of the package. A test compares it with the metadata, whose reading takes longer than a whole command."""
