"""The header fields of traces. The W3C recommendation has the examples and rules."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fal_server.core.tracing import is_traceparent, new_traceparent

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize(
    "value",
    [f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-00", f"01-{TRACE}-{SPAN}-09", f"cc-{TRACE}-{SPAN}-01-what-may-come"],
)
def test_a_trace_is_named(value: str) -> None:
    assert is_traceparent(value)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "x",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE[1:]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-01\n",
    ],
)
def test_no_trace_is_named(value: str) -> None:
    assert not is_traceparent(value)


@given(st.uuids(version=4))
def test_a_new_trace_is_named_after_its_request(request_id: uuid.UUID) -> None:
    made = new_traceparent(str(request_id))
    assert made.split("-")[1] == request_id.hex
    assert is_traceparent(made)
