"""Conversions that several nouns share: moments, enums, free-form values; what is malformed names its field."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

from fal_server.core.faults import InvalidArgument
from fal_server.core.revisions import Json

E = TypeVar("E")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_SECOND = int((datetime(1, 1, 1, tzinfo=UTC) - _EPOCH).total_seconds())
_LAST_SECOND = int((datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC) - _EPOCH).total_seconds())
_EXACT = 2**53  # up to here every integer is a double


def moment(stamp: Timestamp, field: str) -> datetime:
    """An aware time, to the microsecond.

    Raises:
        Invalid: outside the years 1 to 9999, or with nanoseconds outside a second.
    """
    if not _FIRST_SECOND <= stamp.seconds <= _LAST_SECOND or not 0 <= stamp.nanos < 1_000_000_000:
        raise InvalidArgument(
            field, f"{field} is no moment: seconds must lie in the years 1 to 9999, nanos in 0 to 999999999"
        )
    return _EPOCH + timedelta(seconds=stamp.seconds, microseconds=stamp.nanos // 1000)


def optional_moment(message: Message, field: str) -> datetime | None:
    """A message's field as an aware time; None where it is not set.

    Raises:
        Invalid: it is no moment.
    """
    return moment(getattr(message, field), field) if message.HasField(field) else None


def timestamp(at: datetime) -> Timestamp:
    """A time for the wire."""
    stamp = Timestamp()
    stamp.FromDatetime(at)
    return stamp


def named(number: int, names: Mapping[int, E], field: str) -> E:
    """What an enum's number stands for.

    Raises:
        Invalid: the number is unknown.
    """
    found = names.get(number)
    if found is None:
        known = ", ".join(f"{key} ({value})" for key, value in sorted(names.items()))
        raise InvalidArgument(field, f"{field} is {number}, which is no value of it: use one of {known}")
    return found


def free_form(struct: Struct, field: str) -> dict[str, Json]:
    """A Struct as plain values. Its numbers are doubles on the wire; those that are whole become integers again.

    Raises:
        Invalid: a number is infinite or none at all, or a value is not set.
    """
    return {key: _plain(value, f"{field}.{key}") for key, value in struct.fields.items()}


def _plain(value: Value, field: str) -> Json:
    match value.WhichOneof("kind"):
        case "null_value":
            return None
        case "number_value":
            number = value.number_value
            if not math.isfinite(number):
                raise InvalidArgument(_path(field), f"{_path(field)} is not a finite number")
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
                _path(field), f"{_path(field)} is not set: give null, a number, a text, a bool, a list or a map"
            )


def _path(field: str) -> str:
    """A path into a caller's value, fit to be shown: its keys are the caller's words."""
    return re.sub(r"[^\x20-\x7e]", "?", field)[:200]
