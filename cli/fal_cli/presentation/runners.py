"""Shows runners: as JSON with the keys of the published client, or as tables for people."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from fal_cli.presentation.output import say, write_list, write_table
from fal_cli.presentation.style import paint, wants_colour
from fal_cli.presentation.table import Column

if TYPE_CHECKING:
    from fal.api import RunnerInfo

_COLUMNS = (
    Column(title="Alias"),
    Column(title="Machine Type", folds=True),
    Column(title="Runner ID"),
    Column(title="In Flight Requests", folds=True),
    Column(title="Expires In", folds=True),
    Column(title="Uptime", folds=True),
    Column(title="Revision"),
    Column(title="State", folds=True),
)
_REQUEST_COLUMNS = (
    Column(title="Runner ID"),
    Column(title="Request ID"),
    Column(title="Caller ID"),
    Column(title="Time Running"),
)

# Why a runner is in one of these is told beside the table.
_EXPLAINED = frozenset({"PENDING", "CRASH_BACKOFF", "DOCKER_PULL", "TERMINATED", "DEAD"})


def write_runners(form: str, runners: Sequence[RunnerInfo], *, alias: bool = True) -> None:
    """Write runners to standard output.

    Args:
        form: pretty, json, yaml or jsonl.
        runners: the runners.
        alias: whether the table says which app each serves.
    """
    if form != "pretty":
        write_list(form, "runners", map(document, runners))
        return
    states = Counter(runner.state.value for runner in runners)
    ended = states["TERMINATED"] + states["DEAD"]
    lines = [
        f"Runners: {len(runners) - states['PENDING'] - states['SETUP'] - ended}",
        f"Runners Pending: {states['PENDING']}",
        f"Runners Setting Up: {states['SETUP']}",
    ]
    if states["CRASH_BACKOFF"]:
        delayed = f"Runners delayed after failed starts: {states['CRASH_BACKOFF']} (`fal runners logs ID` shows why)"
        lines.append(paint(delayed, "red", colour=wants_colour(sys.stdout)))
    sys.stdout.write("\n".join(lines) + "\n")
    write_table(_COLUMNS if alias else _COLUMNS[1:], ([*_row(runner)][0 if alias else 1 :] for runner in runners))
    for runner in runners:
        if runner.state.value in _EXPLAINED and runner.state_reason:
            say(f"{runner.runner_id} is {runner.state.value}: {runner.state_reason}")
    if any(runner.replacement.value == "WILL_REPLACE" for runner in runners):
        sys.stdout.write("(*) another runner is to take its place\n")
    requests = [row for runner in runners if runner.in_flight_requests for row in _requests(runner)]
    sys.stdout.write(f"Requests: {len(requests)}\n")
    if requests:
        write_table(_REQUEST_COLUMNS, requests)


def document(runner: RunnerInfo) -> Mapping[str, object]:
    """A runner with the keys of the published client; `reason`, which it lacks, where the controller tells one."""
    told = {"reason": runner.state_reason} if runner.state_reason else {}
    return {
        "alias": runner.alias,
        "machine_type": runner.machine_type,
        "runner_id": runner.runner_id,
        "in_flight_requests": runner.in_flight_requests,
        "expiration_countdown": runner.expiration_countdown,
        "uptime_seconds": int(runner.uptime.total_seconds()),
        "revision": runner.revision,
        "state": runner.state.value,
        "replacement": runner.replacement.value,
        **told,
    }


def _row(runner: RunnerInfo) -> tuple[str, ...]:
    countdown = runner.expiration_countdown
    seconds = int(runner.uptime.total_seconds())
    state = runner.state.value
    return (
        runner.alias,
        runner.machine_type,
        runner.runner_id,
        str(runner.in_flight_requests),
        "N/A" if countdown is None else f"{countdown}s",
        f"{timedelta(seconds=seconds)} ({seconds}s)",
        runner.revision,
        f"{state} (*)" if runner.replacement.value == "WILL_REPLACE" else state,
    )


def _requests(runner: RunnerInfo) -> Iterator[tuple[str, str, str, str]]:
    """Yield a row for each request in flight. The metadata is free in form: what is missing or odd is left empty."""
    leases = runner.external_metadata.get("leases")
    for lease in leases if isinstance(leases, list) else []:
        if not isinstance(lease, Mapping) or not lease.get("request_id"):
            continue
        try:
            seconds = int(time.time() - float(str(lease.get("leased_at_epoch"))))
            running = str(timedelta(seconds=max(0, seconds)))
        except (ValueError, OverflowError):
            running = ""
        yield runner.runner_id, str(lease["request_id"]), str(lease.get("caller_user_id") or ""), running
