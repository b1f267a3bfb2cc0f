"""The contract over HTTP: POST /fal.v1.SERVICE/METHOD with JSON, by Connect's unary protocol."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from fal_server.http.routes.guard import Guard
from fal_server.http.server.asgi import EXCHANGE, REQUEST_ID
from fal_server.http.server.exchange import Exchange
from fal_server.http.server.peers import address_of
from fal_server.ports.contract import CallFailed, ContractCalls, MessageForm

MOST_BYTES = 16 * 1024 * 1024
DESCRIPTION = "/openapi.json"
_FORMS = {"application/json": MessageForm.JSON, "application/proto": MessageForm.PROTO}
_LONGEST_TIMEOUT = 9_999_999_999  # the protocol's limit
# The protocol's own table.
_STATUSES = {
    "cancelled": 499,
    "invalid_argument": 400,
    "deadline_exceeded": 504,
    "not_found": 404,
    "already_exists": 409,
    "permission_denied": 403,
    "resource_exhausted": 429,
    "failed_precondition": 400,
    "aborted": 409,
    "out_of_range": 400,
    "unimplemented": 501,
    "unavailable": 503,
    "unauthenticated": 401,
}
_SPELLED = {"cancelled": "canceled"}


class ConnectRoutes:
    """The routes of the contract's unary methods, and of their description."""

    def __init__(self, calls: ContractCalls, guard: Guard) -> None:
        self._calls = calls
        self._description = json.dumps(calls.description()).encode()
        self.routes = [
            guard.open_route("POST", "/fal.v1.{service}/{method}", self._call),
            guard.open_route("GET", DESCRIPTION, self._describe),
        ]

    async def _describe(self, request: Request) -> Response:
        return Response(self._description, media_type="application/json")

    async def _call(self, request: Request) -> Response:
        try:
            return await self._answer(request)
        except CallFailed as failure:
            return _refused(failure)

    async def _answer(self, request: Request) -> Response:
        path = f"/fal.v1.{request.path_params['service']}/{request.path_params['method']}"
        if path in self._calls.streaming_paths:
            raise CallFailed("unimplemented", f"{path[1:]} is a stream: call it over gRPC")
        if path not in self._calls.paths:
            failure = CallFailed("unimplemented", f"there is no method {path[1:][:200]}: {DESCRIPTION} has all")
            return _refused(failure, status=404)
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        form = _FORMS.get(kind)
        if form is None:
            return Response(status_code=415, headers={"accept-post": ", ".join(_FORMS)})
        seconds = _seconds(request)
        try:
            async with asyncio.timeout(seconds):
                return await self._carried_out(request, path, kind, form)
        except TimeoutError:
            raise CallFailed("deadline_exceeded", "the call took longer than its Connect-Timeout-Ms") from None

    async def _carried_out(self, request: Request, path: str, kind: str, form: MessageForm) -> Response:
        request_id: str = request.scope["state"][REQUEST_ID]
        metadata = [(name, value) for name, value in request.headers.items() if name != "x-request-id"]
        call = await self._calls.admit(path, [*metadata, ("x-request-id", request_id)], address_of(request.client))
        exchange: Exchange = request.scope["state"][EXCHANGE]
        exchange.key_id = call.key_id
        _check_protocol(request)
        answer = await call.answer(await _body(request), form)
        return Response(answer, media_type=kind, headers={"cache-control": "no-store"})


def _check_protocol(request: Request) -> None:
    version = request.headers.get("connect-protocol-version", "1")
    if version != "1":
        raise CallFailed("invalid_argument", f"Connect-Protocol-Version is {version[:20]!r}: only 1 is known")
    encoding = request.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise CallFailed("unimplemented", f"Content-Encoding {encoding[:20]!r} is not read: send the body as it is")


def _seconds(request: Request) -> float | None:
    text = request.headers.get("connect-timeout-ms")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(_LONGEST_TIMEOUT))):
        raise CallFailed("invalid_argument", "Connect-Timeout-Ms is not a number of milliseconds of at most 10 digits")
    return int(text) / 1000


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_BYTES:
            raise CallFailed("resource_exhausted", f"the request is larger than {MOST_BYTES} bytes: call it over gRPC")
    return bytes(body)


def _refused(failure: CallFailed, *, status: int | None = None) -> Response:
    content: dict[str, object] = {
        "code": _SPELLED.get(failure.code, failure.code),
        "message": failure.message,
    }
    if failure.details:
        content["details"] = [_detail(name, value) for name, value in failure.details]
    headers: Mapping[str, str] = {"www-authenticate": "Key"} if failure.code == "unauthenticated" else {}
    return JSONResponse(content, status or _STATUSES.get(failure.code, 500), dict(headers))


def _detail(name: str, value: bytes) -> dict[str, str]:
    return {"type": name, "value": b64encode(value).decode().rstrip("=")}
