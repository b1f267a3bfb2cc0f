"""Selects runners for a list by --since and --state. It also finds apps whose starts fail."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, cast

from fal_cli.options import time_type
from fal_cli.parser import FalParser
from fal_cli.presentation.apps import app_name
from fal_cli.presentation.output import print_note

if TYPE_CHECKING:
    from fal.api import AliasInfo, RunnerInfo, SyncServerlessClient

_SHOWN = ("all", "idle", "running", "pending", "setup", "failure_delay", "terminated")
_STATES = (*_SHOWN, "crash_backoff", "docker_pull", "draining", "terminating")
# One state has an older and a newer name, and DEAD is an old name for TERMINATED.
_SAME = {"failure_delay": "crash_backoff", "dead": "terminated"}


HISTORY = timedelta(hours=24)


def add_runner_filters(parser: FalParser) -> None:
    """Add --since and --state. The help names the published states; docs/reference/cli.md has all."""
    parser.add_argument(
        "--since",
        type=time_type(at_most=HISTORY, past=True),
        help="Show terminated runners since the given time. Accepts 'now', relative like '30m', '1h', '1d', or an "
        "ISO timestamp. Max 24 hours.",
    )
    parser.add_argument(
        "--state",
        nargs="+",
        type=str.lower,
        choices=_STATES,
        metavar="{" + ",".join(_SHOWN) + "}",
        help="Filter by runner state(s). Choose one or more, or 'all' (default).",
    )


def of_states(runners: Sequence[RunnerInfo], states: Sequence[str] | None) -> list[RunnerInfo]:
    """Return the runners in one of these states. Return all for None or `all`."""
    if not states or "all" in states:
        return list(runners)
    wanted = {_SAME.get(state, state) for state in states}

    def name(runner: RunnerInfo) -> str:
        state = runner.state.value.lower()
        return _SAME.get(state, state)

    return [runner for runner in runners if name(runner) in wanted]


def since_for(args: argparse.Namespace) -> datetime | None:
    """Return --since. Without it, ended runners are listed as far back as the controller allows."""
    if args.since is None and args.state and not {"terminated", "dead"}.isdisjoint(args.state):
        print_note("Runners that ended within the last 24 hours are listed; --since says otherwise.")
        return datetime.now(UTC) - HISTORY
    return cast("datetime | None", args.since)


def failing_apps(
    client: SyncServerlessClient,
    args: argparse.Namespace,
    *,
    app: str | None = None,
    environment_name: str | None = None,
) -> list[AliasInfo]:
    """Return the apps without runners because their starts fail. They are for the notes below a list.

    Only a person gets them, so that a script causes no request that the published client would not send.

    Args:
        app: only this app.
    """
    from fal.api import CallError

    if args.output not in {"pretty", "wide"} or not sys.stderr.isatty():
        return []
    try:
        apps = client.apps.list(environment_name=environment_name)
    except CallError:
        return []  # the key may not list apps, and the notes are optional
    return [found for found in apps if found.failed_starts and app in (None, app_name(found), found.alias)]
