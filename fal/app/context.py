"""The current request, for code inside of an app that does not have it as an argument."""

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


def context_of(headers: dict[str, str]) -> RequestContext:
    """Return what a request's headers say; their names are in lower case."""
    return RequestContext(
        request_id=headers.get(REQUEST_ID_KEY),
        endpoint=headers.get(REQUEST_ENDPOINT_KEY),
        lifecycle_preference=lifecycle_preference(headers.get(LIFECYCLE_HEADER)),
        headers=headers,
    )


def lifecycle_preference(text: str | None) -> dict[str, str] | None:
    """Return a caller's preference; one that is not a JSON object is nobody's wish, with a line on stderr."""
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
    """A request as it came, whose context is made when it is asked for: most endpoints never do.

    Args:
        headers: names and values as the server gives them.
    """

    def __init__(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self._headers = headers
        self._made: dict[str, RequestContext] = {}

    @property
    def context(self) -> RequestContext:
        """The context, the same each time."""
        made = self._made.get("context")
        if made is not None:
            return made
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in self._headers}
        return self._made.setdefault("context", context_of(headers))  # threads may ask at once

    def changed_token(self) -> str | None:
        """Return the token that the app has set for its caller, if there is another than came."""
        made = self._made.get("context")
        token = None if made is None else made.headers.get(CDN_TOKEN_KEY)
        if not token:
            return None
        came = [value for name, value in self._headers if name.lower() == CDN_TOKEN_KEY.encode()]
        return None if came and came[-1].decode("latin-1") == token else token


CURRENT: ContextVar[ReceivedRequest | RequestContext | None] = ContextVar("fal_current_request", default=None)


def current_request() -> RequestContext | None:
    """Return the current request, also in threads of endpoints; None outside of one."""
    current = CURRENT.get()
    return current.context if isinstance(current, ReceivedRequest) else current
