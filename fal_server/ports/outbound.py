"""The Protocol of what calls other hosts."""

from __future__ import annotations

from typing import Protocol

from fal_server.core.outbound import OutboundCall, Receipt


class OutboundClient(Protocol):
    """Calls receivers of webhooks, log drains and notices."""

    async def post(self, call: OutboundCall) -> Receipt:
        """Send a POST and return the answer. Redirects are not followed.

        Raises:
            OSError: the receiver may not be called, cannot be reached, or did not answer in time.
        """
        ...

    async def why_forbidden(self, host: str, port: int) -> str:
        """Return why a host may not be called, for people. It is empty if it may, or has no address now."""
        ...
