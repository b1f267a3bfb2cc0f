"""Bodies that are JSON objects: read whole, with a limit, and with an error that says what is wrong."""

from __future__ import annotations

import json

from starlette.requests import Request

from fal_server.core.faults import InvalidArgument, TooLarge

_MOST_BYTES = 16 * 1024 * 1024


async def json_object(request: Request) -> dict[str, object]:
    """The body, which must be a JSON object; an empty one is an empty object.

    Raises:
        Invalid: it is something else.
        TooLarge: it is larger than 16 MiB.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MOST_BYTES:
            raise TooLarge(f"the body is larger than {_MOST_BYTES} bytes")
    try:
        parsed: object = json.loads(bytes(body).strip() or b"{}")
    except ValueError as error:
        raise InvalidArgument("body", f"the body is no JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise InvalidArgument("body", "the body is no JSON object")
    return parsed


def text_of(body: dict[str, object], name: str) -> str:
    """A text of the object.

    Raises:
        Invalid: it is missing, or something else.
    """
    value = body.get(name)
    if not isinstance(value, str):
        raise InvalidArgument(name, f"{name} is missing from the body, or is no text")
    return value
