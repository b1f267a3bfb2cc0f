"""The version of `fal`, as a constant: reading the package's metadata costs more than the whole command should.

A test holds it equal to the metadata.
"""

from __future__ import annotations

VERSION = "0.1.0"


def other_package() -> str | None:
    """Return the version of the published `fal` if it is in this environment.

    Both own the package `fal` and the program, and pip lets one overwrite the other.
    """
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("fal")
    except PackageNotFoundError:
        return None
