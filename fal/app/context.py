"""The request that is being handled, for code deep inside an app that was not handed it."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestContext:
    """What the platform says about a request.

    Attributes:
        request_id: the platform's id of the request (header x-fal-request-id), if it came through the platform.
        endpoint: the path that the caller asked for (header x-fal-endpoint).
        headers: the request's headers, names in lower case. A changed `x-fal-cdn-token` goes back to the caller.
    """

    request_id: str | None = None
    endpoint: str | None = None
    headers: dict[str, str] = field(default_factory=dict)


CURRENT: ContextVar[RequestContext | None] = ContextVar("fal_current_request", default=None)


def current_request() -> RequestContext | None:
    """The request that is being handled, or None outside of one. It is known in threads of endpoints too."""
    return CURRENT.get()
