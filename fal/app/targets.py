"""What a runner calls: an app, a served function or a plain function, as the object that a deploy sends.

A runner loads one and calls it on its main thread, with `exposed_port` and `exposed_metrics_port` where it serves; what
it returns may be a coroutine.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Mapping
from typing import ClassVar, TypeVar

from fal.app.app import AGENT_VARIABLE, App
from fal.app.endpoints import Route

_R = TypeVar("_R")
_PORT = 8080
_METRICS_PORT = 9090


class AppTarget:
    """Serves an App.

    Args:
        app: the class.
        limit_max_requests: end after this many requests.
    """

    _run_on_main_thread = True  # so that it may handle SIGTERM

    def __init__(self, app: type[App], limit_max_requests: int | None = None) -> None:
        self.app = app
        self.limit_max_requests = limit_max_requests

    def __call__(
        self, *, exposed_port: int | None = None, exposed_metrics_port: int | None = None
    ) -> Coroutine[None, None, None]:
        """Make the app, and return the coroutine that serves it."""
        declared = self.app.metrics_port or _METRICS_PORT
        return self.app().serve(
            port=_PORT if exposed_port is None else exposed_port,
            metrics_port=declared if exposed_metrics_port is None else exposed_metrics_port,
            limit_max_requests=self.limit_max_requests,
        )


class ServedFunction:
    """Serves a function at POST /.

    Args:
        function: the function; its arguments are the body and the query by FastAPI's rules.
    """

    _run_on_main_thread = True
    describes_health: ClassVar[bool] = False

    def __init__(self, function: Callable[..., object]) -> None:
        self.function = function

    def collect_routes(self) -> dict[Route, Callable[..., object]]:
        """The one route."""
        return {Route(path="/"): self.function}

    def health(self) -> object:
        """What GET /health answers."""
        return {"version": "unknown"}

    def openapi(self) -> dict[str, object]:
        """The OpenAPI description."""
        from fal.app.api import build_api

        return build_api(self).openapi()

    def __call__(
        self, *_arguments: object, exposed_port: int | None = None, exposed_metrics_port: int | None = None
    ) -> Coroutine[None, None, None]:
        """Return the coroutine that serves the function; a setup function's result has no place to go."""
        from fal.app.server import serve

        return serve(
            self,
            version="unknown",
            port=_PORT if exposed_port is None else exposed_port,
            metrics_port=_METRICS_PORT if exposed_metrics_port is None else exposed_metrics_port,
        )


class FunctionTarget:
    """Calls a function with arguments that were fixed when it was sent.

    Args:
        function: the function.
        arguments, keywords: its arguments, after those that the runner gives (a setup function's result).
    """

    def __init__(
        self, function: Callable[..., object], arguments: tuple[object, ...], keywords: Mapping[str, object]
    ) -> None:
        self.function = function
        self.arguments = arguments
        self.keywords = dict(keywords)

    def __call__(self, *given: object) -> object:
        """Call it; the result may be a coroutine."""
        return self.function(*given, *self.arguments, **self.keywords)


def run_here(
    target: AppTarget | ServedFunction, *, exposed_port: int | None, exposed_metrics_port: int | None
) -> Coroutine[None, None, None] | None:
    """Serve in this process; in a running event loop, return the coroutine that does."""
    earlier = os.environ.get(AGENT_VARIABLE)
    os.environ[AGENT_VARIABLE] = "1"
    try:
        serving = target(exposed_port=exposed_port, exposed_metrics_port=exposed_metrics_port)
    finally:
        if earlier is None:
            del os.environ[AGENT_VARIABLE]
        else:
            os.environ[AGENT_VARIABLE] = earlier
    return run_unless_in_a_loop(serving)


def run_unless_in_a_loop(coroutine: Coroutine[None, None, _R]) -> _R | Coroutine[None, None, _R]:
    """What a coroutine returns; in a running event loop, which cannot wait for it, the coroutine itself."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    return coroutine
