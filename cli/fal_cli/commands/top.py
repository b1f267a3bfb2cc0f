"""`fal top`: shows apps and runners on the whole terminal. It keeps them up to date."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Sequence
from types import FrameType
from typing import TYPE_CHECKING

from fal_cli.exit_codes import ExitCode
from fal_cli.interrupts import interrupts
from fal_cli.options import add_client_options, add_env_option, open_client
from fal_cli.presentation.notes import notes
from fal_cli.presentation.output import print_line, write_table
from fal_cli.presentation.style import wants_color
from fal_cli.presentation.table import Column

if TYPE_CHECKING:
    from fal.api import AliasInfo, RunnerInfo, SyncServerlessClient
    from fal_cli.parser import FalParser
    from fal_cli.presentation.top import TopScreen
    from fal_cli.terminal.screen import Screen

_REDRAW_SECONDS = 2.0
_USAGE_TITLES = ("CPU", "Memory", "GPU", "GPU Memory")


def add_arguments(parser: FalParser) -> None:
    """Declare the arguments."""
    parser.description = (
        "Show apps and runners on the whole terminal as they change, with what they use. "
        "In a pipe: show them once. The key ? lists all keys."
    )
    add_client_options(parser)
    add_env_option(parser)
    parser.set_defaults(handler=_top)


def _top(args: argparse.Namespace) -> int:
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        with open_client(args) as client:
            apps = client.apps.list(environment_name=args.env)
            runners = _of_environment(client.runners.list(), args.env)
        _write_once(apps, runners)
        return 0
    from fal_cli.presentation.top import TopScreen
    from fal_cli.terminal.screen import Screen

    with interrupts.deferred(), open_client(args) as client:
        top, screen = TopScreen(str(client.settings.target)), Screen()
        # Do this before taking over the terminal, so that an error is printed like any other command's.
        with interrupts.interruptible():
            top.apps = client.apps.list(environment_name=args.env)
            top.runners = _of_environment(client.runners.list(), args.env)
        failed: list[Exception] = []

        def watch(lists: Iterable[Sequence[object]], name: str) -> None:
            try:
                for items in lists:
                    setattr(top, name, items)
                    screen.wake()
            except Exception as error:  # noqa: BLE001 - the main thread raises it
                failed.append(error)
                screen.wake()

        def report(message: str) -> None:
            top.message = message
            screen.wake()

        watched = (
            (client.apps.watch(environment_name=args.env), "apps"),
            ((_of_environment(runners, args.env) for runners in client.runners.watch()), "runners"),
        )
        with notes(report), screen.entered():
            for lists, name in watched:
                threading.Thread(target=watch, args=(lists, name), name=f"fal-top-{name}", daemon=True).start()
            return _run(args, client, top, screen, failed)


def _run(
    args: argparse.Namespace, client: SyncServerlessClient, top: TopScreen, screen: Screen, failed: list[Exception]
) -> int:
    color = wants_color(sys.stdout)
    while not failed:
        height, width = screen.size()
        screen.draw(top.lines(height, width, color=color))
        for key in screen.keys(_REDRAW_SECONDS):
            action = top.key(key)
            if action is None:
                continue
            if action.name == "quit":
                return ExitCode.INTERRUPTED if key == "ctrl-c" else 0
            if action.name == "stop":
                top.message = _stop(client, action.runner_id)
            else:
                words = ["-f", "--since", "10m"] if action.name == "logs" else []
                with screen.left():
                    _call(args, ["runners", action.name, action.runner_id, *words])
    raise failed[0]


def _stop(client: SyncServerlessClient, runner_id: str) -> str:
    from fal.api import FalError

    try:
        client.runners.stop(runner_id)
    except FalError as error:
        return str(error)
    return f"Runner {runner_id} is stopping."


def _call(args: argparse.Namespace, words: Sequence[str]) -> None:
    """Run another `fal` command on the terminal. If it ends by itself, wait for a key, so that it can be read."""
    options = [f"--{name}={value}" for name in ("host", "team") if (value := getattr(args, name))]
    # A child does not inherit a handler, but would inherit an ignored signal.
    before = signal.signal(signal.SIGINT, _leave_to_the_command)
    try:
        code = subprocess.call([sys.executable, "-m", "fal_cli", *words, *options])
        if code != ExitCode.INTERRUPTED and words[1] != "shell":
            sys.stderr.write("Press Enter to go back. ")
            sys.stderr.flush()
            os.read(sys.stdin.fileno(), 1024)
    finally:
        signal.signal(signal.SIGINT, before)


def _leave_to_the_command(_number: int, _frame: FrameType | None) -> None:
    """Do nothing: the command on the terminal gets the signal, too."""


def _of_environment(runners: Sequence[RunnerInfo], environment: str | None) -> list[RunnerInfo]:
    return [runner for runner in runners if environment in {None, runner.environment_name}]


def _write_once(apps: Sequence[AliasInfo], runners: Sequence[RunnerInfo]) -> None:
    """Write apps and runners as two tables."""
    from fal_cli.presentation.top import Totals, app_rows, summary, uptime, used_texts

    def columns(*titles: str) -> list[Column]:
        return [Column(title=title) for title in (*titles, *_USAGE_TITLES)]

    print_line(summary(apps, runners))
    write_table(
        columns("App", "Runners", "Requests", "Queued"),
        [
            [
                row.name,
                str(row.runners),
                str(row.requests),
                "-" if row.queued is None else str(row.queued),
                *used_texts(row.usage),
            ]
            for row in app_rows(apps, runners)
        ],
    )
    write_table(
        columns("Runner ID", "App", "State", "Requests", "Uptime"),
        [
            [
                runner.runner_id,
                runner.alias,
                runner.state.value,
                str(runner.in_flight_requests),
                uptime(runner),
                *used_texts(Totals.of((runner,))),
            ]
            for runner in runners
        ],
    )
