"""Shows runners. They are JSON with the keys of the published client, or a form for people."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from fal_cli.presentation.listing import Field, Listing, write_items
from fal_cli.presentation.output import (
    print_facts,
    print_line,
    print_reasons,
    shown_bytes,
    shown_clock,
    shown_cores,
    shown_time,
    write_document,
    write_table,
)
from fal_cli.presentation.style import paint, wants_color
from fal_cli.presentation.table import Column

if TYPE_CHECKING:
    from fal.api import RunnerInfo, RunnerUsage
    from fal.gpus import GpuUsage

# The table has a note with the reason for these states.
_EXPLAINED = frozenset({"PENDING", "CRASH_BACKOFF", "DOCKER_PULL", "TERMINATED", "DEAD"})
ENDED_STATES = ("TERMINATED", "DEAD")
_PHASES = ("waiting", "environment", "setup", "first_byte")
_REQUEST_COLUMNS = (
    Column(title="Runner ID", shortens=True),
    Column(title="Request ID"),
    Column(title="Caller ID"),
    Column(title="Time Running"),
)


def write_runners(args: argparse.Namespace, runners: Sequence[RunnerInfo], *, alias: bool = True) -> None:
    """Write runners to standard output.

    Args:
        args: the parsed command line.
        runners: the runners.
        alias: whether the table names the app of each runner.
    """
    hidden = frozenset() if alias else frozenset({"Alias"})
    if args.output not in {"pretty", "wide"} or args.columns:
        write_items(args, RUNNERS, runners, hidden=hidden)
        return
    _write_counts(Counter(runner.state.value for runner in runners))
    if runners or not sys.stdout.isatty():
        write_items(args, RUNNERS, runners, hidden=hidden)
    print_reasons(
        f"{runner.runner_id} is {runner.state.value}: {runner.state_reason}"
        for runner in runners
        if runner.state.value in _EXPLAINED and runner.state_reason
    )
    if any(runner.replacement.value == "WILL_REPLACE" for runner in runners):
        print_line("(*) another runner will replace it")
    if any(runner.unreachable for runner in runners):
        print_line("(?) its machine does not answer, so it gets no requests; `fal node list` says since when")
    requests = [row for runner in runners if runner.in_flight_requests for row in _requests(runner)]
    if sys.stdout.isatty() and requests:
        sys.stdout.write("\n")
    if requests or not sys.stdout.isatty():
        print_line(f"Requests: {len(requests)}")
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
        ("Node", f"{runner.node} (does not answer)" if runner.unreachable else runner.node),
        ("Region", runner.region),
        ("GPUs", _own_gpus(runner)),
        ("Requests in flight", str(runner.in_flight_requests)),
        ("CPU", _shown("cpu_cores")(runner)),
        ("Memory", _shown("memory_bytes")(runner)),
        ("GPU", _shown("gpu_cores")(runner)),
        ("GPU memory", _shown("gpu_memory_bytes")(runner)),
        ("Created", shown_time(runner.created_at)),
        ("Ready", shown_time(runner.ready_at)),
        ("Ended", shown_time(runner.ended_at)),
        ("Exit code", None if runner.exit_code is None else str(runner.exit_code)),
    ]
    took = ", ".join(f"{name.replace('_', ' ')} {value:.2f} s" for name, value in phases.items() if value is not None)
    facts.append(("Start took", took or "it has not started"))
    print_facts(((title, text) for title, text in facts if text), 20)
    if runner.state_changes:
        write_table(
            (Column(title="Time"), Column(title="State"), Column(title="Reason", folds=True)),
            ((shown_clock(change.at), change.state.value, change.reason) for change in runner.state_changes),
        )


def describe_end(runner: RunnerInfo) -> str:
    """Return a sentence on how a runner ended."""
    text = f"Runner {runner.runner_id} has ended"
    if runner.exit_code is not None:
        text += f" with exit code {runner.exit_code}"
    return f"{text}: {runner.state_reason}" if runner.state_reason else f"{text}."


def write_gpus(form: str, used: GpuUsage) -> None:
    """Write how many GPUs are in use, by model."""
    if form != "pretty":
        write_document(form, {**used})
        return
    columns = (Column(title="Type"), Column(title="Count", right=True))
    write_table(columns, ([model, str(count)] for model, count in used["gpus"].items()))
    print_line(f"Total: {used['total']}")


def _write_counts(states: Counter[str]) -> None:
    """Write the number of runners. A pipe gets the published lines; a terminal those that are not 0."""
    ended = sum(states[state] for state in ENDED_STATES)
    counts = {
        "Runners": states.total() - states["PENDING"] - states["SETUP"] - ended,
        "Runners Pending": states["PENDING"],
        "Runners Setting Up": states["SETUP"],
    }
    for title, count in counts.items():
        if count or not sys.stdout.isatty() or (title == "Runners" and not states.total()):
            sys.stdout.write(f"{title}: {count}\n")
    if ended:
        sys.stdout.write(f"Runners Ended: {ended}\n")
    if states["CRASH_BACKOFF"]:
        delayed = f"Runners delayed after failed starts: {states['CRASH_BACKOFF']}"
        sys.stdout.write(paint(delayed, "red", color=wants_color(sys.stdout)) + "\n")
    if states and sys.stdout.isatty():
        sys.stdout.write("\n")


def _document(runner: RunnerInfo) -> Mapping[str, object]:
    """Return a runner with the published client's keys. It also has its `reason`, if there is one."""
    document: dict[str, object] = {
        "alias": runner.alias,
        "machine_type": runner.machine_type,
        "runner_id": runner.runner_id,
        "in_flight_requests": runner.in_flight_requests,
        "expiration_countdown": runner.expiration_countdown,
        "uptime_seconds": int(runner.uptime.total_seconds()),
        "revision": runner.revision,
        "state": str(runner.state),
        "replacement": str(runner.replacement),
    }
    if runner.state_reason:
        document["reason"] = runner.state_reason
    if runner.node:
        document["node"] = runner.node
    if runner.region:
        document["region"] = runner.region
    if runner.unreachable:
        document["unreachable"] = True
    if runner.gpus:
        document["gpus"] = list(runner.gpus)
    if runner.usage is not None:
        document["usage"] = _usage_document(runner.usage)
    return document


def _usage_document(used: RunnerUsage) -> dict[str, object]:
    return {
        "cpu_cores": round(used.cpu_cores, 3),
        "memory_bytes": used.memory_bytes,
        "gpu_memory_bytes": used.gpu_memory_bytes,
        "gpu_cores": used.gpu_cores,
        "measured_at": _iso(used.measured_at),
    }


def _details(runner: RunnerInfo) -> dict[str, object]:
    return {
        "reason": runner.state_reason,
        "node": runner.node,
        "gpus": list(runner.gpus),
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


def _expires(runner: RunnerInfo) -> str:
    return "N/A" if runner.expiration_countdown is None else f"{runner.expiration_countdown}s"


def _uptime(runner: RunnerInfo) -> str:
    seconds = int(runner.uptime.total_seconds())
    return f"{timedelta(seconds=seconds)} ({seconds}s)"


def _used(what: str) -> Callable[[RunnerInfo], float | None]:
    """Return a function that returns a number of a runner's usage. None sorts last."""
    return lambda runner: None if runner.usage is None else getattr(runner.usage, what)


def _shown(what: str) -> Callable[[RunnerInfo], str]:
    """Return a function that shows people a number of a runner's usage."""
    used, shown = _used(what), shown_bytes if what.endswith("_bytes") else shown_cores
    return lambda runner: shown(used(runner))


def _usage_field(title: str, what: str) -> Field[RunnerInfo]:
    return Field(title=title, text=_shown(what), sort_key=_used(what), folds=" " in title, wide=True)


def _own_gpus(runner: RunnerInfo) -> str:
    """Return the ids of its GPUs."""
    return " ".join(runner.gpus)


def _state(runner: RunnerInfo) -> str:
    replaced = " (*)" if runner.replacement.value == "WILL_REPLACE" else ""
    return f"{runner.state.value}{replaced}{' (?)' if runner.unreachable else ''}"


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


RUNNERS: Listing[RunnerInfo] = Listing(
    noun="runners",
    fields=(
        Field(title="Alias", text=lambda runner: runner.alias),
        Field(title="Machine Type", text=lambda runner: runner.machine_type, folds=True),
        Field(title="Runner ID", shortens=True, text=lambda runner: runner.runner_id),
        Field(
            title="In Flight Requests",
            text=lambda runner: str(runner.in_flight_requests),
            sort_key=lambda runner: runner.in_flight_requests,
            folds=True,
        ),
        Field(title="Expires In", text=_expires, sort_key=lambda runner: runner.expiration_countdown, folds=True),
        Field(title="Uptime", text=_uptime, sort_key=lambda runner: runner.uptime.total_seconds(), folds=True),
        Field(title="Revision", shortens=True, text=lambda runner: runner.revision),
        Field(title="State", text=_state, folds=True),
        Field(title="Node", text=lambda runner: runner.node or "", wide=True),
        Field(title="Region", text=lambda runner: runner.region or "", wide=True),
        Field(title="GPUs", text=_own_gpus, wide=True),
        _usage_field("CPU", "cpu_cores"),
        _usage_field("Memory", "memory_bytes"),
        _usage_field("GPU", "gpu_cores"),
        _usage_field("GPU Memory", "gpu_memory_bytes"),
    ),
    document=_document,
    item_name=lambda runner: runner.runner_id,
)
