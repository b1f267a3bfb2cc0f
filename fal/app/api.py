"""Serves an app's methods as FastAPI routes."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Awaitable, Callable

from fastapi import FastAPI, Request, WebSocket
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse, Response
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope, Send

from fal.app.endpoints import Route
from fal.app.openapi import describe
from fal.app.served import UNBILLED, Served, answer_to, path_not_found, routes_of
from fal.exceptions import AppException, FieldException, RequestCancelledException

_VARY = (b"vary", b"Origin")


def build_api(served: Served) -> FastAPI:
    """Return the FastAPI app that serves `served`.

    Raises:
        ValueError: there is no endpoint, or a WebSocket endpoint is not `async def` with a `fastapi.WebSocket`.
    """
    routes = routes_of(served)
    api = FastAPI(root_path=os.environ.get("FAL_APP_ROOT_PATH", ""))
    usual = list(api.router.routes)
    api.add_middleware(
        _AnyOrigin, allow_credentials=True, allow_headers=("*",), allow_methods=("*",), allow_origins=("*",)
    )
    sockets: list[tuple[Route, Callable[..., object]]] = []
    for route, method in routes.items():
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
    # FastAPI's own pages come last: a request is compared with every route before its own.
    api.router.routes[:] = [route for route in api.router.routes if route not in usual] + usual
    _add_answers(api)
    base = api.openapi
    api.openapi = lambda: describe(api, base, sockets)  # type: ignore[method-assign]  # FastAPI's documented way
    return api


class _AnyOrigin(CORSMiddleware):
    """Allows pages of any origin to call. It costs almost nothing for other calls."""

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:  # type: ignore[override]
        """Answer a preflight request, or pass any other one on.

        It is no coroutine itself, which would cost more than the rest.
        """
        if scope["type"] != "http":
            return super().__call__(scope, receive, send)
        for name, _ in scope["headers"]:
            if name == b"origin":
                return super().__call__(scope, receive, send)

        def answer(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                headers = message.setdefault("headers", [])
                for name, _ in headers:
                    if name.lower() == b"vary":
                        MutableHeaders(scope=message).add_vary_header("Origin")
                        return send(message)
                message["headers"] = [*headers, _VARY]
            return send(message)

        return self.app(scope, receive, answer)


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


def _add_answers(api: FastAPI) -> None:
    answers: dict[type[Exception], Callable[..., Awaitable[Response]]] = {
        HTTPException: _on_http,
        RequestValidationError: _on_invalid,
        AppException: _on_error,
        FieldException: _on_error,
        RequestCancelledException: _on_error,
        Exception: _on_error,
    }
    for kind, answer in answers.items():
        api.add_exception_handler(kind, answer)


async def _on_http(request: Request, error: HTTPException) -> Response:
    headers = dict(error.headers or {})
    if error.status_code in {204, 304}:
        return Response(status_code=error.status_code, headers=headers)
    if error.status_code == 404 and error.detail == "Not Found":
        missing = path_not_found(request.url.path)
        return JSONResponse(missing.content, missing.status, headers={**headers, **missing.headers})
    return JSONResponse({"detail": error.detail}, error.status_code, headers=headers)


async def _on_invalid(_request: Request, error: RequestValidationError) -> Response:
    """Answer 422 like FastAPI. Binary input and numbers that JSON lacks are covered, too."""
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
    return JSONResponse({"detail": detail}, 422, headers=UNBILLED)


async def _on_error(_request: Request, error: Exception) -> Response:
    answer = answer_to(error)
    return JSONResponse(answer.content, answer.status, headers=answer.headers)
