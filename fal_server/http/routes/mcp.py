"""Tools for agents over streamable HTTP, and a guide for them. The tools call the controller's own routes."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from importlib.resources import files
from importlib.util import find_spec
from typing import TYPE_CHECKING
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fal_mcp.calls import Call, Refused
from fal_mcp.plans import Plans
from fal_server.access.acting import USER_ID
from fal_server.access.permissions import allows
from fal_server.core.faults import Unimplemented
from fal_server.core.identity import Principal
from fal_server.http.routes.guard import Guard
from fal_server.ports import Clock

if TYPE_CHECKING:
    from fal_mcp.tools import Toolset

_MOST_BYTES = 8 * 1024 * 1024
# Headers of the caller's request that its tools' calls repeat: the caller, and its team.
_OF_THE_CALLER = frozenset({b"authorization", b"host", b"user-agent"})
_TEAM = (USER_ID.encode(), f"x-{USER_ID}".encode())


class McpRoutes:
    """The routes of /v1/mcp/platform and /llms.txt.

    Args:
        version: this distribution's version.
        writes: whether the operator allows tools to act.
    """

    def __init__(self, guard: Guard, clock: Clock, version: str, *, writes: bool) -> None:
        self._guard = guard
        self._clock = clock
        self._version = version
        self._writes = writes
        self._plans = Plans(clock.now)
        # It logs the start and end of every request.
        logging.getLogger("mcp.server.streamable_http_manager").setLevel(logging.WARNING)
        self._guide = files("fal_mcp").joinpath("llms.txt").read_bytes()
        self.routes = [
            guard.open_route("POST", "/v1/mcp/platform", self._answer),
            guard.open_route("GET", "/llms.txt", self._lead),
        ]

    async def _lead(self, request: Request) -> Response:
        return Response(self._guide, media_type="text/plain")

    async def _answer(self, request: Request) -> Response:
        caller = await self._guard.known_holder(request)
        # Here, because no agent asks most controllers.
        from fal_mcp.toolsets import EXTRA, toolset

        if find_spec("mcp") is None:
            raise Unimplemented(
                f"this controller lacks the extra for tools: {EXTRA} in its environment, then restart it"
            )
        # The first import takes a second, which would delay all other requests.
        await asyncio.to_thread(import_module, "fal_mcp.server")
        tools = toolset(
            _OwnRoutes(request.app, request.scope, caller),
            self._plans,
            self._clock.now,
            writes=self._writes,
            how_to_allow="`fal up --mcp-writes` lets tools act",
            may=lambda permission: allows(caller, permission),
        )
        return _McpResponse(tools, self._version)


class _McpResponse(Response):
    """The SDK's response to one request."""

    def __init__(self, tools: Toolset, version: str) -> None:
        super().__init__()
        self._tools = tools
        self._version = version

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        from fal_mcp.server import serve_request

        whole = False

        async def take() -> Message:
            nonlocal whole
            message = await receive()
            if message["type"] == "http.disconnect" and not whole:
                whole = True
                return {"type": "http.request", "body": b"", "more_body": False}
            whole = whole or not message.get("more_body", False)
            return message

        async def give(message: Message) -> None:
            with suppress(OSError):
                await send(message)

        # The SDK treats a disconnected client as its own fault, and logs a traceback.
        await serve_request(self._tools, self._version, scope, take, give)


@dataclass(frozen=True, slots=True, kw_only=True)
class _RouteAnswer:
    status: int
    body: bytes


class _OwnRoutes:
    """Implements the port Platform. It calls the controller's own routes on behalf of a request's caller."""

    def __init__(self, app: ASGIApp, scope: Scope, caller: Principal) -> None:
        self._app = app
        self._scope = scope
        self._caller = caller
        self._headers = [(name, value) for name, value in scope["headers"] if name in _OF_THE_CALLER or name in _TEAM]
        # REST routes and rpcs have different names for the same header.
        team = next((value for name, value in scope["headers"] if name in _TEAM), None)
        if team is not None:
            self._headers = [each for each in self._headers if each[0] not in _TEAM] + [(name, team) for name in _TEAM]

    @property
    def holder(self) -> str:
        return f"{self._caller.key_id} {self._caller.scope.account}"

    @property
    def secrets(self) -> Sequence[str]:
        shown = [value.decode("latin-1") for name, value in self._headers if name == b"authorization"]
        return [part for value in shown for part in value.replace(":", " ").split()[1:] if part != self._caller.key_id]

    async def ask(self, call: Call) -> bytes:
        answer = await self._answer(call)
        if answer.status < 300:
            return answer.body
        raise Refused(answer.status, _message(answer))

    async def _answer(self, call: Call) -> _RouteAnswer:
        path, _, query = call.target.partition("?")
        scope = {
            **self._scope,
            "method": call.method,
            "path": unquote(path),
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [*self._headers, *((name.encode(), value.encode()) for name, value in call.headers.items())],
        }
        for name in ("endpoint", "path_params", "route", "router", "app"):
            scope.pop(name, None)
        body, status, parts, size = [call.body], 0, list[bytes](), 0

        async def receive() -> Message:
            if body:
                return {"type": "http.request", "body": body.pop(), "more_body": False}
            await asyncio.Event().wait()  # the caller stays until the response is there
            raise AssertionError("nobody ends that")

        async def send(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
                return
            part = message.get("body", b"")
            size += len(part)
            if size > _MOST_BYTES:
                raise Refused(413, f"the answer is larger than {_MOST_BYTES // 1024**2} MiB: ask for less")
            parts.append(part)

        await self._app(scope, receive, send)
        return _RouteAnswer(status=status, body=b"".join(parts))


def _message(answer: _RouteAnswer) -> str:
    """Return the message of an error, in whichever form its route uses."""
    try:
        body: object = json.loads(answer.body)
    except ValueError:
        body = None
    if isinstance(body, dict):
        error = body.get("error")
        texts = (error.get("message") if isinstance(error, dict) else None, body.get("message"), body.get("detail"))
        found = next((text for text in texts if isinstance(text, str)), None)
        if found is not None:
            return found
    return f"the controller answered {answer.status}"
