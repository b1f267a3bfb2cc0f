"""Calls of tools to a controller. They go to its platform API, and to its contract over HTTP."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import quote, urlencode

JSON_BODY = {"content-type": "application/json"}


class Refused(Exception):
    """A call or a tool failed; the message is for the caller.

    Args:
        status: the HTTP status.
        message: what is wrong, and what to do.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call to make.

    Attributes:
        path: percent-encoded, without the query.
        headers: in addition to the caller's credentials.
    """

    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def target(self) -> str:
        """The path with its query."""
        return f"{self.path}?{urlencode(self.query)}" if self.query else self.path


class Platform(Protocol):
    """A controller, on behalf of one caller.

    Attributes:
        holder: the caller's identity, for state that belongs to one caller.
        secrets: the parts of the caller's credentials, which no result may show.
    """

    @property
    def holder(self) -> str: ...

    @property
    def secrets(self) -> Sequence[str]: ...

    async def ask(self, call: Call) -> bytes:
        """Return the body of the response.

        Raises:
            Refused: the controller refuses, or cannot be reached.
        """
        ...


def contract(method: str, /, **fields: object) -> Call:
    """Return a call to the contract, such as `Runners.GetRunner`. Fields that are None are omitted."""
    service, _, name = method.partition(".")
    body = {key: value for key, value in fields.items() if value is not None}
    path = f"/fal.v1.{service}/{name}"
    return Call(method="POST", path=path, body=json.dumps(body).encode(), headers=JSON_BODY)


async def asked(platform: Platform, call: Call) -> object:
    """Return the JSON of a controller's response; an empty one is None.

    Raises:
        Refused: see `Platform.ask`.
    """
    body = await platform.ask(call)
    if not body.strip():
        return None
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused(502, f"{call.path} did not answer with JSON") from error


async def asked_object(platform: Platform, call: Call) -> dict[str, object]:
    """Return the JSON object of a controller's response.

    Raises:
        Refused: see `asked`, or the response is not an object.
    """
    found = await asked(platform, call)
    if not isinstance(found, dict):
        raise Refused(502, f"{call.path} did not answer with an object")
    return found


def objects(value: object) -> list[dict[str, object]]:
    """Return the objects of a list in a response. A missing list is empty."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def segment(text: str) -> str:
    """Return an encoded path segment. No name counts as several segments."""
    return quote(text, safe="") if text not in (".", "..") else text.replace(".", "%2E")


def file_path(text: str) -> str:
    """Return a file path, encoded."""
    return "/".join(segment(part) for part in text.strip("/").split("/"))


def query_of(arguments: Mapping[str, object]) -> tuple[tuple[str, str], ...]:
    """Return arguments as a query: lists are repeated, None is omitted."""
    return tuple(
        (name, str(one).lower() if isinstance(one, bool) else str(one))
        for name, value in arguments.items()
        for one in (value if isinstance(value, list) else [value])
        if one is not None
    )
