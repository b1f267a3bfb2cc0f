"""`fal apps explain` and `fal apps simulate`. They explain and predict the number of runners."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fal_cli.completion import complete_ids
from fal_cli.exit_codes import CommandError, ExitCode
from fal_cli.ids import APPS
from fal_cli.options import add_client_options, add_env_option, add_output_options, open_client, path_type
from fal_cli.parser import Commands, add_command
from fal_cli.presentation.counting import counted
from fal_cli.presentation.output import print_line, print_note, shown_clock, shown_time, write_document, write_table
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


def add_commands_to(commands: Commands) -> None:
    """Declare `explain` and `simulate`."""
    explain = add_command(commands, "explain", "Explain the number of runners of an application.", _explain)
    add_client_options(explain)
    add_env_option(explain)
    complete_ids(explain.add_argument("app_name", help="Application name."), APPS)
    add_output_options(explain)
    simulate = add_command(commands, "simulate", "Simulate the runners of an application under a load.", _simulate)
    add_client_options(simulate)
    add_env_option(simulate)
    app_name = simulate.add_argument(
        "app_name", nargs="?", help="Application whose settings to use; defaults to those of a new one."
    )
    complete_ids(app_name, APPS)
    simulate.add_argument(
        "--trace",
        required=True,
        type=path_type,
        metavar="FILE",
        help="Requests: CSV or JSON lines with time (seconds, or ISO timestamps) and duration (seconds).",
    )
    simulate.add_argument(
        "--settings", nargs="+", default=[], metavar="NAME=N", help="Settings to try, such as max_concurrency=5."
    )
    simulate.add_argument(
        "--start-time",
        type=float,
        default=5.0,
        metavar="SECONDS",
        help="How long a start takes (defaults to 5).",
    )
    simulate.add_argument(
        "--output-file", type=path_type, metavar="FILE", help="Also draw a picture: a .svg or .png file."
    )
    add_output_options(simulate)


def _explain(args: argparse.Namespace) -> None:
    with open_client(args) as client:
        found = client.apps.explain(args.app_name, environment_name=args.env)
    if args.output != "pretty":
        write_document(args.output, _explained(found))
        return
    print_line(f"{found.app.alias} is on revision {found.app.revision}")
    if found.next_revision:
        print_line(f"A rolling deploy moves it to revision {found.next_revision} when a runner of that is ready")
    print_line(
        f"Requests: {found.load.in_flight} in flight, {found.load.queued} waiting, {found.load.eligible} eligible"
    )
    counts = ", ".join(f"{count} {state.value}" for state, count in found.runners.items()) or "none"
    print_line(f"Runners: {counts}")
    print_line(f"Wanted: {found.arithmetic}")
    below = (
        f"Below {counted(found.start_below, 'runner')} some are started; above" if found.start_below > 0 else "Above"
    )
    print_line(f"{below} {found.keep}, idle ones end after keep_alive")
    if found.failed_starts:
        print_line(
            f"Failed starts in a row: {found.failed_starts}; the last one: {found.last_failure or 'no reason is known'}"
        )
    print_line("Settings: " + _describe(_settings(found.app)))
    regions = f", in one of the regions {', '.join(found.app.valid_regions)}" if found.app.valid_regions else ""
    print_line(f"Runs on: {', '.join(found.app.machine_types)}{regions}")
    if found.lack:
        print_line(f"No machine can run it: {found.lack}")
    print_line(f"Decisions since {shown_time(found.known_since)}, when the controller started:")
    columns = (
        Column(title="Time"),
        Column(title="Decision", folds=True),
        Column(title="Subject"),
        Column(title="Reason", folds=True),
    )
    write_table(
        columns,
        ([shown_clock(d.at), d.action, d.subject, d.reason] for d in found.decisions),
    )


def _explained(found: AppExplanation) -> dict[str, object]:
    return {
        "app": found.app.alias,
        "revision": found.app.revision,
        "next_revision": found.next_revision,
        "in_flight": found.load.in_flight,
        "queued": found.load.queued,
        "eligible": found.load.eligible,
        "runners": {state.value: count for state, count in found.runners.items()},
        "start_below": found.start_below,
        "keep": found.keep,
        "arithmetic": found.arithmetic,
        "failed_starts": found.failed_starts,
        "last_failure": found.last_failure,
        "machine_types": found.app.machine_types,
        "regions": found.app.valid_regions,
        "lack": found.lack,
        "settings": _settings(found.app),
        "known_since": found.known_since.isoformat(),
        "decisions": [
            {
                "at": decision.at.isoformat(),
                "action": decision.action,
                "subject": decision.subject,
                "reason": decision.reason,
                "in_flight": decision.load.in_flight,
                "queued": decision.load.queued,
            }
            for decision in found.decisions
        ],
    }


def _simulate(args: argparse.Namespace) -> None:
    from fal_cli.commands.apps.traces import read_trace

    picture: Path | None = args.output_file
    if picture is not None and picture.suffix.lower() not in _PICTURES:
        raise CommandError(f"{picture} is not a picture: the name must end in .svg or .png", ExitCode.USAGE)
    settings = _parse_settings(args.settings)
    arrivals = read_trace(args.trace)
    with open_client(args) as client:
        found = client.apps.simulate(
            arrivals,
            args.app_name,
            settings=settings,
            start_seconds=args.start_time,
            environment_name=args.env,
        )
    if args.output != "pretty":
        write_document(args.output, _simulated(found))
    else:
        _show(found, len(arrivals))
    if picture is not None:
        used = found.settings
        title = (
            f"{args.app_name or 'a new app'}: {counted(len(arrivals), 'request')}, {used.min_concurrency} to "
            f"{counted(used.max_concurrency, 'runner')}, {used.max_multiplexing} at once on each, "
            f"keep_alive {used.keep_alive} s"
        )
        _draw(found, picture, title)


def _show(found: AppSimulation, requests: int) -> None:
    from shutil import get_terminal_size

    from fal_cli.presentation.charts import render

    terminal = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    blocks = terminal and (sys.stdout.encoding or "").lower().startswith("utf")
    width = get_terminal_size().columns if terminal else 80
    sys.stdout.write(render(found, width=width, blocks=blocks))
    half, most, last = found.wait_seconds
    print_line("Settings: " + _describe(_settings(found.settings)))
    print_line(f"Requests: {requests}, {found.unserved} of them not served")
    print_line(f"Waited: half at most {half:.3g} s, 95 of 100 at most {most:.3g} s, the last {last:.3g} s")
    print_line(
        f"Runners: {found.started} started, {found.most_runners} at a time, {found.runner_seconds:.0f} runner-seconds"
    )


def _describe(settings: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {'none' if value is None else value}" for name, value in settings.items())


def _draw(found: AppSimulation, path: Path, title: str) -> None:
    from fal_cli.presentation.pictures import layout, write

    try:
        write(layout(found, title), path)
    except ModuleNotFoundError:
        raise CommandError(
            "a PNG needs Pillow: pip install 'fal-grpc[plot]', or name a .svg file", ExitCode.FAILED
        ) from None
    print_note(f"Wrote {path}")


def _simulated(found: AppSimulation) -> dict[str, object]:
    half, most, last = found.wait_seconds
    return {
        "settings": _settings(found.settings),
        "started": found.started,
        "most_runners": found.most_runners,
        "runner_seconds": found.runner_seconds,
        "wait_seconds": {"p50": half, "p95": most, "max": last},
        "unserved": found.unserved,
        "points": [
            {
                "at_seconds": point.at_seconds,
                "runners": point.runners,
                "ready": point.ready,
                "in_flight": point.in_flight,
                "queued": point.queued,
            }
            for point in found.points
        ],
    }


def _settings(app: AliasInfo) -> dict[str, int | None]:
    return {name: getattr(app, name) for name in _SETTINGS}


def _parse_settings(pairs: Sequence[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or name not in _SETTINGS or not value.strip().isdigit():
            known = ", ".join(_SETTINGS)
            raise CommandError(
                f"{pair} is not a setting: write NAME=NUMBER, where NAME is one of {known}", ExitCode.USAGE
            )
        found[name] = int(value)
    return found
