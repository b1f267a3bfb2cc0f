"""Log lines as the receivers of log drains read them: NDJSON with fal's names, OTLP, and Loki's push API."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime

from fal_server.core.drains import DrainFormat
from fal_server.core.logs import LogEntry, LogLevel

_LEVELS = {level: level.value.lower() for level in LogLevel}
# Of OTLP's data model of logs: the lowest number of each range.
_SEVERITIES = {LogLevel.TRACE: 1, LogLevel.DEBUG: 5, LogLevel.INFO: 9, LogLevel.WARNING: 13, LogLevel.ERROR: 17}


def written(form: DrainFormat, account: str, entries: Sequence[LogEntry]) -> tuple[str, bytes]:
    """Return the content type and the body of a delivery.

    Args:
        account: the nickname of the account that has written the lines.
    """
    match form:
        case DrainFormat.NDJSON:
            return "application/x-ndjson", to_ndjson(entries)
        case DrainFormat.LOKI:
            return "application/json", to_loki(account, entries)
        case DrainFormat.OTLP:
            return "application/x-protobuf", to_otlp(account, entries)


def to_ndjson(entries: Sequence[LogEntry]) -> bytes:
    """Return an object a line, with the names that fal publishes. What is not known is left out."""
    return "".join(f"{json.dumps(_object(entry), separators=(',', ':'))}\n" for entry in entries).encode()


def to_loki(account: str, entries: Sequence[LogEntry]) -> bytes:
    """Return the body of a call of Loki's push API. It has a stream for each app, level and source."""
    streams: dict[tuple[str, LogLevel, str], list[list[object]]] = {}
    for entry in entries:
        values = streams.setdefault((entry.app_name, entry.level, entry.source.value), [])
        values.append([str(nanoseconds(entry.timestamp)), entry.message, _metadata(entry)])
    document = {
        "streams": [
            {
                "stream": {"account": account, "app": app, "level": _LEVELS[level], "source": source},
                "values": values,
            }
            for (app, level, source), values in streams.items()
        ]
    }
    return json.dumps(document, separators=(",", ":")).encode()


def to_otlp(account: str, entries: Sequence[LogEntry]) -> bytes:
    """Return the body of an OTLP call over HTTP. It has a resource for each runner, in the order of its lines."""
    # Loading the messages takes a tenth of a second: only whoever has such a drain pays for it.
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
    from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs, SeverityNumber
    from opentelemetry.proto.resource.v1.resource_pb2 import Resource

    def attributes(values: dict[str, str]) -> list[KeyValue]:
        return [KeyValue(key=key, value=AnyValue(string_value=value)) for key, value in values.items()]

    runners: dict[tuple[str, str, str], list[LogRecord]] = {}
    for entry in entries:
        own = {"fal.source": entry.source.value, "log.record.sequence": str(entry.sequence)}
        if entry.request_id is not None:
            own["fal.request_id"] = entry.request_id
        at = max(nanoseconds(entry.timestamp), 0)  # OTLP has no time before 1970
        runners.setdefault((entry.app_name, entry.runner_id, entry.revision_id), []).append(
            LogRecord(
                time_unix_nano=at,
                observed_time_unix_nano=at,
                severity_number=SeverityNumber.ValueType(_SEVERITIES[entry.level]),
                severity_text=entry.level.value,
                body=AnyValue(string_value=entry.message.encode("utf-8", "replace").decode()),
                attributes=attributes(own),
            )
        )
    resources = [
        ResourceLogs(
            resource=Resource(
                attributes=attributes(
                    {
                        "service.name": app,
                        "service.namespace": account,
                        "service.instance.id": runner_id,
                        "service.version": revision_id,
                    }
                )
            ),
            scope_logs=[ScopeLogs(scope=InstrumentationScope(name="fal"), log_records=records)],
        )
        for (app, runner_id, revision_id), records in runners.items()
    ]
    return ExportLogsServiceRequest(resource_logs=resources).SerializeToString()


def nanoseconds(at: datetime) -> int:
    """Return a time as nanoseconds since 1970, exactly to the microsecond."""
    return int(at.replace(microsecond=0).timestamp()) * 1_000_000_000 + at.microsecond * 1000


def _object(entry: LogEntry) -> dict[str, str]:
    found = {
        "timestamp": entry.timestamp.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "message": entry.message,
        "level": _LEVELS[entry.level],
        "fal_app_name": entry.app_name,
        "fal_app_id": entry.revision_id,
        "fal_job_id": entry.runner_id,
        "fal_source": entry.source.value,
    }
    return found if entry.request_id is None else {**found, "fal_request_id": entry.request_id}


def _metadata(entry: LogEntry) -> dict[str, str]:
    found = {"runner_id": entry.runner_id, "revision_id": entry.revision_id, "sequence": str(entry.sequence)}
    return found if entry.request_id is None else {**found, "request_id": entry.request_id}
