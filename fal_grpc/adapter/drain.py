"""Log drains: receivers that get log lines as they are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from fal_grpc.adapter.log import LEVELS, LogLevel
from fal_grpc.adapter.values import mapping, text, texts, to_datetime
from fal_grpc.errors import ArgumentError

if TYPE_CHECKING:
    from fal_grpc.v1 import drain_pb2

FORMATS = ("ndjson", "otlp", "loki")
"""How lines can be written; on the wire by their place, from 1 on."""
_LEVEL_NUMBERS = {level.value: number for number, level in LEVELS.items() if number <= max(LEVELS) - 2}
_NAME = "must be the name of a drain, such as loki"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogDrain:
    """A receiver of log lines, without its secrets.

    Attributes:
        url: where the lines go, without its query, which may hold a credential.
        format: "ndjson", "otlp" or "loki".
        apps: only lines of these apps; empty means all.
        least_level: only lines of this level and above.
        header_names: the headers that each delivery has.
        signed: whether deliveries are signed.
        sent_lines: how many lines the receiver took.
        lost_lines: how many were deleted before they were sent.
        unsent_lines: how many wait.
        oldest_unsent_at: when the oldest of them was written; None if none waits.
        last_sent_at: when the receiver last took lines; None if it never did.
        last_error: why the last delivery failed; None if it did not.
        warnings: of a drain that was just created, what will keep lines from arriving.
    """

    name: str
    url: str
    format: str
    apps: tuple[str, ...]
    least_level: LogLevel
    header_names: tuple[str, ...]
    signed: bool
    paused: bool
    created_at: datetime
    sent_lines: int
    lost_lines: int
    unsent_lines: int
    oldest_unsent_at: datetime | None
    last_sent_at: datetime | None
    last_error: str | None
    last_error_at: datetime | None
    warnings: tuple[str, ...] = ()


def drain(message: drain_pb2.Drain, warnings: Sequence[str] = ()) -> LogDrain:
    return LogDrain(
        name=message.name,
        url=message.url,
        format=FORMATS[message.format - 1] if 1 <= message.format <= len(FORMATS) else "unknown",
        apps=tuple(message.apps),
        least_level=LEVELS.get(message.least_level, LogLevel.UNKNOWN),
        header_names=tuple(message.header_names),
        signed=message.signed,
        paused=message.paused,
        created_at=to_datetime(message.created_at),
        sent_lines=message.sent_lines,
        lost_lines=message.lost_lines,
        unsent_lines=message.unsent_lines,
        oldest_unsent_at=to_datetime(message.oldest_unsent_at) if message.HasField("oldest_unsent_at") else None,
        last_sent_at=to_datetime(message.last_sent_at) if message.HasField("last_sent_at") else None,
        last_error=message.last_error if message.HasField("last_error") else None,
        last_error_at=to_datetime(message.last_error_at) if message.HasField("last_error_at") else None,
        warnings=tuple(warnings),
    )


def create_request(
    name: str,
    url: str,
    *,
    form: str,
    apps: Sequence[str],
    least_level: str | None,
    headers: Mapping[str, str] | None,
    signing_key: str | None,
) -> drain_pb2.CreateDrainRequest:
    """Return a request to create a drain.

    Raises:
        ArgumentError: an argument is of a wrong type, or no known format or level.
    """
    from fal_grpc.v1 import drain_pb2, log_pb2

    if form not in FORMATS:
        raise ArgumentError("form", f"must be one of {', '.join(FORMATS)}, not {form!r}")
    level = None if least_level is None else _LEVEL_NUMBERS.get(text("least_level", least_level).upper())
    if least_level is not None and level is None:
        raise ArgumentError("least_level", f"must be one of {', '.join(_LEVEL_NUMBERS)}, not {least_level!r}")
    values = {
        key: text("headers", value, empty=True)
        for key, value in mapping("headers", {} if headers is None else headers).items()
    }
    return drain_pb2.CreateDrainRequest(
        name=text("name", name, _NAME),
        url=text("url", url, "must be an http or https URL"),
        format=drain_pb2.DrainFormat.ValueType(FORMATS.index(form) + 1),
        apps=texts("apps", apps),
        least_level=None if level is None else log_pb2.LogLevel.ValueType(level),
        headers=values,
        signing_key=None if signing_key is None else text("signing_key", signing_key),
    )


def list_request() -> drain_pb2.ListDrainsRequest:
    from fal_grpc.v1 import drain_pb2

    return drain_pb2.ListDrainsRequest()


def get_request(name: str) -> drain_pb2.GetDrainRequest:
    from fal_grpc.v1 import drain_pb2

    return drain_pb2.GetDrainRequest(name=text("name", name, _NAME))


def delete_request(name: str) -> drain_pb2.DeleteDrainRequest:
    from fal_grpc.v1 import drain_pb2

    return drain_pb2.DeleteDrainRequest(name=text("name", name, _NAME))


def pause_request(name: str) -> drain_pb2.PauseDrainRequest:
    from fal_grpc.v1 import drain_pb2

    return drain_pb2.PauseDrainRequest(name=text("name", name, _NAME))


def resume_request(name: str) -> drain_pb2.ResumeDrainRequest:
    from fal_grpc.v1 import drain_pb2

    return drain_pb2.ResumeDrainRequest(name=text("name", name, _NAME))
