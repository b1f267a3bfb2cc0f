"""The toolkit's HTTP client. It is the standard library's, as a runner has no other unless its app asks for one."""

from __future__ import annotations

import http.client
import socket
import ssl
import urllib.request
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, cast
from urllib.parse import urlsplit

Content = bytes | Path | Iterable[bytes]
"""The content to send: bytes, a file, or chunks; the latter two are never held in memory completely."""
_PRIVATE_HEADERS = ("Authorization", "Cookie", "Proxy-authorization")


def open_url(
    url: str, headers: Mapping[str, str], *, timeout_seconds: float
) -> AbstractContextManager[http.client.HTTPResponse]:
    """Open an address for reading, using the environment's proxies and following redirects.

    Headers that identify the caller go only to the first host.

    Args:
        url: http or https.
        headers: of the request.
        timeout_seconds: how long each step may take.

    Raises:
        OSError: it cannot be reached, or answers with an error.
    """
    request = urllib.request.Request(url, headers=dict(headers))  # noqa: S310 - callers check the scheme
    opener = urllib.request.build_opener(_Redirects())
    return cast("AbstractContextManager[http.client.HTTPResponse]", opener.open(request, timeout=timeout_seconds))


def send(
    method: str,
    url: str,
    content: Content,
    headers: Mapping[str, str],
    *,
    timeout_seconds: float,
    by: str | None = None,
) -> tuple[int, bytes, str]:
    """Send a request; return the response's status, body and reason.

    It follows no redirects and uses no proxy.

    Args:
        method: such as "POST".
        url: http or https.
        content: the body.
        headers: of the request.
        timeout_seconds: how long each step may take.
        by: the path of a unix socket to use instead of the URL's host.

    Raises:
        OSError: it cannot be reached.
        http.client.HTTPException: the response is not HTTP.
    """
    parts = urlsplit(url)
    connection = (
        _connection(parts.scheme, parts.netloc, timeout_seconds) if by is None else _UnixConnection(by, timeout_seconds)
    )
    path = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
    try:
        if isinstance(content, Path):
            with content.open("rb") as file:
                sized = {**headers, "Content-Length": str(content.stat().st_size)}
                connection.request(method, path, file, sized)
        else:
            connection.request(method, path, content, dict(headers))
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.reason
    finally:
        connection.close()


def _connection(scheme: str, host: str, seconds: float) -> http.client.HTTPConnection:
    if scheme == "http":
        return http.client.HTTPConnection(host, timeout=seconds)
    return http.client.HTTPSConnection(host, timeout=seconds, context=ssl.create_default_context())


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects without telling another host who the caller is. The handler of urllib would tell it."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        found = super().redirect_request(req, fp, code, msg, headers, newurl)
        if found is not None and urlsplit(req.full_url)[:2] != urlsplit(newurl)[:2]:
            for name in _PRIVATE_HEADERS:
                found.remove_header(name)
        return found


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, seconds: float) -> None:
        super().__init__("localhost", timeout=seconds)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
