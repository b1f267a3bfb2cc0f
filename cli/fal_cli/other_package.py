"""Detects a package that conflicts with this one."""

from __future__ import annotations


def other_package() -> str | None:
    """Return the published `fal`'s version if it is in this environment.

    Both own the package `fal` and the program, and pip lets one overwrite the other.
    """
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("fal")
    except PackageNotFoundError:
        return None
