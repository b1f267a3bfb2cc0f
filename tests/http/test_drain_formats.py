"""The formats of log drains, parsed by receivers' own parsers."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from fal_server.core.drains import DrainFormat
from fal_server.core.identity import LOCAL
from fal_server.core.logs import LogEntry, LogLevel, LogSource
from fal_server.http.outbound.drain_formats import nanoseconds, written
from tests.store import strategies as some

AT = datetime(2026, 2, 17, 10, 30, 0, 123456, tzinfo=UTC)
LINE = LogEntry(
    runner_id="r",
    sequence=7,
    timestamp=AT,
    level=LogLevel.WARNING,
    source=LogSource.STDERR,
    message='say "é"\nagain',
    account=LOCAL,
    app_name="hello",
    revision_id="v1",
    request_id="req",
)


def test_ndjson_has_the_published_names():
    content_type, body = written(DrainFormat.NDJSON, "me", [LINE, replace(LINE, request_id=None)])
    assert content_type == "application/x-ndjson"
    first, second = [json.loads(line) for line in body.decode().splitlines()]
    assert first == {
        "timestamp": "2026-02-17T10:30:00.123456Z",
        "message": 'say "é"\nagain',
        "level": "warning",
        "fal_app_name": "hello",
        "fal_app_id": "v1",
        "fal_job_id": "r",
        "fal_source": "stderr",
        "fal_request_id": "req",
    }
    assert "fal_request_id" not in second


def test_loki_has_a_stream_for_each_app_level_and_source():
    lines = [LINE, replace(LINE, sequence=8), replace(LINE, level=LogLevel.INFO, request_id=None)]
    content_type, body = written(DrainFormat.LOKI, "me", lines)
    assert content_type == "application/json"
    first, second = json.loads(body)["streams"]
    assert first["stream"] == {"account": "me", "app": "hello", "level": "warning", "source": "stderr"}
    metadata = {"runner_id": "r", "revision_id": "v1", "sequence": "7", "request_id": "req"}
    assert first["values"][0] == [str(nanoseconds(AT)), LINE.message, metadata]
    assert len(first["values"]) == 2
    assert second["stream"]["level"] == "info"


def test_otlp_is_read_by_its_messages():
    content_type, body = written(DrainFormat.OTLP, "me", [LINE, replace(LINE, runner_id="r2", level=LogLevel.TRACE)])
    assert content_type == "application/x-protobuf"
    first, second = ExportLogsServiceRequest.FromString(body).resource_logs
    attributes = {each.key: each.value.string_value for each in first.resource.attributes}
    assert attributes == {
        "service.name": "hello",
        "service.namespace": "me",
        "service.instance.id": "r",
        "service.version": "v1",
    }
    (record,) = first.scope_logs[0].log_records
    assert record.time_unix_nano == 1771324200123456000
    assert (record.severity_number, record.severity_text) == (13, "WARNING")
    assert record.body.string_value == LINE.message
    assert {each.key: each.value.string_value for each in record.attributes}["fal.request_id"] == "req"
    assert second.scope_logs[0].log_records[0].severity_number == 1


@pytest.mark.parametrize("form", DrainFormat)
def test_a_lone_surrogate_can_be_sent(form):
    written(form, "me", [replace(LINE, message="\udc80")])


@given(some.log_entries)
def test_no_line_is_lost_in_a_form(entry):
    assert json.loads(written(DrainFormat.NDJSON, "me", [entry])[1])["message"] == entry.message
    [stream] = json.loads(written(DrainFormat.LOKI, "me", [entry])[1])["streams"]
    assert stream["values"][0][1] == entry.message
    [resource] = ExportLogsServiceRequest.FromString(written(DrainFormat.OTLP, "me", [entry])[1]).resource_logs
    assert resource.scope_logs[0].log_records[0].time_unix_nano == max(nanoseconds(entry.timestamp), 0)
