"""Inputs and outputs of direct requests, as far as they are kept: JSON of a bounded size, without credentials."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from fal_server.core.identity import AccountId
from fal_server.core.json_reader import read_json

MOST_BYTES = 64 * 1024
"""The largest body that is kept or shown."""
REDACTED = "[redacted]"
_CREDENTIAL = re.compile(
    r"passw|secret|credential|authorization|cookie|api.?key|access.?key|private.?key|(?:^|[^a-z])token$|[a-z]Token$|^key$",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptPayload:
    """What a request sent and got; None is a body that is not kept."""

    account: AccountId
    request_id: str
    ended_at: datetime
    input: bytes | None = field(repr=False)
    output: bytes | None = field(repr=False)


class EndedPayload(NamedTuple):
    """What a request sent and got, as it came; None is a body that is too large.

    Attributes:
        ended: seconds of a monotonic clock.
        succeeded: whether it may be outside of the sample that is listed.
    """

    account: AccountId
    request_id: str
    ended: float
    succeeded: bool
    input: bytes | None
    output: bytes | None


def redacted(body: bytes | None) -> bytes | None:
    """Return a JSON body with the texts in fields that hold credentials replaced; None if it is none, or too large.

    A field is known by its name. Numbers stay, because a number of tokens is no token.
    """
    if not body or len(body) > MOST_BYTES:
        return None
    try:
        value = read_json(body)
    except ValueError:
        return None
    return json.dumps(_without(value, hides=False), ensure_ascii=False, separators=(",", ":")).encode()


def _without(value: object, *, hides: bool) -> object:
    match value:
        case dict():
            return {
                name: _without(each, hides=hides or _CREDENTIAL.search(name) is not None)
                for name, each in value.items()
            }
        case list():
            return [_without(each, hides=hides) for each in value]
        case str() if hides:
            return REDACTED
        case _:
            return value
