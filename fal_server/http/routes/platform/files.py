"""The content of /data in the platform API."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from fal_server.core.accounts import EachAccount
from fal_server.core.faults import NotFound
from fal_server.core.identity import Principal
from fal_server.http.routes.files import form_file
from fal_server.http.routes.guard import Guard
from fal_server.http.routes.parameters import switch
from fal_server.http.routes.platform.queries import iso
from fal_server.http.server.json_body import json_object, text_of
from fal_server.http.server.open_file import OpenFileResponse
from fal_server.services.files import Files


class PlatformFileRoutes:
    """The routes of /data. Their paths may or may not begin with `/data`."""

    def __init__(self, files: EachAccount[Files], guard: Guard) -> None:
        self._files = files
        one = "/v1/serverless/files/file"
        self.routes = [
            guard.route("GET", "/v1/serverless/files/list", self._list),
            guard.route("GET", "/v1/serverless/files/list/{path:path}", self._list),
            guard.route("POST", f"{one}/url/{{path:path}}", self._put_url),
            guard.route("POST", f"{one}/local/{{path:path}}", self._put),
            guard.route("GET", f"{one}/{{path:path}}", self._get),
        ]

    async def _list(self, request: Request, caller: Principal) -> Response:
        """List a directory. A missing one is empty, as in the other file routes."""
        try:
            entries = await self._of(caller).list(_path(request))
        except NotFound:
            entries = []
        return JSONResponse(
            [
                {
                    "path": entry.path,
                    "name": entry.path.rpartition("/")[2],
                    # Not every file system records a creation time.
                    "created_time": iso(entry.updated_at),
                    "updated_time": iso(entry.updated_at),
                    "is_file": entry.is_file,
                    "size": entry.size if entry.is_file else 0,
                }
                for entry in entries
            ]
        )

    async def _get(self, request: Request, caller: Principal) -> Response:
        opened = await self._of(caller).open(_path(request))
        return OpenFileResponse(opened, content_type="application/octet-stream")

    async def _put(self, request: Request, caller: Principal) -> Response:
        await self._of(caller).put(_path(request), form_file(request), unzip=switch(request, "unzip"))
        return JSONResponse(True)

    async def _put_url(self, request: Request, caller: Principal) -> Response:
        url = text_of(await json_object(request), "url")
        await self._of(caller).put_url(_path(request), url)
        return JSONResponse(True)

    def _of(self, caller: Principal) -> Files:
        return self._files.of(caller.scope.account)


def _path(request: Request) -> str:
    path = str(request.path_params.get("path", "")).lstrip("/")
    return path if path == "data" or path.startswith("data/") else f"data/{path}"
