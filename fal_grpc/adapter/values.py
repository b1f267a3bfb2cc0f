"""Conversions that several messages share: times, JSON-like structures, checked numbers and text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, TypeAlias

from fal_grpc.errors import ArgumentError

if TYPE_CHECKING:
    from google.protobuf.struct_pb2 import Struct, Value
    from google.protobuf.timestamp_pb2 import Timestamp

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_timestamp(time: object, *, argument: str) -> Timestamp:
    """Convert a time to a message.

    Args:
        time: aware, or naive, which means this machine's local time.
        argument: the name to use in an error.

    Raises:
        ArgumentError: it is not a datetime, or before the year 1970.
    """
    from google.protobuf.timestamp_pb2 import Timestamp

    time = timestamp(argument, time)
    # Check this first, because years 1 and 9999 cannot be converted to another zone.
    if time.year < 1969 or (since_epoch := time.astimezone(UTC) - _EPOCH) < timedelta(0):
        raise ArgumentError(argument, f"must not be before 1970: {time.isoformat()}")
    seconds = since_epoch // timedelta(seconds=1)
    return Timestamp(seconds=seconds, nanos=since_epoch.microseconds * 1000)


def timestamp(argument: str, value: object) -> datetime:
    """Check and return a time.

    Raises:
        ArgumentError: it is not a datetime.
    """
    if not isinstance(value, datetime):
        raise ArgumentError(argument, f"must be a datetime, not {type(value).__name__}")
    return value


def duration(argument: str, value: object, *, at_most: timedelta) -> timedelta:
    """Check and return a non-negative duration.

    Raises:
        ArgumentError: it is not a timedelta, negative, or too long.
    """
    if not isinstance(value, timedelta) or not timedelta() <= value <= at_most:
        raise ArgumentError(argument, f"must be a duration (a timedelta) of 0 to {at_most.days} days")
    return value


def to_datetime(message: Timestamp) -> datetime:
    """Convert a message to an aware datetime in UTC. A value out of range becomes the first or last datetime."""
    try:
        return _EPOCH + timedelta(0, message.seconds, message.nanos // 1000)
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC) if message.seconds > 0 else datetime.min.replace(tzinfo=UTC)


def text(argument: str, value: object, problem: str = "must be text that is not empty", *, empty: bool = False) -> str:
    """Check and return text that the wire can carry.

    Args:
        argument: the name to use in an error.
        value: the text.
        problem: the error for a value that is empty or not text.
        empty: whether it may be empty.

    Raises:
        ArgumentError: it is not such text.
    """
    if not isinstance(value, str) or not (value or empty):
        raise ArgumentError(argument, problem)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ArgumentError(argument, "has characters that UTF-8 does not have (lone surrogates)") from None
    return value


def optional_text(argument: str, value: object) -> str | None:
    """Check and return text that the wire can carry. It may be empty; None stays None.

    Raises:
        ArgumentError: it is not text.
    """
    if value is None:
        return None
    problem = f"must be text, not {type(value).__name__}"
    return text(argument, value, problem, empty=True)


def texts(argument: str, value: object, *, empty: bool = False) -> list[str]:
    """Check and return a list of texts.

    Args:
        argument: the name to use in an error.
        value: the list.
        empty: whether a text may be empty.

    Raises:
        ArgumentError: it is not such a list, for example a single text.
    """
    if isinstance(value, str):
        raise ArgumentError(argument, f"must be a list, such as [{value!r}]")
    if not isinstance(value, Iterable) or isinstance(value, bytes | bytearray | Mapping):
        raise ArgumentError(argument, f"must be a list of texts, not {type(value).__name__}")
    problem = "must be a list of texts" if empty else "must be a list of texts that are not empty"
    return [text(argument, item, problem, empty=empty) for item in value]


def mapping(argument: str, value: object) -> Mapping[str, object]:
    """Check and return a mapping whose keys are non-empty text.

    Raises:
        ArgumentError: it is not such a mapping.
    """
    if not isinstance(value, Mapping):
        raise ArgumentError(argument, f"must be a mapping, not {type(value).__name__}")
    return {text(argument, key, "must have names that are text and not empty"): item for key, item in value.items()}


def no_notice(_message: str) -> None:
    """Ignore a notice."""


def check_on_notice(on_notice: object) -> None:
    """Check the argument `on_notice`.

    Raises:
        ArgumentError: it cannot be called.
    """
    if not callable(on_notice):
        raise ArgumentError("on_notice", f"must be a function that takes a message, not {type(on_notice).__name__}")


def environment(value: object) -> str | None:
    """Check and return an environment's name; None stays None.

    Raises:
        ArgumentError: it is not text.
    """
    return optional_text("environment_name", value)


def flag(argument: str, value: object) -> bool:
    """Check and return a bool.

    Raises:
        ArgumentError: it is not one.
    """
    if not isinstance(value, bool):
        raise ArgumentError(argument, f"must be True or False, not {value!r}")
    return value


def seconds(argument: str, value: object) -> float | None:
    """Check and return a number of seconds above 0; None stays None.

    Raises:
        ArgumentError: it is not such a number.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ArgumentError(argument, f"must be a number of seconds, not {value!r}")
    if not 0 < value < math.inf:
        raise ArgumentError(argument, f"is {value:g}: give more than 0 seconds")
    return value


def count(argument: str, value: object) -> int | None:
    """Check and return a whole number for the wire; None stays None.

    Raises:
        ArgumentError: it is negative, too large, or not a whole number.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise ArgumentError(argument, f"must be a whole number, not {value!r}")
    if not 0 <= value < 2**31:
        raise ArgumentError(argument, f"must be from 0 to {2**31 - 1}, not {value}")
    return value


def number(argument: str, value: object) -> float:
    """Check and return a finite, non-negative number.

    Raises:
        ArgumentError: it is not such a number.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ArgumentError(argument, f"must be a number from 0 up, not {value!r}")
    return value


def to_struct(mapping: Mapping[str, object] | Mapping[object, object], *, argument: str) -> Struct:
    """Convert a JSON-like mapping to a message.

    Raises:
        ArgumentError: a value in it is neither None, bool, number, text, list nor mapping with text keys.
    """
    from google.protobuf.struct_pb2 import Struct

    message = Struct()
    for key, item in mapping.items():
        if not isinstance(key, str):
            raise ArgumentError(argument, f"keys must be text, not {type(key).__name__}")
        _fill(message.fields[key], item, f"{argument}.{key}")
    return message


def _fill(target: Value, item: object, where: str) -> None:
    from google.protobuf.struct_pb2 import NULL_VALUE

    if item is None:
        target.null_value = NULL_VALUE
    elif isinstance(item, bool):
        target.bool_value = item
    elif isinstance(item, int | float):
        number = float(item)
        if not math.isfinite(number):
            raise ArgumentError(where, f"must be a finite number, not {item}")
        target.number_value = number
    elif isinstance(item, str):
        target.string_value = item
    elif isinstance(item, Mapping):
        target.struct_value.CopyFrom(to_struct(item, argument=where))
    elif isinstance(item, Sequence) and not isinstance(item, bytes | bytearray):
        target.list_value.SetInParent()
        for index, element in enumerate(item):
            _fill(target.list_value.values.add(), element, f"{where}[{index}]")
    else:
        raise ArgumentError(where, f"must be JSON-like, not {type(item).__name__}")


def from_struct(message: Struct) -> dict[str, JSON]:
    """Convert a structure to plain Python. Whole numbers, which are floats on the wire, become ints."""
    fields = message.fields
    return {key: _plain(fields[key]) for key in fields}  # items() is a generator in Python


def _plain(value: Value) -> JSON:
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        return value.string_value
    if kind == "number_value":
        number = value.number_value
        return int(number) if number.is_integer() else number
    if kind == "bool_value":
        return value.bool_value
    if kind == "struct_value":
        return from_struct(value.struct_value)
    if kind == "list_value":
        return [_plain(element) for element in value.list_value.values]
    return None
