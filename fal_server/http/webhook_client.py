"""Calls the receivers of webhooks over HTTP."""

from __future__ import annotations

import httpx

from fal_server.core.webhooks import SignedCall


class HttpWebhookClient:
    """The WebhookClient port.

    Redirects are not followed, proxies of the environment are not used, and the body of an answer is not read: a
    receiver can make this controller call the address that the caller gave, and nothing else.

    Args:
        timeout_seconds: for the whole call.
    """

    def __init__(self, *, timeout_seconds: float = 15) -> None:
        self._client = httpx.AsyncClient(follow_redirects=False, trust_env=False, timeout=timeout_seconds)

    async def post(self, call: SignedCall) -> int:
        """POST; the status that was answered.

        Raises:
            OSError: the receiver cannot be reached, or did not answer in time.
        """
        try:
            async with self._client.stream("POST", call.url, content=call.body, headers=list(call.headers)) as answer:
                return answer.status_code
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise OSError(f"{type(error).__name__}: {error}") from error

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()
