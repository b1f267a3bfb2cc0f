"""Shows one runner: its state and why, how long each part of its start took, and what it went through."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from fal_cli.presentation.output import say, write_document, write_table
from fal_cli.presentation.runners import document
from fal_cli.presentation.table import Column

if TYPE_CHECKING:
    from fal.api import RunnerInfo

_PHASES = ("waiting", "environment", "setup", "first_byte")


def write_runner(form: str, runner: RunnerInfo) -> None:
    """Write a runner to standard output: as `pretty`, or one document in a form for programs."""
    phases = {name: getattr(runner.start_phases, name, None) for name in _PHASES}
    if form != "pretty":
        write_document(form, {**document(runner), **_more(runner), "start_seconds": phases})
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
            say(f"{title + ':':<20}{value}")
    took = ", ".join(f"{name.replace('_', ' ')} {value:.2f} s" for name, value in phases.items() if value is not None)
    say(f"{'Start took:':<20}{took or 'it has not begun'}")
    if runner.state_changes:
        write_table(
            (Column(title="Time"), Column(title="State"), Column(title="Reason")),
            ((_local(change.at), change.state.value, change.reason) for change in runner.state_changes),
        )


def _more(runner: RunnerInfo) -> dict[str, object]:
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


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _local(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment.astimezone():%Y-%m-%d %H:%M:%S.%f}"[:-3]
