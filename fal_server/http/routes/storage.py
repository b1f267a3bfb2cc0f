"""Files with a public address, in the published clients' form. They are at /storage and /files/upload."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from fal_server.access.tokens import Tokens
from fal_server.core.faults import InvalidArgument, NotFound
from fal_server.core.identity import Principal
from fal_server.http.routes.files import check_parts
from fal_server.http.routes.guard import Guard
from fal_server.http.routes.hosts import is_cloud_host
from fal_server.http.server.json_body import json_object
from fal_server.http.server.open_file import OpenFileResponse
from fal_server.ports.files import OpenFile, StoredObject
from fal_server.services.objects import Objects, Reserved

_MEDIA = re.compile(r"(image/(?!svg)|video/|audio/)")
_LONGEST_CACHE = 86400


class StorageRoutes:
    """The routes. The ids of uploads and files cannot be guessed, so knowing one replaces a key.

    Args:
        base_url: the controller's address, for uploaders that only know it by a name of the cloud.
    """

    def __init__(self, objects: Objects, tokens: Tokens, guard: Guard, base_url: str) -> None:
        self._base_url = base_url
        self._objects = objects
        self._tokens = tokens
        upload = "/storage/upload/{upload_id}"
        file = "/storage/f/{object_id}/{name}"
        self.routes = [
            guard.route("POST", "/storage/auth/token", self._token),
            guard.route("POST", "/storage/upload/initiate", self._begin),
            guard.route("POST", "/storage/upload/initiate-multipart", self._begin),
            guard.open_route("PUT", upload, self._put_whole),
            guard.open_route("POST", f"{upload}/complete", self._complete),
            guard.open_route("PUT", f"{upload}/{{number}}", self._put_part),
            guard.open_route("POST", f"{upload}/{{number}}", self._address_of_part),
            guard.route("POST", "/files/upload", self._upload),
            guard.route("POST", "/files/upload/multipart", self._begin_multipart),
            guard.open_route("POST", f"{file}/multipart/{{upload_id}}/complete", self._complete),
            guard.open_route("PUT", f"{file}/multipart/{{upload_id}}/{{number}}", self._put_part),
            guard.open_route("GET", file, self._get),
        ]

    async def _token(self, request: Request, caller: Principal) -> Response:
        token = self._tokens.for_uploads(caller)
        return JSONResponse(
            {
                "token": token.text,
                "token_type": "Bearer",
                "base_url": base_of(request),
                "expires_at": token.expires_at.isoformat(),
            }
        )

    async def _begin(self, request: Request, caller: Principal) -> Response:
        about = await json_object(request)
        name, kind = about.get("file_name"), about.get("content_type")
        reserved = self._objects.reserve(
            caller.scope.account,
            name if isinstance(name, str) else None,
            kind if isinstance(kind, str) else None,
            lifecycle_of(request),
        )
        upload_id = self._objects.parts.begin(reserved)
        return JSONResponse(
            {
                "upload_url": f"{base_of(request)}/storage/upload/{upload_id}",
                "file_url": self._address(request, reserved),
            }
        )

    async def _put_whole(self, request: Request) -> Response:
        upload_id = request.path_params["upload_id"]
        _, etag = await self._objects.parts.part(upload_id, "1", request.stream())
        await self._objects.complete(upload_id)
        return Response(headers={"etag": f'"{etag}"'})

    async def _put_part(self, request: Request) -> Response:
        number = request.path_params["number"]
        kept, etag = await self._objects.parts.part(request.path_params["upload_id"], number, request.stream())
        return JSONResponse({"partNumber": kept, "part_number": kept, "etag": etag}, headers={"etag": f'"{etag}"'})

    async def _address_of_part(self, request: Request) -> Response:
        self._objects.parts.about(request.path_params["upload_id"])
        return JSONResponse({"upload_url": base_of(request) + request.url.path})

    async def _complete(self, request: Request) -> Response:
        await check_parts(request)
        stored = await self._objects.complete(request.path_params["upload_id"])
        return JSONResponse({"etag": stored.etag, "size": stored.size})

    async def _upload(self, request: Request, caller: Principal) -> Response:
        reserved = reserved_by_headers(self._objects, request, caller)
        await self._objects.put(reserved, request.stream())
        return JSONResponse({"access_url": self._address(request, reserved)})

    async def _begin_multipart(self, request: Request, caller: Principal) -> Response:
        reserved = reserved_by_headers(self._objects, request, caller)
        upload_id = self._objects.parts.begin(reserved)
        return JSONResponse({"access_url": self._address(request, reserved), "uploadId": upload_id})

    def _address(self, request: Request, reserved: Reserved) -> str:
        """Return the address of a file. Runners, without the caller's proxy, must reach it, too."""
        base = self._base_url if is_cloud_host(request.headers.get("host", "")) else base_of(request)
        return base + reserved.path

    async def _get(self, request: Request) -> Response:
        stored, path = await self._objects.get(request.path_params["object_id"])
        if request.path_params["name"] != stored.name:
            raise NotFound("file", "it never existed or has expired")
        opened = await asyncio.to_thread(_opened, path, stored)
        return OpenFileResponse(opened, content_type=stored.content_type, headers=_headers(stored))


def lifecycle_of(request: Request) -> str | None:
    """Return the header that says how long the file is kept."""
    headers = request.headers
    return headers.get("x-fal-object-lifecycle") or headers.get("x-fal-object-lifecycle-preference")


def reserved_by_headers(objects: Objects, request: Request, caller: Principal) -> Reserved:
    """Reserve an address for a body. Its name and type are in the headers."""
    headers = request.headers
    return objects.reserve(
        caller.scope.account, headers.get("x-fal-file-name"), headers.get("content-type"), lifecycle_of(request)
    )


def base_of(request: Request) -> str:
    """Return scheme, host and port by which the caller reached this controller.

    Raises:
        InvalidArgument: the Host header is malformed.
    """
    host = request.headers.get("host", "")
    if not re.fullmatch(r"[0-9A-Za-z._:\[\]-]{1,255}", host):
        raise InvalidArgument("host", "the Host header is not a host")
    return f"{request.url.scheme}://{host}"


def _opened(path: Path, stored: StoredObject) -> OpenFile:
    try:
        return OpenFile(descriptor=os.open(path, os.O_RDONLY | os.O_CLOEXEC), name=stored.name)
    except FileNotFoundError:
        raise NotFound("file", "it never existed or has expired") from None


def _headers(stored: StoredObject) -> dict[str, str]:
    """Return the headers of a file. One that a browser would run as a page gets no rights on this origin."""
    age = _LONGEST_CACHE
    if stored.expires_at is not None:
        age = max(0, min(age, int((stored.expires_at - stored.created_at).total_seconds())))
    headers = {
        "etag": f'"{stored.etag}"',
        "cache-control": f"public, max-age={age}, immutable",
        "x-content-type-options": "nosniff",
        "content-disposition": f'inline; filename="{stored.name}"',
    }
    if not _MEDIA.match(stored.content_type):
        headers["content-security-policy"] = "default-src 'none'; sandbox"
    return headers
