"""The current request, for code inside of an app that does not have it as an argument."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestContext:
    """What the platform knows about a request.

    Attributes:
        request_id: the platform's id (header x-fal-request-id); None if it did not come through the platform.
        endpoint: the path of the call (header x-fal-endpoint).
        lifecycle_preference: how long files that the request makes are kept, as the caller or the platform asks for it
            (header x-fal-object-lifecycle-preference, JSON); None if nobody does.
        headers: the request's headers, names in lower case. A changed `x-fal-cdn-token` goes back to the caller.
    """

    request_id: str | None = None
    endpoint: str | None = None
    lifecycle_preference: dict[str, str] | None = None
    headers: dict[str, str] = field(default_factory=dict)


CURRENT: ContextVar[RequestContext | None] = ContextVar("fal_current_request", default=None)


def current_request() -> RequestContext | None:
    """Return the current request, also in threads of endpoints; None outside of one."""
    return CURRENT.get()
