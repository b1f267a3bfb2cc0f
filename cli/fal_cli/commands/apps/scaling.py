"""`fal apps explain` and `fal apps simulate`: why there are so many runners, and how many there would be."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fal_cli.client import open_client
from fal_cli.exit_codes import CommandError, ExitCode
from fal_cli.parser import (
    FalParser,
    Subparsers,
    add_client_options,
    add_command,
    add_env_option,
    add_output_options,
)
from fal_cli.presentation.output import note, say, write_document, write_table
from fal_cli.presentation.table import Column

if TYPE_CHECKING:
    from fal.api import AliasInfo, AppExplanation, AppSimulation

_SETTINGS = (
    "keep_alive",
    "min_concurrency",
    "max_concurrency",
    "concurrency_buffer",
    "concurrency_buffer_perc",
    "scaling_delay",
    "max_multiplexing",
    "request_timeout",
    "request_start_timeout",
    "startup_timeout",
)
_PICTURES = (".svg", ".png")


def add_commands_to(commands: Subparsers[FalParser]) -> None:
    """Declare both below `fal apps`."""
    explain = add_command(commands, "explain", "Explain the number of runners of an application.", _explain)
    add_client_options(explain)
    add_env_option(explain)
    explain.add_argument("app_name", help="Application name.")
    add_output_options(explain)
    simulate = add_command(commands, "simulate", "Simulate the runners of an application under a load.", _simulate)
    add_client_options(simulate)
    add_env_option(simulate)
    simulate.add_argument(
        "app_name", nargs="?", help="Application whose settings hold; without it, those of a new one."
    )
    simulate.add_argument(
        "--trace",
        required=True,
        type=Path,
        metavar="FILE",
        help="Requests: CSV or JSON lines with time (seconds, or ISO timestamps) and duration (seconds).",
    )
    simulate.add_argument(
        "--settings", nargs="+", default=[], metavar="NAME=N", help="Settings to try, such as max_concurrency=5."
    )
    simulate.add_argument(
        "--start-time", type=float, default=5.0, metavar="SECONDS", help="How long a runner's start takes (5)."
    )
    simulate.add_argument("--output-file", type=Path, metavar="FILE", help="Also draw it: a .svg or .png file.")
    add_output_options(simulate)


def _explain(args: argparse.Namespace) -> None:
    with open_client(args) as client:
        told = client.apps.explain(args.app_name, environment_name=args.env)
    if args.output != "pretty":
        write_document(args.output, _explained(told))
        return
    say(f"{told.app.alias} is on revision {told.app.revision}")
    if told.next_revision:
        say(f"A rolling deploy moves it to revision {told.next_revision} when a runner of that is ready")
    say(f"Requests: {told.load.in_flight} in flight, {told.load.queued} waiting, {told.load.ripe} of them ripe")
    there = ", ".join(f"{count} {state.value}" for state, count in told.runners.items()) or "none"
    say(f"Runners: {there}")
    say(f"Wanted: {told.arithmetic}")
    say(f"Below {told.start_below} some are started; above {told.keep} those may go that are idle for keep_alive")
    if told.failed_starts:
        say(f"Failed starts in a row: {told.failed_starts}; the last one: {told.last_failure or 'no reason is known'}")
    held = {name: getattr(told.app, name) for name in _SETTINGS}
    say("Settings: " + _in_words(held))
    say(f"Decisions since {told.known_since.astimezone():%Y-%m-%d %H:%M:%S}, when the controller started:")
    columns = (Column(title="Time"), Column(title="Decision"), Column(title="Subject"), Column(title="Reason"))
    write_table(
        columns,
        ([f"{d.at.astimezone():%H:%M:%S}", d.action, d.subject, d.reason] for d in told.decisions),
    )


def _explained(told: AppExplanation) -> dict[str, object]:
    return {
        "app": told.app.alias,
        "revision": told.app.revision,
        "next_revision": told.next_revision,
        "in_flight": told.load.in_flight,
        "queued": told.load.queued,
        "ripe": told.load.ripe,
        "runners": {state.value: count for state, count in told.runners.items()},
        "start_below": told.start_below,
        "keep": told.keep,
        "arithmetic": told.arithmetic,
        "failed_starts": told.failed_starts,
        "last_failure": told.last_failure,
        "settings": _settings(told.app),
        "known_since": told.known_since.isoformat(),
        "decisions": [
            {
                "at": decision.at.isoformat(),
                "action": decision.action,
                "subject": decision.subject,
                "reason": decision.reason,
                "in_flight": decision.load.in_flight,
                "queued": decision.load.queued,
            }
            for decision in told.decisions
        ],
    }


def _simulate(args: argparse.Namespace) -> None:
    from fal_cli.commands.apps.traces import read_trace

    picture: Path | None = args.output_file
    if picture is not None and picture.suffix.lower() not in _PICTURES:
        raise CommandError(f"{picture} is no picture's name: let it end in .svg or .png", ExitCode.USAGE)
    settings = _parsed(args.settings)
    arrivals = read_trace(args.trace)
    with open_client(args) as client:
        told = client.apps.simulate(
            arrivals,
            args.app_name,
            settings=settings,
            start_seconds=args.start_time,
            environment_name=args.env,
        )
    if args.output != "pretty":
        write_document(args.output, _simulated(told))
    else:
        _show(told, len(arrivals))
    if picture is not None:
        held = told.settings
        title = (
            f"{args.app_name or 'a new app'}: {len(arrivals)} requests, {held.min_concurrency} to "
            f"{held.max_concurrency} runners, {held.max_multiplexing} at once on each, keep_alive {held.keep_alive} s"
        )
        _draw(told, picture, title)


def _show(told: AppSimulation, requests: int) -> None:
    from shutil import get_terminal_size

    from fal_cli.presentation.charts import render

    terminal = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    blocks = terminal and (sys.stdout.encoding or "").lower().startswith("utf")
    width = get_terminal_size().columns if terminal else 80
    sys.stdout.write(render(told, width=width, blocks=blocks))
    half, most, last = told.wait_seconds
    say("Settings: " + _in_words(_settings(told.settings)))
    say(f"Requests: {requests}, {told.unserved} of them not served")
    say(f"Waited: half at most {half:.3g} s, 95 of 100 at most {most:.3g} s, the last {last:.3g} s")
    say(f"Runners: {told.started} started, {told.most_runners} at a time, {told.runner_seconds:.0f} runner-seconds")


def _in_words(settings: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {'none' if value is None else value}" for name, value in settings.items())


def _draw(told: AppSimulation, path: Path, title: str) -> None:
    from fal_cli.presentation.pictures import layout, write

    try:
        write(layout(told, title), path)
    except ModuleNotFoundError:
        raise CommandError(
            "a PNG needs Pillow: pip install 'fal-grpc[plot]', or name a .svg file", ExitCode.FAILED
        ) from None
    note(f"Wrote {path}")


def _simulated(told: AppSimulation) -> dict[str, object]:
    half, most, last = told.wait_seconds
    return {
        "settings": _settings(told.settings),
        "started": told.started,
        "most_runners": told.most_runners,
        "runner_seconds": told.runner_seconds,
        "wait_seconds": {"p50": half, "p95": most, "max": last},
        "unserved": told.unserved,
        "points": [
            {
                "at_seconds": point.at_seconds,
                "runners": point.runners,
                "ready": point.ready,
                "in_flight": point.in_flight,
                "queued": point.queued,
            }
            for point in told.points
        ],
    }


def _settings(app: AliasInfo) -> dict[str, int | None]:
    return {name: getattr(app, name) for name in _SETTINGS}


def _parsed(words: Sequence[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for word in words:
        name, equals, value = word.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or name not in _SETTINGS or not value.strip().isdigit():
            known = ", ".join(_SETTINGS)
            raise CommandError(f"{word} is no setting: write NAME=NUMBER, where NAME is one of {known}", ExitCode.USAGE)
        found[name] = int(value)
    return found
