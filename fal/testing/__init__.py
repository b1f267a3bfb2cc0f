"""A controller in a temporary folder; `plugin` has pytest's fixtures for apps. Names load at first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fal.testing.controller import ControllerStartError, TemporaryController

__all__ = ["ControllerStartError", "TemporaryController"]

_WHERE = {
    "ControllerStartError": "fal.testing.controller",
    "TemporaryController": "fal.testing.controller",
}


def __getattr__(name: str) -> object:
    where = _WHERE.get(name)
    if where is None:
        raise AttributeError(f"module 'fal.testing' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(where), name)
