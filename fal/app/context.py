"""The current request, for app code that lacks it as an argument."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import cast

REQUEST_ID_KEY = "x-fal-request-id"
REQUEST_ENDPOINT_KEY = "x-fal-endpoint"
CDN_TOKEN_KEY = "x-fal-cdn-token"  # noqa: S105 - the name of a header
LIFECYCLE_HEADER = "x-fal-object-lifecycle-preference"


@dataclass(frozen=True, slots=True)
class RequestContext:
    """The platform's information about a request.

    Attributes:
        request_id: the platform's id (header x-fal-request-id); None if the request did not come through the platform.
        endpoint: the path of the call (header x-fal-endpoint).
        lifecycle_preference: how long to keep files that the request creates, as the caller or the platform asks
            (header x-fal-object-lifecycle-preference, JSON); None if neither does.
        headers: the request's headers, names in lower case. A changed `x-fal-cdn-token` goes back to the caller.
    """

    request_id: str | None = None
    endpoint: str | None = None
    lifecycle_preference: dict[str, str] | None = None
    headers: dict[str, str] = field(default_factory=dict)


def context_of(headers: dict[str, str]) -> RequestContext:
    """Return the context in a request's headers. The header names are in lower case."""
    return RequestContext(
        request_id=headers.get(REQUEST_ID_KEY),
        endpoint=headers.get(REQUEST_ENDPOINT_KEY),
        lifecycle_preference=lifecycle_preference(headers.get(LIFECYCLE_HEADER)),
        headers=headers,
    )


def lifecycle_preference(text: str | None) -> dict[str, str] | None:
    """Return the caller's preference. One that is no JSON object is reported on stderr and gives None."""
    if text is None:
        return None
    try:
        preference: object = json.loads(text)
    except (ValueError, RecursionError):
        preference = None
    if isinstance(preference, dict):
        return cast("dict[str, str]", preference)
    print(f"{LIFECYCLE_HEADER} {text[:80]!r} is not a JSON object: it is not used", file=sys.stderr)  # noqa: T201
    return None


class ReceivedRequest:
    """A received request. Its context is built on demand, as most endpoints never use it.

    Args:
        headers: names and values in the server's form.
    """

    def __init__(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self._headers = headers
        self._made: dict[str, RequestContext] = {}

    @property
    def context(self) -> RequestContext:
        """The context; every access returns the same object."""
        made = self._made.get("context")
        if made is not None:
            return made
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in self._headers}
        return self._made.setdefault("context", context_of(headers))  # threads may access it at once

    def changed_token(self) -> str | None:
        """Return the CDN token that the app set for its caller. None if it is unchanged."""
        made = self._made.get("context")
        token = None if made is None else made.headers.get(CDN_TOKEN_KEY)
        if not token:
            return None
        came = [value for name, value in self._headers if name.lower() == CDN_TOKEN_KEY.encode()]
        return None if came and came[-1].decode("latin-1") == token else token


CURRENT: ContextVar[ReceivedRequest | RequestContext | None] = ContextVar("fal_current_request", default=None)


def current_request() -> RequestContext | None:
    """Return the current request, even in threads of endpoints. None outside of a request."""
    current = CURRENT.get()
    return current.context if isinstance(current, ReceivedRequest) else current
