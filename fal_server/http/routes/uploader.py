"""Uploads by runners over a unix socket. So apps' files never leave the machine."""

from __future__ import annotations

import asyncio
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from fal_server.core.faults import InvalidArgument, NotFound
from fal_server.core.identity import Principal
from fal_server.http.routes.errors import EXCEPTION_HANDLERS
from fal_server.http.routes.guard import Guard
from fal_server.http.routes.storage import reserved_by_headers
from fal_server.http.server.asgi import AsgiAdapter
from fal_server.http.server.connection import HttpConnection
from fal_server.http.server.exchange import Exchange
from fal_server.http.server.json_body import json_object
from fal_server.http.server.registry import Registry
from fal_server.http.server.rules import Limits
from fal_server.services.objects import Objects


class Uploader:
    """The ASGI application. A file is complete when it is accepted, so its state is always `completed`.

    Args:
        base_url: the base of the files' addresses.
    """

    def __init__(self, objects: Objects, guard: Guard, base_url: str) -> None:
        self._objects = objects
        self._base_url = base_url
        session = "/v1/upload-sessions/{upload_id}"
        self.app = Starlette(
            routes=[
                guard.route("POST", "/v1/uploads", self._upload),
                guard.open_route("GET", "/v1/uploads/{object_id}", self._status),
                guard.route("POST", "/v1/upload-sessions", self._begin),
                guard.open_route("PUT", f"{session}/body", self._body),
                guard.open_route("POST", f"{session}/finish", self._finish),
                guard.open_route("DELETE", session, self._abort),
            ],
            exception_handlers=EXCEPTION_HANDLERS,
        )

    async def _upload(self, request: Request, caller: Principal) -> Response:
        reserved = reserved_by_headers(self._objects, request, caller)
        await self._objects.put(reserved, request.stream())
        return self._accepted(reserved.object_id, reserved.path)

    async def _status(self, request: Request) -> Response:
        await self._objects.get(request.path_params["object_id"])
        return JSONResponse({"state": "completed"})

    async def _begin(self, request: Request, caller: Principal) -> Response:
        reserved = reserved_by_headers(self._objects, request, caller)
        upload_id = self._objects.parts.begin(reserved)
        url = self._base_url + reserved.path
        return JSONResponse({"state": "receiving", "upload_id": upload_id, "file_url": url}, status_code=201)

    async def _body(self, request: Request) -> Response:
        await self._objects.parts.part(request.path_params["upload_id"], "1", request.stream())
        return Response(status_code=204)

    async def _finish(self, request: Request) -> Response:
        size = (await json_object(request)).get("size_bytes")
        if isinstance(size, bool) or not isinstance(size, int):
            raise InvalidArgument("size_bytes", "size_bytes is missing from the body, or is not a number")
        upload_id = request.path_params["upload_id"]
        reserved = self._objects.parts.about(upload_id)
        await self._objects.complete(upload_id, size)
        return self._accepted(reserved.object_id, reserved.path)

    async def _abort(self, request: Request) -> Response:
        upload_id = request.path_params["upload_id"]
        try:
            self._objects.parts.about(upload_id)
        except NotFound:
            return JSONResponse({"state": "gone"}, status_code=202)
        self._objects.parts.end(upload_id)
        return JSONResponse({"state": "aborted"}, status_code=202)

    def _accepted(self, object_id: str, path: str) -> Response:
        url = self._base_url + path
        return JSONResponse({"state": "accepted_local", "upload_id": object_id, "file_url": url}, status_code=202)


class UnixListener:
    """Serves an ASGI application over HTTP/1.1 on a unix socket."""

    def __init__(self, adapter: AsgiAdapter) -> None:
        self._adapter = adapter
        self._registry = Registry()
        self._server: asyncio.AbstractServer | None = None

    async def start(self, path: Path) -> None:
        """Listen, replacing an earlier controller's socket.

        Raises:
            OSError: the path cannot be listened on.
        """
        await asyncio.to_thread(path.unlink, missing_ok=True)
        loop = asyncio.get_running_loop()
        limits = Limits()
        self._server = await loop.create_unix_server(lambda: HttpConnection(self, self._registry, limits), str(path))
        await asyncio.to_thread(path.chmod, 0o600)

    def handle(self, exchange: Exchange) -> None:
        self._adapter.handle(exchange)

    def drain(self) -> None:
        self._adapter.drain()

    async def close(self, grace_seconds: float) -> None:
        """Stop listening, and give open requests the grace to finish."""
        if self._server is not None:
            self._server.close()
        self._adapter.drain()
        await self._registry.close(grace_seconds)
        await self._adapter.close()
