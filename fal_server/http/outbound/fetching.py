"""Fetches callers' URLs from permitted addresses."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import AsyncGenerator, AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import cached_property

from fal_server.core.faults import InvalidArgument, Unavailable
from fal_server.core.outbound import checked_url
from fal_server.http.outbound.destinations import Destinations, ForbiddenDestination
from fal_server.http.outbound.trust import trusting_context

_CHUNK_BYTES = 1024 * 1024
_SECONDS = 60.0
_AT_ONCE = 8


class UrlFetcher:
    """Implements the port Fetcher with the standard library in threads. It follows redirects, and uses no proxies.

    It has its own threads, so that slow servers delay no other work of the controller.

    Args:
        destinations: decides which addresses may be called.
    """

    def __init__(self, destinations: Destinations) -> None:
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="fetch")
        self._opener = urllib.request.OpenerDirector()
        for handler in (
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.HTTPRedirectHandler(),
            urllib.request.HTTPErrorProcessor(),
            _Handler(destinations),
        ):
            self._opener.add_handler(handler)

    @asynccontextmanager
    async def fetch(self, url: str) -> AsyncGenerator[AsyncIterator[bytes]]:
        """Open a URL and yield its content in chunks.

        Raises:
            InvalidArgument: the URL is not for HTTP, is forbidden, or answers with an error.
            Unavailable: it cannot be reached, or the content was cut off.
        """
        checked_url("url", url)
        shown = url.partition("?")[0][:200]
        loop = asyncio.get_running_loop()
        answer = await loop.run_in_executor(self._threads, self._open, url, shown)
        try:
            yield self._chunks(answer, shown)
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
            if isinstance(reason, ForbiddenDestination):
                raise InvalidArgument("url", f"{shown} {reason}. Or upload the file instead") from None
            raise Unavailable(f"{shown} cannot be reached: {reason}") from None
        if answer is None:
            raise InvalidArgument("url", f"{shown} leads to an address that is not for HTTP")
        return answer

    async def _chunks(self, answer: http.client.HTTPResponse, shown: str) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        while True:
            try:
                chunk = await loop.run_in_executor(self._threads, answer.read1, _CHUNK_BYTES)
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


class _Handler(urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
    """Opens URLs over connections whose address is checked before anything is sent."""

    def __init__(self, destinations: Destinations) -> None:
        super().__init__()
        self._destinations = destinations

    @cached_property
    def _trusted(self) -> ssl.SSLContext:
        """Return the context, loaded by the first thread that needs it. A controller starts sooner without it."""
        return trusting_context()

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
        failed: OSError = OSError(f"{address[0]} has no address")
        for peer in self._destinations.resolve(*address):
            try:  # this is a number: nothing is resolved again
                return socket.create_connection((peer, address[1]), timeout, source_address)
            except OSError as error:
                failed = error
        raise failed
