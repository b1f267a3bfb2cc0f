"""The spans of a request, and the trace that they belong to."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from fal_server.core.identity import LOCAL
from fal_server.core.requests import RequestRecord
from fal_server.core.spans import TracedRequest, spans_of
from fal_server.core.tracing import continued, is_traceparent, trace_of

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
ID = "6f576f02-1111-4222-8333-0000000000aa"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def record(**changes) -> RequestRecord:
    usual = RequestRecord(
        account=LOCAL,
        request_id=ID,
        app_name="hello",
        revision_id="rev",
        runner_id="r",
        endpoint="/items/{item}",
        method="POST",
        key_id=None,
        queued=False,
        received_at=NOON,
        started_at=NOON + timedelta(seconds=2),
        ended_at=NOON + timedelta(seconds=5),
        code=200,
        error_type=None,
        bytes_in=1,
        bytes_out=1,
        attempt=1,
        cold_start=False,
    )
    return replace(usual, **changes)


def traced(traceparent: str = PARENT, **changes) -> TracedRequest:
    return TracedRequest(record=record(**changes), trace=trace_of(ID, traceparent))


@given(st.uuids(version=4), st.booleans(), st.booleans())
def test_what_the_app_gets_is_valid_and_names_our_span(number: uuid.UUID, given_one: bool, sampled: bool) -> None:
    parent = (PARENT[:-2] + ("01" if sampled else "00")) if given_one else ""
    passed = continued(str(number), parent)
    assert is_traceparent(passed)
    trace = trace_of(str(number), parent)
    assert passed.split("-")[1:] == [trace.trace_id, trace.app_span, f"{int(trace.sampled):02x}"]
    assert trace.sampled is (sampled if given_one else True)
    assert trace.trace_id == (PARENT.split("-")[1] if given_one else number.hex)
    assert trace.app_span != trace.request_span


def test_a_later_version_is_read_as_ours() -> None:
    trace = trace_of(ID, "01" + PARENT[2:] + "-more")
    assert (trace.trace_id, trace.parent_id, trace.sampled) == (
        "0af7651916cd43dd8448eb211c80319c",
        "b7ad6b7169203331",
        True,
    )


def test_a_direct_call() -> None:
    whole, wait, app = spans_of(traced())
    assert (whole.name, whole.parent_id, whole.serves, whole.failed) == (
        "POST hello/items/{item}",
        "b7ad6b7169203331",
        True,
        False,
    )
    assert [(span.name, span.parent_id) for span in (wait, app)] == [("wait", whole.span_id), ("app", whole.span_id)]
    assert (wait.began_at, wait.ended_at) == (NOON, NOON + timedelta(seconds=2))
    assert (app.began_at, app.ended_at) == (wait.ended_at, NOON + timedelta(seconds=5))
    assert len({span.span_id for span in (whole, wait, app)}) == 3
    assert {span.trace_id for span in (whole, wait, app)} == {"0af7651916cd43dd8448eb211c80319c"}
    assert whole.attributes["http.response.status_code"] == 200


def test_a_queued_request_that_waited_for_a_start() -> None:
    began = replace(
        traced("", queued=True, cold_start=True, code=503, error_type="x"),
        runner_began_at=NOON - timedelta(seconds=1),
        runner_ready_at=NOON + timedelta(seconds=1),
    )
    whole, queue, start, app = spans_of(began)
    assert (whole.parent_id, whole.trace_id) == ("", ID.replace("-", ""))
    assert [span.name for span in (queue, start, app)] == ["queue", "start", "app"]
    assert (start.began_at, start.ended_at) == (NOON, NOON + timedelta(seconds=1))
    assert whole.failed
    assert app.failed
    assert not queue.failed
    assert whole.attributes["error.type"] == "x"


def test_a_request_that_no_runner_got() -> None:
    whole, wait = spans_of(traced(started_at=None, runner_id=None, code=None))
    assert wait.ended_at == whole.ended_at
    assert whole.failed
    assert "http.response.status_code" not in whole.attributes
