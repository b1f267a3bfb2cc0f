"""Serves an app's methods as JSON over HTTP. It is for environments that have no room for FastAPI.

It uses only the standard library. It supports no WebSockets, forms, uploads or /openapi.json.
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import functools
import inspect
import json
import math
import re
import types
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from http import HTTPStatus
from pathlib import PurePath
from typing import Any, TypeAlias, TypeGuard
from urllib.parse import parse_qs
from uuid import UUID

from fal.app.checking import ValueRefusedError, check, is_scalar, missing, refused
from fal.app.endpoints import Route
from fal.app.served import UNBILLED, ErrorAnswer, Served, answer_to, path_not_found, routes_of

# ASGI's types are plain mappings.
Scope: TypeAlias = "MutableMapping[str, Any]"
Receive: TypeAlias = "Callable[[], Awaitable[MutableMapping[str, Any]]]"
Send: TypeAlias = "Callable[[MutableMapping[str, Any]], Awaitable[None]]"

# The same number as in FastAPI.
_THREADS = 40
_METHODS = "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"
_PARAMETER = re.compile(r"\{(\w+)(:path)?\}")


class MinimalServer:
    """An ASGI app that serves an App or a function.

    Args:
        served: what to serve.

    Raises:
        ValueError: there is no endpoint, or one is a WebSocket, which this server does not support.
    """

    def __init__(self, served: Served) -> None:
        self._served = served
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="endpoint")
        self._handlers: list[_Handler] = []
        for route, method in routes_of(served).items():
            if route.is_websocket:
                raise ValueError(
                    f"{route.path} is a WebSocket, and this environment has no FastAPI that could serve it: give the "
                    "app requirements that FastAPI goes along with"
                )
            self._handlers.append(_Handler(route, method, self._threads))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1000})
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        origin = headers.get("origin")
        if origin is not None and scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
            await _send(send, 200, b"OK", "text/plain; charset=utf-8", _preflight(origin, headers))
            return
        answer = _for_pages(send, origin)
        try:
            found = await self._answer(scope, headers, receive)
        except ValueRefusedError as error:
            found = ErrorAnswer(status=422, content={"detail": error.errors}, headers=UNBILLED)
        except Exception as error:  # noqa: BLE001 - an app's exception is an answer
            found = _http_exception(error) or answer_to(error)
        if isinstance(found, ErrorAnswer):
            await _send(answer, found.status, _dumps(found.content), "application/json", found.headers)
        elif _sends_itself(found):
            await found(scope, receive, answer)
        else:
            await _send(answer, 200, _dumps(found), "application/json", {})

    async def _answer(self, scope: Scope, headers: Mapping[str, str], receive: Receive) -> object:
        path, method = str(scope["path"]), scope["method"]
        root = str(scope.get("root_path", ""))
        path = path.removeprefix(root) if root and path.startswith(root + "/") else path
        for handler in self._handlers:
            given = handler.match(path)
            if given is not None:
                scope["route"] = handler.route
                if method != "POST":
                    return _not_allowed("POST")
                return _sendable(await handler.call(given, scope["query_string"], headers, receive))
        if path != "/health":
            return path_not_found(path)
        scope["route"] = Route(path="/health")
        if method != "GET":
            return _not_allowed("GET")
        answer = self._served.health()
        return _sendable(await answer if inspect.isawaitable(answer) else answer)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parameter:
    name: str
    hint: object
    default: object
    place: str

    @property
    def required(self) -> bool:
        return self.default is inspect.Parameter.empty


class _Handler:
    """A method and the sources of its arguments: path, query and body."""

    def __init__(self, route: Route, method: Callable[..., object], threads: ThreadPoolExecutor) -> None:
        self.route = route
        self._method = method
        self._threads = threads
        names = {name for name, _ in _PARAMETER.findall(route.path)}
        self._pattern = re.compile(_pattern(route.path))
        self._parameters = [
            _Parameter(name=name, hint=hint, default=each.default, place=_place(name, hint, names))
            for name, each in inspect.signature(method).parameters.items()
            if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
            for hint in [Any if each.annotation is each.empty else each.annotation]
        ]
        self._body = [each for each in self._parameters if each.place == "body"]

    def match(self, path: str) -> dict[str, str] | None:
        found = self._pattern.fullmatch(path)
        return None if found is None else found.groupdict()

    async def call(
        self, given: Mapping[str, str], query: bytes, headers: Mapping[str, str], receive: Receive
    ) -> object:
        """Check the arguments and call the method.

        Raises:
            ValueRefusedError: an argument does not fit.
        """
        content = await _read(receive)
        arguments = self._arguments(given, query, _parsed(content, headers) if self._body else None)
        if inspect.iscoroutinefunction(inspect.unwrap(self._method)):
            return await self._method(**arguments)  # type: ignore[misc]  # a coroutine function
        work = functools.partial(copy_context().run, self._method, **arguments)
        result = await asyncio.get_running_loop().run_in_executor(self._threads, work)
        return await result if inspect.isawaitable(result) else result

    def _arguments(self, given: Mapping[str, str], query: bytes, body: object) -> dict[str, object]:
        asked = {name: values[-1] for name, values in parse_qs(query.decode("latin-1"), keep_blank_values=True).items()}
        errors: list[dict[str, object]] = []
        found: dict[str, object] = {}
        for each in self._parameters:
            try:
                value = self._value(each, given, asked, body)
            except ValueRefusedError as error:
                errors += error.errors
                continue
            found[each.name] = value
        if errors:
            raise ValueRefusedError(errors)
        return found

    def _value(self, each: _Parameter, given: Mapping[str, str], query: Mapping[str, str], body: object) -> object:
        if each.place != "body":
            values = given if each.place == "path" else query
            if each.name in values:
                return check(each.hint, values[each.name], (each.place, each.name))
            if each.required:
                raise missing((each.place, each.name), None)
            return each.default
        if len(self._body) == 1:
            if body is None and not each.required:
                return each.default
            if body is None:
                raise missing(("body",), None)
            return check(each.hint, body, ("body",))
        values = body if isinstance(body, dict) else {}
        if each.name in values:
            return check(each.hint, values[each.name], ("body", each.name))
        if each.required:
            raise missing(("body", each.name), None)
        return each.default


def _place(name: str, hint: object, in_path: set[str]) -> str:
    if name in in_path:
        return "path"
    return "query" if is_scalar(hint) else "body"


def _pattern(path: str) -> str:
    parts: list[str] = []
    end = 0
    for found in _PARAMETER.finditer(path):
        rest = ".*" if found.group(2) else "[^/]+"
        parts += [re.escape(path[end : found.start()]), f"(?P<{found.group(1)}>{rest})"]
        end = found.end()
    return "".join([*parts, re.escape(path[end:])])


async def _read(receive: Receive) -> bytes:
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return b"".join(parts)
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


def _parsed(content: bytes, headers: Mapping[str, str]) -> object:
    """Return a body's JSON, or the text of another type. None if there is no body."""
    if not content:
        return None
    kind = headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        return content.decode(errors="replace")
    try:
        return json.loads(content)
    except UnicodeDecodeError:
        raise refused("json_invalid", ("body", 0), "JSON decode error", {}) from None
    except json.JSONDecodeError as error:
        found = refused("json_invalid", ("body", error.pos), "JSON decode error", {})
        found.errors[0]["ctx"] = {"error": error.msg}
        raise found from None


def _http_exception(error: Exception) -> ErrorAnswer | None:
    """Return the answer for starlette's HTTPException. An app may raise it even on this server."""
    status = getattr(error, "status_code", None)
    if type(error).__name__ != "HTTPException" or not isinstance(status, int):
        return None
    headers = getattr(error, "headers", None) or {}
    return ErrorAnswer(status=status, content={"detail": getattr(error, "detail", "")}, headers=headers)


def _not_allowed(method: str) -> ErrorAnswer:
    return ErrorAnswer(status=405, content={"detail": "Method Not Allowed"}, headers={"allow": method})


def _sendable(result: object) -> object:
    """Return a result in the form of JSON. A framework's response is unchanged."""
    return result if _sends_itself(result) else _plain(result)


def _sends_itself(result: object) -> TypeGuard[Callable[[Scope, Receive, Send], Awaitable[None]]]:
    """Return whether a result is a framework's response."""
    return callable(result) and hasattr(result, "status_code") and not isinstance(result, type)


def _plain(value: object) -> object:
    if isinstance(value, Enum):
        return _plain(value.value)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(_plain(key)): _plain(part) for key, part in value.items()}
    dump = getattr(value, "model_dump", None)
    if dump is not None:
        return _plain(dump(mode="json", by_alias=True))
    dump = getattr(value, "dict", None)
    if dump is not None and hasattr(value, "__fields__"):  # a pydantic 1 model
        return _plain(dump(by_alias=True))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: _plain(getattr(value, each.name)) for each in dataclasses.fields(value)}
    if isinstance(value, list | tuple | set | frozenset | types.GeneratorType):
        return [_plain(part) for part in value]
    return _text(value)


def _text(value: object) -> object:
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, bytes):
        return value.decode() if value.isascii() else base64.b64encode(value).decode()
    if isinstance(value, UUID | PurePath):
        return str(value)
    item = getattr(value, "item", None)  # a NumPy number
    if callable(item):
        return _plain(item())
    raise TypeError(
        f"an endpoint returned {type(value).__name__}, which is no JSON: return a dict, a list, a text, a number, a "
        "dataclass or a model"
    )


def _dumps(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_plain).encode(errors="replace")


def _preflight(origin: str, headers: Mapping[str, str]) -> Mapping[str, str]:
    asked = headers.get("access-control-request-headers")
    return {
        "access-control-allow-origin": origin,
        "access-control-allow-credentials": "true",
        "access-control-allow-methods": _METHODS,
        "access-control-max-age": "600",
        "vary": "Origin",
        **({"access-control-allow-headers": asked} if asked else {}),
    }


def _for_pages(send: Send, origin: str | None) -> Send:
    """Return a sender that lets pages of any origin read the response."""
    extra = [(b"vary", b"Origin")]
    if origin is not None:
        allowed = (b"access-control-allow-origin", origin.encode("latin-1"))
        extra += [allowed, (b"access-control-allow-credentials", b"true")]

    async def answer(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *extra]}
        await send(message)

    return answer


async def _send(send: Send, status: int, content: bytes, kind: str, headers: Mapping[str, str]) -> None:
    empty = status in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)
    sent: Iterable[tuple[str, str]] = headers.items()
    fields = [] if empty else [("content-type", kind), ("content-length", str(len(content)))]
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in [*fields, *sent]],
        }
    )
    await send({"type": "http.response.body", "body": b"" if empty else content})
