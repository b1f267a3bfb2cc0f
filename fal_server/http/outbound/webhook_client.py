"""Sends webhooks over HTTP."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from fal_server.core.webhooks import SignedCall

if TYPE_CHECKING:
    import httpx


class HttpWebhookClient:
    """The WebhookClient port with httpx.

    It follows no redirects, uses no proxies and reads no response bodies, so that a receiver can make this controller
    call only the URL that the caller gave.

    Args:
        timeout_seconds: for the whole call.
    """

    def __init__(self, *, timeout_seconds: float = 15) -> None:
        self._timeout_seconds = timeout_seconds
        self._client: httpx.AsyncClient | None = None
        self._making = asyncio.Lock()

    async def post(self, call: SignedCall) -> int:
        async with self._making:
            if self._client is None:
                # Loading the library and its certificates takes 0.1 s or more: in a thread, and only if needed.
                self._client = await asyncio.to_thread(_make_client, self._timeout_seconds)
        import httpx

        try:
            async with self._client.stream("POST", call.url, content=call.body, headers=list(call.headers)) as answer:
                return answer.status_code
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise OSError(f"{type(error).__name__}: {error}") from error

    async def close(self) -> None:
        """Close all connections."""
        if self._client is not None:
            await self._client.aclose()


def _make_client(timeout_seconds: float) -> httpx.AsyncClient:
    import httpx

    return httpx.AsyncClient(follow_redirects=False, trust_env=False, timeout=timeout_seconds)
