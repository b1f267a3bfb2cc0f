"""Spans as OTLP over HTTP takes them, as protobuf."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fal_server.core.spans import Span
from fal_server.http.outbound.drain_formats import nanoseconds

CONTENT_TYPE = "application/x-protobuf"


def to_otlp(spans: Mapping[str, Sequence[Span]], version: str) -> bytes:
    """Return the body of a call of OTLP over HTTP.

    Args:
        spans: by the nickname of the account whose requests they are of.
        version: of the controller.
    """
    # Loading the messages takes a tenth of a second: only who exports traces pays for it.
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
    from opentelemetry.proto.resource.v1.resource_pb2 import Resource
    from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Status
    from opentelemetry.proto.trace.v1.trace_pb2 import Span as Message

    def attributes(values: Mapping[str, str | int]) -> list[KeyValue]:
        return [
            KeyValue(
                key=key,
                value=AnyValue(int_value=value)
                if isinstance(value, int)
                else AnyValue(string_value=value.encode("utf-8", "replace").decode()),
            )
            for key, value in values.items()
        ]

    def message(span: Span) -> Message:
        return Message(
            trace_id=bytes.fromhex(span.trace_id),
            span_id=bytes.fromhex(span.span_id),
            parent_span_id=bytes.fromhex(span.parent_id),
            name=span.name.encode("utf-8", "replace").decode(),
            kind=Message.SPAN_KIND_SERVER if span.serves else Message.SPAN_KIND_INTERNAL,
            start_time_unix_nano=max(nanoseconds(span.began_at), 0),
            end_time_unix_nano=max(nanoseconds(span.ended_at), 0),
            status=Status(code=Status.STATUS_CODE_ERROR) if span.failed else None,
            attributes=attributes(span.attributes),
        )

    scope = InstrumentationScope(name="fal", version=version)
    return ExportTraceServiceRequest(
        resource_spans=[
            ResourceSpans(
                resource=Resource(attributes=attributes({"service.name": "fal", "service.namespace": account})),
                scope_spans=[ScopeSpans(scope=scope, spans=[message(span) for span in found])],
            )
            for account, found in spans.items()
        ]
    ).SerializeToString()
