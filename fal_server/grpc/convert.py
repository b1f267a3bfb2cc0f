"""Conversions that several nouns share: times, enums and free-form values."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

from fal_server.core.faults import InvalidArgument
from fal_server.core.revisions import Json

E = TypeVar("E")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_SECOND = int((datetime(1, 1, 1, tzinfo=UTC) - _EPOCH).total_seconds())
_LAST_SECOND = int((datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC) - _EPOCH).total_seconds())
_EXACT = 2**53  # every integer up to here is a double


def time_of(stamp: Timestamp, field: str) -> datetime:
    """Return an aware time, to the microsecond.

    Raises:
        InvalidArgument: it lies outside the years 1 to 9999, or its nanoseconds outside a second.
    """
    if not _FIRST_SECOND <= stamp.seconds <= _LAST_SECOND or not 0 <= stamp.nanos < 1_000_000_000:
        raise InvalidArgument(
            field, f"{field} is not a time: seconds must lie in the years 1 to 9999, nanos in 0 to 999999999"
        )
    return _EPOCH + timedelta(seconds=stamp.seconds, microseconds=stamp.nanos // 1000)


def optional_time(message: Message, field: str) -> datetime | None:
    """Return a field of a message as an aware time. None if it is not set.

    Raises:
        InvalidArgument: it is not a time.
    """
    return time_of(getattr(message, field), field) if message.HasField(field) else None


def timestamp(at: datetime) -> Timestamp:
    """Return a time for the wire."""
    since = at - _EPOCH  # several times as fast as FromDatetime, which lists of runners call 100,000 times
    return Timestamp(seconds=since.days * 86_400 + since.seconds, nanos=since.microseconds * 1000)


def duration(message: Duration, field: str) -> timedelta:
    """Return a length of time.

    Raises:
        InvalidArgument: it is too long.
    """
    try:
        return message.ToTimedelta()
    except OverflowError:
        raise InvalidArgument(field, f"{field} is too long") from None


def named(number: int, names: Mapping[int, E], field: str) -> E:
    """Return the value of an enum's number.

    Raises:
        InvalidArgument: the number is unknown.
    """
    found = names.get(number)
    if found is None:
        known = ", ".join(f"{key} ({value})" for key, value in sorted(names.items()))
        raise InvalidArgument(field, f"{field} is {number}, which is unknown: use one of {known}")
    return found


def free_form(struct: Struct, field: str) -> dict[str, Json]:
    """Return a Struct as plain values. Its numbers are doubles, and whole ones become integers again.

    Raises:
        InvalidArgument: a number is not finite, or a value is not set.
    """
    return {key: _plain(value, f"{field}.{key}") for key, value in struct.fields.items()}


def _plain(value: Value, field: str) -> Json:
    match value.WhichOneof("kind"):
        case "null_value":
            return None
        case "number_value":
            number = value.number_value
            if not math.isfinite(number):
                raise InvalidArgument(_printable(field), f"{_printable(field)} is not a finite number")
            return int(number) if number.is_integer() and abs(number) <= _EXACT else number
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case "struct_value":
            return free_form(value.struct_value, field)
        case "list_value":
            return [_plain(item, f"{field}[{place}]") for place, item in enumerate(value.list_value.values)]
        case _:
            raise InvalidArgument(
                _printable(field),
                f"{_printable(field)} is not set: give null, a number, a text, a bool, a list or a map",
            )


def _printable(path: str) -> str:
    """Return a path into a caller's value in printable form. Its keys come from the caller."""
    return re.sub(r"[^\x20-\x7e]", "?", path)[:200]
