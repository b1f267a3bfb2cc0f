"""Stores files for callers to fetch: through the platform's socket in a runner, else over HTTPS."""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

from fal.app.context import current_request
from fal.toolkit.exceptions import FileUploadException

_SECONDS = 300.0
_REST_HOST = "rest.fal.ai"
_SOCKET = "/run/fal/api.sock"
# Headers of a request that concern the files that it creates.
_PASSED_ON = ("x-fal-object-lifecycle-preference", "x-fal-cdn-token", "x-fal-request-id")


def upload(content: bytes | Path, file_name: str, content_type: str) -> str:
    """Store a file.

    Args:
        content: the bytes, or a file, which is read in chunks.
        file_name: a part of the address.
        content_type: its media type for callers.

    Returns:
        The address to fetch it from.

    Raises:
        FileUploadException: it could not be stored.
    """
    key = os.environ.get("FAL_KEY", "")
    try:
        if os.environ.get("FAL_USE_LOCAL_UPLOADER", "").lower() not in ("", "0", "false"):
            return _by_socket(content, file_name, content_type, key)
        return _by_rest(content, file_name, content_type, key)
    except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
        raise FileUploadException(f"{file_name} could not be stored: {error}") from error


def _by_socket(content: bytes | Path, file_name: str, content_type: str, key: str) -> str:
    connection = _UnixConnection(os.environ.get("FAL_API_SOCKET") or _SOCKET)
    headers = {**_context(), "Content-Type": content_type, "X-Fal-File-Name": _ascii(file_name)}
    app = os.environ.get("FAL_APP_NAME")
    if app:
        headers["x-fal-application"] = app
    return str(_answer(connection, "POST", "/v1/uploads", content, {**headers, **_authorization(key)})["file_url"])


def _by_rest(content: bytes | Path, file_name: str, content_type: str, key: str) -> str:
    if not key:
        raise FileUploadException(f"{file_name} could not be stored: set FAL_KEY, which says whose file it is")
    host = os.environ.get("FAL_REST_HOST") or _REST_HOST
    plain = os.environ.get("ISOLATE_TEST_MODE", "").lower() not in ("", "0", "false")
    about = json.dumps({"file_name": file_name, "content_type": content_type}).encode()
    headers = {**_context(), **_authorization(key), "Content-Type": "application/json"}
    started = _answer(
        _connection("http" if plain else "https", host),
        "POST",
        "/storage/upload/initiate?storage_type=fal-cdn-v3",
        about,
        headers,
    )
    place = urlsplit(str(started["upload_url"]))
    path = f"{place.path}?{place.query}" if place.query else place.path
    _answer(_connection(place.scheme, place.netloc), "PUT", path, content, {"Content-Type": content_type})
    return str(started["file_url"])


def _context() -> dict[str, str]:
    request = current_request()
    headers = {} if request is None else request.headers
    return {name: headers[name] for name in _PASSED_ON if name in headers and headers[name].isascii()}


def _authorization(key: str) -> dict[str, str]:
    return {"Authorization": f"Key {key}"} if key else {}


def _ascii(name: str) -> str:
    """Return a name that can stand in a header."""
    return "".join(letter if " " <= letter <= "~" else "?" for letter in name).strip()


def _connection(scheme: str, host: str) -> http.client.HTTPConnection:
    if scheme == "http":
        return http.client.HTTPConnection(host, timeout=_SECONDS)
    return http.client.HTTPSConnection(host, timeout=_SECONDS, context=ssl.create_default_context())


def _answer(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    content: bytes | Path,
    headers: Mapping[str, str],
) -> dict[str, object]:
    """Send a request, and return the JSON object of the response; an empty one if it has none.

    Raises:
        FileUploadException: the platform refused.
    """
    try:
        if isinstance(content, Path):
            with content.open("rb") as file:
                connection.request(method, path, file, {**headers, "Content-Length": str(content.stat().st_size)})
        else:
            connection.request(method, path, content, dict(headers))
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    try:
        parsed: object = json.loads(body) if body.strip() else {}
    except ValueError:
        parsed = {}
    found = cast("dict[str, object]", parsed) if isinstance(parsed, dict) else {}
    if answer.status >= 300:
        raise FileUploadException(f"the platform refused it: {answer.status} {found.get('detail', answer.reason)}")
    return found


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_SECONDS)
        self.sock.connect(self._path)
