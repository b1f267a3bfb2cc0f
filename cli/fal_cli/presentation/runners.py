"""Shows runners: as JSON with the keys of the published client, or for people."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from fal_cli.presentation.output import print_line, write_document, write_list, write_table
from fal_cli.presentation.style import paint, wants_colour
from fal_cli.presentation.table import Column

if TYPE_CHECKING:
    from fal.api import RunnerInfo
    from fal.gpus import GpuUsage

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

# For these states the reason is shown beside the table.
_PHASES = ("waiting", "environment", "setup", "first_byte")
_EXPLAINED = frozenset({"PENDING", "CRASH_BACKOFF", "DOCKER_PULL", "TERMINATED", "DEAD"})


def write_runners(form: str, runners: Sequence[RunnerInfo], *, alias: bool = True) -> None:
    """Write runners to standard output.

    Args:
        form: pretty, json, yaml or jsonl.
        runners: the runners.
        alias: whether the table names the app of each runner.
    """
    if form != "pretty":
        write_list(form, "runners", map(_document, runners))
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
            print_line(f"{runner.runner_id} is {runner.state.value}: {runner.state_reason}")
    if any(runner.replacement.value == "WILL_REPLACE" for runner in runners):
        sys.stdout.write("(*) another runner will replace it\n")
    requests = [row for runner in runners if runner.in_flight_requests for row in _requests(runner)]
    sys.stdout.write(f"Requests: {len(requests)}\n")
    if requests:
        write_table(_REQUEST_COLUMNS, requests)


def write_runner(form: str, runner: RunnerInfo) -> None:
    """Write one runner to standard output, with the history of its start."""
    phases = {name: getattr(runner.start_phases, name, None) for name in _PHASES}
    if form != "pretty":
        write_document(form, {**_document(runner), **_details(runner), "start_seconds": phases})
        return
    facts = [
        ("Runner", runner.runner_id),
        ("App", runner.alias),
        ("Revision", runner.revision),
        ("State", runner.state.value),
        ("Reason", runner.state_reason),
        ("Machine type", runner.machine_type),
        ("Node", runner.node),
        ("Requests in flight", str(runner.in_flight_requests)),
        ("Created", _local(runner.created_at)),
        ("Ready", _local(runner.ready_at)),
        ("Ended", _local(runner.ended_at)),
        ("Exit code", None if runner.exit_code is None else str(runner.exit_code)),
    ]
    for title, value in facts:
        if value:
            print_line(f"{title + ':':<20}{value}")
    took = ", ".join(f"{name.replace('_', ' ')} {value:.2f} s" for name, value in phases.items() if value is not None)
    print_line(f"{'Start took:':<20}{took or 'it has not started'}")
    if runner.state_changes:
        write_table(
            (Column(title="Time"), Column(title="State"), Column(title="Reason")),
            ((_local(change.at), change.state.value, change.reason) for change in runner.state_changes),
        )


def _details(runner: RunnerInfo) -> dict[str, object]:
    return {
        "reason": runner.state_reason,
        "node": runner.node,
        "exit_code": runner.exit_code,
        "created_at": _iso(runner.created_at),
        "ready_at": _iso(runner.ready_at),
        "ended_at": _iso(runner.ended_at),
        "state_changes": [
            {"at": _iso(change.at), "state": change.state.value, "reason": change.reason}
            for change in runner.state_changes
        ],
    }


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


def _local(at: datetime | None) -> str:
    return "" if at is None else f"{at.astimezone():%Y-%m-%d %H:%M:%S.%f}"[:-3]


def _document(runner: RunnerInfo) -> Mapping[str, object]:
    """Return a runner with the keys of the published client, and its `reason` if there is one."""
    reason = {"reason": runner.state_reason} if runner.state_reason else {}
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
        **reason,
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
    """Yield a row for each request in flight. The metadata has no fixed form: a missing or odd value is left empty."""
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


def write_gpus(form: str, used: GpuUsage) -> None:
    """Write how many GPUs are in use, by model."""
    if form != "pretty":
        write_document(form, {**used})
        return
    columns = (Column(title="Type"), Column(title="Count", right=True))
    write_table(columns, ([model, str(count)] for model, count in used["gpus"].items()))
    print_line(f"Total: {used['total']}")
