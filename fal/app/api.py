"""Serves an app's methods as FastAPI routes, and answers their errors."""

from __future__ import annotations

import inspect
import math
import os
import sys
import traceback
import typing
from collections.abc import Awaitable, Callable, Mapping
from types import SimpleNamespace, TracebackType
from typing import ClassVar, Protocol

from fastapi import FastAPI, Request, WebSocket
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from fal.app.endpoints import Route
from fal.app.gpu import gpu_fault
from fal.app.openapi import describe
from fal.exceptions import AppException, FieldException, RequestCancelledException

_UNBILLED = {"x-fal-billable-units": "0"}
_OUR_PACKAGES = frozenset({"fal", "fastapi", "starlette", "uvicorn", "anyio", "asyncio", "concurrent", "threading"})


class Served(Protocol):
    """An App, or a function that is served like one.

    Attributes:
        describes_health: whether the OpenAPI description has GET /health.
    """

    describes_health: ClassVar[bool]

    def collect_routes(self) -> dict[Route, Callable[..., object]]:
        """Return the routes and their bound methods."""
        ...

    def health(self) -> object:
        """Return the answer of GET /health, or an awaitable of it."""
        ...


def build_api(served: Served) -> FastAPI:
    """Return the FastAPI app that serves `served`.

    Raises:
        ValueError: there is no endpoint, or a WebSocket endpoint is not `async def` with a `fastapi.WebSocket`.
    """
    routes = served.collect_routes()
    if not routes:
        raise ValueError(f'{type(served).__name__} has no endpoint: decorate a method with @fal.endpoint("/")')
    api = FastAPI(root_path=os.environ.get("FAL_APP_ROOT_PATH", ""))
    api.add_middleware(
        CORSMiddleware, allow_credentials=True, allow_headers=("*",), allow_methods=("*",), allow_origins=("*",)
    )
    sockets: list[tuple[Route, Callable[..., object]]] = []
    for route, method in routes.items():
        resolve_annotations(method)
        if route.is_websocket:
            api.add_api_websocket_route(route.path, _socket_endpoint(route, method), name=method.__name__)
            sockets.append((route, method))
        else:
            api.add_api_route(route.path, method, name=method.__name__, methods=["POST"])

    async def health() -> object:
        answer = served.health()
        return await answer if inspect.isawaitable(answer) else answer

    api.add_api_route(
        "/health", health, methods=["GET"], response_model=None, include_in_schema=served.describes_health
    )
    _add_answers(api)
    base = api.openapi
    api.openapi = lambda: describe(api, base, sockets)  # type: ignore[method-assign]  # FastAPI's documented way
    return api


def _socket_endpoint(route: Route, method: Callable[..., object]) -> Callable[..., object]:
    if route.realtime is not None:
        from fal.app.realtime import handler

        return handler(method, route.realtime)
    annotations = inspect.get_annotations(inspect.unwrap(getattr(method, "__func__", method)), eval_str=True)
    takes_socket = any(isinstance(kind, type) and issubclass(kind, WebSocket) for kind in annotations.values())
    if not (inspect.iscoroutinefunction(method) and takes_socket):
        raise ValueError(
            f"the WebSocket endpoint {method.__qualname__} at {route.path} must take a fastapi.WebSocket and be async: "
            f"async def {method.__name__}(self, websocket: WebSocket) -> None"
        )
    return method


def resolve_annotations(function: Callable[..., object]) -> None:
    """Replace a function's textual annotations by what they mean, each by itself.

    One that cannot be resolved is dropped from the result, which then is not checked. FastAPI would take a parameter
    with such an annotation for one of the query.

    Raises:
        ValueError: the annotation of a parameter cannot be resolved.
    """
    plain = inspect.unwrap(getattr(function, "__func__", function))
    given: dict[str, object] = getattr(plain, "__annotations__", {})
    if not any(isinstance(annotation, str) for annotation in given.values()):
        return
    names = getattr(plain, "__globals__", {})
    resolved: dict[str, object] = {}
    for name, annotation in given.items():
        holder = SimpleNamespace(__annotations__={name: annotation})
        try:
            resolved |= typing.get_type_hints(holder, globalns=names, include_extras=True)
        except NameError as error:
            if name != "return":
                raise ValueError(
                    f"{plain.__qualname__}: the annotation {annotation!r} of {name} cannot be resolved: {error}. "
                    "Import it outside of `if TYPE_CHECKING:`, which is never run"
                ) from error
    plain.__annotations__ = resolved


def _add_answers(api: FastAPI) -> None:
    answers: dict[type[Exception], Callable[..., Awaitable[Response]]] = {
        HTTPException: _on_http,
        RequestValidationError: _on_invalid,
        AppException: _on_app,
        FieldException: _on_field,
        RequestCancelledException: _on_cancelled,
        Exception: _on_bug,
    }
    for kind, answer in answers.items():
        api.add_exception_handler(kind, answer)


async def _on_http(request: Request, error: HTTPException) -> Response:
    """Name the path in a 404 of no endpoint, to distinguish it from the platform's 404."""
    headers = dict(error.headers or {})
    if error.status_code in {204, 304}:
        return Response(status_code=error.status_code, headers=headers)
    if error.status_code == 404 and error.detail == "Not Found":
        return JSONResponse({"detail": f"Path {request.url.path} not found"}, 404, headers=headers | _UNBILLED)
    return JSONResponse({"detail": error.detail}, error.status_code, headers=headers)


async def _on_invalid(_request: Request, error: RequestValidationError) -> Response:
    """Answer 422 as FastAPI does, also for binary input and numbers that JSON lacks."""
    detail = jsonable_encoder(
        error.errors(),
        custom_encoder={
            bytes: lambda value: f"<binary {len(value)} bytes>",
            bytearray: lambda value: f"<binary {len(value)} bytes>",
            memoryview: lambda value: f"<binary {len(value)} bytes>",
            float: lambda value: value if math.isfinite(value) else str(value),
            str: lambda value: value.encode(errors="replace").decode(),
            BaseException: str,
        },
    )
    return JSONResponse({"detail": detail}, 422, headers=_UNBILLED)


async def _on_app(_request: Request, error: AppException) -> Response:
    return JSONResponse({"detail": error.message}, error.status_code)


async def _on_field(_request: Request, error: FieldException) -> Response:
    headers: Mapping[str, str] = {}
    if error.billable_units:
        places = 0 if isinstance(error.billable_units, int) else 8
        headers = {"x-fal-billable-units": f"{float(error.billable_units):.{places}f}"}
    return JSONResponse(error.to_pydantic_format(), error.status_code, headers=headers)


async def _on_cancelled(_request: Request, error: RequestCancelledException) -> Response:
    """Answer 499, nginx's status for a client that closed the connection."""
    return JSONResponse({"detail": error.message}, 499)


async def _on_bug(_request: Request, error: Exception) -> Response:
    print_traceback(error)
    fault = gpu_fault(error)
    if fault is not None:
        return JSONResponse({"detail": fault.message}, fault.status_code)
    return JSONResponse({"detail": "Internal Server Error"}, 500)


def print_traceback(error: BaseException) -> None:
    """Print a traceback on stderr, starting at the first frame of the app."""
    own = error.__traceback__
    while own is not None and _package(own) in _OUR_PACKAGES:
        own = own.tb_next
    traceback.print_exception(type(error), error, own or error.__traceback__)
    sys.stderr.flush()


def _package(frame: TracebackType) -> str:
    return str(frame.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
