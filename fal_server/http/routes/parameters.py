"""Values from a request's query."""

from __future__ import annotations

from starlette.requests import Request

from fal_server.core.faults import InvalidArgument

_MOST_DIGITS = 9


def number(request: Request, name: str, *, usual: int, most: int) -> int:
    """Return a number from 1 to `most`, or `usual` if it is not given.

    Raises:
        InvalidArgument: it is something else.
    """
    text = request.query_params.get(name, str(usual))
    if not (text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS and 1 <= int(text) <= most):
        raise InvalidArgument(name, f"{name} is {text[:80]!r}: give a number from 1 to {most}")
    return int(text)


def switch(request: Request, name: str) -> bool:
    """Return whether a switch is on: `1`, `true` or `yes`."""
    return request.query_params.get(name, "").lower() in ("1", "true", "yes")
