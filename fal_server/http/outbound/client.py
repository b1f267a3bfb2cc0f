"""Calls over HTTP to addresses that callers gave."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from fal_server.core.outbound import OutboundCall, Receipt
from fal_server.http.outbound.destinations import Destinations, ForbiddenDestination
from fal_server.http.outbound.trust import trusting_context

if TYPE_CHECKING:
    import httpx

# More look-ups than calls run at once, because a look-up may take longer than its call.
_MOST_LOOKUPS = 64
_MOST_DIGITS = 9


class HttpOutboundClient:
    """Implements the port OutboundClient with httpx.

    It follows no redirects, uses no proxies and reads no response bodies, so that a receiver can make this controller
    call only the URL that the caller gave, and that only if its address is permitted. Names are resolved in separate
    threads, so that slow name servers delay no other work of the controller.

    Args:
        destinations: decides which addresses may be called.
        timeout_seconds: for the whole call.
        trusted: makes the context of calls with TLS.
    """

    def __init__(
        self,
        destinations: Destinations,
        *,
        timeout_seconds: float = 15,
        trusted: Callable[[], ssl.SSLContext] = trusting_context,
    ) -> None:
        self._destinations = destinations
        self._timeout_seconds = timeout_seconds
        self._trusted = trusted
        self._client: httpx.AsyncClient | None = None
        self._making = asyncio.Lock()
        self._threads = ThreadPoolExecutor(_MOST_LOOKUPS, thread_name_prefix="outbound")

    async def post(self, call: OutboundCall) -> Receipt:
        async with self._making:
            if self._client is None:
                # Loading the library and its certificates takes 0.1 s or more, so do it in a thread, and only if
                # needed.
                self._client = await asyncio.to_thread(_make_client, self._timeout_seconds, self._trusted)
        import httpx

        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await self._post(self._client, call)
        except TimeoutError as error:
            raise OSError(f"the receiver did not answer within {self._timeout_seconds:g} seconds") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise OSError(f"{type(error).__name__}: {error}") from error

    async def _post(self, client: httpx.AsyncClient, call: OutboundCall) -> Receipt:
        """Call a host's checked address, under the name in the URL."""
        import httpx

        url = httpx.URL(call.url)
        port = url.port or (443 if url.scheme == "https" else 80)
        try:
            loop = asyncio.get_running_loop()
            peers = await loop.run_in_executor(self._threads, self._destinations.resolve, url.host, port)
        except ForbiddenDestination as error:
            raise OSError(f"the host {url.host} {error}") from error
        headers = [*call.headers, ("host", url.netloc.decode())]
        name = {"sni_hostname": url.raw_host.decode()}
        for peer in peers:
            try:
                async with client.stream(
                    "POST", url.copy_with(host=peer), content=call.body, headers=headers, extensions=name
                ) as answer:
                    return Receipt(
                        status=answer.status_code, retry_after_seconds=_seconds(answer.headers.get("retry-after"))
                    )
            except httpx.ConnectError as error:
                if peer == peers[-1]:
                    raise OSError(f"{url.host}:{port} cannot be reached: {error}") from error
        raise OSError(f"{url.host} has no address")

    async def why_forbidden(self, host: str, port: int) -> str:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await loop.run_in_executor(self._threads, self._destinations.resolve, host, port)
        except ForbiddenDestination as error:
            return f"the host {host} {error}"
        except OSError:  # with TimeoutError: what has no address now may have one later
            return ""
        return ""

    async def close(self) -> None:
        """Close all connections, without waiting for name look-ups in progress."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._client is not None:
            await self._client.aclose()


def _seconds(retry_after: str | None) -> float | None:
    """Return the seconds of a Retry-After header (RFC 9110, 10.2.3). None if there is none, or it is not one."""
    if retry_after is None:
        return None
    if retry_after.isascii() and retry_after.isdigit() and len(retry_after) <= _MOST_DIGITS:
        return float(retry_after)
    try:
        at = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    return max((at - datetime.now(at.tzinfo)).total_seconds(), 0.0)


def _make_client(timeout_seconds: float, trusted: Callable[[], ssl.SSLContext]) -> httpx.AsyncClient:
    import httpx

    # A kept connection would serve another host at the same address, whose certificate nobody checked.
    alone = httpx.Limits(max_keepalive_connections=0)
    return httpx.AsyncClient(
        follow_redirects=False, trust_env=False, timeout=timeout_seconds, limits=alone, verify=trusted()
    )
