"""The export of spans: what a receiver of OTLP gets. Lost spans are counted."""

from __future__ import annotations

import asyncio

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from fal_grpc.backoff import Backoff
from fal_server.core.accounts import Account, AccountKind, KnownAccounts
from fal_server.core.identity import LOCAL
from fal_server.core.outbound import OutboundCall, Receipt
from fal_server.http.outbound.span_format import CONTENT_TYPE, to_otlp
from fal_server.services.span_export import SpanExport
from tests.core.test_spans import PARENT, traced

SLOW = Backoff(first_seconds=7.0, longest_seconds=7.0, jitter=0.0)


class Receiver:
    """An OutboundClient that decodes what it takes; `answers` come first."""

    def __init__(self) -> None:
        self.calls: list[ExportTraceServiceRequest] = []
        self.answers: list[Receipt | Exception] = []

    async def post(self, call: OutboundCall) -> Receipt:
        answer = self.answers.pop(0) if self.answers else Receipt(status=200)
        if isinstance(answer, Exception):
            raise answer
        if answer.taken:
            assert dict(call.headers)["content-type"] == "application/x-protobuf"
            self.calls.append(ExportTraceServiceRequest.FromString(call.body))
        return answer

    async def why_forbidden(self, host: str, port: int) -> str:
        return ""


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


def export(receiver: Receiver, **options) -> SpanExport:
    known = KnownAccounts(
        [Account(id=LOCAL, nickname="me", kind=AccountKind.USER, user_id="local|local", full_name="")]
    )
    return SpanExport(
        "http://collector.test/v1/traces",
        receiver,
        lambda spans: (CONTENT_TYPE, to_otlp(spans, "1.2")),
        known,
        retries=SLOW,
        **options,
    )


async def test_the_receiver_decodes_what_was_sent(receiver: Receiver) -> None:
    spans = export(receiver)
    spans.add([traced(), traced(code=500, error_type="x\ud800")])
    assert await spans.step() == 0
    (resource,) = receiver.calls[0].resource_spans
    names = {each.key: each.value.string_value for each in resource.resource.attributes}
    assert names == {"service.name": "fal", "service.namespace": "me"}
    (scope,) = resource.scope_spans
    assert (scope.scope.name, scope.scope.version) == ("fal", "1.2")
    assert [span.name for span in scope.spans] == ["POST hello/items/{item}", "wait", "app"] * 2
    whole, wait, app = scope.spans[:3]
    assert whole.trace_id.hex() == PARENT.split("-")[1]
    assert whole.parent_span_id.hex() == PARENT.split("-")[2]
    assert wait.parent_span_id == app.parent_span_id == whole.span_id
    assert app.end_time_unix_nano - app.start_time_unix_nano == 3_000_000_000
    assert (whole.kind, wait.kind) == (whole.SPAN_KIND_SERVER, whole.SPAN_KIND_INTERNAL)
    assert scope.spans[3].status.code == scope.spans[3].status.STATUS_CODE_ERROR
    assert whole.status.code == whole.status.STATUS_CODE_UNSET
    assert (spans.sent_spans, spans.lost_spans) == (6, 0)
    assert await spans.step() is None


async def test_what_the_caller_does_not_record_is_not_exported(receiver: Receiver) -> None:
    spans = export(receiver)
    spans.add([traced(PARENT[:-2] + "00")])
    assert await spans.step() is None
    assert (spans.sent_spans, spans.lost_spans) == (0, 0)


@pytest.mark.parametrize("trouble", [OSError("away"), Receipt(status=503), Receipt(status=429)])
async def test_a_receiver_that_is_away_gets_them_later(receiver: Receiver, trouble: Receipt | Exception) -> None:
    spans = export(receiver)
    receiver.answers = [trouble]
    spans.add([traced()])
    assert await spans.step() == 7
    assert await spans.step() == 0
    assert (spans.sent_spans, spans.lost_spans) == (3, 0)


async def test_what_the_receiver_refuses_is_lost_and_counted(receiver: Receiver) -> None:
    spans = export(receiver)
    receiver.answers = [Receipt(status=400)]
    spans.add([traced()])
    assert await spans.step() == 7
    assert await spans.step() is None
    assert (spans.sent_spans, spans.lost_spans) == (0, 3)


async def test_the_oldest_are_lost_if_too_many_wait(receiver: Receiver) -> None:
    spans = export(receiver, most_waiting=2)
    spans.add([traced(), traced(), traced(code=201)])
    assert spans.lost_spans == 3
    await spans.step()
    assert spans.sent_spans == 6


async def test_what_waits_at_the_end_is_sent(receiver: Receiver) -> None:
    spans, stopping = export(receiver), asyncio.Event()
    spans.add([traced()])
    stopping.set()
    await spans.run(stopping)
    assert spans.sent_spans == 3
