"""Inputs and outputs of direct requests, as far as they are kept: JSON of a bounded size, without credentials."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple, cast

from fal_server.core.identity import AccountId
from fal_server.core.json_reader import read_json

MOST_BYTES = 64 * 1024
"""The largest body that is kept or shown."""
REDACTED = "[redacted]"
_CREDENTIAL = re.compile(
    r"passw|passphrase|secret|credential|authorization|bearer|cookie|api.?key|access.?key|private.?key|(?:^|[^a-z])pwd"
    r"|(?:^|[^a-z])token$|[a-z]Token$|(?:^|[^a-z])key$|(?-i:[a-z]Key$)",
    re.IGNORECASE,
)
# Lists of pairs hold a field's name as a value: {"name": "Authorization", "value": ...}.
_NAMES, _VALUE = ("name", "key", "header"), "value"
# A refused input, as FastAPI answers it: {"loc": ["body", "password"], "input": ..., "ctx": ...}.
_PLACE, _REFUSED = "loc", ("input", "ctx")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptPayload:
    """What a request sent and got. None is a body that is not kept."""

    account: AccountId
    request_id: str
    ended_at: datetime
    input: bytes | None = field(repr=False)
    output: bytes | None = field(repr=False)


class EndedPayload(NamedTuple):
    """What a request sent and got, as it came. None is a body that is too large.

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
    """Return a JSON body with its credentials replaced. None if it is no JSON, or too large.

    A field is known by its name, also where a list of pairs or an answer about invalid input names it. Numbers stay,
    because a number of tokens is no token.
    """
    if not body or len(body) > MOST_BYTES:
        return None
    try:
        kept = _without(read_json(body), hides=False)
        return json.dumps(kept, ensure_ascii=False, separators=(",", ":")).encode()
    except (ValueError, RecursionError):  # it is no JSON, or nested too deeply
        return None


def _without(value: object, *, hides: bool) -> object:
    match value:
        case dict():
            told = _told_elsewhere(value)
            return {
                name: _without(each, hides=hides or name in told or _CREDENTIAL.search(name) is not None)
                for name, each in value.items()
            }
        case list():
            return [_without(each, hides=hides) for each in value]
        case str() if hides:
            return REDACTED
        case _:
            return value


def _told_elsewhere(fields: Mapping[str, object]) -> tuple[str, ...]:
    """Return the fields that hold a credential according to another field."""
    place = fields.get(_PLACE)
    if isinstance(place, list) and any(_is_credential(part) for part in cast("list[object]", place)):
        return _REFUSED
    return (_VALUE,) if any(_is_credential(fields.get(name)) for name in _NAMES) else ()


def _is_credential(name: object) -> bool:
    return isinstance(name, str) and _CREDENTIAL.search(name) is not None
