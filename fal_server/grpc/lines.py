"""Log lines for the wire: the short form that builds, deploys and runs stream, and the stored form."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp

from fal_grpc.v1 import log_pb2 as pb
from fal_server.core.logs import LogEntry, LogLevel, LogSource
from fal_server.grpc.convert import timestamp

_LEVELS = {
    LogLevel.TRACE: pb.TRACE,
    LogLevel.DEBUG: pb.DEBUG,
    LogLevel.INFO: pb.INFO,
    LogLevel.WARNING: pb.WARNING,
    LogLevel.ERROR: pb.ERROR,
}
_SPEAKERS = {
    LogSource.BUILD: pb.BUILDER,
    LogSource.SYSTEM: pb.BRIDGE,
    LogSource.STDOUT: pb.USER,
    LogSource.STDERR: pb.USER,
}
SOURCES: dict[int, LogSource] = {
    pb.LogEntry.SOURCE_BUILD: LogSource.BUILD,
    pb.LogEntry.SOURCE_SYSTEM: LogSource.SYSTEM,
    pb.LogEntry.SOURCE_STDOUT: LogSource.STDOUT,
    pb.LogEntry.SOURCE_STDERR: LogSource.STDERR,
}
_SOURCE_NUMBERS = {
    LogSource.BUILD: pb.LogEntry.SOURCE_BUILD,
    LogSource.SYSTEM: pb.LogEntry.SOURCE_SYSTEM,
    LogSource.STDOUT: pb.LogEntry.SOURCE_STDOUT,
    LogSource.STDERR: pb.LogEntry.SOURCE_STDERR,
}


def short_line(entry: LogEntry) -> pb.Log:
    """A line as the caller of a build, deploy or run gets it."""
    return pb.Log(
        message=entry.message,
        source=_SPEAKERS[entry.source],
        level=_LEVELS[entry.level],
        timestamp=timestamp(entry.timestamp),
    )


def stored_lines(entries: Iterable[LogEntry]) -> list[pb.LogEntry]:
    """Lines as they are stored."""
    found: list[pb.LogEntry] = []
    moment: datetime | None = None
    stamp = Timestamp()
    for entry in entries:
        if entry.timestamp is not moment:  # lines that were read together have the same
            moment = entry.timestamp
            stamp = timestamp(moment)
        found.append(
            pb.LogEntry(
                runner_id=entry.runner_id,
                sequence=entry.sequence,
                timestamp=stamp,
                level=_LEVELS[entry.level],
                source=_SOURCE_NUMBERS[entry.source],
                message=entry.message,
                request_id=entry.request_id or "",
                app=entry.app_name,
                revision=entry.revision_id,
            )
        )
    return found
