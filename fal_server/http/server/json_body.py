"""Reads bodies that are JSON objects."""

from __future__ import annotations

from starlette.requests import Request

from fal_server.core.faults import InvalidArgument, TooLarge
from fal_server.core.json_reader import read_json

_MOST_BYTES = 16 * 1024 * 1024


async def json_object(request: Request) -> dict[str, object]:
    """Return the body, a JSON object. An empty body is an empty object.

    Raises:
        InvalidArgument: it is anything else.
        TooLarge: it is larger than 16 MiB.
    """
    parsed = await _json(request, b"{}")
    if not isinstance(parsed, dict):
        raise InvalidArgument("body", "the body is not a JSON object")
    return parsed


async def json_array(request: Request) -> list[object]:
    """Return the body, a JSON array. An empty body is an empty array. This raises the errors of `json_object`."""
    parsed = await _json(request, b"[]")
    if not isinstance(parsed, list):
        raise InvalidArgument("body", "the body is not a JSON array")
    return parsed


async def _json(request: Request, without: bytes) -> object:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MOST_BYTES:
            raise TooLarge(f"the body is larger than {_MOST_BYTES} bytes")
    try:
        return read_json(bytes(body).strip() or without)
    except ValueError as error:
        raise InvalidArgument("body", f"the body is not JSON: {error}") from error


def text_of(body: dict[str, object], name: str) -> str:
    """Return a text of the object.

    Raises:
        InvalidArgument: it is missing, or is not a text.
    """
    value = body.get(name)
    if not isinstance(value, str):
        raise InvalidArgument(name, f"{name} is missing from the body, or is not a text")
    return value
