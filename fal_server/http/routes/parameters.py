"""Values from a request's query."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, tzinfo

from starlette.requests import Request

from fal_server.core.faults import InvalidArgument

_MOST_DIGITS = 9


def number(request: Request, name: str, *, usual: int, most: int) -> int:
    """Return a number from 1 to `most`. It is `usual` if it is missing.

    Raises:
        InvalidArgument: it is anything else.
    """
    text = request.query_params.get(name, str(usual))
    if not (text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS and 1 <= int(text) <= most):
        raise InvalidArgument(name, f"{name} is {text[:80]!r}: give a number from 1 to {most}")
    return int(text)


def given_time(request: Request, name: str, zone: tzinfo = UTC) -> datetime | None:
    """Return a time in UTC, or None if it is missing.

    Args:
        zone: of times without one.

    Raises:
        InvalidArgument: it is not an ISO 8601 time.
    """
    text = request.query_params.get(name)
    if not text:
        return None
    try:
        time = datetime.fromisoformat(text)
        return (time.replace(tzinfo=zone) if time.tzinfo is None else time).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidArgument(
            name, f"{name} is {text[:80]!r}: give a time in ISO 8601, such as 2026-01-31T12:00:00Z or 2026-01-31"
        ) from error


def one_of(request: Request, name: str, possible: Sequence[str]) -> str | None:
    """Return one of the possible words, or None if it is missing. Its case does not matter.

    Raises:
        InvalidArgument: it is another word.
    """
    text = request.query_params.get(name)
    if not text:
        return None
    for word in possible:
        if word.lower() == text.lower():
            return word
    raise InvalidArgument(name, f"{name} is {text[:80]!r}: use one of {', '.join(possible)}")


def switch(request: Request, name: str) -> bool:
    """Return whether a switch is on: `1`, `true` or `yes`."""
    return request.query_params.get(name, "").lower() in ("1", "true", "yes")
