"""How apps are written and served. Names load at first use.

This package travels with every deploy, since a runner has no `fal` installed. It imports only itself, the standard
library, FastAPI, pydantic and uvicorn (and websockets and msgpack if an app has realtime endpoints).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fal.app.app import App
    from fal.app.context import RequestContext
    from fal.app.endpoints import endpoint, realtime

__all__ = ["App", "RequestContext", "endpoint", "realtime"]

_WHERE = {
    "App": "fal.app.app",
    "RequestContext": "fal.app.context",
    "endpoint": "fal.app.endpoints",
    "realtime": "fal.app.endpoints",
}


def __getattr__(name: str) -> object:
    where = _WHERE.get(name)
    if where is None:
        raise AttributeError(f"module 'fal.app' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(where), name)
