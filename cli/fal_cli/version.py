"""The version of `fal`, and of another package that gets in its way."""

from __future__ import annotations

from fal import __version__ as VERSION  # noqa: N812 - a constant of this package

__all__ = ["VERSION", "other_package"]


def other_package() -> str | None:
    """Return the version of the published `fal` if it is in this environment.

    Both own the package `fal` and the program, and pip lets one overwrite the other.
    """
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("fal")
    except PackageNotFoundError:
        return None
