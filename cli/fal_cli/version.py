"""The version of `fal`."""

from __future__ import annotations

from fal import __version__ as VERSION  # noqa: N812 - a constant of this package

__all__ = ["VERSION"]
