"""Serves /files over REST: /data, and apps' files before a deploy."""

from __future__ import annotations

from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from fal_server.core.accounts import EachAccount
from fal_server.core.faults import InvalidArgument, NotFound
from fal_server.core.identity import Principal
from fal_server.http.routes.guard import Guard
from fal_server.http.routes.parameters import switch
from fal_server.http.server.json_body import json_object, text_of
from fal_server.http.server.multipart import file_field
from fal_server.http.server.open_file import OpenFileResponse
from fal_server.services.files import AppFiles, Files


class FileRoutes:
    """The routes of /data. Paths in URLs start with `/data`, so there are two slashes before `data`."""

    def __init__(self, files: EachAccount[Files], guard: Guard) -> None:
        self._files = files
        multipart = "/files/file/multipart/{path:path}"
        upload = f"{multipart}/{{upload_id:str}}"
        self.routes = [
            guard.route("GET", "/files/list/{path:path}", self._list),
            guard.route("POST", f"{multipart}/initiate", self._begin),
            guard.route("POST", f"{upload}/complete", self._complete),
            guard.route("POST", f"{upload}/cancel", self._cancel),
            guard.route("PUT", f"{upload}/{{number:str}}", self._part),
            guard.route("POST", "/files/file/local/{path:path}", self._put),
            guard.route("POST", "/files/file/url/{path:path}", self._put_url),
            guard.route("GET", "/files/file/{path:path}", self._get),
            guard.route("DELETE", "/files/file/{path:path}", self._delete),
            guard.route("POST", "/files/rename/{path:path}", self._rename),
            guard.route("POST", "/files/dir/check_hash/{path:path}", self._check_hash),
        ]

    async def _list(self, request: Request, caller: Principal) -> Response:
        """List a directory.

        A missing one is empty unless `strict` is set: the published client lists before it uploads.
        """
        try:
            entries = await self._of(caller).list(_path(request))
        except NotFound:
            if switch(request, "strict"):
                raise
            entries = []
        return JSONResponse(
            [
                {
                    "path": entry.path,
                    "name": entry.path.rpartition("/")[2],
                    "size": entry.size,
                    "is_file": entry.is_file,
                    "updated_time": entry.updated_at.isoformat(),
                }
                for entry in entries
            ]
        )

    async def _get(self, request: Request, caller: Principal) -> Response:
        return OpenFileResponse(await self._of(caller).open(_path(request)))

    async def _put(self, request: Request, caller: Principal) -> Response:
        unzip = switch(request, "unzip")
        await self._of(caller).put(_synced(request), form_file(request), unzip=unzip)
        return JSONResponse(True)

    async def _put_url(self, request: Request, caller: Principal) -> Response:
        url = text_of(await json_object(request), "url")
        await self._of(caller).put_url(_path(request), url)
        return JSONResponse(True)

    async def _delete(self, request: Request, caller: Principal) -> Response:
        await self._of(caller).delete(_path(request))
        return JSONResponse(True)

    async def _rename(self, request: Request, caller: Principal) -> Response:
        destination = text_of(await json_object(request), "destination")
        await self._of(caller).rename(_path(request), destination)
        return JSONResponse(True)

    async def _check_hash(self, request: Request, caller: Principal) -> Response:
        wanted = text_of(await json_object(request), "hash")
        return JSONResponse(await self._of(caller).has_hash(_synced(request), wanted))

    async def _begin(self, request: Request, caller: Principal) -> Response:
        return JSONResponse({"upload_id": self._of(caller).begin(_path(request))})

    async def _part(self, request: Request, caller: Principal) -> Response:
        upload_id = request.path_params["upload_id"]
        number, etag = await self._of(caller).parts.part(upload_id, request.path_params["number"], form_file(request))
        return JSONResponse({"part_number": number, "etag": etag})

    async def _complete(self, request: Request, caller: Principal) -> Response:
        await check_parts(request)
        return JSONResponse({"etag": await self._of(caller).complete(request.path_params["upload_id"])})

    async def _cancel(self, request: Request, caller: Principal) -> Response:
        self._of(caller).parts.end(request.path_params["upload_id"])
        return JSONResponse(True)

    def _of(self, caller: Principal) -> Files:
        return self._files.of(caller.scope.account)


class AppFileRoutes:
    """The routes of the files that are sent before a deploy."""

    def __init__(self, files: EachAccount[AppFiles], guard: Guard) -> None:
        self._files = files
        base = "/files/app/multipart/{hash}"
        upload = f"{base}/{{upload_id}}"
        self.routes = [
            guard.route("POST", "/files/missing_hashes", self._missing),
            guard.route("POST", f"{base}/initiate", self._begin),
            guard.route("POST", f"{upload}/complete", self._complete),
            guard.route("POST", f"{upload}/cancel", self._cancel),
            guard.route("PUT", f"{upload}/{{number}}", self._part),
        ]

    async def _missing(self, request: Request, caller: Principal) -> Response:
        hashes = (await json_object(request)).get("hashes")
        if not isinstance(hashes, list) or not all(isinstance(item, str) for item in hashes):
            raise InvalidArgument("hashes", "hashes is missing from the body, or is not a list of texts")
        return JSONResponse(await self._of(caller).missing([str(item) for item in hashes]))

    async def _begin(self, request: Request, caller: Principal) -> Response:
        mode = text_of(await json_object(request), "mode")
        return JSONResponse({"upload_id": self._of(caller).begin(request.path_params["hash"], mode)})

    async def _part(self, request: Request, caller: Principal) -> Response:
        upload_id = self._upload_of(request, caller)
        number, etag = await self._of(caller).parts.part(upload_id, request.path_params["number"], form_file(request))
        return JSONResponse({"part_number": number, "etag": etag})

    async def _complete(self, request: Request, caller: Principal) -> Response:
        await check_parts(request)
        await self._of(caller).complete(request.path_params["hash"], request.path_params["upload_id"])
        return JSONResponse({"etag": ""})

    async def _cancel(self, request: Request, caller: Principal) -> Response:
        try:
            self._of(caller).parts.end(self._upload_of(request, caller))
        except NotFound:
            return JSONResponse(False)
        return JSONResponse(True)

    def _upload_of(self, request: Request, caller: Principal) -> str:
        upload_id: str = request.path_params["upload_id"]
        self._of(caller).of(request.path_params["hash"], upload_id)
        return upload_id

    def _of(self, caller: Principal) -> AppFiles:
        return self._files.of(caller.scope.account)


def form_file(request: Request) -> AsyncIterator[bytes]:
    """Return the file of a form as it arrives."""
    return file_field(request.headers.get("content-type", ""), request.stream())


async def check_parts(request: Request) -> None:
    """Check the form of a body that completes an upload. The controller already knows the parts.

    Raises:
        InvalidArgument: `parts` is not a list.
    """
    parts = (await json_object(request)).get("parts", [])
    if not isinstance(parts, list):
        raise InvalidArgument("parts", "parts is not a list")


def _path(request: Request) -> str:
    path: str = request.path_params["path"]
    return path


def _synced(request: Request) -> str:
    """Return the path of a synchronized directory; the published client omits `/data/`."""
    path = _path(request).lstrip("/")
    return path if path == "data" or path.startswith("data/") else f"data/{path}"
