"""Parses the forms of the dashboard's pages."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar
from urllib.parse import parse_qsl

from starlette.requests import Request

from fal_server.core.faults import InvalidArgument, TooLarge

_MOST_BYTES = 4 * 1024 * 1024
_MOST_FIELDS = 200
_MOST_DECIMAL = 1e9
Choice = TypeVar("Choice", bound=StrEnum)


async def form_of(request: Request) -> Mapping[str, str]:
    """Return the fields of a form. It is read once and kept with the request.

    Raises:
        InvalidArgument: it is not a form.
        TooLarge: it is larger than 4 MiB.
    """
    kept: Mapping[str, str] | None = getattr(request.state, "form", None)
    if kept is not None:
        return kept
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MOST_BYTES:
            raise TooLarge(f"the form is larger than {_MOST_BYTES} bytes: send it with `fal` or curl")
    fields: dict[str, str] = {}
    if request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        try:
            pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
        except ValueError:
            raise InvalidArgument("form", "the form is not one that a browser sends: load the page again") from None
        fields = dict(pairs)
    request.state.form = fields
    return fields


def whole_number(fields: Mapping[str, str], name: str) -> int | None:
    """Return a field that contains a whole number. None if it is empty or missing.

    Raises:
        InvalidArgument: it contains anything else.
    """
    text = fields.get(name, "").strip()
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise InvalidArgument(name, f"{name} is {text[:40]!r}: give a whole number")
    return int(text)


def decimal(fields: Mapping[str, str], name: str, usual: float) -> float:
    """Return a field that contains a positive number. It is `usual` if the field is empty or missing.

    Raises:
        InvalidArgument: it contains anything else.
    """
    text = fields.get(name, "").strip()
    try:
        value = float(text) if text else usual
    except ValueError:
        value = 0.0
    if not 0 < value <= _MOST_DECIMAL:
        raise InvalidArgument(name, f"{name} is {text[:40]!r}: give a positive number")
    return value


def entries(fields: Mapping[str, str], name: str, between: str = ",") -> list[str]:
    """Return the parts of a field, without empty ones."""
    return [part.strip() for part in fields.get(name, "").split(between) if part.strip()]


def one_of(fields: Mapping[str, str], name: str, choices: type[Choice]) -> Choice:
    """Return what was chosen in a field.

    Raises:
        InvalidArgument: it offers no such choice.
    """
    try:
        return choices(fields.get(name, ""))
    except ValueError:
        known = ", ".join(choices)
        raise InvalidArgument(name, f"{name} is {fields.get(name, '')[:40]!r}: choose one of {known}") from None
