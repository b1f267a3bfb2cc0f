"""Requests that have ended, for tests."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from fal_server.core.identity import LOCAL
from fal_server.core.requests import RequestRecord

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def record(request_id: str = "r", *, ended: float = 0.0, took: float = 1.0, **changes: object) -> RequestRecord:
    """Return a request that ended this many seconds after noon."""
    ended_at = NOON + timedelta(seconds=ended)
    made = RequestRecord(
        account=LOCAL,
        request_id=request_id,
        app_name="a",
        revision_id="rev",
        runner_id="runner",
        endpoint="/",
        method="POST",
        key_id="k",
        queued=False,
        received_at=ended_at - timedelta(seconds=took),
        started_at=ended_at - timedelta(seconds=took / 2),
        ended_at=ended_at,
        code=200,
        error_type=None,
        bytes_in=1,
        bytes_out=2,
        attempt=1,
        cold_start=False,
    )
    return replace(made, **changes)
