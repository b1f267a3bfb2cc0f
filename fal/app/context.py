"""The current request, for code inside of an app that does not have it as an argument."""

from __future__ import annotations

import json
from contextvars import ContextVar
from dataclasses import dataclass, field

REQUEST_ID_KEY = "x-fal-request-id"
REQUEST_ENDPOINT_KEY = "x-fal-endpoint"
CDN_TOKEN_KEY = "x-fal-cdn-token"  # noqa: S105 - the name of a header
LIFECYCLE_HEADER = "x-fal-object-lifecycle-preference"


@dataclass(frozen=True, slots=True)
class RequestContext:
    """What the platform knows about a request.

    Attributes:
        request_id: the platform's id (header x-fal-request-id); None if it did not come through the platform.
        endpoint: the path of the call (header x-fal-endpoint).
        lifecycle_preference: how long the files that it makes are kept (header x-fal-object-lifecycle-preference).
        lifecycle_preference: how long files that the request makes are kept, as the caller or the platform asks for it
            (header x-fal-object-lifecycle-preference, JSON); None if nobody does.
        headers: the request's headers, names in lower case. A changed `x-fal-cdn-token` goes back to the caller.
    """

    request_id: str | None = None
    endpoint: str | None = None
    lifecycle_preference: dict[str, str] | None = None
    headers: dict[str, str] = field(default_factory=dict)


def context_of(headers: dict[str, str]) -> RequestContext:
    """Return what a request's headers say; a preference that is no JSON object counts as none."""
    try:
        kept = json.loads(headers.get(LIFECYCLE_HEADER, "null"))
    except ValueError:
        kept = None
    return RequestContext(
        headers.get(REQUEST_ID_KEY),
        headers.get(REQUEST_ENDPOINT_KEY),
        kept if isinstance(kept, dict) else None,
        headers,
    )


CURRENT: ContextVar[RequestContext | None] = ContextVar("fal_current_request", default=None)


def current_request() -> RequestContext | None:
    """Return the current request, also in threads of endpoints; None outside of one."""
    return CURRENT.get()
