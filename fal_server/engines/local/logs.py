"""Log entries of the wire as the domain's."""

from __future__ import annotations

from datetime import UTC

from fal_grpc.v1 import log_pb2
from fal_server.core.logs import LogEntry, LogLevel, LogSource

_SOURCES = {
    log_pb2.LogEntry.SOURCE_BUILD: LogSource.BUILD,
    log_pb2.LogEntry.SOURCE_SYSTEM: LogSource.SYSTEM,
    log_pb2.LogEntry.SOURCE_STDOUT: LogSource.STDOUT,
    log_pb2.LogEntry.SOURCE_STDERR: LogSource.STDERR,
}
_LEVELS = {
    log_pb2.TRACE: LogLevel.TRACE,
    log_pb2.DEBUG: LogLevel.DEBUG,
    log_pb2.INFO: LogLevel.INFO,
    log_pb2.WARNING: LogLevel.WARNING,
    log_pb2.ERROR: LogLevel.ERROR,
}


def entry_from_wire(entry: log_pb2.LogEntry, *, runner_id: str, app_name: str, revision_id: str) -> LogEntry:
    """A shim's entry, with the names that every entry of its runner shares."""
    return LogEntry(
        runner_id=runner_id,
        sequence=entry.sequence,
        timestamp=entry.timestamp.ToDatetime(tzinfo=UTC),
        level=_LEVELS[entry.level],
        source=_SOURCES[entry.source],
        message=entry.message,
        app_name=app_name,
        revision_id=revision_id,
        request_id=entry.request_id or None,
    )
