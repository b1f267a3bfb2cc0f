"""Calls of the controller to addresses from callers. They are webhooks, log drains, and notices."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit

from fal_server.core.faults import InvalidArgument

_LONGEST_URL = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboundCall:
    """A POST that is ready to be sent."""

    url: str = field(repr=False)
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What the receiver answered.

    Attributes:
        status: the HTTP status.
        retry_after_seconds: how long the receiver asks to wait; None if it does not say.
    """

    status: int
    retry_after_seconds: float | None = None

    @property
    def taken(self) -> bool:
        """Whether the receiver took what was sent."""
        return 200 <= self.status < 300


def checked_url(field_name: str, url: str) -> str:
    """Check an address that is to be called.

    Raises:
        InvalidArgument: it is not an http or https URL with a host.
    """
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        good = False
    if not good or len(url) > _LONGEST_URL or not url.isprintable() or " " in url:
        raise InvalidArgument(
            field_name, f"{field_name} is not an address that can be called: give an http or https URL"
        )
    return url
