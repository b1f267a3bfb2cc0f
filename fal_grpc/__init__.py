"""The wire in Python: stubs, and an adapter between their messages and plain objects."""

VERSION = "0.1.0"
"""The version of the package. A test holds it equal to the metadata, which costs more to read than a whole command."""
