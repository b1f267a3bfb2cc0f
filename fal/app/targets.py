"""The callables that a runner calls. They are an app, a served function or a plain function.

A runner calls it on its main thread, with `exposed_port` and `exposed_metrics_port` if it serves. The result may be a
coroutine.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
from collections.abc import Callable, Coroutine, Mapping
from typing import ClassVar, TypeVar

from fal.app.app import AGENT_VARIABLE, App
from fal.app.endpoints import Route

_R = TypeVar("_R")
_PORT = 8080
_METRICS_PORT = 9090


def run_serving(coroutine: Coroutine[None, None, _R]) -> _R:
    """Run a server's coroutine on uvloop, as uvicorn does. A request costs a fifth less than on asyncio's event loop.

    An environment with nest_asyncio keeps asyncio's loop, because nest_asyncio can only patch that one.
    """
    if importlib.util.find_spec("nest_asyncio") is None:
        try:
            import uvloop
        except ImportError:  # the app's requirements exclude it, or it does not run on this machine
            pass
        else:
            return uvloop.run(coroutine)
    return asyncio.run(coroutine)


class AppTarget:
    """Serves an App.

    Args:
        app: the class.
        limit_max_requests: end after this many requests.
    """

    _run_on_main_thread = True  # so that it may handle SIGTERM
    run_coroutine = staticmethod(run_serving)

    def __init__(self, app: type[App], limit_max_requests: int | None = None) -> None:
        self.app = app
        self.limit_max_requests = limit_max_requests

    def __call__(
        self, *, exposed_port: int | None = None, exposed_metrics_port: int | None = None
    ) -> Coroutine[None, None, None]:
        """Create the app, and return the coroutine that serves it."""
        declared = self.app.metrics_port or _METRICS_PORT
        return self.app().serve(
            port=_PORT if exposed_port is None else exposed_port,
            metrics_port=declared if exposed_metrics_port is None else exposed_metrics_port,
            limit_max_requests=self.limit_max_requests,
        )


class ServedFunction:
    """Serves a function at POST /.

    Args:
        function: the function; FastAPI's rules map its arguments to the body and the query.
    """

    _run_on_main_thread = True
    run_coroutine = staticmethod(run_serving)
    describes_health: ClassVar[bool] = False

    def __init__(self, function: Callable[..., object]) -> None:
        self.function = function

    def collect_routes(self) -> dict[Route, Callable[..., object]]:
        """Return the one route."""
        return {Route(path="/"): self.function}

    def health(self) -> object:
        """Return the answer of GET /health."""
        return {"version": "unknown"}

    def openapi(self) -> dict[str, object]:
        """Return the OpenAPI description."""
        from fal.app.api import build_api

        return build_api(self).openapi()

    def __call__(
        self, *_arguments: object, exposed_port: int | None = None, exposed_metrics_port: int | None = None
    ) -> Coroutine[None, None, None]:
        """Return the coroutine that serves the function. The result of a setup function is ignored."""
        from fal.app.server import serve

        return serve(
            self,
            version="unknown",
            port=_PORT if exposed_port is None else exposed_port,
            metrics_port=_METRICS_PORT if exposed_metrics_port is None else exposed_metrics_port,
        )


class FunctionTarget:
    """Calls a function with the arguments of `fal run`.

    Args:
        function: the function.
        arguments, keywords: its arguments; the result of a setup function comes before them.
    """

    def __init__(
        self, function: Callable[..., object], arguments: tuple[object, ...], keywords: Mapping[str, object]
    ) -> None:
        self.function = function
        self.arguments = arguments
        self.keywords = dict(keywords)

    def __call__(self, *given: object) -> object:
        """Call the function; the result may be a coroutine."""
        return self.function(*given, *self.arguments, **self.keywords)


def run_here(
    target: AppTarget | ServedFunction, *, exposed_port: int | None, exposed_metrics_port: int | None
) -> Coroutine[None, None, None] | None:
    """Serve in this process. In a running event loop, return the coroutine to await."""
    earlier = os.environ.get(AGENT_VARIABLE)
    os.environ[AGENT_VARIABLE] = "1"
    try:
        serving = target(exposed_port=exposed_port, exposed_metrics_port=exposed_metrics_port)
    finally:
        if earlier is None:
            del os.environ[AGENT_VARIABLE]
        else:
            os.environ[AGENT_VARIABLE] = earlier
    return run_unless_in_a_loop(serving, run_serving)


def run_unless_in_a_loop(
    coroutine: Coroutine[None, None, _R], run: Callable[[Coroutine[None, None, _R]], _R] = asyncio.run
) -> _R | Coroutine[None, None, _R]:
    """Run a coroutine and return its result. In a running event loop, return the coroutine itself."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return run(coroutine)
    return coroutine
