"""Stores files on the platform. It uses the platform's socket in a runner, or HTTPS."""

from __future__ import annotations

import http.client
import json
import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, cast

from fal.app.context import LIFECYCLE_HEADER, current_request
from fal.config import truthy
from fal.hosts import base_url, check_private_url
from fal.toolkit.exceptions import FileUploadException
from fal.toolkit.file.types import Reservation
from fal.toolkit.http import Content, send
from fal_grpc.errors import FalError
from fal_grpc.target import parse_target

_SECONDS = 300.0
_REST_HOST = "rest.fal.ai"
_SOCKET = "/run/fal/api.sock"
# Headers of a request that affect the files that it creates.
_PASSED_ON = (LIFECYCLE_HEADER, "x-fal-cdn-token", "x-fal-request-id")
_NO_KEY = "set FAL_KEY, which says whose file it is"


class HasHeaders(Protocol):
    """A request of FastAPI or Starlette."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers, whose names are found in lower case."""
        ...


def uses_socket() -> bool:
    """Return whether this runner has the platform's socket."""
    return truthy(os.environ, "FAL_USE_LOCAL_UPLOADER")


def by_socket(content: Content, file_name: str, content_type: str, extra: Mapping[str, str]) -> str:
    """Store a file through the socket, and return its address.

    Args:
        content: the bytes, a file, or chunks; the latter two are never held in memory completely.
        file_name: a part of the address.
        content_type: its media type for callers.
        extra: headers from `about_request`.

    Raises:
        FileUploadException: it could not be stored.
    """
    with _failing(file_name):
        answer = _by_socket("POST", "/v1/uploads", content, _described(file_name, content_type, extra))
        return str(answer["file_url"])


def reserve_by_socket(file_name: str, content_type: str, extra: Mapping[str, str]) -> Reservation:
    """Reserve an address through the socket for a later file. Takes the arguments of `by_socket`."""
    with _failing(file_name):
        session = _by_socket("POST", "/v1/upload-sessions", b"", _described(file_name, content_type, extra))
        path = f"/v1/upload-sessions/{session['upload_id']}"

    def complete(content: bytes | Path) -> None:
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        with _failing(file_name):
            _by_socket("PUT", f"{path}/body", content, {})
            finish = json.dumps({"size_bytes": size}).encode()
            _by_socket("POST", f"{path}/finish", finish, {"Content-Type": "application/json"})

    def abort() -> None:
        with _failing(file_name):
            _by_socket("DELETE", path, b"", {})

    return Reservation(str(session["file_url"]), complete, abort)


def by_rest(content: Content, file_name: str, content_type: str, extra: Mapping[str, str], storage: str) -> str:
    """Store a file over HTTPS, and return its address.

    Args:
        content, file_name, content_type, extra: as in `by_socket`.
        storage: the platform's name for the kind of storage.

    Raises:
        FileUploadException: it could not be stored.
    """
    reserved = reserve_by_rest(file_name, content_type, extra, storage)
    reserved.complete(cast("bytes | Path", content))
    return reserved.url


def reserve_by_rest(file_name: str, content_type: str, extra: Mapping[str, str], storage: str) -> Reservation:
    """Reserve an address over HTTPS for a later file. Takes the arguments of `by_rest`."""
    with _failing(file_name):
        if not os.environ.get("FAL_KEY"):
            raise FileUploadException(_NO_KEY)
        started = _by_url(
            "POST",
            f"{_rest_url()}/storage/upload/initiate?storage_type={storage}",
            json.dumps({"file_name": file_name, "content_type": content_type}).encode(),
            {**extra, **_authorization(), "Content-Type": "application/json"},
        )
        place = str(started["upload_url"])

    def complete(content: bytes | Path) -> None:
        with _failing(file_name):
            _by_url("PUT", place, content, {"Content-Type": content_type})

    return Reservation(str(started["file_url"]), complete)


def about_request(request: HasHeaders | None, lifecycle: Mapping[str, object] | None) -> dict[str, str]:
    """Return the headers that name a file's request. They also say how long to keep the file.

    Args:
        request: the request; None means the current one, if there is one.
        lifecycle: how long, in the platform's form; None leaves it to the request.
    """
    current = current_request()
    headers = request.headers if request is not None else {} if current is None else current.headers
    found = {name: headers[name] for name in _PASSED_ON if name in headers and headers[name].isascii()}
    return found if lifecycle is None else {**found, LIFECYCLE_HEADER: json.dumps(lifecycle)}


def _described(file_name: str, content_type: str, extra: Mapping[str, str]) -> dict[str, str]:
    app = os.environ.get("FAL_APP_NAME")
    own = {"x-fal-application": app} if app else {}
    about = {"Content-Type": content_type, "X-Fal-File-Name": _ascii(file_name)}
    return {**extra, **own, **about, **_authorization()}


def _authorization() -> dict[str, str]:
    key = os.environ.get("FAL_KEY", "")
    return {"Authorization": f"Key {key}"} if key else {}


def _ascii(name: str) -> str:
    """Return a name in characters that a header can hold."""
    return "".join(letter if " " <= letter <= "~" else "?" for letter in name).strip()


def _by_socket(method: str, path: str, content: Content, headers: Mapping[str, str]) -> dict[str, object]:
    socket = os.environ.get("FAL_API_SOCKET") or _SOCKET
    return _answered(send(method, f"http://localhost{path}", content, headers, timeout_seconds=_SECONDS, by=socket))


def _by_url(method: str, url: str, content: Content, headers: Mapping[str, str]) -> dict[str, object]:
    return _answered(send(method, url, content, headers, timeout_seconds=_SECONDS))


def _rest_url() -> str:
    """Return the platform's address for files.

    Raises:
        ConfigError: FAL_REST_HOST is malformed.
        InsecureChannelError: the key would go to another machine in plaintext.
    """
    host = os.environ.get("FAL_REST_HOST") or _REST_HOST
    url = base_url(host, parse_target(_REST_HOST), os.environ, source="FAL_REST_HOST")
    check_private_url(url)
    return url


@contextmanager
def _failing(file_name: str) -> Generator[None]:
    """Turn each failure into an error that names the file."""
    try:
        yield
    except (OSError, http.client.HTTPException, ValueError, KeyError, FileUploadException, FalError) as error:
        raise FileUploadException(f"{file_name} could not be stored: {error}") from error


def _answered(answer: tuple[int, bytes, str]) -> dict[str, object]:
    """Return a response's JSON object; an empty one if it has none.

    Raises:
        FileUploadException: the platform refused.
    """
    status, body, reason = answer
    try:
        parsed: object = json.loads(body) if body.strip() else {}
    except ValueError:
        parsed = {}
    found = cast("dict[str, object]", parsed) if isinstance(parsed, dict) else {}
    if status >= 300:
        raise FileUploadException(f"the platform refused it: {status} {found.get('detail', reason)}")
    return found
