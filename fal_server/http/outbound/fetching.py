"""Fetches a URL that a caller gave, but not from this machine or from services of its network."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import ipaddress
import socket
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias

from fal_server.core.faults import InvalidArgument, Unavailable

Address: TypeAlias = "ipaddress.IPv4Address | ipaddress.IPv6Address"
_CHUNK_BYTES = 1024 * 1024
_SECONDS = 60.0


def is_elsewhere(address: Address) -> bool:
    """Return whether an address is neither loopback nor link-local, where clouds serve credentials."""
    plain = getattr(address, "ipv4_mapped", None) or address
    return not (plain.is_loopback or plain.is_link_local or plain.is_unspecified or plain.is_multicast)


class UrlFetcher:
    """The Fetcher port with the standard library in threads: follows redirects, uses no proxies.

    Args:
        allowed: which addresses may be connected to. The checked address itself is connected to, because a name could
            resolve to another one the second time.
    """

    def __init__(self, allowed: Callable[[Address], bool] = is_elsewhere) -> None:
        self._opener = urllib.request.OpenerDirector()
        for handler in (
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.HTTPRedirectHandler(),
            urllib.request.HTTPErrorProcessor(),
            _Handler(allowed),
        ):
            self._opener.add_handler(handler)

    @asynccontextmanager
    async def fetch(self, url: str) -> AsyncGenerator[AsyncIterator[bytes]]:
        """Open a URL and yield its content in chunks.

        Raises:
            InvalidArgument: the URL is not for HTTP, is forbidden, or answers with an error.
            Unavailable: it cannot be reached, or the content was cut off.
        """
        if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
            raise InvalidArgument("url", "url must begin with http:// or https://")
        shown = url.partition("?")[0][:200]
        answer = await asyncio.to_thread(self._open, url, shown)
        try:
            yield _chunks(answer, shown)
        finally:
            answer.close()

    def _open(self, url: str, shown: str) -> http.client.HTTPResponse:
        try:
            answer: http.client.HTTPResponse | None = self._opener.open(url, timeout=_SECONDS)
        except urllib.error.HTTPError as error:
            error.close()
            raise InvalidArgument("url", f"{shown} answered {error.code} {error.reason}") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, _Forbidden):
                raise InvalidArgument("url", f"{shown} {reason}") from None
            raise Unavailable(f"{shown} cannot be reached: {reason}") from None
        if answer is None:
            raise InvalidArgument("url", f"{shown} leads to an address that is not for HTTP")
        return answer


class _Forbidden(OSError):
    """The URL leads to an address that may not be connected to."""


class _Handler(urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
    """Opens URLs over connections whose address is checked before anything is sent."""

    def __init__(self, allowed: Callable[[Address], bool]) -> None:
        super().__init__()
        self._trusted = ssl.create_default_context()
        self._allowed = allowed

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._plain, req)

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._secure, req)

    def _plain(
        self,
        host: str,
        /,
        *,
        port: int | None = None,
        timeout: float = _SECONDS,
        source_address: tuple[str, int] | None = None,
        blocksize: int = 8192,
    ) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection(host, port, timeout, source_address, blocksize)
        connection._create_connection = self._connect  # type: ignore[attr-defined]  # noqa: SLF001 - the only hook
        return connection

    def _secure(
        self,
        host: str,
        /,
        *,
        port: int | None = None,
        timeout: float = _SECONDS,
        source_address: tuple[str, int] | None = None,
        blocksize: int = 8192,
    ) -> http.client.HTTPConnection:
        connection = http.client.HTTPSConnection(
            host, port, timeout=timeout, source_address=source_address, blocksize=blocksize, context=self._trusted
        )
        connection._create_connection = self._connect  # type: ignore[attr-defined]  # noqa: SLF001 - the only hook
        return connection

    def _connect(
        self, address: tuple[str, int], timeout: float, source_address: tuple[str, int] | None = None
    ) -> socket.socket:
        found = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)
        for *_, sockaddr in found:
            peer = ipaddress.ip_address(str(sockaddr[0]).partition("%")[0])
            if not self._allowed(peer):
                raise _Forbidden(
                    f"leads to {peer}, which is this machine or the network's own: upload the file instead"
                )
        failed: OSError = OSError(f"{address[0]} has no address")
        for *_, sockaddr in found:
            try:  # this is a number: nothing is resolved again
                return socket.create_connection((str(sockaddr[0]), address[1]), timeout, source_address)
            except OSError as error:
                failed = error
        raise failed


async def _chunks(answer: http.client.HTTPResponse, shown: str) -> AsyncIterator[bytes]:
    while True:
        try:
            chunk = await asyncio.to_thread(answer.read, _CHUNK_BYTES)
        except (OSError, http.client.HTTPException) as error:
            with contextlib.suppress(OSError):
                answer.close()
            raise Unavailable(f"{shown} was cut off: {error}") from None
        if not chunk:
            left = answer.length  # announced, but not received
            if left:
                raise Unavailable(f"{shown} was cut off: {left} bytes are missing")
            return
        yield chunk
