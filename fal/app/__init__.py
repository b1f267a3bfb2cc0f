"""Writing and serving apps. Names load at first use.

This package travels with every deploy, since a runner has no `fal` installed. It imports only itself, the standard
library, FastAPI, pydantic and uvicorn (and websockets and msgpack if an app has realtime endpoints).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fal.app.app import DEFAULT_APP_FILES_IGNORE, App
    from fal.app.clients import AppClient, AppClientError, AppSpawnInfo, EndpointClient
    from fal.app.context import CDN_TOKEN_KEY, REQUEST_ENDPOINT_KEY, REQUEST_ID_KEY, RequestContext
    from fal.app.endpoints import endpoint, realtime

_MODULES = {
    "fal.app.app": ["DEFAULT_APP_FILES_IGNORE", "App"],
    "fal.app.clients": ["AppClient", "AppClientError", "AppSpawnInfo", "EndpointClient"],
    "fal.app.context": ["CDN_TOKEN_KEY", "REQUEST_ENDPOINT_KEY", "REQUEST_ID_KEY", "RequestContext"],
    "fal.app.endpoints": ["endpoint", "realtime"],
}
_WHERE = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "CDN_TOKEN_KEY",
    "DEFAULT_APP_FILES_IGNORE",
    "REQUEST_ENDPOINT_KEY",
    "REQUEST_ID_KEY",
    "App",
    "AppClient",
    "AppClientError",
    "AppSpawnInfo",
    "EndpointClient",
    "RequestContext",
    "endpoint",
    "realtime",
]


def __getattr__(name: str) -> object:
    where = _WHERE.get(name)
    if where is None:
        raise AttributeError(f"module 'fal.app' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(where), name)
