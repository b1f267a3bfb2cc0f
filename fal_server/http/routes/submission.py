"""Reads a request to the queue. It has options, headers for the app, and the complete body."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from contextlib import contextmanager
from io import BytesIO
from urllib.parse import unquote_plus

from starlette.requests import ClientDisconnect, Request

from fal_server.core.faults import InvalidArgument, ResourceExhausted, TooLarge
from fal_server.core.queue import Priority, switch
from fal_server.http.gateway.passing import has_key, withheld
from fal_server.http.server.errors import HttpError
from fal_server.http.server.messages import tokens
from fal_server.live.dispatch import RoutedApp
from fal_server.services.submission import Submission

MOST_BODY_BYTES = 64 * 1024 * 1024
# This much of each body always has room, so that nobody can lock out others by using all of it.
_FREE_BYTES = 1024 * 1024
# Headers that the queue reads itself, and `Accept-Encoding`, because another client may fetch the result.
_READ = frozenset({b"accept-encoding", b"idempotency-key", b"x-fal-no-retry", b"x-fal-queue-priority"})


class BodyRoom:
    """Limits the total memory for bodies of callers without a key. A body counts until it is stored."""

    def __init__(self, most_bytes: int = MOST_BODY_BYTES) -> None:
        self._left = most_bytes

    @contextmanager
    def share(self) -> Generator[Callable[[int], None]]:
        """Yield a function that reserves the size of a body so far. The reservation ends with the block.

        Raises:
            ResourceExhausted: other bodies use the room.
        """
        taken = 0

        def take(size: int) -> None:
            nonlocal taken
            more = max(0, size - _FREE_BYTES) - taken
            if more > self._left:
                raise ResourceExhausted(
                    "large bodies of other callers without a key are being stored: try again, or send the address of a "
                    "file instead of the file"
                )
            self._left -= more
            taken += more

        try:
            yield take
        finally:
            self._left += taken


async def submission_of(
    request: Request, app: RoutedApp, path: str, caller: str | None, take: Callable[[int], None]
) -> Submission:
    """Read a request with its complete body.

    Args:
        path: for the app, without the query.
        caller: the id of the caller's key; None for a public call.
        take: called with the size of the body so far; it may refuse.

    Raises:
        TooLarge: the body is larger than the queue stores.
        HttpError: the client left before the end of the body.
        InvalidArgument: a platform header is malformed.
    """
    query, webhook_url = _split_query(request.scope["query_string"].decode("latin-1"))
    headers = request.headers
    return Submission(
        app_id=app.app_id,
        path=path + (f"?{query}" if query else ""),
        headers=passed_on(request),
        body=await _body(request, take),
        caller=caller,
        priority=_priority(headers.get("x-fal-queue-priority")),
        hint=headers.get("x-fal-runner-hint") or None,
        start_seconds=_start_seconds(headers.get("x-fal-request-timeout")),
        no_retry=switch(headers.get("x-fal-no-retry")) is True,
        webhook_url=webhook_url,
        idempotency_key=headers.get("idempotency-key"),
    )


def _split_query(query: str) -> tuple[str, str | None]:
    """Return the query for the app unchanged, and the webhook's address."""
    webhook_url: str | None = None
    kept: list[str] = []
    for part in query.split("&"):
        name, _, value = part.partition("=")
        if unquote_plus(name) == "fal_webhook":
            webhook_url = unquote_plus(value) or None
        elif part:
            kept.append(part)
    return "&".join(kept), webhook_url


def passed_on(request: Request) -> tuple[tuple[str, str], ...]:
    """Return the header fields for the app."""
    raw: list[tuple[bytes, bytes]] = request.headers.raw
    nominated = {token for name, value in raw if name == b"connection" for token in tokens(value)}
    passed = [
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in raw
        if name not in _READ
        and not withheld(name)
        and (name == b"host" or name not in nominated)
        and not has_key(name, value)
    ]
    if request.client is not None:
        passed.append(("x-forwarded-for", request.client.host))
    return (*passed, ("x-forwarded-proto", request.url.scheme))


async def _body(request: Request, take: Callable[[int], None]) -> bytes:
    body = BytesIO()  # its getvalue() makes no copy
    size = 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > MOST_BODY_BYTES:
                detail = f"the body is larger than the {MOST_BODY_BYTES} bytes that the queue keeps: send an address"
                raise TooLarge(detail)
            take(size)
            body.write(part)
    except ClientDisconnect:
        raise HttpError(499, "client_disconnected", "the client left before the end of its body") from None
    return body.getvalue()


def _priority(value: str | None) -> Priority:
    word = (value or Priority.NORMAL.value).strip().lower()
    if word not in tuple(Priority):
        raise InvalidArgument("X-Fal-Queue-Priority", f"X-Fal-Queue-Priority is {word[:80]!r}: use normal or low")
    return Priority(word)


def _start_seconds(value: str | None) -> float | None:
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and 0 < seconds <= 365 * 24 * 3600):
        raise InvalidArgument(
            "X-Fal-Request-Timeout", f"X-Fal-Request-Timeout is {value[:80]!r}: give seconds, more than 0"
        )
    return seconds
