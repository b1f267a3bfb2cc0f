"""/files of REST: what is in /data, and the files of apps before they are deployed."""

from __future__ import annotations

from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from fal_server.core.faults import InvalidArgument, NotFound
from fal_server.http.routes.guard import Guard
from fal_server.http.server.json_body import json_object, text_of
from fal_server.http.server.multipart import file_field
from fal_server.http.server.open_file import OpenFileResponse
from fal_server.services.files import AppFiles, Files

_READ, _WRITE, _DEPLOY = "serverless:files:read", "serverless:files:write", "serverless:revisions:write"


class FileRoutes:
    """The endpoints of /data. Paths in URLs are whole, so that there are two slashes before `data`."""

    def __init__(self, files: Files, guard: Guard) -> None:
        self._files = files
        multipart = "/files/file/multipart/{path:path}"
        upload = f"{multipart}/{{upload_id:str}}"
        self.routes = [
            Route("/files/list/{path:path}", guard.needs(_READ, self._list), methods=["GET"]),
            Route(f"{multipart}/initiate", guard.needs(_WRITE, self._begin), methods=["POST"]),
            Route(f"{upload}/complete", guard.needs(_WRITE, self._complete), methods=["POST"]),
            Route(f"{upload}/cancel", guard.needs(_WRITE, self._cancel), methods=["POST"]),
            Route(f"{upload}/{{number:str}}", guard.needs(_WRITE, self._part), methods=["PUT"]),
            Route("/files/file/local/{path:path}", guard.needs(_WRITE, self._put), methods=["POST"]),
            Route("/files/file/url/{path:path}", guard.needs(_WRITE, self._put_url), methods=["POST"]),
            Route("/files/file/{path:path}", guard.needs(_READ, self._get), methods=["GET"]),
            Route("/files/file/{path:path}", guard.needs(_WRITE, self._delete), methods=["DELETE"]),
            Route("/files/rename/{path:path}", guard.needs(_WRITE, self._rename), methods=["POST"]),
            Route("/files/dir/check_hash/{path:path}", guard.needs(_READ, self._check_hash), methods=["POST"]),
        ]

    async def _list(self, request: Request) -> Response:
        """What is not there is empty, since the published client looks before it uploads; `strict` says 404."""
        try:
            entries = await self._files.list(_path(request))
        except NotFound:
            if request.query_params.get("strict") == "true":
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

    async def _get(self, request: Request) -> Response:
        return OpenFileResponse(await self._files.open(_path(request)))

    async def _put(self, request: Request) -> Response:
        unzip = request.query_params.get("unzip", "").lower() in ("true", "1")
        await self._files.put(_synced(request), form_file(request), unzip=unzip)
        return JSONResponse(True)

    async def _put_url(self, request: Request) -> Response:
        url = text_of(await json_object(request), "url")
        await self._files.put_url(_path(request), url)
        return JSONResponse(True)

    async def _delete(self, request: Request) -> Response:
        await self._files.delete(_path(request))
        return JSONResponse(True)

    async def _rename(self, request: Request) -> Response:
        destination = text_of(await json_object(request), "destination")
        await self._files.rename(_path(request), destination)
        return JSONResponse(True)

    async def _check_hash(self, request: Request) -> Response:
        wanted = text_of(await json_object(request), "hash")
        return JSONResponse(await self._files.has_hash(_synced(request), wanted))

    async def _begin(self, request: Request) -> Response:
        return JSONResponse({"upload_id": self._files.begin(_path(request))})

    async def _part(self, request: Request) -> Response:
        upload_id = request.path_params["upload_id"]
        number, etag = await self._files.parts.part(upload_id, request.path_params["number"], form_file(request))
        return JSONResponse({"part_number": number, "etag": etag})

    async def _complete(self, request: Request) -> Response:
        await check_parts(request)
        return JSONResponse({"etag": await self._files.complete(request.path_params["upload_id"])})

    async def _cancel(self, request: Request) -> Response:
        self._files.parts.end(request.path_params["upload_id"])
        return JSONResponse(True)


class AppFileRoutes:
    """The endpoints of apps' files, which who may deploy sends before."""

    def __init__(self, files: AppFiles, guard: Guard) -> None:
        self._files = files
        base = "/files/app/multipart/{hash}"
        upload = f"{base}/{{upload_id}}"
        self.routes = [
            Route("/files/missing_hashes", guard.needs(_DEPLOY, self._missing), methods=["POST"]),
            Route(f"{base}/initiate", guard.needs(_DEPLOY, self._begin), methods=["POST"]),
            Route(f"{upload}/complete", guard.needs(_DEPLOY, self._complete), methods=["POST"]),
            Route(f"{upload}/cancel", guard.needs(_DEPLOY, self._cancel), methods=["POST"]),
            Route(f"{upload}/{{number}}", guard.needs(_DEPLOY, self._part), methods=["PUT"]),
        ]

    async def _missing(self, request: Request) -> Response:
        hashes = (await json_object(request)).get("hashes")
        if not isinstance(hashes, list) or not all(isinstance(item, str) for item in hashes):
            raise InvalidArgument("hashes", "hashes is missing from the body, or is no list of texts")
        return JSONResponse(await self._files.missing([str(item) for item in hashes]))

    async def _begin(self, request: Request) -> Response:
        mode = text_of(await json_object(request), "mode")
        return JSONResponse({"upload_id": self._files.begin(request.path_params["hash"], mode)})

    async def _part(self, request: Request) -> Response:
        upload_id = self._own(request)
        number, etag = await self._files.parts.part(upload_id, request.path_params["number"], form_file(request))
        return JSONResponse({"part_number": number, "etag": etag})

    async def _complete(self, request: Request) -> Response:
        await check_parts(request)
        await self._files.complete(request.path_params["hash"], request.path_params["upload_id"])
        return JSONResponse({"etag": ""})

    async def _cancel(self, request: Request) -> Response:
        try:
            self._files.parts.end(self._own(request))
        except NotFound:
            return JSONResponse(False)
        return JSONResponse(True)

    def _own(self, request: Request) -> str:
        upload_id: str = request.path_params["upload_id"]
        self._files.of(request.path_params["hash"], upload_id)
        return upload_id


def form_file(request: Request) -> AsyncIterator[bytes]:
    """The file of a form, as it comes in."""
    return file_field(request.headers.get("content-type", ""), request.stream())


async def check_parts(request: Request) -> None:
    """Read a completing body; which parts there are is known here, so that only its form matters.

    Raises:
        Invalid: it has parts that are no list.
    """
    parts = (await json_object(request)).get("parts", [])
    if not isinstance(parts, list):
        raise InvalidArgument("parts", "parts is no list")


def _path(request: Request) -> str:
    path: str = request.path_params["path"]
    return path


def _synced(request: Request) -> str:
    """A path of directories that are synchronised: the published client leaves `/data/` away from those."""
    path = _path(request).lstrip("/")
    return path if path == "data" or path.startswith("data/") else f"data/{path}"
