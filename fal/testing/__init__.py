"""Tests of apps: in this process, or in a runner of a controller in a temporary folder. Names load at first use.

pytest finds the fixtures of `fal.testing.plugin` by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fal.testing.controller import ControllerStartError, TemporaryController
    from fal.testing.local import serve_here

__all__ = ["ControllerStartError", "TemporaryController", "serve_here"]

_WHERE = {
    "ControllerStartError": "fal.testing.controller",
    "TemporaryController": "fal.testing.controller",
    "serve_here": "fal.testing.local",
}


def __getattr__(name: str) -> object:
    where = _WHERE.get(name)
    if where is None:
        raise AttributeError(f"module 'fal.testing' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(where), name)
