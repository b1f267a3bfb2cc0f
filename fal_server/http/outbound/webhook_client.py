"""Calls the receivers of webhooks over HTTP."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from fal_server.core.webhooks import SignedCall

if TYPE_CHECKING:
    import httpx


class HttpWebhookClient:
    """The WebhookClient port.

    Redirects are not followed, proxies of the environment are not used, and the body of an answer is not read: a
    receiver can make this controller call the address that the caller gave, and nothing else.

    Args:
        timeout_seconds: for the whole call.
    """

    def __init__(self, *, timeout_seconds: float = 15) -> None:
        self._timeout_seconds = timeout_seconds
        self._client: httpx.AsyncClient | None = None
        self._making = asyncio.Lock()

    async def post(self, call: SignedCall) -> int:
        """POST; the status that was answered.

        Raises:
            OSError: the receiver cannot be reached, or did not answer in time.
        """
        async with self._making:
            if self._client is None:
                # The library and its certificates take a tenth of a second and more: off the loop, and only if needed.
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
