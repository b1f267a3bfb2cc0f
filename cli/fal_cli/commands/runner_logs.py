"""`fal runners logs`: the lines that a runner has printed, and those that it prints."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from fal_cli.client import open_client
from fal_cli.exits import CommandError, ExitCode
from fal_cli.output import note, write_line, write_list
from fal_cli.parser import FalParser, Subparsers, add_client_options, add_command, add_output_options, moment_type
from fal_cli.printable import log_text
from fal_cli.style import paint, wants_colour

if TYPE_CHECKING:
    from fal.api import LogEntry, RunnerInfo

_FOLLOW_FROM = timedelta(minutes=1)
_LEVEL_STYLES = {"TRACE": "dim", "DEBUG": "cyan", "INFO": "green", "WARNING": "yellow", "ERROR": "red"}


def add_command_to(commands: Subparsers[FalParser]) -> None:
    """Declare `logs`, also called `log`."""
    parser = add_command(commands, "logs", "Show logs for a runner.", _logs, aliases=("log",))
    add_output_options(parser)
    add_client_options(parser)
    parser.add_argument("id", help="Runner ID.")
    parser.add_argument("--search", help="Search for string in logs.")
    parser.add_argument(
        "--since",
        type=moment_type(),
        help="Show logs since the given time. Accepts 'now', relative like '30m', '1h', or an ISO timestamp. "
        "Defaults to runner start time or to '1m ago' in --follow mode.",
    )
    parser.add_argument(
        "--until",
        type=moment_type(),
        help="Show logs until the given time. Accepts 'now', relative like '30m', '1h', or an ISO timestamp. "
        "Defaults to runner finish time or 'now' if it is still running.",
    )
    parser.add_argument(
        "--follow",
        "-f",
        action="store_true",
        help="Follow logs live. If --since is not specified, implies '--since 1m ago'.",
    )
    parser.add_argument(
        "--lines",
        "-n",
        type=_line_count,
        help="Only show latest N log lines. If '+' prefix is used, show oldest N log lines. "
        "Ignored if --follow is used.",
    )


def _line_count(text: str) -> tuple[int, bool]:
    """Return how many lines are wanted, and whether the oldest are."""
    count = text.removeprefix("+")
    if not (count.isascii() and count.isdigit() and int(count) > 0):
        raise argparse.ArgumentTypeError(f"'{text}' is no number of lines; use N for the newest N, +N for the oldest N")
    return int(count), text.startswith("+")


def _logs(args: argparse.Namespace) -> None:
    if args.since and args.until and args.until < args.since:
        raise CommandError("--until is before --since: no line can be between them", ExitCode.USAGE)
    if args.follow:
        _follow(args)
        return
    lines, oldest = args.lines or (None, False)
    with open_client(args) as client:
        found = client.runners.logs(
            args.id, since=args.since, until=args.until, search=args.search, lines=lines, oldest=oldest
        )
        if args.output == "json":
            _write_json(map(_document, found))
        elif args.output == "pretty":
            write = _printer()
            for entry in found:
                write(entry)
        else:
            write_list(args.output, "logs", map(_document, found))


def _follow(args: argparse.Namespace) -> None:
    if args.until:
        raise CommandError("--follow goes on until the runner ends: leave out --until", ExitCode.USAGE)
    since = args.since or datetime.now(UTC) - _FOLLOW_FROM
    write = _printer() if args.output == "pretty" else _write_document
    with open_client(args) as client:
        for entry in client.runners.logs(args.id, follow=True, since=since, search=args.search):
            write(entry)
            sys.stdout.flush()
        note(_ending(client.runners.get(args.id)))


def _ending(runner: RunnerInfo) -> str:
    text = f"Runner {runner.runner_id} has ended"
    if runner.exit_code is not None:
        text += f" with exit code {runner.exit_code}"
    return f"{text}: {runner.state_reason}" if runner.state_reason else f"{text}."


def _document(entry: LogEntry) -> Mapping[str, object]:
    return {
        "timestamp": entry.timestamp.isoformat(),
        "level": entry.level.value,
        "message": entry.message,
        "source": entry.source.value,
        "sequence": entry.sequence,
        "runner_id": entry.runner_id,
        "request_id": entry.request_id,
        "app": entry.app,
        "revision": entry.revision,
    }


def _write_document(entry: LogEntry) -> None:
    write_line(_document(entry))


def _write_json(items: Iterable[Mapping[str, object]]) -> None:
    """Write `{"logs": [...]}` as the lines come: a long history need not fit into memory."""
    import json

    separator = '{"logs": ['
    for item in items:
        sys.stdout.write(separator + json.dumps(item))
        separator = ", "
    sys.stdout.write("]}\n" if separator == ", " else '{"logs": []}\n')


def _printer() -> Callable[[LogEntry], None]:
    """Return what writes an entry as `TIME LEVEL message`, in local time; to a pipe the message goes as it is."""
    colour = wants_colour(sys.stdout)
    terminal = sys.stdout.isatty()

    def write(entry: LogEntry) -> None:
        level = paint(f"{entry.level.value:<7}", _LEVEL_STYLES.get(entry.level.value, "dim"), colour=colour)
        moment = entry.timestamp.astimezone().isoformat(timespec="milliseconds")
        message = log_text(entry.message, colour=colour) if terminal else entry.message
        sys.stdout.write(f"{paint(moment, 'dim', colour=colour)} {level} {message}\n")

    return write
